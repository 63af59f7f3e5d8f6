//! Calls to the edge (`xora_shared::protocol`).

use std::{
    error::Error,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{Client, StatusCode, header::AUTHORIZATION};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use tracing::{info, warn};
use url::Url;
use xora_shared::protocol::{
    COMPLETE, Complete, FAIL, Fail, HEARTBEAT, Heartbeat, HeartbeatAnswer, INPUT_BEGIN, INPUT_FINISH, InputBegin,
    InputBegun, InputFinish, LEASE, LeaseAnswer, LeaseRequest, NODE_NAME, NodeInfo, OUTPUT_BEGIN, OUTPUT_FINISH,
    OUTPUT_TARGETS, OutputBegin, OutputBegun, OutputFinish, OutputFinished, OutputTargets, RELEASE, Release,
    name_for_header,
};

use crate::config::Secret;

/// The edge answers a call from rows and memory.
const QUICK: Duration = Duration::from_secs(10);
/// Storage puts the parts of a large object together.
const SLOW: Duration = Duration::from_mins(2);

/// Between two warnings that it does not answer.
const WARN_AGAIN: Duration = Duration::from_mins(1);

/// The edge, as this node sees it.
pub struct Edge {
    http: Client,
    base: Url,
    token: Secret,
    /// Who we are.
    pub node: NodeInfo,
    contact: Mutex<Contact>,
}

/// How the edge answers.
#[derive(Default)]
struct Contact {
    /// When it last did.
    answered: Option<Instant>,
    /// Why it did not at the last call.
    trouble: Option<Trouble>,
    /// When this was last said in the log.
    warned: Option<Instant>,
}

/// Why the edge is of no use to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It refuses the key.
    Key,
    /// It does not answer, for this reason.
    Silent(String),
}

/// Why a call did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// 409: the lease is someone else's or over.
    #[error("the lease is over")]
    Stale,
    /// 401 or 403.
    #[error("the edge refuses this node's key; XORA_NODE_TOKEN needs the scope `node`")]
    Key,
    /// Another 4xx: asking again would not help.
    #[error("the edge refuses the request with status {0}")]
    Refused(u16),
    /// No answer, 5xx or one that is not understood: ask again.
    #[error("the edge does not answer")]
    Unreachable,
}

/// Why a call about an output did not succeed, and what the edge said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What to decide by.
    pub error: CallError,
    /// For people. Empty where the edge said nothing.
    pub message: String,
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self { error, message: String::new() }
    }
}

impl Edge {
    /// An edge at a URL that ends in a slash.
    pub fn new(http: Client, base: Url, token: Secret, node: NodeInfo) -> Self {
        Self { http, base, token, node, contact: Mutex::default() }
    }

    /// `POST /v1/node/lease`
    pub async fn lease(&self, light_only: bool) -> Result<LeaseAnswer, CallError> {
        self.post(LEASE, &LeaseRequest { node: self.node.clone(), light_only }, QUICK).await
    }

    /// `POST /v1/node/heartbeat`
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, CallError> {
        self.post(HEARTBEAT, heartbeat, Duration::from_secs(5)).await
    }

    /// `POST /v1/node/outputs/begin`
    pub async fn begin(&self, begin: &OutputBegin) -> Result<OutputBegun, Refusal> {
        self.ask(OUTPUT_BEGIN, begin, QUICK).await
    }

    /// `POST /v1/node/outputs/targets`
    pub async fn targets(&self, targets: &OutputTargets) -> Result<OutputBegun, Refusal> {
        self.ask(OUTPUT_TARGETS, targets, QUICK).await
    }

    /// `POST /v1/node/outputs/finish`
    pub async fn finish(&self, finish: &OutputFinish) -> Result<OutputFinished, Refusal> {
        self.ask(OUTPUT_FINISH, finish, SLOW).await
    }

    /// `POST /v1/node/inputs/begin`
    pub async fn begin_input(&self, begin: &InputBegin) -> Result<InputBegun, Refusal> {
        self.ask(INPUT_BEGIN, begin, QUICK).await
    }

    /// `POST /v1/node/inputs/finish`
    pub async fn finish_input(&self, finish: &InputFinish) -> Result<(), Refusal> {
        self.ask::<serde_json::Value>(INPUT_FINISH, finish, SLOW).await.map(drop)
    }

    /// `POST /v1/node/complete`
    pub async fn complete(&self, complete: &Complete) -> Result<(), CallError> {
        self.post::<serde_json::Value>(COMPLETE, complete, QUICK).await.map(drop)
    }

    /// `POST /v1/node/fail`
    pub async fn fail(&self, fail: &Fail) -> Result<(), CallError> {
        self.post::<serde_json::Value>(FAIL, fail, QUICK).await.map(drop)
    }

    /// `POST /v1/node/release`
    pub async fn release(&self, release: &Release) -> Result<(), CallError> {
        self.post::<serde_json::Value>(RELEASE, release, QUICK).await.map(drop)
    }

    /// How long ago the edge last answered, if it ever has.
    pub fn silent_for(&self) -> Option<Duration> {
        self.contact().answered.map(|answered| answered.elapsed())
    }

    /// What was wrong with the last call, if anything was.
    pub fn trouble(&self) -> Option<Trouble> {
        self.contact().trouble.clone()
    }

    /// Notes how a call went. Says in the log when that changes, and each minute while it does not get better.
    fn note(&self, trouble: Option<Trouble>) {
        let mut contact = self.contact();
        let before = std::mem::replace(&mut contact.trouble, trouble);
        let Some(trouble) = &contact.trouble else {
            contact.answered = Some(Instant::now());
            if before.is_some() && contact.warned.take().is_some() {
                info!("the edge answers again");
            }
            return;
        };
        if contact.warned.is_none_or(|warned| warned.elapsed() >= WARN_AGAIN) {
            match trouble {
                Trouble::Key => warn!("{}", CallError::Key),
                Trouble::Silent(why) => warn!("no answer from the edge at {}: {why}", self.base),
            }
            contact.warned = Some(Instant::now());
        }
    }

    fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The URL of a path, and the value of the `Authorization` header.
    pub fn address(&self, path: &str) -> Option<(Url, String)> {
        let url = self.base.join(path.trim_start_matches('/')).ok()?;
        Some((url, format!("Bearer {}", self.token.0)))
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, CallError> {
        self.ask(path, body, within).await.map_err(|refusal| refusal.error)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, Refusal> {
        let (url, authorization) = self.address(path).ok_or(CallError::Unreachable)?;
        let request = self.http.post(url).header(AUTHORIZATION, authorization).timeout(within).json(body);
        let request = request.header(NODE_NAME, name_for_header(&self.node.name));
        let answer = async {
            let response =
                request.send().await.map_err(|error| (CallError::Unreachable, why(&error), String::new()))?;
            let status = response.status();
            if status.is_success() {
                return response.json().await.map_err(|error| (CallError::Unreachable, why(&error), String::new()));
            }
            let said: serde_json::Value = response.json().await.unwrap_or_default();
            let message = said["error"]["message"].as_str().unwrap_or_default().to_owned();
            Err((of_status(status), format!("it answers {status}"), message))
        };
        let answer = answer.await;
        self.note(match &answer {
            Ok(_) | Err((CallError::Stale | CallError::Refused(_), ..)) => None,
            Err((CallError::Key, ..)) => Some(Trouble::Key),
            Err((CallError::Unreachable, why, _)) => Some(Trouble::Silent(why.clone())),
        });
        answer.map_err(|(error, _, message)| Refusal { error, message })
    }
}

fn of_status(status: StatusCode) -> CallError {
    match status {
        StatusCode::CONFLICT => CallError::Stale,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CallError::Key,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => CallError::Unreachable,
        status if status.is_client_error() => CallError::Refused(status.as_u16()),
        _ => CallError::Unreachable,
    }
}

/// The innermost reason: the others say only that a request was made.
fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it takes too long".to_owned();
    }
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
