use serde_json::Value;

use crate::sign::sha256_hex;

/// SHA-256 of a body, by which requests with the same idempotency key are compared. It is that of the parsed JSON: the
/// order of names and the space between them do not count. Only that of the names in `input_files` does, because
/// `concat` joins its inputs in it.
pub fn digest(body: &Value) -> String {
    let mut text = String::new();
    write(body, false, &mut text);
    sha256_hex(text.as_bytes())
}

/// Writes JSON with the names of each object in alphabetical order, unless `as_given`. Parsed JSON is at most 128 deep.
fn write(value: &Value, as_given: bool, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write(item, false, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            if !as_given {
                fields.sort_unstable_by_key(|(name, _)| *name);
            }
            text.push('{');
            for (name, value) in fields {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write(value, name == "input_files", text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        digest(&serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn the_order_of_names_and_space_do_not_change_the_digest() {
        let text = r#"{"mode":"recipe","recipe":{"name":"trim","startSeconds":1},"metadata":{"a":"1","b":"2"}}"#;
        let turned =
            r#"{ "metadata": {"b": "2", "a": "1"}, "recipe": {"startSeconds": 1, "name": "trim"}, "mode": "recipe" }"#;
        assert_eq!(of(text), of(turned));
        let in_a_list = (r#"[{"a":1,"b":2}]"#, r#"[{"b":2,"a":1}]"#);
        assert_eq!(of(in_a_list.0), of(in_a_list.1));
    }

    #[test]
    fn the_order_of_joined_inputs_is_part_of_the_request() {
        let (one, two) = (r#"{"input_files":{"in_1":"a","in_2":"b"}}"#, r#"{"input_files":{"in_2":"b","in_1":"a"}}"#);
        assert_ne!(of(one), of(two));
    }

    #[test]
    fn different_requests_have_different_digests() {
        let texts = [
            "{}",
            "[]",
            "null",
            "\"\"",
            "1",
            "\"1\"",
            "[1]",
            "[[1]]",
            "[1,2]",
            "[12]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":null}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a,b":1}"#,
            r#"{"a":"1,\"b\":2"}"#,
        ];
        let digests: std::collections::HashSet<_> = texts.map(of).into();
        assert_eq!(digests.len(), texts.len());
    }
}
