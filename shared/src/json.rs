//! Reading JSON into our types. As serde_json does, except that a struct is an object: derived types also read arrays, in
//! the order of their fields, which nobody sends and which is a third of the code that reads them.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// Reads text that is one JSON value.
pub fn from_str<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Objects(&mut reader))?;
    reader.end()?;
    Ok(value)
}

/// A deserializer, or what it hands to a type or gets from it, in which structs are objects all the way down.
struct Objects<T>(T);

/// The inside of a variant with named fields.
struct Variant<V>(V);

/// Hands on methods that take a visitor: of values without values inside, and of those with.
macro_rules! read {
    (plain: $($plain:ident)*; nested: $($nested:ident($($name:ident: $kind:ty),*))*) => {
        $(fn $plain<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$plain(visitor)
        })*
        $(fn $nested<V: Visitor<'de>>(self, $($name: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$nested($($name,)* Objects(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    read! {
        plain:
            deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
            deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char
            deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit
            deserialize_identifier deserialize_ignored_any;
        nested:
            deserialize_any() deserialize_option() deserialize_seq() deserialize_map() deserialize_tuple(length: usize)
            deserialize_newtype_struct(name: &'static str) deserialize_unit_struct(name: &'static str)
            deserialize_tuple_struct(name: &'static str, length: usize)
            deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserialize_map(visitor)
    }
}

/// Hands on what a visitor is given.
macro_rules! visit {
    ($($method:ident: $kind:ty),*) => {
        $(fn $method<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.0.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Objects<V> {
    type Value = V::Value;

    visit! {
        visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str, visit_borrowed_str: &'de str,
        visit_string: String
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Objects(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Objects(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Objects(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Objects(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Objects(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Objects<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Objects(inner))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Objects(seed))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Objects(seed))
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Objects<A> {
    type Error = A::Error;
    type Variant = Objects<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (name, inside) = self.0.variant_seed(seed)?;
        Ok((name, Objects(inside)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Objects(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(length, Objects(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.newtype_variant_seed(Variant(visitor))
    }
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Variant<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        inner.deserialize_map(Objects(self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, value::RawValue};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Point {
        x: i32,
        y: Option<f64>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Nothing,
        Dot(Point),
        Line { points: Vec<Point>, name: String },
        Pair(u8, Point),
    }

    fn same(text: &str) {
        let ours = from_str::<Vec<Shape>>(text).expect("reads");
        assert_eq!(ours, serde_json::from_str::<Vec<Shape>>(text).expect("reads"), "{text}");
    }

    #[test]
    fn every_kind_of_value_is_read_as_the_library_reads_it() {
        same(r#"["Nothing", {"Dot": {"x": 1, "y": null}}, {"Dot": {"x": -1, "y": 2.5, "z": [1, {}]}}]"#);
        same(r#"[{"Line": {"points": [{"x": 1}, {"x": 2, "y": 3}], "name": "\u00e4\n"}}, {"Pair": [7, {"x": 0}]}]"#);
        let raw = from_str::<Vec<Box<RawValue>>>(r#"[{"a": [1,2]}, null]"#).expect("reads");
        assert_eq!(raw[0].get(), r#"{"a": [1,2]}"#);
    }

    #[test]
    fn a_struct_is_an_object_at_every_depth() {
        for text in [r#"[{"Dot": [1, 2]}]"#, r#"[{"Line": [[], ""]}]"#, r#"[{"Line": {"points": [[1]], "name": ""}}]"#]
        {
            assert!(serde_json::from_str::<Vec<Shape>>(text).is_ok() || text.contains("[1]"), "{text}");
            assert!(from_str::<Vec<Shape>>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_follows_the_value_is_an_error() {
        assert!(from_str::<Point>(r#"{"x": 1} x"#).is_err());
        assert!(from_str::<Point>("").is_err());
    }

    proptest! {
        #[test]
        fn any_value_is_read_as_the_library_reads_it(text in r#"[\[\]{}",:0-9a-z. -]{0,24}"#) {
            let ours = from_str::<Value>(&text).ok();
            prop_assert_eq!(ours, serde_json::from_str::<Value>(&text).ok());
        }
    }
}
