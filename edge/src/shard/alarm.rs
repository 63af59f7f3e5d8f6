//! The one alarm of a shard: the earliest of lease ends, waiting tasks, deliveries and clean-up.

use worker::{ScheduledTime, console_error, js_sys};
use xora_shared::{
    failure::{Failure, FailureKind, Stage},
    job::machine::{self, Conflict, Event},
    settings::Settings,
    time::UnixMs,
};

use super::{
    JobShard,
    store::{DeliveryRow, Phase, TaskRow, UNCLAIMED_MS},
};
use crate::{config, error::ApiError};

/// Most rows of each kind that one alarm handles; the Queue takes as many messages in one call.
const ROWS: i64 = 100;

/// How soon the alarm comes again at most after something due could not be handled, in milliseconds.
const PAUSE_MS: i64 = 1_000;

impl JobShard {
    /// As [`Self::arm`], after nothing became due but what is at `due`: often the alarm comes before, and no row need be
    /// looked at.
    pub(super) async fn arm_by(&self, due: Option<i64>) -> Result<(), ApiError> {
        let armed = self.memory.armed.get();
        if armed.is_some() && due.is_none_or(|due| armed <= Some(due)) { Ok(()) } else { self.arm().await }
    }

    /// Sets the alarm to the earliest due time, if it is not set for then or before.
    pub(super) async fn arm(&self) -> Result<(), ApiError> {
        let (due, removal) = self.earliest()?;
        // While some objects are being removed, others wait.
        let removal = removal.map(|at| at.max(self.memory.removing_ms.get()));
        let Some(due) = due.into_iter().chain(removal).min() else { return Ok(()) };
        // An alarm set for "now" inside the alarm handler may be lost.
        let at = due.max(config::now().0 + 1).max(self.memory.pause_ms.get());
        if self.memory.armed.get().is_some_and(|armed| armed <= at) {
            return Ok(());
        }
        self.memory.armed.set(Some(at));
        self.spend(1, 0);
        let time = js_sys::Date::new(&worker::wasm_bindgen::JsValue::from_f64(at as f64));
        if let Err(error) = self.state.storage().set_alarm(ScheduledTime::new(time)).await {
            self.memory.armed.set(None);
            return Err(error.into());
        }
        Ok(())
    }

    /// Does what the alarm is for. Never fails: what cannot be done now is due again at the next look. No call leaves the object
    /// here, except for the settings once in the life of a shard: alarms of an object do not overlap, so one that waits for
    /// others stops the clock of the whole shard.
    pub(super) async fn look_at_what_is_due(&self) {
        // Deliveries first: their retries are due to the millisecond.
        let done = [
            report(self.wake_deliveries(config::now(), ROWS)),
            report(self.wake_tasks().await),
            report(self.sweep_now_and_then().await),
            report(self.begin_removals()),
        ];
        let pause = if done.contains(&false) { config::now().plus(PAUSE_MS).0 } else { 0 };
        self.memory.pause_ms.set(pause);
        report(self.arm().await);
    }

    async fn wake_tasks(&self) -> Result<(), ApiError> {
        if self.due_tasks(config::now().0, 1)?.is_empty() {
            return Ok(());
        }
        let settings = self.settings().await?;
        let now = config::now();
        // No await between reading these rows and writing the last of them.
        let mut deliveries = Vec::new();
        for task in self.due_tasks(now.0, ROWS)? {
            match self.wake_task(task.clone(), now, &settings) {
                Ok(delivery) => deliveries.extend(delivery),
                Err(error) => self.put_off_task(&task, now.0, &error),
            }
        }
        for delivery in deliveries {
            self.dispatch(Some(&delivery));
        }
        Ok(())
    }

    fn wake_task(&self, mut task: TaskRow, now: UnixMs, settings: &Settings) -> Result<Option<DeliveryRow>, ApiError> {
        self.note_live(&mut task);
        let (event, failure) = match task.phase {
            Phase::Leased { stage, .. } => (Event::Expired, lost(stage)),
            Phase::Waiting { .. } if now.since(UnixMs(task.offered_ms)) >= UNCLAIMED_MS => {
                (Event::Unclaimed, unclaimed())
            }
            Phase::Waiting { ready_ms, .. } => {
                // The wait before another attempt is over: from now on only the long wait counts.
                task.offered_ms = ready_ms;
                self.put_task(&task)?;
                self.wake_nodes();
                return Ok(None);
            }
        };
        match machine::step(task.state, event, &task.spent) {
            Ok(step) => self.settle(task, step, failure, settings),
            Err(Conflict) => Ok(None),
        }
    }
}

/// Whether it went well; what did not is in the log.
pub(super) fn report(result: Result<(), ApiError>) -> bool {
    result.inspect_err(|error| console_error!("alarm: {error}")).is_ok()
}

fn lost(stage: Stage) -> Failure {
    let message = "the node that worked on this job stopped answering; retry the job if it stays failed";
    Failure { kind: FailureKind::NodeLost, stage, message: message.to_owned() }
}

fn unclaimed() -> Failure {
    let message = "no node took this job within 24 hours; check that nodes run and reach this edge, then retry";
    Failure { kind: FailureKind::Unclaimed, stage: Stage::Probe, message: message.to_owned() }
}
