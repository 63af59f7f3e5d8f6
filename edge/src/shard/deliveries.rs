//! Deliveries: the rows that webhooks are sent from. Sending is the Queue consumer's.

use serde::{Deserialize, Serialize};
use worker::console_error;
use xora_shared::{
    answer::{DeliveryAttempt, DeliveryLog, DeliveryState, DeliveryView},
    delivery::{ANSWER_BYTES, Outcome, Phase, Wish},
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

/// An attempt that a consumer has taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claimed {
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
    /// The attempt's number.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// 0 without an answer.
    pub status: u16,
    /// From the claim to the end, in milliseconds.
    pub duration_ms: i64,
    /// What the answer says about the next attempt.
    pub wish: Wish,
    /// The start of the answer.
    pub answer: String,
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
        Ok(Some(Claimed { url: row.url, body }))
    }

    /// Notes how an attempt went and when the next one is due.
    pub(super) async fn record(&self, recorded: Recorded) -> Result<(), ApiError> {
        let Some(mut row) = self.delivery(recorded.delivery)? else { return Ok(()) };
        let now = config::now();
        let jitter = u32::from_le_bytes(config::random()?);
        let Some(next) = row.delivery.record(recorded.attempt, recorded.outcome, recorded.wish, jitter, now) else {
            return Ok(());
        };
        row.delivery = next;
        row.log.push(LoggedAttempt {
            attempt: recorded.attempt,
            ended_ms: now.0,
            duration_ms: recorded.duration_ms,
            outcome: recorded.outcome,
            status: recorded.status,
            answer: cut(recorded.answer),
        });
        self.put_delivery(&row)?;
        self.arm().await
    }

    /// Sends the message of a delivery whose row was just written. If that fails, the alarm sends it.
    pub(super) async fn dispatch(&self, row: Option<DeliveryRow>) {
        if let Some(row) = row {
            self.send_message(&row).await;
        }
    }

    /// Looks at deliveries whose time has come, and sends what is due.
    pub(super) async fn wake_deliveries(&self, now: UnixMs, limit: i64) -> Result<(), ApiError> {
        // No await between reading these rows and writing the last of them.
        let mut due = Vec::new();
        for mut row in self.due_deliveries(now.0, limit)? {
            let before = row.delivery;
            row.delivery = before.wake(now);
            if row.delivery.interruptions > before.interruptions {
                row.log.push(interrupted(before.attempt, now));
            }
            let is_due = row.delivery.wakes_at().is_some_and(|at| at <= now.0);
            if is_due {
                row.delivery = row.delivery.sent(now);
            }
            self.put_delivery(&row)?;
            due.extend(is_due.then_some(row));
        }
        for row in due {
            self.send_message(&row).await;
        }
        Ok(())
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
        self.send_message(&row).await;
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
        row.log.push(LoggedAttempt {
            answer: "the queue could not hand this attempt to a sender".to_owned(),
            ..interrupted(message.attempt, config::now())
        });
        self.put_delivery(&row)
    }

    async fn send_message(&self, row: &DeliveryRow) {
        let message = Message { delivery: row.id, attempt: row.delivery.attempt };
        let sent = match self.env.queue("DELIVERIES") {
            Ok(queue) => queue.send(message).await,
            Err(error) => Err(error),
        };
        self.spend(0, 1);
        if let Err(error) = sent {
            console_error!("queue: delivery {} waits for the alarm: {error:?}", row.id);
        }
    }

    fn body(&self, row: &DeliveryRow) -> Result<String, ApiError> {
        let links = self.links(&row.record, &row.origin)?;
        let view = JobView::of(row.record.clone(), |key| links.read_url(key));
        webhook::body(&view, UnixMs(row.ended_ms))
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
