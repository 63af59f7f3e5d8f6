//! API keys as they are listed, and what they may do.

use serde::{Deserialize, Serialize};

use crate::request::{Field, Fields, Invalid};

/// What every key begins with.
const KEY_PREFIX: &str = "nte_";
/// Letters and digits behind it.
const KEY_LENGTH: usize = 48;

/// What a key is made of, and in which order [`new_key`] uses it.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Whether a text has the form of a key: `nte_` and 48 letters or digits. No other text needs to be looked up.
pub fn is_key(text: &str) -> bool {
    let rest = text.strip_prefix(KEY_PREFIX);
    rest.is_some_and(|rest| rest.len() == KEY_LENGTH && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// A new key of random bytes, 285 bits of them: asks `random` for more until there are enough.
pub fn new_key<E>(mut random: impl FnMut() -> Result<[u8; 64], E>) -> Result<String, E> {
    let mut key = KEY_PREFIX.to_owned();
    while key.len() < KEY_PREFIX.len() + KEY_LENGTH {
        // Bytes of 248 and more would favour the first letters.
        let fresh = random()?;
        let letters = fresh.iter().filter(|byte| **byte < 248).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        key.extend(letters.take(KEY_PREFIX.len() + KEY_LENGTH - key.len()));
    }
    Ok(key)
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Jobs, their files and presets.
    Jobs,
    /// Settings.
    Settings,
    /// Everything but the node protocol, keys included.
    Admin,
    /// The node protocol, and nothing else.
    Node,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Jobs, Self::Settings, Self::Admin, Self::Node];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Settings => "settings",
            Self::Admin => "admin",
            Self::Node => "node",
        }
    }
}

/// An API key as it is stored and listed: never the key itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Id, for lists and revocation.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::time::UnixMs"))]
    pub created_at: String,
    /// When it was last used, to ten minutes or so.
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::time::UnixMs>"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
}

/// The body of `POST /v1/tokens`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// What its owner calls it.
    pub name: String,
    /// What it may do: at least one.
    pub scopes: Vec<Scope>,
}

impl TokenRequest {
    /// Reads the body.
    pub fn parse(body: &serde_json::Value) -> Result<Self, Invalid> {
        let mut fields = Fields::of_body(body)?;
        let name = fields.required("name", |field| field.text(1, 64));
        let scopes = fields.required("scopes", scopes);
        fields.finish()?;
        let (Some(name), Some(scopes)) = (name, scopes) else {
            unreachable!("a required part that is missing has been noted as a problem")
        };
        Ok(Self { name, scopes })
    }
}

fn scopes(field: Field) -> Option<Vec<Scope>> {
    let named = |name: &&str| Scope::ALL.into_iter().find(|scope| scope.name() == *name);
    let scopes: Option<Vec<_>> = field.strings().and_then(|names| names.iter().map(named).collect());
    match scopes.filter(|scopes| !scopes.is_empty()) {
        Some(scopes) => Some(scopes),
        None => field.refuse("must be a list of one or more of jobs, settings, admin, node"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_has_the_form_of_a_key_is_one() {
        let letters = "aB3".repeat(16);
        assert!(is_key(&format!("nte_{letters}")));
        for other in ["", "nte_", "nonsense", &letters, &format!("NTE_{letters}"), &format!("nte_{letters}x")] {
            assert!(!is_key(other), "{other}");
        }
        for other in ["-", "é", " ", "_"] {
            assert!(!is_key(&format!("nte_{}{other}", &letters[other.len()..])), "{other}");
        }
    }

    #[test]
    fn a_new_key_has_the_form_of_one_whatever_the_random_bytes_are() {
        for byte in [0, 61, 62, 247] {
            let key = new_key(|| Ok::<_, ()>([byte; 64])).expect("bytes");
            assert!(is_key(&key), "{key}");
        }
        // Most of these bytes are not used: it asks again.
        let mut asked = 0;
        let key = new_key(|| {
            asked += 1;
            let mut bytes = [255; 64];
            bytes[0] = 5;
            Ok::<_, ()>(bytes)
        });
        assert_eq!((key.map(|key| is_key(&key)), asked), (Ok(true), 48));
        assert_eq!(new_key(|| Err("no randomness")), Err("no randomness"));
    }

    #[test]
    fn a_key_needs_a_name_and_scopes_that_there_are() {
        let read = TokenRequest::parse(&json!({"name": "ci", "scopes": ["jobs", "settings"]})).expect("valid");
        assert_eq!(read.scopes, [Scope::Jobs, Scope::Settings]);
        for scopes in [json!([]), json!(["all"]), json!("jobs"), json!([1]), json!({}), json!(null), json!([["jobs"]])]
        {
            let problems = TokenRequest::parse(&json!({"name": "ci", "scopes": scopes})).expect_err("invalid").problems;
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with("scopes: "), "{problems:?}");
        }
    }
}
