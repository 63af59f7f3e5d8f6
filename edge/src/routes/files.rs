//! `/files/*`: signed downloads of outputs, and signed uploads of their parts. No key: the signature is the right.

use url::form_urlencoded;
use worker::{
    Bucket, Data, Env, Headers, Method, Object, Range, Request, Response, Url, console_error,
    js_sys::{Object as JsObject, Reflect},
    wasm_bindgen::{JsCast, JsValue},
    wasm_bindgen_futures::JsFuture,
    worker_sys::R2Bucket,
};
use xora_shared::{
    protocol::{MAX_PART, PartTarget},
    sign::{Access, Grant},
};

use crate::{
    config,
    error::{ApiError, Code},
    shard::{self, Op, ReceivedPart, Upload},
};

/// How long a node may read an input of ours, in seconds: longer than any attempt.
const INPUT_SECONDS: i64 = 24 * 3600;

/// More than an object in R2 can have, in bytes.
const LARGEST: u64 = 1 << 50;

/// Makes links.
pub struct Signer {
    origin: String,
    key: Vec<u8>,
    read_expires: i64,
    part_seconds: i64,
    part_expires: i64,
    input_expires: i64,
}

impl Signer {
    /// For links under an origin, good from now.
    pub fn new(env: &Env, origin: &str) -> Result<Self, ApiError> {
        let (now, part_seconds) = (config::now().0 / 1000, config::part_url_seconds(env));
        Ok(Self {
            part_seconds,
            origin: origin.to_owned(),
            key: config::signing_key(env)?,
            read_expires: now + config::file_url_seconds(env),
            part_expires: now + part_seconds,
            input_expires: now + INPUT_SECONDS,
        })
    }

    /// A link to read an object.
    pub fn read_url(&self, key: &str) -> String {
        self.sign(Access::Read, &format!("/files/{key}"), "", self.read_expires)
    }

    /// How long a node may use the target of a part, in seconds.
    pub const fn part_seconds(&self) -> i64 {
        self.part_seconds
    }

    /// A link for a node to read an input.
    pub fn input_url(&self, key: &str) -> String {
        self.sign(Access::Read, &format!("/files/{key}"), "", self.input_expires)
    }

    /// Where a node puts one part of an upload.
    pub fn part(&self, upload: &Upload, number: u32) -> PartTarget {
        self.part_until(upload, number, self.part_expires)
    }

    /// Where one part of an upload goes until `expires`, in seconds since 1970.
    pub fn part_until(&self, upload: &Upload, number: u32, expires: i64) -> PartTarget {
        let text = number.to_string();
        let pairs = [("part", text.as_str()), ("upload", upload.upload_id.as_str())];
        let extra = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let url = self.sign(Access::WritePart, &format!("/files/{}", upload.key), &extra, expires);
        PartTarget { number, url, headers: xora_shared::request::Headers::new() }
    }

    fn sign(&self, access: Access, path: &str, extra: &str, expires: i64) -> String {
        let signature = Grant { access, path, extra, expires }.sign(&self.key);
        let joint = if extra.is_empty() { "" } else { "&" };
        format!("{}{path}?{extra}{joint}expires={expires}&signature={signature}", self.origin)
    }
}

/// Answers a request under `/files/`.
pub async fn answer(req: Request, env: &Env, url: &Url, request_id: &str) -> Result<Response, ApiError> {
    match req.inner().method().as_str() {
        "GET" | "HEAD" => download(&req, env, url, request_id).await,
        "PUT" => upload_part(&req, env, url).await,
        _ => Err(ApiError::new(Code::MethodNotAllowed, "files can be read with GET and HEAD")),
    }
}

/// Checks the signature. Gives the key of the object and the signed parameters.
fn granted(env: &Env, url: &Url, access: Access) -> Result<(String, String), ApiError> {
    let unsigned =
        || ApiError::new(Code::Forbidden, "this link is not signed; read the job or the upload for a signed one");
    let (rest, signature) = url.query().and_then(|query| query.rsplit_once("signature=")).ok_or_else(unsigned)?;
    let rest = rest.strip_suffix('&').ok_or_else(unsigned)?;
    let (extra, expires) = rest.rsplit_once("expires=").ok_or_else(unsigned)?;
    let expires = expires.parse().map_err(|_| unsigned())?;
    let extra = extra.strip_suffix('&').unwrap_or(extra);
    let grant = Grant { access, path: url.path(), extra, expires };
    grant.verify(&config::signing_key(env)?, signature, config::now())?;
    let key = url.path().strip_prefix("/files/").unwrap_or_default();
    Ok((key.to_owned(), extra.to_owned()))
}

async fn download(req: &Request, env: &Env, url: &Url, request_id: &str) -> Result<Response, ApiError> {
    let (key, _) = granted(env, url, Access::Read)?;
    let bucket = env.bucket("MEDIA")?;
    let gone = || {
        ApiError::not_found("file; it was deleted, or removed because its time was over (see `outputRetentionDays`)")
    };
    // The size is not needed to ask for most ranges, and is in the answer.
    let plain = req.method() == Method::Get && req.headers().get("If-Range")?.is_none();
    let range = match wanted(req, LARGEST, "")? {
        Wanted::Span(offset, length) => Range::OffsetWithLength { offset, length },
        Wanted::All | Wanted::Nothing => Range::OffsetToEnd { offset: 0 },
    };
    let read = if plain { bucket.get(key.as_str()).range(range).execute().await.ok() } else { None };
    let object = match read {
        Some(object) => object,
        None => bucket.head(key.as_str()).await?,
    };
    let object = object.ok_or_else(gone)?;
    let size = object.size();
    let span = match wanted(req, size, &object.http_etag())? {
        Wanted::All => None,
        Wanted::Span(offset, length) => Some((offset, length)),
        Wanted::Nothing => return past_the_end(size, request_id),
    };
    let headers = file_headers(&object, &key)?;
    let (offset, length) = span.unwrap_or((0, size));
    headers.set("Content-Length", &length.to_string())?;
    if span.is_some() {
        headers.set("Content-Range", &format!("bytes {offset}-{}/{size}", offset + length - 1))?;
    }
    let status = if span.is_some() { 206 } else { 200 };
    if req.method() == Method::Head || length == 0 {
        return Ok(Response::empty()?.with_status(status).with_headers(headers));
    }
    let object = if object.body().is_some() {
        object
    } else {
        let range = Range::OffsetWithLength { offset, length };
        bucket.get(key.as_str()).range(range).execute().await?.ok_or_else(gone)?
    };
    let body = object.body().ok_or_else(gone)?.response_body()?;
    Ok(Response::from_body(body)?.with_status(status).with_headers(headers))
}

/// What is asked for. All without a range, with one that is not understood, with several, and with `If-Range` of
/// another version (RFC 9110 section 14.2).
fn wanted(req: &Request, size: u64, etag: &str) -> Result<Wanted, ApiError> {
    let headers = req.headers();
    let Some(range) = headers.get("Range")? else { return Ok(Wanted::All) };
    if headers.get("If-Range")?.is_some_and(|version| version != etag) {
        return Ok(Wanted::All);
    }
    Ok(parse_range(&range, size))
}

/// The refusal says how long the file is (RFC 9110 section 15.5.17).
fn past_the_end(size: u64, request_id: &str) -> Result<Response, ApiError> {
    let message = format!("the range starts past the end; the file has {size} bytes");
    let response = ApiError::new(Code::RangeNotSatisfiable, message).reply().into_response(request_id)?;
    response.headers().set("Content-Range", &format!("bytes */{size}"))?;
    Ok(response)
}

enum Wanted {
    All,
    /// Offset and length.
    Span(u64, u64),
    Nothing,
}

/// Reads `bytes=a-b`, `bytes=a-` and `bytes=-n` against a size.
fn parse_range(text: &str, size: u64) -> Wanted {
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return Wanted::All;
    };
    let (start, end) = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(start), Ok(end)) if start <= end => (start, end.min(size.saturating_sub(1))),
        (Ok(start), Err(_)) if last.trim().is_empty() => (start, size.saturating_sub(1)),
        (Err(_), Ok(suffix)) if first.trim().is_empty() => {
            if suffix == 0 {
                return Wanted::Nothing;
            }
            (size.saturating_sub(suffix), size.saturating_sub(1))
        }
        _ => return Wanted::All,
    };
    if start >= size { Wanted::Nothing } else { Wanted::Span(start, end - start + 1) }
}

/// Headers of a download. The type is fixed by us and never guessed by a browser.
fn file_headers(object: &Object, key: &str) -> Result<Headers, ApiError> {
    let kind = object.http_metadata().content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
    let extension = key.rsplit_once('.').map_or("", |(_, extension)| extension);
    let headers = Headers::new();
    headers.set("Content-Type", &kind)?;
    headers.set("Content-Disposition", &format!("attachment; filename=\"output.{extension}\""))?;
    headers.set("X-Content-Type-Options", "nosniff")?;
    headers.set("Accept-Ranges", "bytes")?;
    headers.set("ETag", &object.http_etag())?;
    headers.set("Cache-Control", "private, max-age=3600")?;
    Ok(headers)
}

/// Writes one part, or all of an object without an upload. The body goes to storage as it comes.
async fn upload_part(req: &Request, env: &Env, url: &Url) -> Result<Response, ApiError> {
    let (key, extra) = granted(env, url, Access::WritePart)?;
    let bytes = match req.headers().get("Content-Length")?.and_then(|length| length.parse::<u64>().ok()) {
        None => return Err(ApiError::new(Code::ValidationError, "a part needs a Content-Length")),
        Some(length) if length > MAX_PART => {
            return Err(ApiError::new(Code::PayloadTooLarge, format!("a part must be at most {MAX_PART} bytes")));
        }
        Some(length) => length,
    };
    let mut number: Option<u16> = None;
    let mut upload_id = String::new();
    for (name, value) in form_urlencoded::parse(extra.as_bytes()) {
        match name.as_ref() {
            "part" => number = value.parse().ok(),
            "upload" => upload_id = value.into_owned(),
            _ => {}
        }
    }
    let number = number.ok_or_else(|| ApiError::new(Code::ValidationError, "part: must be 1 to 65535"))?;
    let Some(body) = req.inner().body() else {
        return Err(ApiError::new(Code::ValidationError, "a part needs a body"));
    };
    // The shard keeps account of what callers send; a node does that itself.
    let mut received =
        shard::received_of_key(&key).map(|upload| ReceivedPart { upload, number: number.into(), bytes, etag: None });
    if let Some(part) = &received {
        shard::ask::<()>(env, part.upload.place().shard(), Op::ExpectPart, part).await?;
    }
    let bucket = env.bucket("MEDIA")?;
    let taken = if upload_id.is_empty() {
        put_once(&bucket, key.clone(), body.into(), &req.inner().headers()).await
    } else {
        let upload = bucket.resume_multipart_upload(key.as_str(), upload_id.as_str())?;
        upload.upload_part(number, Data::ReadableStream(body)).await.map(|part| Some(part.etag()))
    };
    let etag = match taken {
        Ok(Some(etag)) => etag,
        Ok(None) => {
            let message = "something was stored here already, and it stays; read it back to see what";
            return Err(ApiError::new(Code::Conflict, message));
        }
        Err(error) => {
            console_error!("part {number} of {key}: {error}");
            return Err(ApiError::new(Code::Unavailable, "storage did not take this part; send it again"));
        }
    };
    if let Some(part) = &mut received {
        part.etag = Some(etag.clone());
        shard::ask::<()>(env, part.upload.place().shard(), Op::NotePart, part).await?;
    }
    let headers = Headers::new();
    headers.set("ETag", &etag)?;
    Ok(Response::empty()?.with_headers(headers))
}

/// Writes a whole object, with what `headers` say of it, unless one stands under its key: what was verified and published is
/// never replaced. Answers its `ETag`, or none if one stood there. The library's own call takes 1 kB of gzip more, for options
/// that nobody here sets.
async fn put_once(bucket: &Bucket, key: String, body: JsValue, headers: &JsValue) -> worker::Result<Option<String>> {
    let (options, only_if) = (JsObject::new(), Headers::new());
    only_if.set("If-None-Match", "*")?;
    Reflect::set(&options, &"httpMetadata".into(), headers)?;
    Reflect::set(&options, &"onlyIf".into(), &only_if.0)?;
    let put = bucket.as_ref().unchecked_ref::<R2Bucket>().put(key, body, options.into())?;
    let object = JsFuture::from(put).await?;
    if object.is_null() {
        return Ok(None);
    }
    Ok(Some(Reflect::get(&object, &"httpEtag".into())?.as_string().unwrap_or_default()))
}
