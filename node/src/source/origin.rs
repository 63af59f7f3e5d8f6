//! One request to an origin: redirects followed by hand, every hop judged, the answer checked and named.

use std::{ops::Range, sync::Mutex, time::Duration};

use bytes::Bytes;
use reqwest::{
    Client, Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, COOKIE, ETAG, HeaderMap, HeaderName, HeaderValue,
        LAST_MODIFIED, LOCATION, RANGE, SET_COOKIE,
    },
};
use tokio::time::timeout;
use url::Url;
use xora_shared::{
    net::{Policy, Refused, check_url},
    protocol::InputAt,
};

use super::fault::{SourceFault, Trouble};

/// Most redirects followed for one request.
const REDIRECTS: usize = 5;
/// Most cookies that are kept of one input's origins.
const COOKIES: usize = 50;
/// How long an origin may say nothing.
pub const IDLE: Duration = Duration::from_secs(20);

/// Where bytes come from.
pub struct Origin {
    client: Client,
    /// None for the edge's own storage, which is trusted.
    policy: Option<Policy>,
    first: Url,
    headers: HeaderMap,
    /// Where the last redirects led.
    current: Mutex<Url>,
    /// What the origins on the way have set, by the origin that did: some redirect in circles to who does not show it.
    cookies: Mutex<Vec<Cookie>>,
}

/// A cookie. Sent to the very origin that set it, and forgotten with the job.
struct Cookie {
    origin: url::Origin,
    name: String,
    value: String,
}

/// An answer with a body to come.
#[derive(Debug)]
pub struct Answer {
    /// What was answered.
    pub extent: Extent,
    /// Which version of the file.
    pub version: Version,
    body: Response,
}

/// What an origin's answer covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The bytes from `start` on.
    Part {
        /// Offset of the body's first byte.
        start: u64,
        /// Length of the file, when it is said.
        total: Option<u64>,
    },
    /// The file from its beginning: the origin does not serve ranges.
    Whole {
        /// Its length, when it is said.
        length: Option<u64>,
    },
    /// Nothing: the range starts at or behind the end.
    Past {
        /// Length of the file, when it is said.
        total: Option<u64>,
    },
}

/// What identifies a version of a file, as far as the origin says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    etag: Option<String>,
    modified: Option<String>,
}

/// Whether two answers are of the same version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// As far as they say.
    Same,
    /// They are not.
    Different,
    /// Their tags differ, and they say nothing else.
    Unknown,
}

impl Version {
    /// Whether both may be the same version. Equal tags decide, as in RFC 9110, section 13.2.2. Different ones do not: the
    /// hosts of a CDN may make tags of their own for one file, and then the time of its last change decides. Whoever asks
    /// compares the length.
    pub fn agrees(&self, other: &Self) -> Agreement {
        let same_time = self.modified.as_ref().zip(other.modified.as_ref()).map(|(one, other)| one == other);
        let same_tag = self.etag.as_ref().zip(other.etag.as_ref()).map(|(one, other)| one == other);
        match (same_tag, same_time) {
            (Some(true), _) | (_, Some(true)) | (None, None) => Agreement::Same,
            (_, Some(false)) => Agreement::Different,
            (Some(false), None) => Agreement::Unknown,
        }
    }

    /// Takes over what only the other says.
    pub fn learn(&mut self, other: &Self) {
        self.etag = self.etag.take().or_else(|| other.etag.clone());
        self.modified = self.modified.take().or_else(|| other.modified.clone());
    }

    /// A tag that is weak on some answers only is the same tag.
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let etag = text(ETAG).map(|tag| tag.strip_prefix("W/").unwrap_or(tag));
        Self { etag: etag.map(str::to_owned), modified: text(LAST_MODIFIED).map(str::to_owned) }
    }
}

impl Origin {
    /// An input, which must satisfy the policy.
    pub fn judged(client: Client, at: &InputAt, policy: Policy) -> Result<Self, SourceFault> {
        let url = check_url(&at.url, policy).map_err(SourceFault::Refused)?;
        let headers = at.headers.iter().filter_map(|(name, value)| header(name, value)).collect();
        Ok(Self::new(client, Some(policy), url, headers))
    }

    /// What the edge said to read.
    pub fn trusted(client: Client, url: &str) -> Result<Self, SourceFault> {
        let url = Url::parse(url).map_err(|_| SourceFault::Refused(Refused::NotAUrl))?;
        Ok(Self::new(client, None, url, HeaderMap::new()))
    }

    fn new(client: Client, policy: Option<Policy>, url: Url, headers: HeaderMap) -> Self {
        let (current, cookies) = (Mutex::new(url.clone()), Mutex::default());
        Self { client, policy, current, first: url, headers, cookies }
    }

    /// Asks for a range, or for everything. One try.
    pub async fn get(&self, range: Option<Range<u64>>) -> Result<Answer, SourceFault> {
        let url = lock(&self.current).clone();
        let redirected = url != self.first;
        match self.follow(url, range.as_ref()).await {
            // Where a redirect leads is often good for minutes only.
            Err(SourceFault::Status(_)) if redirected => self.follow(self.first.clone(), range.as_ref()).await,
            // And there may be several places: the next try asks for one anew.
            Err(fault @ SourceFault::Unavailable(_)) => {
                lock(&self.current).clone_from(&self.first);
                Err(fault)
            }
            other => other,
        }
    }

    async fn follow(&self, mut url: Url, range: Option<&Range<u64>>) -> Result<Answer, SourceFault> {
        for _ in 0..=REDIRECTS {
            let response = self.send(&url, range).await?;
            self.keep_cookies(&url, response.headers());
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                *lock(&self.current) = url;
                return answer(response);
            }
            url = self.judge(&target(&url, &response)?)?;
        }
        Err(SourceFault::Redirects)
    }

    fn judge(&self, url: &Url) -> Result<Url, SourceFault> {
        match self.policy {
            Some(policy) => check_url(url.as_str(), policy).map_err(SourceFault::Refused),
            None => Ok(url.clone()),
        }
    }

    async fn send(&self, url: &Url, range: Option<&Range<u64>>) -> Result<Response, SourceFault> {
        let mut request = self.client.get(url.clone());
        // What the caller gave is for the origin that the caller named.
        if url.origin() == self.first.origin() {
            request = request.headers(self.headers.clone());
        }
        request = request.header(ACCEPT_ENCODING, "identity");
        if !self.headers.contains_key(ACCEPT) {
            request = request.header(ACCEPT, "*/*");
        }
        if let Some(cookies) = self.cookies_for(url).filter(|_| !self.headers.contains_key(COOKIE)) {
            request = request.header(COOKIE, cookies);
        }
        if let Some(range) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        }
        match timeout(IDLE, request.send()).await {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(SourceFault::Unavailable(Trouble::Timeout)),
        }
    }
}

impl Origin {
    fn keep_cookies(&self, url: &Url, headers: &HeaderMap) {
        for set in headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let pair = set.split(';').next().and_then(|pair| pair.split_once('='));
            let Some((name, value)) = pair.map(|(name, value)| (name.trim(), value.trim())) else { continue };
            let mut cookies = lock(&self.cookies);
            cookies.retain(|cookie| cookie.origin != url.origin() || cookie.name != name);
            if cookies.len() < COOKIES {
                cookies.push(Cookie { origin: url.origin(), name: name.to_owned(), value: value.to_owned() });
            }
        }
    }

    fn cookies_for(&self, url: &Url) -> Option<HeaderValue> {
        let cookies = lock(&self.cookies);
        let ours = cookies.iter().filter(|cookie| cookie.origin == url.origin());
        let all: Vec<String> = ours.map(|Cookie { name, value, .. }| format!("{name}={value}")).collect();
        HeaderValue::try_from(all.join("; ")).ok().filter(|_| !all.is_empty())
    }
}

impl Answer {
    /// The next bytes of the body, none at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, SourceFault> {
        match timeout(IDLE, self.body.chunk()).await {
            Ok(chunk) => Ok(chunk?),
            Err(_) => Err(SourceFault::Unavailable(Trouble::Timeout)),
        }
    }
}

fn answer(response: Response) -> Result<Answer, SourceFault> {
    let headers = response.headers();
    let codings = headers.get_all(CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let coding = codings.collect::<Vec<_>>().join(",").to_ascii_lowercase();
    let said = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).and_then(content_range);
    let extent = match (response.status().as_u16(), said) {
        (206, Some((Some(start), total))) => Extent::Part { start, total },
        (200, _) => Extent::Whole { length: response.content_length() },
        (416, said) => Extent::Past { total: said.and_then(|(_, total)| total) },
        (206, _) => return Err(SourceFault::Unavailable(Trouble::Odd)),
        (status @ (429 | 500..), _) => return Err(SourceFault::Unavailable(Trouble::Status(status))),
        (status, _) => return Err(SourceFault::Status(status)),
    };
    if ["gzip", "x-gzip", "deflate", "br", "zstd", "compress"].iter().any(|name| coding.contains(name)) {
        return Err(SourceFault::Encoded);
    }
    Ok(Answer { extent, version: Version::of(headers), body: response })
}

/// Reads `bytes 0-99/1000`, `bytes 0-99/*` and `bytes */1000`: the first byte, and the length of the file.
fn content_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (span, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let start = match span.trim() {
        "*" => None,
        span => Some(span.split_once('-')?.0.trim().parse().ok()?),
    };
    Some((start, total.trim().parse().ok()))
}

fn target(url: &Url, response: &Response) -> Result<Url, SourceFault> {
    let location = response.headers().get(LOCATION).map(|value| escaped(value.as_bytes()));
    location.and_then(|location| url.join(&location).ok()).ok_or(SourceFault::Redirects)
}

/// A `Location` with its bytes above 0x7f percent-encoded, as browsers follow one (RFC 3987, section 3.1).
fn escaped(location: &[u8]) -> String {
    use std::fmt::Write;
    location.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii() {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// A caller's header, unless it would change what is asked of the connection or of the body.
fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    const OURS: [&str; 12] = [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "if-match",
        "if-none-match",
        "if-range",
        "range",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    let name = HeaderName::try_from(name).ok().filter(|name| !OURS.contains(&name.as_str()))?;
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// Nothing here panics while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_as_rfc_9110_has_them() {
        assert_eq!(content_range("bytes 0-99/1000"), Some((Some(0), Some(1000))));
        assert_eq!(content_range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(content_range("bytes */1000"), Some((None, Some(1000))));
        assert_eq!(content_range("items 0-1/2"), None);
        assert_eq!(content_range("bytes x-1/2"), None);
    }

    #[test]
    fn a_location_is_read_as_browsers_do() {
        let base = Url::parse("https://media.example/a/b?c").expect("a URL");
        let to = |location: &[u8]| base.join(&escaped(location)).expect("a URL").to_string();
        assert_eq!(to("/filme/für dich.mp4".as_bytes()), "https://media.example/filme/f%C3%BCr%20dich.mp4");
        assert_eq!(to(b"/f\xfcr.mp4"), "https://media.example/f%FCr.mp4", "Latin-1");
        assert_eq!(to("https://other.example/?q=ä".as_bytes()), "https://other.example/?q=%C3%A4");
        assert_eq!(to(b"/a%20b"), "https://media.example/a%20b");
    }

    #[test]
    fn headers_that_belong_to_the_connection_are_not_taken_from_callers() {
        assert!(header("Authorization", "Bearer x").is_some());
        assert!(header("Range", "bytes=0-").is_none());
        assert!(header("Host", "other").is_none());
        assert!(header("bad name", "x").is_none());
    }
}
