//! Sending webhooks: the Queue's consumer, and one attempt over HTTP.

use std::time::Duration;

use futures_util::{
    StreamExt,
    future::{Either, join_all, select},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use worker::{
    AbortController, Context, Delay, Env, Fetch, Headers, MessageBatch, MessageExt, Method, RawMessage, Request,
    RequestInit, RequestRedirect, Response, console_error, js_sys,
};
use xora_shared::{
    delivery::{ANSWER_BYTES, ATTEMPT_TIMEOUT_MS, Outcome, judge_status},
    id::Id,
    job::view::JobView,
    net::{Policy, check_url},
    time::UnixMs,
};

use crate::{
    config,
    error::ApiError,
    shard::{self, Call, Claimed, Recorded},
};

/// What the Queue carries: ids, because the row is the record.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message {
    /// The delivery.
    pub delivery: Id,
    /// The attempt that this message is for.
    pub attempt: u32,
}

/// How one attempt went.
#[derive(Clone, Debug)]
pub struct Sent {
    /// How it ended.
    pub outcome: Outcome,
    /// 0 without an answer.
    pub status: u16,
    /// The start of the answer.
    pub answer: String,
}

/// The payload of a webhook (API section 5).
pub fn body(job: &JobView, ended: UnixMs) -> Result<String, ApiError> {
    Ok(serde_json::to_string(&json!({"data": job, "timestamp": ended.0}))?)
}

/// Takes a batch of messages. Each attempt is claimed and then sent in the background, so that one slow receiver holds up
/// nobody else (the flag `queue_consumer_no_wait_for_wait_until` lets the next batch in).
pub async fn consume(batch: &MessageBatch<serde_json::Value>, env: &Env, ctx: &Context) {
    join_all(batch.raw_iter().map(|raw| consume_one(raw, env, ctx))).await;
}

async fn consume_one(raw: RawMessage, env: &Env, ctx: &Context) {
    let Some(message) = decode(&raw) else {
        console_error!("queue: a message that is not ours is dropped");
        return raw.ack();
    };
    let Message { delivery, attempt } = message;
    match shard::call::<Option<Claimed>>(env, delivery, &Call::Claim { delivery, attempt }).await {
        Ok(Some(claimed)) => {
            let env = env.clone();
            ctx.wait_until(async move { deliver(&env, delivery, attempt, claimed).await });
            raw.ack();
        }
        Ok(None) => raw.ack(),
        Err(error) => {
            console_error!("queue: delivery {delivery} cannot be claimed: {error:?}");
            raw.retry();
        }
    }
}

fn decode(raw: &RawMessage) -> Option<Message> {
    let text = js_sys::JSON::stringify(&raw.body()).ok()?;
    serde_json::from_str(&String::from(text)).ok()
}

/// Sends a claimed attempt and records how it went. If the record cannot be made, the claim runs out and the attempt is
/// made again.
async fn deliver(env: &Env, delivery: Id, attempt: u32, claimed: Claimed) {
    let started = config::now();
    let Sent { outcome, status, answer } = send(&claimed.url, claimed.body, config::policy(env)).await;
    let duration_ms = config::now().since(started);
    let recorded = Recorded { delivery, attempt, outcome, status, duration_ms, answer };
    if let Err(error) = shard::call::<()>(env, delivery, &Call::Record(recorded)).await {
        console_error!("delivery {delivery}: attempt {attempt} cannot be recorded: {error:?}");
    }
}

/// Makes one attempt. The URL is judged again: the policy may have changed since it was accepted.
pub async fn send(url: &str, body: String, policy: Policy) -> Sent {
    if check_url(url, policy).is_err() {
        return Sent { outcome: Outcome::RefusedByPolicy, status: 0, answer: String::new() };
    }
    let controller = AbortController::default();
    let signal = controller.signal();
    let exchange = async {
        let mut response = Fetch::Request(request(url, body)?).send_with_signal(&signal).await?;
        let status = response.status_code();
        // An answer that breaks off after its status still has that status.
        let answer = read_start(&mut response).await.unwrap_or_default();
        Ok::<_, worker::Error>((status, answer))
    };
    let timeout = Delay::from(Duration::from_millis(ATTEMPT_TIMEOUT_MS.unsigned_abs()));
    let sent = match select(Box::pin(exchange), Box::pin(timeout)).await {
        Either::Left((Ok((status, answer)), _)) => Sent { outcome: judge_status(status), status, answer },
        Either::Left((Err(_), _)) => Sent { outcome: Outcome::Network, status: 0, answer: String::new() },
        Either::Right(((), _)) => Sent { outcome: Outcome::Timeout, status: 0, answer: String::new() },
    };
    // Frees the connection of an answer that was not read to its end.
    controller.abort();
    sent
}

fn request(url: &str, body: String) -> worker::Result<Request> {
    let headers = Headers::new();
    headers.set("Content-Type", "application/json")?;
    headers.set("User-Agent", concat!("xora/", env!("CARGO_PKG_VERSION")))?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_body(Some(body.into()));
    init.redirect = RequestRedirect::Manual;
    Request::new_with_init(url, &init)
}

/// The first bytes of an answer, which may be endless: read as a stream and left there.
async fn read_start(response: &mut Response) -> worker::Result<String> {
    let mut bytes = Vec::new();
    let mut stream = response.stream()?;
    while bytes.len() < ANSWER_BYTES {
        match stream.next().await {
            Some(chunk) => bytes.extend(chunk?),
            None => break,
        }
    }
    bytes.truncate(ANSWER_BYTES);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
