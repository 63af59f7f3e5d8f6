//! Sending webhooks: the Queue's consumer, and one attempt over HTTP.

use std::time::Duration;

use futures_util::future::{join, join_all};
use serde::{Deserialize, Serialize};
use worker::{Context, Delay, Env, Headers, MessageBatch, MessageExt, RawMessage, console_error, js_sys};
use xora_shared::{
    delivery::{ANSWER_BYTES, ATTEMPT_TIMEOUT_MS, Outcome, Wish, judge_status},
    id::Id,
    job::view::JobView,
    json,
    net::{Policy, check_url},
    time::UnixMs,
    webhook::Secrets,
};

use crate::{
    account, config,
    error::ApiError,
    exchange::{self, Answer, Unanswered, exchange},
    shard::{self, Claimed, Entrusted, Op, Recorded},
};

/// What the Queue carries: ids, because the row is the record.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Message {
    /// The delivery.
    pub delivery: Id,
    /// The attempt that this message is for.
    pub attempt: u32,
}

/// The queue of messages that could not be claimed. Its name is in `wrangler.toml`.
const DEAD: &str = "-dead";

/// One attempt, ready to go.
pub struct Outgoing<'a> {
    /// Where.
    pub url: &'a str,
    /// `webhook-id`: the same on every attempt.
    pub id: &'a str,
    /// The payload.
    pub body: String,
    /// What signs it.
    pub secrets: &'a Secrets,
}

/// How one attempt went.
#[derive(Clone, Debug)]
pub struct Sent {
    /// How it ended.
    pub outcome: Outcome,
    /// 0 without an answer.
    pub status: u16,
    /// What the answer says about the next attempt.
    pub wish: Wish,
    /// The start of the answer.
    pub answer: String,
}

/// The payload of a webhook (API section 5).
pub fn body(job: &JobView, ended: UnixMs) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct Payload<'a> {
        data: &'a JobView,
        timestamp: i64,
    }
    Ok(serde_json::to_string(&Payload { data: job, timestamp: ended.0 })?)
}

/// Takes a batch of messages. Each attempt is claimed and then sent in the background, so that one slow receiver holds up
/// nobody else (the flag `queue_consumer_no_wait_for_wait_until` lets the next batch in).
pub async fn consume(batch: &MessageBatch<serde_json::Value>, env: &Env, ctx: &Context) {
    let dead = batch.queue().ends_with(DEAD);
    join_all(batch.raw_iter().map(async |raw| match decode(&raw) {
        Some(message) if dead => bury(&raw, message, env).await,
        Some(message) => consume_one(raw, message, env, ctx).await,
        None => {
            console_error!("queue: a message that is not ours is dropped");
            raw.ack();
        }
    }))
    .await;
}

async fn consume_one(raw: RawMessage, message: Message, env: &Env, ctx: &Context) {
    match Taken::take(message, env).await {
        Ok(Some(taken)) => {
            let env = env.clone();
            ctx.wait_until(async move { deliver(&env, taken).await });
            raw.ack();
        }
        Ok(None) => raw.ack(),
        Err(error) => {
            console_error!("queue: delivery {} cannot be claimed: {error}", message.delivery);
            raw.retry();
        }
    }
}

/// An attempt that is ours to make.
struct Taken {
    delivery: Id,
    claimed: Claimed,
    secrets: Result<Secrets, ApiError>,
}

impl Taken {
    /// Claims an attempt, and reads beside that what signs it.
    async fn take(message: Message, env: &Env) -> Result<Option<Self>, ApiError> {
        let delivery = message.delivery;
        let claim = shard::ask::<Option<Claimed>>(env, delivery.place().shard(), Op::Claim, &message);
        let (claimed, secrets) = join(claim, account::secrets_for_signing(env)).await;
        Ok(claimed?.map(|claimed| Self { delivery, claimed, secrets }))
    }
}

/// A message that could not be claimed however often the Queue tried leaves its trace on the row.
async fn bury(raw: &RawMessage, message: Message, env: &Env) {
    let Message { delivery, attempt } = message;
    console_error!("queue: gave up handing out attempt {attempt} of delivery {delivery}");
    match shard::ask::<()>(env, delivery.place().shard(), Op::DeadLetter, &message).await {
        Ok(()) => raw.ack(),
        Err(_) => raw.retry(),
    }
}

fn decode(raw: &RawMessage) -> Option<Message> {
    // What has no JSON form, such as `undefined`, becomes `undefined` instead of text.
    let text = js_sys::JSON::stringify(&raw.body()).ok()?.as_string()?;
    json::from_str(&text).ok()
}

/// How long after its beginning a sender still goes on with the next attempt, in milliseconds: with that attempt's time it
/// stays below what the platform allows in the background.
const GO_ON_MS: i64 = 5_000;

/// Makes a claimed attempt, and those after it that are soon.
async fn deliver(env: &Env, mut taken: Taken) {
    let begun = config::now();
    loop {
        let delivery = taken.delivery;
        let Some(Entrusted { attempt, at_ms }) = make(env, taken, begun).await else { return };
        let wait = at_ms.saturating_sub(config::now().0).max(0);
        Delay::from(Duration::from_millis(wait.unsigned_abs())).await;
        match Taken::take(Message { delivery, attempt }, env).await {
            Ok(Some(next)) => taken = next,
            Ok(None) => return,
            // Its message is sent a little later.
            Err(error) => return console_error!("delivery {delivery} cannot be claimed: {error}"),
        }
    }
}

/// Makes one attempt and records how it went. What cannot be signed is given back. If the record cannot be made, the claim
/// runs out and the attempt is made again.
async fn make(env: &Env, Taken { delivery, claimed, secrets }: Taken, begun: UnixMs) -> Option<Entrusted> {
    let Claimed { claim, url, body } = claimed;
    let started = config::now();
    let Sent { outcome, status, wish, answer } = match secrets {
        Ok(secrets) => {
            let outgoing = Outgoing { url: &url, id: &delivery.to_string(), body, secrets: &secrets };
            send(outgoing, config::policy(env)).await
        }
        Err(error) => {
            console_error!("delivery {delivery}: {claim:?} cannot be signed: {error}");
            unanswered(Outcome::Interrupted)
        }
    };
    let ended = config::now();
    let (ended_ms, duration_ms, goes_on) = (ended.0, ended.since(started), ended.since(begun) < GO_ON_MS);
    let recorded = Recorded { delivery, claim, outcome, status, ended_ms, duration_ms, wish, answer, goes_on };
    match shard::ask(env, delivery.place().shard(), Op::Record, &recorded).await {
        Ok(entrusted) => entrusted,
        Err(error) => {
            console_error!("delivery {delivery}: {claim:?} cannot be recorded: {error}");
            None
        }
    }
}

/// Makes one attempt. The URL is judged again: the policy may have changed since it was accepted. A status that came in
/// time stands, however the rest of the answer goes.
pub async fn send(Outgoing { url, id, body, secrets }: Outgoing<'_>, policy: Policy) -> Sent {
    if check_url(url, policy).is_err() {
        return unanswered(Outcome::RefusedByPolicy);
    }
    let now = config::now();
    let headers = [
        ("Content-Type", "application/json".to_owned()),
        ("User-Agent", concat!("xora/", env!("CARGO_PKG_VERSION")).to_owned()),
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", now.0.div_euclid(1000).to_string()),
        ("webhook-signature", secrets.sign(id, now, &body)),
    ];
    let outgoing = exchange::Outgoing { method: "POST", url, headers: &headers, body: &body };
    let within = Duration::from_millis(ATTEMPT_TIMEOUT_MS.unsigned_abs());
    match exchange(outgoing, within, ANSWER_BYTES).await {
        Ok(Answer { status, headers, text, .. }) => {
            let wish = Wish { retry_after_ms: retry_after_ms(&headers), gone: status == 410 };
            Sent { outcome: judge_status(status), status, wish, answer: text }
        }
        Err(Unanswered::Network) => unanswered(Outcome::Network),
        Err(Unanswered::Timeout) => unanswered(Outcome::Timeout),
    }
}

fn unanswered(outcome: Outcome) -> Sent {
    Sent { outcome, status: 0, wish: Wish::default(), answer: String::new() }
}

/// `Retry-After`, in seconds or as a date (RFC 9110 section 10.2.3), in milliseconds from now.
fn retry_after_ms(headers: &Headers) -> Option<i64> {
    let value = headers.get("Retry-After").ok().flatten()?;
    if let Ok(seconds) = value.trim().parse::<u32>() {
        return Some(i64::from(seconds) * 1000);
    }
    #[expect(clippy::cast_possible_truncation, reason = "dates are far below 2^53; what is no date becomes 0")]
    let at = js_sys::Date::parse(&value) as i64;
    (at != 0).then(|| UnixMs(at).since(config::now()))
}
