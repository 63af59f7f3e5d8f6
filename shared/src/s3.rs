//! Buckets that speak S3, and the signatures that open them (AWS Signature Version 4).
//!
//! A signature in the query makes a URL that anyone may use until it expires; one in the headers signs a call of our own.
//! Keys never leave this side: nodes and callers get URLs only.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::{
    protocol::PartDone,
    sign::{hex, hmac_sha256, sha256_hex},
    time::UnixMs,
};

/// Longest life of a signed URL, in seconds: S3 takes no longer one.
pub const MAX_SECONDS: i64 = 7 * 24 * 3600;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A bucket and where in it we write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Absolute URL of the service, without the bucket.
    pub endpoint: String,
    /// `auto` for R2.
    pub region: String,
    /// The bucket's name.
    pub bucket: String,
    /// What every key begins with: nothing, or something that ends in a slash.
    pub prefix: String,
    /// Whether the bucket stands in the path; else in the host's name.
    pub path_style: bool,
}

/// What opens a bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Names the key.
    pub access_key_id: String,
    /// Signs with it.
    pub secret_access_key: String,
}

/// Says nothing: keys are never logged.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// One call: what is done to which object. Query parameters as they are, not encoded.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Key of the object, without the bucket's prefix.
    pub key: &'a str,
    /// Names and values.
    pub query: &'a [(&'a str, &'a str)],
}

/// The header that has S3 write an object only where none stands (RFC 9110 section 13.1.2).
pub const ONCE: (&str, &str) = ("if-none-match", "*");

/// A call with its signature in headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Where it goes.
    pub url: String,
    /// What must be sent with it, besides what the transfer needs.
    pub headers: Vec<(&'static str, String)>,
}

/// The endpoint, the bucket and the key do not make a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint and the bucket do not make a URL")]
pub struct NotAUrl;

impl Bucket {
    /// The same bucket as it is reached for now, by the `Location` of a 307 that its service answered: at another host, in
    /// the path or in the host's name. None where that names another bucket, or would give up https.
    pub fn moved(&self, location: &str) -> Option<Self> {
        let to = Url::parse(location).ok()?;
        let is_as_safe = to.scheme() == "https" || self.endpoint.starts_with("http://") && to.scheme() == "http";
        let host = to.host_str().filter(|_| is_as_safe)?;
        let port = to.port().map_or_else(String::new, |port| format!(":{port}"));
        let in_host = host.strip_prefix(&self.bucket).and_then(|rest| rest.strip_prefix('.'));
        let in_path = to.path().starts_with(&format!("/{}/", encode(&self.bucket, false)));
        let (host, path_style) = match in_host {
            Some(rest) => (rest, false),
            None if in_path => (host, true),
            None => return None,
        };
        Some(Self { endpoint: format!("{}://{host}{port}", to.scheme()), path_style, ..self.clone() })
    }

    /// The URL of an object, without a signature.
    pub fn url(&self, key: &str) -> Result<String, NotAUrl> {
        let Place { scheme, host, path } = self.place(key)?;
        Ok(format!("{scheme}://{host}{path}"))
    }

    /// A URL that does one call, from now on and for a number of seconds.
    pub fn presign(&self, keys: &Keys, call: Call<'_>, seconds: i64, now: UnixMs) -> Result<String, NotAUrl> {
        self.presign_with(keys, call, &[], seconds, now)
    }

    /// A URL that writes an object unless one stands under its key, as [`Self::presign`]. It must come with [`ONCE`], which
    /// is signed: a server that knows conditional writes then answers 412 instead of replacing what stands.
    pub fn presign_once(&self, keys: &Keys, call: Call<'_>, seconds: i64, now: UnixMs) -> Result<String, NotAUrl> {
        self.presign_with(keys, call, &[ONCE], seconds, now)
    }

    /// `headers` are signed, names in lower case and sorted, all behind `host`.
    fn presign_with(
        &self,
        keys: &Keys,
        call: Call<'_>,
        headers: &[(&str, &str)],
        seconds: i64,
        now: UnixMs,
    ) -> Result<String, NotAUrl> {
        let Place { scheme, host, path } = self.place(call.key)?;
        let scope = self.scope(now);
        let (credential, time, seconds) =
            (format!("{}/{scope}", keys.access_key_id), amz_time(now), seconds.clamp(1, MAX_SECONDS).to_string());
        let names = ["host"].into_iter().chain(headers.iter().map(|(name, _)| *name)).collect::<Vec<_>>().join(";");
        let lines = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect::<Vec<_>>().concat();
        let mut query = call.query.to_vec();
        query.extend([
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", credential.as_str()),
            ("X-Amz-Date", time.as_str()),
            ("X-Amz-Expires", seconds.as_str()),
            ("X-Amz-SignedHeaders", names.as_str()),
        ]);
        let query = canonical_query(&query);
        let canonical = format!("{}\n{path}\n{query}\nhost:{host}\n{lines}\n{names}\nUNSIGNED-PAYLOAD", call.method);
        let signature = self.signature(keys, &canonical, now);
        Ok(format!("{scheme}://{host}{path}?{query}&X-Amz-Signature={signature}"))
    }

    /// A call that we make ourselves, with this body. `extra` are further headers to sign, names in lower case.
    pub fn sign(
        &self,
        keys: &Keys,
        call: Call<'_>,
        extra: &[(&'static str, &str)],
        body: &[u8],
        now: UnixMs,
    ) -> Result<Signed, NotAUrl> {
        let Place { scheme, host, path } = self.place(call.key)?;
        let query = canonical_query(call.query);
        let digest = sha256_hex(body);
        let mut headers: Vec<_> = extra.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        headers.extend([("x-amz-content-sha256", digest.clone()), ("x-amz-date", amz_time(now))]);
        let mut signed = headers.clone();
        signed.push(("host", host.clone()));
        signed.sort();
        let lines: Vec<_> = signed.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let lines = lines.concat();
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let canonical = format!("{}\n{path}\n{query}\n{lines}\n{names}\n{digest}", call.method);
        let signature = self.signature(keys, &canonical, now);
        let credential = format!("{}/{}", keys.access_key_id, self.scope(now));
        let authorization =
            format!("{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}");
        headers.push(("authorization", authorization));
        let joint = if query.is_empty() { "" } else { "?" };
        Ok(Signed { url: format!("{scheme}://{host}{path}{joint}{query}"), headers })
    }

    fn signature(&self, keys: &Keys, canonical: &str, now: UnixMs) -> String {
        let (time, scope) = (amz_time(now), self.scope(now));
        let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let first = format!("AWS4{}", keys.secret_access_key).into_bytes();
        let steps = [&time[..8], &self.region, "s3", "aws4_request", &text];
        hex(&steps.iter().fold(first, |key, step| hmac_sha256(&key, step.as_bytes()).to_vec()))
    }

    fn scope(&self, now: UnixMs) -> String {
        format!("{}/{}/s3/aws4_request", &amz_time(now)[..8], self.region)
    }

    fn place(&self, key: &str) -> Result<Place, NotAUrl> {
        let endpoint = Url::parse(&self.endpoint).map_err(|_| NotAUrl)?;
        let host = endpoint.host_str().ok_or(NotAUrl)?;
        let port = endpoint.port().map_or_else(String::new, |port| format!(":{port}"));
        let base = endpoint.path().trim_end_matches('/');
        let object = encode(&format!("{}{key}", self.prefix), true);
        let (host, path) = if self.path_style {
            (format!("{host}{port}"), format!("{base}/{}/{object}", encode(&self.bucket, false)))
        } else {
            (format!("{}.{host}{port}", self.bucket), format!("{base}/{object}"))
        };
        Ok(Place { scheme: endpoint.scheme().to_owned(), host, path })
    }
}

/// Where an object is, in the form that is signed.
struct Place {
    scheme: String,
    host: String,
    path: String,
}

/// `20130524T000000Z`
fn amz_time(now: UnixMs) -> String {
    let iso = now.to_iso();
    let seconds = iso.split('.').next().unwrap_or_default();
    seconds.chars().filter(char::is_ascii_alphanumeric).chain(['Z']).collect()
}

fn canonical_query(query: &[(&str, &str)]) -> String {
    let mut pairs: Vec<_> = query.iter().map(|(name, value)| (encode(name, false), encode(value, false))).collect();
    pairs.sort();
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Percent-encoding as S3 signs it: all but RFC 3986's unreserved characters, and slashes in paths.
fn encode(text: &str, slashes: bool) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (slashes && byte == b'/') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The body that completes a multipart upload.
pub fn complete_body(parts: &[PartDone]) -> String {
    let part = |PartDone { number, etag }: &PartDone| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", escape(etag))
    };
    let parts: Vec<_> = parts.iter().map(part).collect();
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.concat())
}

/// What a service said when it did not do as it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// HTTP status.
    pub status: u16,
    /// What S3 calls the trouble, such as `AccessDenied`; empty where it does not say.
    pub code: String,
    /// The region that the bucket is in, where the service says that it is another than the one asked for.
    pub region: Option<String>,
}

/// What follows from what a service said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same call may succeed in a moment.
    Passes,
    /// The same call never succeeds, while another upload of the object may.
    Broken,
    /// Nothing succeeds until someone changes the bucket, its rights or the key.
    Permanent,
}

impl Said {
    /// Reads an answer that is no success. `region` is its header `x-amz-bucket-region`. A server may send anything, so that
    /// of names only letters, digits and dashes are kept.
    pub fn of(status: u16, body: &str, region: Option<&str>) -> Self {
        let word = |text: &str| -> String {
            text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect()
        };
        let code = word(&element(body, "Code").unwrap_or_default());
        let region = region.map(str::to_owned).or_else(|| element(body, "Region")).map(|region| word(&region));
        let is_elsewhere = matches!(status, 301 | 400);
        Self { status, code, region: region.filter(|region| is_elsewhere && !region.is_empty()) }
    }

    /// What follows. The codes are those of the S3 API reference, "Error responses", and of Ceph and `MinIO`.
    pub fn verdict(&self) -> Verdict {
        match (self.status, self.code.as_str()) {
            (408 | 425 | 429 | 500.., _)
            | (
                _,
                "RequestTimeout" | "SlowDown" | "ServiceUnavailable" | "InternalError" | "OperationAborted"
                | "IncompleteBody" | "BadDigest" | "TooManyRequests",
            ) => Verdict::Passes,
            (_, "" | "NoSuchUpload" | "NoSuchKey" | "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall") => {
                Verdict::Broken
            }
            _ => Verdict::Permanent,
        }
    }
}

/// `403 AccessDenied`
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, code, region } = self;
        write!(f, "{status}")?;
        if !code.is_empty() {
            write!(f, " {code}")?;
        }
        region.as_ref().map_or(Ok(()), |region| write!(f, " (the bucket is in the region {region})"))
    }
}

/// The text of an element, which holds no other, in an answer of S3.
pub fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(unescape(text))
}

const ENTITIES: [(&str, &str); 5] = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];

fn unescape(text: &str) -> String {
    // The ampersand last, so that what it leaves is not read again.
    ENTITIES.iter().fold(text.trim().to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

fn escape(text: &str) -> String {
    ENTITIES.iter().rev().fold(text.to_owned(), |text, (entity, plain)| text.replace(plain, entity))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the examples in the S3 API reference, "Authenticating Requests (AWS Signature Version 4)": 2013-05-24 00:00 UTC.
    const NOW: UnixMs = UnixMs(1_369_353_600_000);

    fn keys() -> Keys {
        Keys {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        }
    }

    fn bucket() -> Bucket {
        Bucket {
            endpoint: "https://s3.amazonaws.com".into(),
            region: "us-east-1".into(),
            bucket: "examplebucket".into(),
            prefix: String::new(),
            path_style: false,
        }
    }

    fn call<'a>(method: &'a str, key: &'a str, query: &'a [(&'a str, &'a str)]) -> Call<'a> {
        Call { method, key, query }
    }

    #[test]
    fn a_presigned_url_is_the_published_one() {
        let url = bucket().presign(&keys(), call("GET", "test.txt", &[]), 86_400, NOW).expect("a URL");
        assert_eq!(
            url,
            "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    #[test]
    fn signatures_in_headers_are_the_published_ones() {
        type Row = (Call<'static>, &'static [(&'static str, &'static str)], &'static [u8], &'static str);
        let table: [Row; 4] = [
            (
                call("GET", "test.txt", &[]),
                &[("range", "bytes=0-9")],
                b"",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                call("PUT", "test$file.text", &[]),
                &[("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
                b"Welcome to Amazon S3.",
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                call("GET", "", &[("lifecycle", "")]),
                &[],
                b"",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                call("GET", "", &[("max-keys", "2"), ("prefix", "J")]),
                &[],
                b"",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ];
        for (call, extra, body, expected) in table {
            let signed = bucket().sign(&keys(), call, extra, body, NOW).expect("a URL");
            let (_, authorization) = signed.headers.last().expect("headers");
            assert!(authorization.ends_with(&format!("Signature={expected}")), "{call:?}: {authorization}");
        }
    }

    #[test]
    fn a_url_that_writes_once_signs_the_condition() {
        let put = call("PUT", "test.txt", &[]);
        let once = bucket().presign_once(&keys(), put, 86_400, NOW).expect("a URL");
        let always = bucket().presign(&keys(), put, 86_400, NOW).expect("a URL");
        assert!(once.contains("X-Amz-SignedHeaders=host%3Bif-none-match&"), "{once}");
        let signature = |url: &str| url.rsplit('=').next().map(str::to_owned);
        assert_ne!(signature(&once), signature(&always));
        // The same canonical request by hand.
        let query =
            once.split_once('?').and_then(|(_, query)| query.split_once("&X-Amz-Signature")).expect("a query").0;
        let canonical = format!(
            "PUT\n/test.txt\n{query}\nhost:examplebucket.s3.amazonaws.com\nif-none-match:*\n\nhost;if-none-match\n\
             UNSIGNED-PAYLOAD"
        );
        assert_eq!(signature(&once), Some(bucket().signature(&keys(), &canonical, NOW)));
    }

    #[test]
    fn an_object_stands_where_endpoint_prefix_and_style_say() {
        let in_host = Bucket { prefix: "a b/".into(), ..bucket() };
        assert_eq!(in_host.url("ä/x.mp4").as_deref(), Ok("https://examplebucket.s3.amazonaws.com/a%20b/%C3%A4/x.mp4"));
        let in_path = Bucket { endpoint: "http://127.0.0.1:9000/s3/".into(), path_style: true, ..in_host };
        assert_eq!(in_path.url("x").as_deref(), Ok("http://127.0.0.1:9000/s3/examplebucket/a%20b/x"));
        let host_only = |url: Result<String, NotAUrl>| url.expect("a URL").split('/').nth(2).map(str::to_owned);
        let presigned = in_path.presign(&keys(), call("PUT", "x", &[("partNumber", "1")]), i64::MAX, NOW);
        assert!(presigned.as_deref().is_ok_and(|url| url.contains("X-Amz-Expires=604800")), "{presigned:?}");
        assert_eq!(host_only(presigned).as_deref(), Some("127.0.0.1:9000"));
        assert_eq!(Bucket { endpoint: "nowhere".into(), ..bucket() }.url("x"), Err(NotAUrl));
    }

    #[test]
    fn answers_are_read_and_parts_listed() {
        let xml = "<?xml version=\"1.0\"?><Result><UploadId> a&amp;lt;b </UploadId><Code/></Result>";
        assert_eq!(element(xml, "UploadId").as_deref(), Some("a&lt;b"));
        assert_eq!(element(xml, "Code"), None);
        let parts = [PartDone { number: 1, etag: "\"a&b\"".into() }];
        assert_eq!(
            complete_body(&parts),
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;a&amp;b&quot;</ETag></Part>\
             </CompleteMultipartUpload>"
        );
    }

    #[test]
    fn what_a_service_says_is_told_apart_by_whether_it_passes() {
        use Verdict::{Broken, Passes, Permanent};
        let body = |code: &str| format!("<Error><Code>{code}</Code><Message>hush</Message></Error>");
        for (status, code, expected) in [
            (400, "RequestTimeout", Passes),
            (503, "SlowDown", Passes),
            (503, "", Passes),
            (429, "", Passes),
            (507, "", Passes),
            (409, "OperationAborted", Passes),
            (403, "AccessDenied", Permanent),
            (403, "QuotaExceeded", Permanent),
            (403, "RequestTimeTooSkewed", Permanent),
            (403, "SignatureDoesNotMatch", Permanent),
            (404, "NoSuchBucket", Permanent),
            (301, "PermanentRedirect", Permanent),
            (404, "NoSuchUpload", Broken),
            (400, "", Broken),
        ] {
            assert_eq!(Said::of(status, &body(code), None).verdict(), expected, "{status} {code}");
        }
        let said = Said::of(403, &body("Access<b>Denied"), None);
        assert_eq!(said.to_string(), "403 AccessbDenied");
        let moved = Said::of(301, &body("PermanentRedirect"), Some("eu-west-1"));
        assert_eq!(moved.to_string(), "301 PermanentRedirect (the bucket is in the region eu-west-1)");
        let wrong = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-2</Region></Error>";
        assert!(Said::of(400, wrong, None).to_string().contains("region eu-west-2"));
        assert_eq!(Said::of(403, &body("AccessDenied"), Some("eu-west-1")).region, None, "that is not the trouble");
    }

    #[test]
    fn a_bucket_that_is_elsewhere_for_now_is_followed_only_if_it_is_the_same() {
        let moved = |bucket: &Bucket, to: &str| bucket.moved(to).map(|bucket| bucket.url("x").expect("a URL"));
        let in_host = bucket();
        let to = "https://examplebucket.s3-eu-west-1.amazonaws.com/x?partNumber=1";
        assert_eq!(moved(&in_host, to).as_deref(), Some("https://examplebucket.s3-eu-west-1.amazonaws.com/x"));
        let to = "https://s3.eu-west-1.amazonaws.com:8443/examplebucket/x";
        assert_eq!(moved(&in_host, to).as_deref(), Some("https://s3.eu-west-1.amazonaws.com:8443/examplebucket/x"));
        for to in ["https://elsewhere.example/x", "http://examplebucket.s3.amazonaws.com/x", "/x", "https://other/b/x"]
        {
            assert_eq!(moved(&in_host, to), None, "{to}");
        }
        let local = Bucket { endpoint: "http://127.0.0.1:9000".into(), path_style: true, ..bucket() };
        let to = "http://127.0.0.1:9001/examplebucket/x";
        assert_eq!(moved(&local, to).as_deref(), Some("http://127.0.0.1:9001/examplebucket/x"));
    }

    #[test]
    fn keys_do_not_show_in_logs() {
        assert_eq!(format!("{:?}", keys()), "Keys");
    }
}
