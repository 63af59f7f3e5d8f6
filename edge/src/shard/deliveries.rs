//! Deliveries: the rows that webhooks are sent from. Sending is the Queue consumer's.

use serde::{Deserialize, Serialize};
use worker::console_error;
use xora_shared::{
    answer::{DeliveryAttempt, DeliveryLog, DeliveryState, DeliveryView},
    delivery::{ANSWER_BYTES, Claim, Outcome, Phase, Wish},
    id::Id,
    job::view::JobView,
    time::UnixMs,
};

use super::{
    JobShard,
    store::{DeliveryRow, LoggedAttempt},
};
use crate::{
    config,
    error::{ApiError, Code},
    webhook::{self, Message},
};

/// Most attempts that a delivery's log keeps, the newest: redelivery by hand is endless, a row is not.
const LOGGED: usize = 64;

/// How far the clock of a sender is believed, in milliseconds.
const CLOCKS_DIFFER_MS: i64 = 250;

/// An attempt that a consumer has taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claimed {
    /// What it holds.
    pub claim: Claim,
    /// Where it goes.
    pub url: String,
    /// What is sent.
    pub body: String,
}

/// A delivery as its log shows it.
fn view(row: DeliveryRow) -> DeliveryView {
    let (state, next) = match row.delivery.phase {
        Phase::Due { at } => (DeliveryState::Pending, Some(at)),
        Phase::Sent { .. } => (DeliveryState::Pending, None),
        Phase::Claimed { .. } => (DeliveryState::Sending, None),
        Phase::Delivered => (DeliveryState::Delivered, None),
        // A failed attempt by hand does not undo that it was delivered before.
        Phase::Abandoned if row.log.iter().any(|logged| logged.outcome == Outcome::Ok) => {
            (DeliveryState::Delivered, None)
        }
        Phase::Abandoned => (DeliveryState::Abandoned, None),
    };
    DeliveryView {
        id: row.id,
        url: row.url,
        state,
        job_state: row.record.state,
        ended_at: UnixMs(row.ended_ms),
        next_attempt_at: next.map(UnixMs),
        attempts: row.log.into_iter().map(attempt_view).collect(),
    }
}

fn attempt_view(logged: LoggedAttempt) -> DeliveryAttempt {
    DeliveryAttempt {
        attempt: logged.attempt,
        started_at: UnixMs(logged.ended_ms - logged.duration_ms),
        ended_at: UnixMs(logged.ended_ms),
        duration_ms: logged.duration_ms,
        status: Some(logged.status).filter(|status| *status != 0),
        error: Some(logged.outcome).filter(|outcome| *outcome != Outcome::Ok),
        answer: logged.answer,
    }
}

/// How a claimed attempt went.
#[derive(Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// The delivery.
    pub delivery: Id,
    /// What the sender held.
    pub claim: Claim,
    /// How it ended.
    pub outcome: Outcome,
    /// 0 without an answer.
    pub status: u16,
    /// When it ended by the sender's clock, in ms since 1970.
    pub ended_ms: i64,
    /// From its start to its end, in milliseconds.
    pub duration_ms: i64,
    /// What the answer says about the next attempt.
    pub wish: Wish,
    /// The start of the answer.
    pub answer: String,
    /// Whether the sender makes the next attempt too, if that is soon.
    pub goes_on: bool,
}

/// The next attempt, for the sender of the last one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entrusted {
    /// Its number.
    pub attempt: u32,
    /// When it is due, in ms since 1970.
    pub at_ms: i64,
}

impl JobShard {
    /// Takes an attempt, if it is the one that is due: a repeated message gets nothing and sends nothing.
    pub(super) async fn claim(&self, message: &Message) -> Result<Option<Claimed>, ApiError> {
        let Some(mut row) = self.delivery(message.delivery)? else { return Ok(None) };
        let Some(claimed) = row.delivery.claim(message.attempt, config::now()) else { return Ok(None) };
        let body = self.body(&row)?;
        row.delivery = claimed;
        self.put_delivery(&row)?;
        self.arm().await?;
        Ok(Some(Claimed { claim: claimed.held(), url: row.url, body }))
    }

    /// Notes how an attempt went and when the next one is due. Leaves that to the sender if it can.
    pub(super) async fn record(&self, recorded: Recorded) -> Result<Option<Entrusted>, ApiError> {
        let Some(mut row) = self.delivery(recorded.delivery)? else { return Ok(None) };
        let Recorded { claim, outcome, status, duration_ms, wish, answer, goes_on, .. } = recorded;
        // The next wait counts from the attempt's end, not from when we hear of it; a clock that is off moves it little.
        let now = config::now();
        let ended = UnixMs(recorded.ended_ms.clamp(now.0 - CLOCKS_DIFFER_MS, now.0));
        let jitter = u32::from_le_bytes(config::random()?);
        let Some(next) = row.delivery.record(claim, outcome, wish, jitter, ended) else { return Ok(None) };
        let entrusted = next.entrusted(now).filter(|_| goes_on);
        row.delivery = entrusted.map_or(next, |(next, _)| next);
        let attempt = claim.attempt;
        row.note(LoggedAttempt { attempt, ended_ms: ended.0, duration_ms, outcome, status, answer: cut(answer) });
        self.put_delivery(&row)?;
        self.arm().await?;
        Ok(entrusted.map(|(next, at)| Entrusted { attempt: next.attempt, at_ms: at.0 }))
    }

    /// Sends the message of a delivery whose row was just written. If that fails, the alarm sends it.
    pub(super) fn dispatch(&self, row: Option<&DeliveryRow>) {
        self.send(row.map(Message::of).into_iter().collect());
    }

    /// Looks at deliveries whose time has come, and sends what is due.
    pub(super) fn wake_deliveries(&self, now: UnixMs, limit: i64) -> Result<(), ApiError> {
        // No await between reading these rows and writing the last of them.
        let (mut due, mut failed) = (Vec::new(), None);
        let jitter = u32::from_le_bytes(config::random()?);
        for mut row in self.due_deliveries(now.0, limit)? {
            let before = row.delivery;
            row.delivery = before.wake(jitter, now);
            if matches!(before.phase, Phase::Claimed { .. }) && row.delivery != before {
                row.note(interrupted(before.attempt, now));
            }
            let is_due = row.delivery.wakes_at().is_some_and(|at| at <= now.0);
            if is_due {
                row.delivery = row.delivery.sent(now);
            }
            match self.put_delivery(&row) {
                Ok(()) => due.extend(is_due.then(|| Message::of(&row))),
                Err(error) => failed = Some(error),
            }
        }
        self.send(due);
        failed.map_or(Ok(()), Err)
    }

    /// Makes an attempt due now, because someone asks for it.
    pub(super) async fn redeliver(&self, id: Id) -> Result<(), ApiError> {
        let mut row = self.delivery(id)?.ok_or_else(|| ApiError::not_found("delivery"))?;
        let now = config::now();
        let Some(due) = row.delivery.redeliver(now) else {
            return Err(ApiError::new(
                Code::Conflict,
                "an attempt of this delivery is being made; ask again when it is over",
            ));
        };
        row.delivery = due.sent(now);
        self.put_delivery(&row)?;
        self.arm().await?;
        self.send(vec![Message::of(&row)]);
        Ok(())
    }

    /// The log of a job's deliveries, oldest first.
    pub(super) fn log(&self, job: Id) -> Result<DeliveryLog, ApiError> {
        let ids = self.job(job)?.deliveries;
        let rows = ids.into_iter().map(|id| Ok(self.delivery(id)?.map(view)));
        Ok(DeliveryLog { deliveries: rows.collect::<Result<Vec<_>, ApiError>>()?.into_iter().flatten().collect() })
    }

    /// Leaves a trace of a message that the Queue gave up. The row's own time sends it again.
    pub(super) fn note_dead_letter(&self, message: &Message) -> Result<(), ApiError> {
        let Some(mut row) = self.delivery(message.delivery)? else { return Ok(()) };
        row.note(LoggedAttempt {
            answer: "the queue could not hand this attempt to a sender".to_owned(),
            ..interrupted(message.attempt, config::now())
        });
        self.put_delivery(&row)
    }

    /// Hands attempts to the Queue, as many as an alarm handles: in one call, so that none waits for another. Nobody waits for
    /// the Queue: while an alarm does, the next alarm is late.
    fn send(&self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        self.spend(0, messages.len());
        let env = self.env.clone();
        self.state.wait_until(async move {
            let sent = match env.queue("DELIVERIES") {
                Ok(queue) => queue.send_batch(messages).await,
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                console_error!("queue: what is due waits for its row's time: {error}");
            }
        });
    }

    fn body(&self, row: &DeliveryRow) -> Result<String, ApiError> {
        let links = self.links(&row.record, &row.origin)?;
        let mut record = row.record.clone();
        // The record is as of the job's end, and its output may have been removed since.
        if let Ok(job) = self.job(record.id) {
            record.output_expired_ms = record.output_expired_ms.or(job.record.output_expired_ms);
        }
        let view = JobView::of(record, |key| links.read_url(key));
        webhook::body(&view, UnixMs(row.ended_ms))
    }
}

impl Message {
    fn of(row: &DeliveryRow) -> Self {
        Self { delivery: row.id, attempt: row.delivery.attempt }
    }
}

impl DeliveryRow {
    fn note(&mut self, attempt: LoggedAttempt) {
        self.log.drain(..(self.log.len() + 1).saturating_sub(LOGGED));
        self.log.push(attempt);
    }
}

/// An attempt whose sender was not heard of again.
fn interrupted(attempt: u32, now: UnixMs) -> LoggedAttempt {
    let (outcome, answer) = (Outcome::Interrupted, String::new());
    LoggedAttempt { attempt, ended_ms: now.0, duration_ms: 0, outcome, status: 0, answer }
}

/// At most [`ANSWER_BYTES`], whole characters only.
fn cut(mut answer: String) -> String {
    let mut end = ANSWER_BYTES.min(answer.len());
    while !answer.is_char_boundary(end) {
        end -= 1;
    }
    answer.truncate(end);
    answer
}
