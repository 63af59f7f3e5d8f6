//! Ids that say where their row lives.
//!
//! An id is a ULID (26 characters of Crockford base 32, sortable by time) whose last fifteen random bits are replaced:
//! character 24 is the epoch of the shard map (0 to 31), characters 25 and 26 the shard (0 to 1023). A lookup therefore
//! needs no directory, and an id made under an older map still finds its shard.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use ulid::Ulid;

use crate::time::UnixMs;

/// Where a row lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    epoch: u8,
    shard: u16,
}

impl Place {
    /// Epochs of the shard map.
    pub const EPOCHS: u8 = 32;
    /// Most shards of one epoch.
    pub const SHARDS: u16 = 1024;

    /// The first shard of the first epoch.
    pub const FIRST: Self = Self { epoch: 0, shard: 0 };

    /// A place, if both numbers are in range.
    pub fn new(epoch: u8, shard: u16) -> Option<Self> {
        (epoch < Self::EPOCHS && shard < Self::SHARDS).then_some(Self { epoch, shard })
    }

    /// The epoch of the shard map under which the id was made.
    pub const fn epoch(self) -> u8 {
        self.epoch
    }

    /// The shard.
    pub const fn shard(self) -> u16 {
        self.shard
    }
}

/// Id of a job, task or delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Ulid);

const PLACE_BITS: u32 = 15;
const SHARD_BITS: u32 = 10;

impl Id {
    /// Makes an id of a time, random bits (80 are used) and a place.
    pub fn new(now: UnixMs, random: u128, place: Place) -> Self {
        let place_bits = u128::from(place.epoch) << SHARD_BITS | u128::from(place.shard);
        let random = random >> PLACE_BITS << PLACE_BITS | place_bits;
        Self(Ulid::from_parts(now.0.unsigned_abs(), random))
    }

    /// Where the ids of a time begin: not above any of them, and above all of earlier times.
    pub fn floor(time: UnixMs) -> Self {
        Self(Ulid::from_parts(time.0.max(0).unsigned_abs(), 0))
    }

    /// Where the row of this id lives.
    pub fn place(self) -> Place {
        let bits = u128::from(self.0);
        Place {
            epoch: u8::try_from(bits >> SHARD_BITS & 0x1f).unwrap_or_default(),
            shard: u16::try_from(bits & 0x3ff).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: 26 characters of Crockford base 32 are")]
pub struct NotAnId;

impl FromStr for Id {
    type Err = NotAnId;

    /// Accepts the canonical spelling only, so that one row has one name.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let id = Ulid::from_string(text).map_err(|_| NotAnId)?;
        if id.to_string() == text { Ok(Self(id)) } else { Err(NotAnId) }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl schemars::JsonSchema for Id {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_keeps_its_place_through_its_text(ms in 0i64..1 << 47, random: u128, epoch in 0u8..32, shard in 0u16..1024) {
            let place = Place::new(epoch, shard).expect("in range");
            let id = Id::new(UnixMs(ms), random, place);
            let text = id.to_string();
            prop_assert_eq!(text.len(), 26);
            prop_assert_eq!(text.parse::<Id>(), Ok(id));
            prop_assert_eq!(id.place(), place);
        }

        #[test]
        fn ids_sort_by_time(ms in 0i64..1 << 40, later in 1i64..1000, a: u128, b: u128) {
            let place = Place::new(0, 0).expect("in range");
            prop_assert!(Id::new(UnixMs(ms), a, place).to_string() < Id::new(UnixMs(ms + later), b, place).to_string());
        }
    }

    #[test]
    fn ids_of_a_time_begin_at_its_floor() {
        let place = Place::new(31, 1023).expect("in range");
        assert!(Id::new(UnixMs(4), u128::MAX, place) < Id::floor(UnixMs(5)));
        assert!(Id::floor(UnixMs(5)) <= Id::new(UnixMs(5), 0, Place::FIRST));
        assert_eq!(Id::floor(UnixMs(-1)), Id::floor(UnixMs(0)));
    }

    #[test]
    fn the_last_three_characters_are_epoch_and_shard() {
        let id = Id::new(UnixMs(1_700_000_000_000), u128::MAX, Place::new(1, 33).expect("in range"));
        assert!(id.to_string().ends_with("111"), "{id}");
    }

    #[test]
    fn only_the_canonical_spelling_is_an_id() {
        let id = Id::new(UnixMs(1), 7, Place::new(0, 0).expect("in range")).to_string();
        assert_eq!(id.to_lowercase().parse::<Id>().is_ok(), id == id.to_lowercase());
        assert_eq!("".parse::<Id>(), Err(NotAnId));
        assert_eq!("01J".parse::<Id>(), Err(NotAnId));
        assert_eq!("ZZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<Id>(), Err(NotAnId));
    }
}
