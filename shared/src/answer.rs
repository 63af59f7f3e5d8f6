//! Answers to callers that are no record of their own. Jobs are in [`crate::job::view`].

use serde::Serialize;

use crate::{
    delivery::Outcome, id::Id, job::JobState, nodes::NodeView, preset::Preset, provider::ProviderView, time::UnixMs,
    token::Token, webhook::Secrets,
};

/// `GET /healthz`
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Health {
    /// Whether requests are answered.
    pub ok: bool,
}

/// A job was created, or started again.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// The job.
    pub job_id: Id,
    /// Where it is: `queued`, unless a request with the same idempotency key made it before.
    pub state: JobState,
}

/// `GET /v1/jobs`
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "JobList"))]
#[serde(rename_all = "camelCase")]
pub struct JobList<J> {
    /// Newest first.
    pub jobs: Vec<J>,
    /// Where the next page begins; null on the last.
    pub next_cursor: Option<Id>,
}

/// `GET /v1/nodes`
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct NodeList {
    /// By name.
    pub nodes: Vec<NodeView>,
}

/// `GET /v1/jobs/:id/deliveries`
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct DeliveryLog {
    /// Oldest first.
    pub deliveries: Vec<DeliveryView>,
}

/// One webhook: every attempt to send it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "Delivery"))]
#[serde(rename_all = "camelCase")]
pub struct DeliveryView {
    /// Id, the same as the header `webhook-id`.
    pub id: Id,
    /// Where it goes.
    pub url: String,
    /// Where it is.
    pub state: DeliveryState,
    /// The state of the job that it tells of.
    pub job_state: JobState,
    /// When the job came to that state.
    pub ended_at: UnixMs,
    /// When the next attempt is due, if one waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<UnixMs>,
    /// Every attempt so far.
    pub attempts: Vec<DeliveryAttempt>,
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// An attempt is due.
    Pending,
    /// An attempt is being made.
    Sending,
    /// A receiver took it.
    Delivered,
    /// All attempts failed.
    Abandoned,
}

/// One attempt to send a webhook.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeliveryAttempt {
    /// Its number, from 1.
    pub attempt: u32,
    /// When it began.
    pub started_at: UnixMs,
    /// When it ended.
    pub ended_at: UnixMs,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
    /// The HTTP status, if there was an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Outcome>,
    /// The first 4 KB of the answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// One more attempt of a delivery is on its way.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Redelivered {
    /// The delivery.
    pub id: Id,
    /// Where it is: `pending`.
    pub state: DeliveryState,
}

/// How the sample webhook went.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct WebhookTest {
    /// Whether the answer was 2xx.
    pub ok: bool,
    /// The HTTP status; 0 without an answer.
    pub status: u16,
    /// Why there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Unreached>,
}

/// Why a receiver did not answer.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Unreached {
    /// For programs.
    pub code: Outcome,
    /// For people.
    pub message: &'static str,
}

impl WebhookTest {
    /// What is told of an attempt. `status` is 0 without an answer.
    pub const fn of(outcome: Outcome, status: u16) -> Self {
        let message = match outcome {
            Outcome::Ok => return Self { ok: true, status, error: None },
            Outcome::Status | Outcome::Redirect => return Self { ok: false, status, error: None },
            Outcome::Timeout => "no answer within 15 seconds",
            Outcome::Network | Outcome::Interrupted => "no connection, or it broke",
            Outcome::RefusedByPolicy => "the URL is not allowed; set another",
        };
        Self { ok: false, status: 0, error: Some(Unreached { code: outcome, message }) }
    }
}

/// The secret that signs webhooks.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WebhookSecret {
    /// `whsec_` and base64, as Standard Webhooks has it.
    pub secret: String,
    /// Until when the secret before this one signs as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_secret_expires_at: Option<UnixMs>,
}

impl WebhookSecret {
    /// What is shown of the secrets in force.
    pub fn of(secrets: Secrets) -> Self {
        let previous_secret_expires_at = secrets.previous.map(|previous| UnixMs(previous.until_ms));
        Self { secret: secrets.current, previous_secret_expires_at }
    }
}

/// `GET /v1/settings/storage-providers`
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "StorageProviderList"))]
#[serde(rename_all = "camelCase")]
pub struct ProviderList {
    /// Newest first.
    pub storage_providers: Vec<ProviderView>,
}

/// How the test of a bucket went.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "StorageProviderTest"))]
pub struct ProviderTest {
    /// Whether a small object was written, read and deleted.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<BucketTrouble>,
}

/// What is the matter with a bucket.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct BucketTrouble {
    /// For programs: `refused`, `unavailable`, `differs` or `refused_by_policy`.
    pub code: &'static str,
    /// What was tried: `write`, `read` or `delete`.
    pub step: &'static str,
    /// For people.
    pub message: String,
}

/// `GET /v1/presets` and its starters
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct PresetList {
    /// Newest first; the starters in an order of their own.
    pub presets: Vec<Preset>,
}

/// `GET /v1/tokens`
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct TokenList {
    /// Newest first.
    pub tokens: Vec<Token>,
}

/// A new API key. This is the only time that it is shown.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct NewToken {
    /// What is listed of it.
    #[serde(flatten)]
    pub listed: Token,
    /// The key itself.
    pub token: String,
}
