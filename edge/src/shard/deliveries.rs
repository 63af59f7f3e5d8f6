//! Deliveries: the rows that webhooks are sent from. Sending is the Queue consumer's.

use serde::{Deserialize, Serialize};
use worker::console_error;
use xora_shared::{
    delivery::{ANSWER_BYTES, Outcome},
    id::Id,
    job::view::JobView,
    time::UnixMs,
};

use super::{
    JobShard,
    store::{DeliveryRow, LoggedAttempt},
};
use crate::{config, error::ApiError, routes::files, webhook};

/// An attempt that a consumer has taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claimed {
    /// Where it goes.
    pub url: String,
    /// What is sent.
    pub body: String,
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
    /// The start of the answer.
    pub answer: String,
}

impl JobShard {
    /// Takes an attempt, if it is the one that is due: a repeated message gets nothing and sends nothing.
    pub(super) async fn claim(&self, id: Id, attempt: u32) -> Result<Option<Claimed>, ApiError> {
        let Some(mut row) = self.delivery(id)? else { return Ok(None) };
        let Some(claimed) = row.delivery.claim(attempt, config::now()) else { return Ok(None) };
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
        let Some(next) = row.delivery.record(recorded.attempt, recorded.outcome, now) else { return Ok(()) };
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
        for mut row in self.due_deliveries(now.0, limit)? {
            row.delivery = row.delivery.wake(now);
            let due = row.delivery.wakes_at().is_some_and(|at| at <= now.0);
            if due {
                row.delivery = row.delivery.sent(now);
            }
            self.put_delivery(&row)?;
            if due {
                self.send_message(&row).await;
            }
        }
        Ok(())
    }

    async fn send_message(&self, row: &DeliveryRow) {
        let message = webhook::Message { delivery: row.id, attempt: row.delivery.attempt };
        let sent = match self.env.queue("DELIVERIES") {
            Ok(queue) => queue.send(message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            console_error!("queue: delivery {} waits for the alarm: {error:?}", row.id);
        }
    }

    fn body(&self, row: &DeliveryRow) -> Result<String, ApiError> {
        let signer = files::Signer::new(&self.env, &row.origin)?;
        let view = JobView::of(row.record.clone(), |key| signer.read_url(key));
        webhook::body(&view, UnixMs(row.ended_ms))
    }
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
