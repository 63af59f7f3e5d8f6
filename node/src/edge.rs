//! Calls to the edge (`xora_shared::protocol`).

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use reqwest::{Client, StatusCode, header::AUTHORIZATION};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
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

/// The edge, as this node sees it.
pub struct Edge {
    http: Client,
    base: Url,
    token: Secret,
    /// Who we are.
    pub node: NodeInfo,
    started: Instant,
    /// When the edge last answered, in milliseconds since the start; negative before it ever has.
    answered_ms: AtomicI64,
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

impl Edge {
    /// An edge at a URL that ends in a slash.
    pub fn new(http: Client, base: Url, token: Secret, node: NodeInfo) -> Self {
        Self { http, base, token, node, started: Instant::now(), answered_ms: AtomicI64::new(-1) }
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
    pub async fn begin(&self, begin: &OutputBegin) -> Result<OutputBegun, CallError> {
        self.post(OUTPUT_BEGIN, begin, QUICK).await
    }

    /// `POST /v1/node/outputs/targets`
    pub async fn targets(&self, targets: &OutputTargets) -> Result<OutputBegun, CallError> {
        self.post(OUTPUT_TARGETS, targets, QUICK).await
    }

    /// `POST /v1/node/outputs/finish`
    pub async fn finish(&self, finish: &OutputFinish) -> Result<OutputFinished, CallError> {
        self.post(OUTPUT_FINISH, finish, SLOW).await
    }

    /// `POST /v1/node/inputs/begin`
    pub async fn begin_input(&self, begin: &InputBegin) -> Result<InputBegun, CallError> {
        self.post(INPUT_BEGIN, begin, QUICK).await
    }

    /// `POST /v1/node/inputs/finish`
    pub async fn finish_input(&self, finish: &InputFinish) -> Result<(), CallError> {
        self.post::<serde_json::Value>(INPUT_FINISH, finish, SLOW).await.map(drop)
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
        let answered = u64::try_from(self.answered_ms.load(Ordering::Relaxed)).ok()?;
        Some(self.started.elapsed().saturating_sub(Duration::from_millis(answered)))
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
        let (url, authorization) = self.address(path).ok_or(CallError::Unreachable)?;
        let request = self.http.post(url).header(AUTHORIZATION, authorization).timeout(within).json(body);
        let request = request.header(NODE_NAME, name_for_header(&self.node.name));
        let response = request.send().await.map_err(|_| CallError::Unreachable)?;
        let status = response.status();
        if status.is_success() {
            let answer = response.json().await.map_err(|_| CallError::Unreachable)?;
            let now = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
            self.answered_ms.store(now, Ordering::Relaxed);
            return Ok(answer);
        }
        Err(match status {
            StatusCode::CONFLICT => CallError::Stale,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CallError::Key,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => CallError::Unreachable,
            status if status.is_client_error() => CallError::Refused(status.as_u16()),
            _ => CallError::Unreachable,
        })
    }
}
