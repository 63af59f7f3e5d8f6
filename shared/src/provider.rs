//! Storage providers: buckets of the caller's own, for outputs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    id::Id,
    net::{Policy, check_url},
    request::{Field, Fields, Invalid},
    s3::{Bucket, Keys},
    seal::{NONCE_BYTES, open, seal},
    time::UnixMs,
};

/// Most storage providers of one installation.
pub const MAX_PROVIDERS: usize = 100;

/// What is wrong with an id that no storage provider has.
pub const NO_PROVIDER: &str = "names no storage provider; `GET /v1/settings/storage-providers` lists them";

/// A storage provider, as it is kept. Nobody is shown this: see [`ProviderView`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provider {
    /// What jobs and settings name.
    pub id: Id,
    /// What its owner calls it.
    pub name: String,
    /// Where it is.
    pub bucket: Bucket,
    /// What opens it, sealed for this id (see [`crate::seal`]).
    pub sealed: String,
    /// When it was added, in ms since 1970.
    pub created_ms: i64,
}

/// A storage provider, as callers see it: without what opens it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "StorageProvider"))]
#[serde(rename_all = "camelCase")]
pub struct ProviderView {
    /// What `storageProviderId` names.
    pub id: Id,
    /// What its owner calls it.
    pub name: String,
    /// Where its service answers.
    pub endpoint: String,
    /// `auto` for R2.
    pub region: String,
    /// The bucket's name.
    pub bucket: String,
    /// What every key in it begins with.
    pub prefix: String,
    /// Whether the bucket stands in the path; else in the host's name.
    pub path_style: bool,
    /// When it was added.
    pub created_at: UnixMs,
}

impl Provider {
    /// Seals what a request brings. `secret` is the deployment's.
    pub fn seal(request: ProviderRequest, id: Id, secret: &str, nonce: [u8; NONCE_BYTES], now: UnixMs) -> Self {
        let ProviderRequest { name, bucket, keys: Keys { access_key_id, secret_access_key } } = request;
        let sealed = seal(secret, nonce, &id.to_string(), &format!("{access_key_id}\n{secret_access_key}"));
        Self { id, name, bucket, sealed, created_ms: now.0 }
    }

    /// What opens it, if it was sealed with this secret.
    pub fn keys(&self, secret: &str) -> Option<Keys> {
        let text = open(secret, &self.id.to_string(), &self.sealed)?;
        let (access_key_id, secret_access_key) = text.split_once('\n')?;
        Some(Keys { access_key_id: access_key_id.to_owned(), secret_access_key: secret_access_key.to_owned() })
    }

    /// As callers see it.
    pub fn view(self) -> ProviderView {
        let Self { id, name, bucket, created_ms, sealed: _ } = self;
        let Bucket { endpoint, region, bucket, prefix, path_style } = bucket;
        ProviderView { id, name, endpoint, region, bucket, prefix, path_style, created_at: UnixMs(created_ms) }
    }
}

/// The body of `POST /v1/settings/storage-providers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderRequest {
    /// What its owner calls it.
    pub name: String,
    /// Where it is.
    pub bucket: Bucket,
    /// What opens it.
    pub keys: Keys,
}

impl ProviderRequest {
    /// Reads the body.
    pub fn parse(body: &Value, policy: Policy) -> Result<Self, Invalid> {
        let mut fields = Fields::of_body(body)?;
        let name = fields.required("name", |field| field.text(1, 64));
        let endpoint = fields.required("endpoint", |field| field.url(policy));
        let region = fields.optional("region", |field| matching(field, 32, |byte| b"-_".contains(&byte)));
        let bucket = fields.required("bucket", |field| matching(field, 63, |byte| b".-_".contains(&byte)));
        let prefix = fields.optional("prefix", prefix);
        let path_style = fields.optional("pathStyle", Field::boolean);
        let access = fields.required("accessKeyId", key);
        let secret = fields.required("secretAccessKey", key);
        let bucket = endpoint.zip(bucket).map(|(endpoint, bucket)| Bucket {
            endpoint,
            bucket,
            region: region.unwrap_or_else(|| "auto".to_owned()),
            prefix: prefix.unwrap_or_default(),
            path_style: path_style.unwrap_or(true),
        });
        if let Some(problem) = bucket.as_ref().and_then(|bucket| endpoint_problem(bucket, policy)) {
            fields.problem("endpoint", &problem);
        }
        fields.finish()?;
        let (Some(name), Some(bucket), Some(access_key_id), Some(secret_access_key)) = (name, bucket, access, secret)
        else {
            unreachable!("a required part that is missing has been noted as a problem")
        };
        Ok(Self { name, bucket, keys: Keys { access_key_id, secret_access_key } })
    }
}

/// What is wrong with the place that endpoint and bucket make together.
fn endpoint_problem(bucket: &Bucket, policy: Policy) -> Option<String> {
    if bucket.endpoint.contains(['?', '#']) {
        return Some("must have no query and no fragment".to_owned());
    }
    let Ok(url) = bucket.url("") else { return Some("does not make a URL with this bucket".to_owned()) };
    check_url(&url, policy).err().map(|refused| format!("{refused} (with `bucket` in the host; see `pathStyle`)"))
}

/// Letters, digits and what `also` permits.
fn matching(field: Field, max: usize, also: impl Fn(u8) -> bool) -> Option<String> {
    match field.string() {
        Some(text) if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also(byte)) && !dots(text) => {
            field.text(1, max)
        }
        Some(_) => field.refuse("must be of letters, digits, `-`, `_` and, in a bucket's name, `.`"),
        None => field.text(1, max),
    }
}

/// What every key begins with; a slash is added at its end.
fn prefix(field: Field) -> Option<String> {
    const MAX: usize = 512;
    let bad = |text: &str| {
        text.starts_with('/') || text.contains("//") || text.chars().any(char::is_control) || text.split('/').any(dots)
    };
    match field.string() {
        Some(text) if bad(text) => {
            field.refuse("must be a path without a leading slash, empty or dotted segments, or control characters")
        }
        _ => {
            let text = field.text(0, MAX)?;
            Some(if text.is_empty() || text.ends_with('/') { text } else { text + "/" })
        }
    }
}

/// Segments that URLs drop.
fn dots(segment: &str) -> bool {
    segment == "." || segment == ".."
}

fn key(field: Field) -> Option<String> {
    match field.string() {
        Some(text) if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            field.refuse("must be printable ASCII characters without spaces")
        }
        _ => field.text(1, 256),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn valid() -> Value {
        json!({"name": "mine", "endpoint": "https://account.r2.cloudflarestorage.com", "bucket": "media",
            "accessKeyId": "id", "secretAccessKey": "secret"})
    }

    #[test]
    fn the_smallest_request_gets_what_r2_wants() {
        let ProviderRequest { bucket, .. } = ProviderRequest::parse(&valid(), Policy::default()).expect("valid");
        assert_eq!((bucket.region.as_str(), bucket.prefix.as_str(), bucket.path_style), ("auto", "", true));
    }

    #[test]
    fn keys_are_kept_sealed_and_never_shown() {
        let mut body = valid();
        body["secretAccessKey"] = "hush".into();
        let request = ProviderRequest::parse(&body, Policy::default()).expect("valid");
        let id = "01M86XHHP6260EWAT1TBY7T000".parse().expect("an id");
        let provider = Provider::seal(request.clone(), id, "deployment", [1; NONCE_BYTES], UnixMs(0));
        assert_eq!(provider.keys("deployment"), Some(request.keys));
        assert_eq!(provider.keys("another"), None);
        let another = "01M86XHHP6260EWAT1TBY7T001".parse().expect("an id");
        assert_eq!(Provider { id: another, ..provider.clone() }.keys("deployment"), None);
        assert!(!serde_json::to_string(&provider).expect("serialises").contains("hush"));
        let shown = serde_json::to_string(&provider.clone().view()).expect("serialises");
        assert!(!shown.contains("hush") && !shown.contains(&provider.sealed), "{shown}");
    }

    #[test]
    fn a_prefix_ends_in_a_slash() {
        for (given, kept) in [("", ""), ("a", "a/"), ("a/b/", "a/b/")] {
            let mut body = valid();
            body["prefix"] = given.into();
            assert_eq!(ProviderRequest::parse(&body, Policy::default()).expect("valid").bucket.prefix, kept);
        }
    }

    #[test]
    fn each_problem_is_named_by_its_path() {
        let table = [
            ("endpoint", json!("http://s3.example.com"), "endpoint: must be https"),
            ("endpoint", json!("https://10.0.0.1"), "endpoint: must not point to a private"),
            ("endpoint", json!("https://s3.example.com/?x=1"), "endpoint: must have no query"),
            ("bucket", json!("a/b"), "bucket: must be of letters"),
            ("bucket", json!(".."), "bucket: must be of letters"),
            ("bucket", json!(""), "bucket: must be a string of 1 to 63 characters"),
            ("region", json!("a b"), "region: must be of letters"),
            ("prefix", json!("/a"), "prefix: must be a path"),
            ("prefix", json!("a/../b"), "prefix: must be a path"),
            ("prefix", json!("a//b"), "prefix: must be a path"),
            ("accessKeyId", json!("a b"), "accessKeyId: must be printable"),
            ("secretAccessKey", json!(7), "secretAccessKey: must be a string of 1 to 256 characters, not a number"),
            ("pathStyle", json!("yes"), "pathStyle: must be true or false, not a string"),
            ("secret", json!("x"), "secret: unknown field"),
        ];
        for (name, value, expected) in table {
            let mut body = valid();
            body[name] = value;
            let found = ProviderRequest::parse(&body, Policy::default()).expect_err("invalid").problems;
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(found[0].starts_with(expected), "{}\n is not\n{expected}", found[0]);
        }
    }

    #[test]
    fn a_bucket_in_the_hosts_name_is_judged_there() {
        let mut body = valid();
        body["endpoint"] = "http://127.0.0.1:9000".into();
        let loopback = Policy { allow_loopback: true };
        assert!(ProviderRequest::parse(&body, loopback).is_ok());
        body["pathStyle"] = false.into();
        assert!(ProviderRequest::parse(&body, loopback).is_err());
    }
}
