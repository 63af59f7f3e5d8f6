//! Requests of callers: strict JSON in, checked values out. Raw input never travels further than this.

mod digest;
mod fields;
mod headers;
mod list;
mod recipe;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use digest::digest;
pub use fields::{Field, Fields, Invalid};
pub use headers::Headers;
pub use list::ListQuery;

use crate::{
    id::Id,
    media::{Format, Recipe, Wanted, WebReady},
    net::Policy,
    seal::{NONCE_BYTES, open, seal},
};

/// Most inputs that one job can join.
const MAX_INPUTS: usize = 32;
/// Default priority.
const PRIORITY: u8 = 5;

/// A job as it was asked for, checked. This is what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobRequest {
    /// Where the inputs are, in the order of the request: one, or two and more for `concat`.
    pub inputs: Vec<Input>,
    /// What is wanted.
    pub wanted: Wanted,
    /// Whether what is read may be kept in storage for retries.
    pub stage_input: bool,
    /// Where this job's webhook goes, instead of the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_url: Option<String>,
    /// The caller's own notes; they come back on the job and in webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Headers>,
    /// 0 to 9; 9 runs first.
    pub priority: u8,
    /// The caller's bucket for the output. None for the managed one; the default is filled in when the job is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_provider_id: Option<Id>,
}

/// Where an input is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase", try_from = "AnyInput")]
pub enum Input {
    /// At an origin.
    Url {
        /// Absolute URL, judged by the policy.
        url: String,
        /// Headers for the origin, as they were asked for. Secret: never logged, returned or stored; see
        /// [`JobRequest::seal`].
        #[serde(default, skip_serializing_if = "Headers::is_empty")]
        headers: Headers,
        /// The same headers at rest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sealed_headers: Option<SealedHeaders>,
    },
    /// In our storage, where its caller uploaded it.
    Upload {
        /// Which upload.
        upload_id: Id,
    },
}

/// Headers for an origin, at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SealedHeaders {
    /// As [`crate::seal::seal`] makes it of their JSON.
    Sealed(String),
    /// The job is over.
    Forgotten,
}

/// An input as it is stored: one of the two.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyInput {
    url: Option<String>,
    #[serde(default)]
    headers: Headers,
    sealed_headers: Option<SealedHeaders>,
    upload_id: Option<Id>,
}

impl TryFrom<AnyInput> for Input {
    type Error = &'static str;

    fn try_from(any: AnyInput) -> Result<Self, Self::Error> {
        let AnyInput { url, headers, sealed_headers, upload_id } = any;
        match (url, upload_id) {
            (Some(url), None) => Ok(Self::Url { url, headers, sealed_headers }),
            (None, Some(upload_id)) => Ok(Self::Upload { upload_id }),
            (Some(_), Some(_)) | (None, None) => Err("an input has either a URL or an upload"),
        }
    }
}

impl Input {
    /// An input at a URL that needs no headers.
    fn public(url: String) -> Self {
        Self::Url { url, headers: Headers::new(), sealed_headers: None }
    }

    /// Seals its headers for the job with this id, if it has any.
    fn seal<E>(self, secret: &str, nonce: impl FnOnce() -> Result<Nonce, E>, job: Id) -> Result<Self, E> {
        match self {
            Self::Url { url, headers, sealed_headers: None } if !headers.is_empty() => {
                let Ok(text) = serde_json::to_string(&headers) else {
                    unreachable!("an object of strings has a JSON form")
                };
                let sealed = SealedHeaders::Sealed(seal(secret, nonce()?, &headers_of(job), &text));
                Ok(Self::Url { url, headers: Headers::new(), sealed_headers: Some(sealed) })
            }
            Self::Url { .. } | Self::Upload { .. } => Ok(self),
        }
    }

    /// The headers for its origin, of the job with this id. None if they cannot be opened: they are forgotten, or the
    /// deployment's secret is another than when they were sealed.
    pub fn open_headers(&self, secret: &str, job: Id) -> Option<Headers> {
        match self {
            Self::Url { headers, sealed_headers: None, .. } => Some(headers.clone()),
            Self::Url { sealed_headers: Some(SealedHeaders::Sealed(sealed)), .. } => {
                crate::json::from_str(&open(secret, &headers_of(job), sealed)?).ok()
            }
            Self::Url { sealed_headers: Some(SealedHeaders::Forgotten), .. } => None,
            Self::Upload { .. } => Some(Headers::new()),
        }
    }

    /// Whether its headers are sealed.
    pub fn has_sealed_headers(&self) -> bool {
        matches!(self, Self::Url { sealed_headers: Some(SealedHeaders::Sealed(_)), .. })
    }

    fn has_forgotten(&self) -> bool {
        matches!(self, Self::Url { sealed_headers: Some(SealedHeaders::Forgotten), .. })
    }
}

/// What each sealing needs anew.
type Nonce = [u8; NONCE_BYTES];

/// What sealed headers are bound to: they open in no other job's row.
fn headers_of(job: Id) -> String {
    format!("input headers of {job}")
}

impl JobRequest {
    /// The uploads that it names.
    pub fn uploads(&self) -> impl Iterator<Item = Id> {
        self.inputs.iter().filter_map(|input| match input {
            Input::Url { .. } => None,
            Input::Upload { upload_id } => Some(*upload_id),
        })
    }

    /// Whether an input has headers that are to be sealed before the job is stored.
    pub fn has_open_headers(&self) -> bool {
        self.inputs.iter().any(|input| matches!(input, Input::Url { headers, .. } if !headers.is_empty()))
    }

    /// Seals the headers of its inputs with the deployment's secret, each under a nonce of its own.
    pub fn seal<E>(self, secret: &str, mut nonce: impl FnMut() -> Result<Nonce, E>, job: Id) -> Result<Self, E> {
        let inputs = self.inputs.into_iter().map(|input| input.seal(secret, &mut nonce, job));
        Ok(Self { inputs: inputs.collect::<Result<_, _>>()?, ..self })
    }

    /// Forgets the headers of its inputs, because the job is over; that there were some stays known.
    pub fn forget_headers(&mut self) {
        for input in &mut self.inputs {
            if let Input::Url { headers, sealed_headers, .. } = input
                && (!headers.is_empty() || sealed_headers.is_some())
            {
                (*headers, *sealed_headers) = (Headers::new(), Some(SealedHeaders::Forgotten));
            }
        }
    }

    /// Whether an input needs headers that were forgotten, so that the job cannot run again.
    pub fn has_forgotten_headers(&self) -> bool {
        self.inputs.iter().any(Input::has_forgotten)
    }

    /// Reads the body of `POST /v1/jobs`, in which a preset has taken the place of its id (see [`crate::preset::merge`]).
    pub fn parse(body: &Value, policy: Policy) -> Result<Self, Invalid> {
        let mut fields = Fields::of_body(body)?;
        let inputs = inputs(&mut fields, joins(body), policy);
        let config = Config::read(&mut fields, policy);
        fields.optional("presetId", |field| field.refuse::<()>("must be the id of a preset, a string"));
        fields.finish()?;
        let (Some(inputs), Some(config)) = (inputs, config) else {
            unreachable!("a required part that is missing has been noted as a problem")
        };
        let Config { wanted, stage_input, webhook_url, metadata, priority, storage_provider_id } = config;
        Ok(Self { inputs, wanted, stage_input, webhook_url, metadata, priority, storage_provider_id })
    }

    /// Whether the input itself may be the result (`passthrough`): for `webReady` without encode settings, of one input at
    /// a URL that needs no headers, when no storage provider is named. In every other case the output is a copy in
    /// storage. The edge writes the answer into the lease and checks `complete` by it, so planner and edge agree.
    pub fn may_pass_through(&self) -> bool {
        let is_public = |input: &Input| match input {
            Input::Url { url: _, headers, sealed_headers } => headers.is_empty() && sealed_headers.is_none(),
            Input::Upload { .. } => false,
        };
        let is_open = self.wanted.recipe == Recipe::WebReady(WebReady { encode: None });
        is_open && self.storage_provider_id.is_none() && self.inputs.len() == 1 && self.inputs.iter().all(is_public)
    }

    /// Judges the configuration of a preset: a job without its input.
    pub fn check_config(fields: &mut Fields, policy: Policy) {
        Config::read(fields, policy);
        for name in ["input", "input_files", "presetId"] {
            fields.optional(name, |field| field.refuse::<()>("belongs to a job, not to a preset"));
        }
    }
}

/// What a job says besides its input.
struct Config {
    wanted: Wanted,
    stage_input: bool,
    webhook_url: Option<String>,
    metadata: Option<Headers>,
    priority: u8,
    storage_provider_id: Option<Id>,
}

impl Config {
    /// None when something is wrong with what is wanted; that has been noted.
    fn read(fields: &mut Fields, policy: Policy) -> Option<Self> {
        fields.required("mode", mode);
        let format = fields.required("output", output);
        let recipe = fields.required("recipe", |field| recipe::parse(field, format));
        let stage_input = fields.optional("stageInput", Field::boolean);
        let webhook_url = fields.optional("webhookUrl", |field| field.url(policy));
        let metadata = fields.optional("metadata", |field| field.pairs(16, metadata_problem));
        let priority = fields.optional("priority", |field| field.integer(0, 9));
        let storage_provider_id = fields.optional("storageProviderId", provider_id);
        let (recipe, recipe_stage_input) = recipe?;
        Some(Self {
            wanted: Wanted { recipe, format: format? },
            stage_input: stage_input.or(recipe_stage_input).unwrap_or(true),
            webhook_url,
            metadata,
            priority: priority.and_then(|number| u8::try_from(number).ok()).unwrap_or(PRIORITY),
            storage_provider_id,
        })
    }
}

fn mode(field: Field) -> Option<()> {
    match choose(field, &["recipe", "ffmpeg"])? {
        (_, "recipe") => Some(()),
        (field, _) => field.refuse("`ffmpeg` is not offered by this version; use `recipe`"),
    }
}

/// Whether the body asks for several inputs to be joined.
fn joins(body: &Value) -> bool {
    body.pointer("/recipe/name").and_then(Value::as_str) == Some("concat")
}

fn inputs(fields: &mut Fields, joins: bool, policy: Policy) -> Option<Vec<Input>> {
    if joins {
        fields.optional("input", |field| field.refuse::<()>("is not for concat; name its inputs in `input_files`"));
        return fields.required("input_files", |field| input_files(field, policy));
    }
    fields.optional("input_files", |field| field.refuse::<()>("is for concat; this recipe takes one `input`"));
    fields.required("input", |field| input(field, policy)).map(|input| vec![input])
}

/// `in_*` → URL. Their order is that of the request.
fn input_files(field: Field, policy: Policy) -> Option<Vec<Input>> {
    let entries = field.entries(2, MAX_INPUTS)?;
    let urls = entries.into_iter().map(|(name, field)| {
        let rest = name.strip_prefix("in_").unwrap_or_default();
        let named =
            (1..=64).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if named { field.url(policy) } else { field.refuse("must be named `in_` and letters, digits or underscores") }
    });
    // All are read before any is missed, so that every problem is named.
    let urls: Vec<_> = urls.collect();
    urls.into_iter().map(|url| url.map(Input::public)).collect()
}

fn input(field: Field, policy: Policy) -> Option<Input> {
    let mut fields = field.object()?;
    if fields.has("uploadId") {
        let upload_id = fields.required("uploadId", upload_id);
        for name in ["url", "headers"] {
            fields.optional(name, |field| field.refuse::<()>("cannot stand beside `uploadId`"));
        }
        fields.end();
        return Some(Input::Upload { upload_id: upload_id? });
    }
    let url = fields.required("url", |field| field.url(policy));
    let headers = fields.optional("headers", |field| field.pairs(32, header_problem));
    fields.end();
    Some(Input::Url { url: url?, headers: headers.unwrap_or_default(), sealed_headers: None })
}

fn upload_id(field: Field) -> Option<Id> {
    match field.string().and_then(|text| text.parse().ok()) {
        Some(id) => Some(id),
        None => field.refuse("must be an id as `POST /v1/uploads` answers it"),
    }
}

/// The id of a storage provider. Whether there is one shows later.
pub(crate) fn provider_id(field: Field) -> Option<Id> {
    match field.string().and_then(|text| text.parse().ok()) {
        Some(id) => Some(id),
        None => field.refuse("must be an id as `GET /v1/settings/storage-providers` lists it"),
    }
}

fn output(field: Field) -> Option<Format> {
    let mut fields = field.object()?;
    let names = Format::ALL.map(Format::extension);
    let format = fields.required("format", |field| choose(field, &names).and_then(|(_, name)| Format::from_name(name)));
    fields.end();
    format
}

/// One of some names. Gives the field back, for problems that show later.
fn choose<'a>(field: Field, names: &[&'a str]) -> Option<(Field, &'a str)> {
    let known = field.string().and_then(|text| names.iter().find(|name| **name == text).copied());
    match known {
        Some(name) => Some((field, name)),
        None => field.refuse(&format!("must be one of {}", names.join(", "))),
    }
}

/// Names are tokens (RFC 9110 section 5.6.2), values printable. What belongs to the transfer itself is ours.
fn header_problem(name: &str, value: &str) -> Option<&'static str> {
    const OURS: [&str; 8] =
        ["host", "range", "if-range", "content-length", "transfer-encoding", "connection", "accept-encoding", "te"];
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        Some("is not a header name")
    } else if OURS.contains(&name.to_ascii_lowercase().as_str()) {
        Some("is set by the node itself and cannot be given")
    } else if value.len() > 4096 || !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        Some("must be at most 4096 printable ASCII characters")
    } else {
        None
    }
}

fn metadata_problem(name: &str, value: &str) -> Option<&'static str> {
    if name.is_empty() || name.chars().count() > 64 {
        Some("must have a name of 1 to 64 characters")
    } else if value.chars().count() > 512 {
        Some("must be at most 512 characters")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::media::{Compress, RateControl, Recipe, VideoCodec};

    const STRICT: Policy = Policy { allow_loopback: false };

    fn valid() -> Value {
        json!({
            "mode": "recipe",
            "input": {"url": "https://example.com/a.mov"},
            "output": {"format": "mp4"},
            "recipe": {"name": "compress"}
        })
    }

    /// The valid body with one value replaced, by its JSON pointer.
    fn with(pointer: &str, value: Value) -> Value {
        let mut body = valid();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        body.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").insert(name.into(), value);
        body
    }

    fn problems(body: &Value) -> Vec<String> {
        JobRequest::parse(body, STRICT).map_or_else(|invalid| invalid.problems, |_| Vec::new())
    }

    #[test]
    fn the_smallest_request_gets_the_defaults() {
        let request = JobRequest::parse(&valid(), STRICT).expect("valid");
        assert_eq!(
            request.wanted.recipe,
            Recipe::Compress(Compress { rate: RateControl::Crf(28), codec: VideoCodec::H264 })
        );
        assert_eq!((request.priority, request.stage_input, request.webhook_url), (5, true, None));
    }

    #[test]
    fn a_stored_request_reads_back_as_it_was() {
        let request = JobRequest::parse(&with("/metadata", json!({"b": "1", "a": "2"})), STRICT).expect("valid");
        let text = serde_json::to_string(&request).expect("serialises");
        assert_eq!(serde_json::from_str::<JobRequest>(&text).expect("reads"), request);
    }

    #[test]
    fn each_problem_is_named_by_its_path() {
        let table = [
            ("/mode", json!("other"), "mode: must be one of recipe, ffmpeg"),
            ("/mode", json!("ffmpeg"), "mode: `ffmpeg` is not offered by this version; use `recipe`"),
            ("/input", json!("https://example.com"), "input: must be an object, not a string"),
            ("/input/url", json!("http://example.com/a"), "input.url: must be https"),
            ("/input/url", json!(7), "input.url: must be an https URL, not a number"),
            ("/input/url", Value::Null, "input.url: is required"),
            (
                "/input/headers",
                json!({"Range": "x"}),
                "input.headers.Range: is set by the node itself and cannot be given",
            ),
            ("/input/uploadId", json!("01M86XHHP6260EWAT1TBY7T000"), "input.url: cannot stand beside `uploadId`"),
            ("/input", json!({"uploadId": 7}), "input.uploadId: must be an id as `POST /v1/uploads` answers it"),
            ("/output/format", json!("avi"), "output.format: must be one of mp4, webm, mov, gif, mp3"),
            (
                "/output/format",
                json!("gif"),
                "recipe.name: `compress` cannot make gif; output.format may be mp4, webm, mov",
            ),
            ("/recipe/name", json!("magic"), "recipe.name: must be one of webReady, proxy, compress"),
            ("/input_files", json!({}), "input_files: is for concat; this recipe takes one `input`"),
            ("/recipe/crf", json!(52), "recipe.crf: must be 0 to 51, a whole number"),
            ("/recipe/crf", json!(-1), "recipe.crf: must be 0 to 51, a whole number"),
            ("/recipe/crf", json!(1.5), "recipe.crf: must be 0 to 51, a whole number"),
            ("/recipe/crf", json!(-1.0), "recipe.crf: must be 0 to 51, a whole number"),
            ("/recipe/crf", json!(1e300), "recipe.crf: must be 0 to 51, a whole number"),
            ("/recipe/crf", json!("20"), "recipe.crf: must be 0 to 51, a whole number, not a string"),
            ("/recipe/codec", json!("vp9"), "recipe.codec: does not fit output.format"),
            ("/recipe/seekSeconds", json!(1), "recipe.seekSeconds: unknown field"),
            ("/webhookUrl", json!("https://10.0.0.1/"), "webhookUrl: must not point to a private"),
            ("/priority", json!(10), "priority: must be 0 to 9, a whole number"),
            ("/stageInput", json!("yes"), "stageInput: must be true or false, not a string"),
            ("/metadata", json!({"a": 1}), "metadata.a: must be a string, not a number"),
            ("/frobnicate", json!(true), "frobnicate: unknown field"),
        ];
        for (pointer, value, expected) in table {
            let found = problems(&with(pointer, value));
            assert_eq!(found.len(), 1, "{pointer}: {found:?}");
            assert!(found[0].starts_with(expected), "{}\n is not\n{expected}", found[0]);
        }
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_fraction_of_nothing() {
        let parsed = |crf: Value| JobRequest::parse(&with("/recipe/crf", crf), STRICT).expect("valid");
        assert_eq!(parsed(json!(20.0)), parsed(json!(20)));
    }

    fn concat(input_files: &Value) -> Value {
        json!({"mode": "recipe", "output": {"format": "mp4"}, "recipe": {"name": "concat"}, "input_files": input_files})
    }

    #[test]
    fn joined_inputs_keep_the_order_of_the_request() {
        let files =
            json!({"in_z": "https://example.com/1", "in_a": "https://example.com/2", "in_10": "https://example.com/3"});
        let request = JobRequest::parse(&concat(&files), STRICT).expect("valid");
        let urls: Vec<_> =
            request.inputs.iter().map(|input| serde_json::to_value(input).expect("a value")["url"].clone()).collect();
        assert_eq!(urls, ["https://example.com/1", "https://example.com/2", "https://example.com/3"]);
    }

    #[test]
    fn each_problem_of_joined_inputs_is_named_by_its_path() {
        let one = "https://example.com/1";
        let many: serde_json::Map<_, _> = (0..33).map(|n| (format!("in_{n}"), json!(one))).collect();
        for (files, expected) in [
            (json!([one, one]), "input_files: must be an object of 2 to 32 entries, not an array"),
            (json!({"in_1": one}), "input_files: must be an object of 2 to 32 entries"),
            (Value::Object(many), "input_files: must be an object of 2 to 32 entries"),
            (json!({"in_1": one, "out_2": one}), "input_files.out_2: must be named `in_`"),
            (json!({"in_1": one, "in_": one}), "input_files.in_: must be named `in_`"),
            (json!({"in_1": one, "in_2": "http://example.com"}), "input_files.in_2: must be https"),
            (json!({"in_1": one, "in_2": 7}), "input_files.in_2: must be an https URL, not a number"),
            (Value::Null, "input_files: is required"),
        ] {
            let found = problems(&concat(&files));
            assert_eq!(found.len(), 1, "{files}: {found:?}");
            assert!(found[0].starts_with(expected), "{}\n is not\n{expected}", found[0]);
        }
        let mut both = concat(&json!({"in_1": one, "in_2": one}));
        both["input"] = json!({"url": one});
        assert_eq!(problems(&both), ["input: is not for concat; name its inputs in `input_files`"]);
    }

    #[test]
    fn all_problems_come_in_one_answer() {
        let body = json!({"input": {"url": 1, "x": 2}, "output": {"format": "mp4"},
            "recipe": {"name": "compress", "crf": 99, "codec": "av1"}, "y": 3});
        let found = problems(&body);
        for path in ["mode:", "input.url:", "input.x:", "recipe.crf:", "recipe.codec:", "y:"] {
            assert!(found.iter().any(|problem| problem.starts_with(path)), "{path} in {found:?}");
        }
        assert_eq!(found.len(), 6, "{found:?}");
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for body in [json!([]), json!(null), json!("x"), json!(1)] {
            assert!(problems(&body)[0].starts_with("body: must be a JSON object"), "{body}");
        }
    }

    #[test]
    fn seconds_become_whole_microseconds() {
        let body = json!({"mode": "recipe", "input": {"url": "https://example.com/a"}, "output": {"format": "png"},
            "recipe": {"name": "thumbnail", "seekSeconds": 1.234_567_8}});
        let request = JobRequest::parse(&body, STRICT).expect("valid");
        let Recipe::Thumbnail(thumbnail) = request.wanted.recipe else { panic!("a thumbnail") };
        assert_eq!(thumbnail.seek_us, 1_234_568);
    }

    fn sealed_by(request: JobRequest, job: Id) -> JobRequest {
        request.seal("secret", || Ok::<_, ()>([7; NONCE_BYTES]), job).expect("a nonce")
    }

    #[test]
    fn headers_are_sealed_for_their_job_opened_with_the_secret_and_forgotten_at_its_end() {
        let value = "Bearer origin-secret";
        let job: Id = "01M86XHHP6260EWAT1TBY7T000".parse().expect("an id");
        let asked = JobRequest::parse(&with("/input/headers", json!({"Authorization": value})), STRICT).expect("valid");
        assert!(asked.has_open_headers());
        let sealed = sealed_by(asked.clone(), job);
        let stored = serde_json::to_string(&sealed).expect("serialises");
        assert!(!stored.contains("origin-secret") && !stored.contains("Authorization"), "{stored}");

        let mut read: JobRequest = crate::json::from_str(&stored).expect("reads");
        assert!(read == sealed && !read.has_open_headers() && !read.has_forgotten_headers());
        let opened = read.inputs[0].open_headers("secret", job).expect("the same secret and job");
        assert_eq!(opened.iter().collect::<Vec<_>>(), [("Authorization", value)]);
        assert_eq!(read.inputs[0].open_headers("another", job), None);
        let other = "01M86XHHP6260EWAT1TBY7T001".parse().expect("an id");
        assert_eq!(read.inputs[0].open_headers("secret", other), None);

        read.forget_headers();
        assert!(read.has_forgotten_headers() && !read.may_pass_through());
        assert_eq!(read.inputs[0].open_headers("secret", job), None);
        let read = crate::json::from_str::<JobRequest>(&serde_json::to_string(&read).expect("serialises"));
        assert!(read.is_ok_and(|read| read.has_forgotten_headers()));
    }

    #[test]
    fn what_has_no_headers_is_sealed_and_forgotten_as_it_is() {
        let job = "01M86XHHP6260EWAT1TBY7T000".parse().expect("an id");
        let one = "https://example.com/1";
        for body in [valid(), with("/input", json!({"uploadId": job})), concat(&json!({"in_1": one, "in_2": one}))] {
            let request = JobRequest::parse(&body, STRICT).expect("valid");
            let mut sealed = sealed_by(request.clone(), job);
            sealed.forget_headers();
            assert!(sealed == request && !sealed.has_forgotten_headers(), "{sealed:?}");
            assert_eq!(sealed.inputs[0].open_headers("any", job), Some(Headers::new()));
        }
    }

    #[test]
    fn an_input_is_passed_through_only_where_its_own_url_serves_everyone_and_nobody_named_a_bucket() {
        let web_ready = with("/recipe", json!({"name": "webReady"}));
        let id = "01M86XHHP6260EWAT1TBY7T000";
        let changed = |pointer: &str, value: Value| {
            let mut body = web_ready.clone();
            let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
            body.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object").insert(name.into(), value);
            body
        };
        let table = [
            (web_ready.clone(), true),
            (changed("/input/headers", json!({})), true),
            (changed("/stageInput", json!(false)), true),
            (changed("/input/headers", json!({"Authorization": "Bearer x"})), false),
            (changed("/input", json!({"uploadId": id})), false),
            (changed("/storageProviderId", json!(id)), false),
            (changed("/recipe/crf", json!(20)), false),
            (changed("/recipe/width", json!(320)), false),
            (valid(), false),
            (with("/recipe", json!({"name": "transcode"})), false),
        ];
        for (body, expected) in table {
            let request = JobRequest::parse(&body, STRICT).expect("valid");
            assert_eq!(request.may_pass_through(), expected, "{body}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        let names = prop_oneof![
            Just("mode"),
            Just("input"),
            Just("url"),
            Just("output"),
            Just("format"),
            Just("recipe"),
            Just("name"),
            Just("crf"),
            Just("metadata"),
            Just("seekSeconds"),
            Just("other")
        ];
        leaf.prop_recursive(4, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..6).prop_map(|pairs| {
                    Value::Object(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_body_can_panic_the_parser(body in any_json()) {
            let _ = JobRequest::parse(&body, STRICT);
        }
    }
}
