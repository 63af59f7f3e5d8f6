//! How the Worker calls its Durable Objects: the operation is the path, the body JSON. The object's answer is the
//! caller's: what it says is passed on as it stands, and parsed only where the Worker needs it itself.

use serde::{Serialize, de::DeserializeOwned};
use web_sys::RequestInit;
use worker::{Headers, Request, Response, Result, Stub};
use xora_shared::json;

use crate::{error::ApiError, routes::Reply};

/// Header with the origin that a caller reached us under, for links in the answer.
const ORIGIN: &str = "x-xora-origin";
/// Header with [`Speaker::key`].
const SPEAKER_KEY: &str = "x-xora-speaker-key";
/// Header with [`Speaker::name`].
const SPEAKER_NAME: &str = "x-xora-speaker-name";

/// The node that sent a message. Only the Worker says who it is: what a client sends reaches no object but as a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Id of its API key.
    pub key: String,
    /// Its name as `xora_shared::protocol::NODE_NAME` carries it, if the message had that header.
    pub name: Option<String>,
}

/// Asks an object for an answer that is a stream. Refusals are none.
pub async fn open(stub: &Stub, op: &str, body: String) -> Result<Response, ApiError> {
    let mut response = call(stub, op, "", None, body).await?;
    if response.status_code() < 400 { Ok(response) } else { Err(ApiError::parse(&response.text().await?)?) }
}

async fn call(stub: &Stub, op: &str, origin: &str, speaker: Option<&Speaker>, body: String) -> Result<Response> {
    let (init, headers) = (RequestInit::new(), Headers::new());
    headers.set(ORIGIN, origin)?;
    if let Some(Speaker { key, name }) = speaker {
        headers.set(SPEAKER_KEY, key)?;
        if let Some(name) = name {
            headers.set(SPEAKER_NAME, name)?;
        }
    }
    init.set_method("POST");
    init.set_headers(&headers.0);
    init.set_body(&body.into());
    let request = web_sys::Request::new_with_str_and_init(&format!("https://object/{op}"), &init)?;
    stub.fetch_with_request(request.into()).await
}

/// Asks an object and passes its answer on, refusals included. Messages of nodes name their speaker.
pub async fn forward(
    stub: &Stub,
    op: &str,
    origin: &str,
    speaker: Option<&Speaker>,
    body: String,
) -> Result<Reply, ApiError> {
    let mut response = call(stub, op, origin, speaker, body).await?;
    Ok(Reply { status: response.status_code(), body: response.text().await? })
}

/// Asks an object for something that the Worker needs itself. Answers JSON.
pub async fn ask(stub: &Stub, op: &str, speaker: Option<&Speaker>, body: String) -> Result<String, ApiError> {
    let Reply { status, body } = forward(stub, op, "", speaker, body).await?;
    if status < 400 { Ok(body) } else { Err(ApiError::parse(&body)?) }
}

/// An operation as it reaches the object.
pub struct Asked {
    /// Which.
    pub op: String,
    /// The origin that the caller reached us under.
    pub origin: String,
    /// The node that sent it, if a node did.
    pub speaker: Option<Speaker>,
    body: String,
}

impl Asked {
    /// Reads it.
    pub async fn receive(req: &mut Request) -> Result<Self, ApiError> {
        let op = req.path().trim_start_matches('/').to_owned();
        let headers = req.headers();
        let origin = headers.get(ORIGIN)?.unwrap_or_default();
        let name = headers.get(SPEAKER_NAME)?;
        let speaker = headers.get(SPEAKER_KEY)?.map(|key| Speaker { key, name });
        Ok(Self { op, origin, speaker, body: req.text().await? })
    }

    /// Its body. Nodes send theirs straight through, so what does not parse is the sender's fault.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        json::from_str(&self.body).map_err(|error| ApiError::invalid(format!("body: {error}")))
    }
}

/// An answer, in the object.
pub fn reply<T: Serialize>(value: &T) -> Result<Reply, ApiError> {
    Ok(Reply { status: 200, body: serde_json::to_string(value)? })
}

/// An answer or a refusal, as the object's response.
pub fn answer(result: Result<Reply, ApiError>) -> Result<Response> {
    let Reply { status, body } = result.unwrap_or_else(|error| error.reply());
    Ok(Response::ok(body)?.with_status(status))
}
