//! API keys as they are listed, and what they may do.

use serde::{Deserialize, Serialize};

use crate::request::{Field, Fields, Invalid};

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
