//! Jobs: creating, reading, cancelling, and what every end of a job has in common.

use worker::console_error;
use xora_shared::{
    delivery::Delivery,
    failure::{Failure, FailureKind, Stage},
    id::Id,
    job::{
        JobState,
        lease::{Clock, Hold},
        machine::{self, Conflict, Event, Step, Then},
        refusals::Refusals,
        view::{Attempt, AttemptEnd, JobRecord, JobView, Published},
        weight::Weight,
    },
    provider::Provider,
    request::JobRequest,
    settings::Settings,
    time::UnixMs,
};

use super::{
    JobShard, Live, Made, NewJob, Once, stale,
    store::{DeliveryRow, JobRow, Lapsed, Phase, RepeatRow, TaskRow},
};
use crate::{
    account, config,
    error::{ApiError, Code},
};

/// What a job ends with besides its state.
#[derive(Default)]
pub(super) struct Ending {
    pub failure: Option<Failure>,
    pub result: Option<Published>,
    pub completed_by: Option<Hold>,
}

impl JobShard {
    /// Keeps a new job and wakes nodes. The same id again is the same job: the Worker's retry changes nothing.
    pub(super) async fn create(&self, job: NewJob) -> Result<Made, ApiError> {
        let NewJob { id, request, token_id, origin, once, provider } = job;
        let made = Made { id, state: JobState::Queued, replayed: false };
        let (request, provider) = self.destined(request, provider).await?;
        if self.job(id).is_ok() {
            return Ok(made);
        }
        let now = config::now();
        if let Some(once) = once {
            if let Some(first) = self.repeated(&once)? {
                return Ok(first);
            }
            let Once { key, body } = once;
            self.put_repeat(&key, now.0, &RepeatRow { body, job_id: id })?;
        }
        let row = JobRow {
            record: queued(id, request, now),
            origin,
            token_id,
            fence: 0,
            completed_by: None,
            deliveries: vec![],
            turns: 0,
        };
        if let Some(provider) = provider {
            self.put_provider(&provider)?;
        }
        let task = offer(&row, now);
        self.put_job(&row)?;
        self.put_task(&task)?;
        self.arm_by(task.wakes_at()).await?;
        self.wake_nodes_for(id);
        Ok(made)
    }

    /// A request with the bucket that its output goes to: the one that it names, else the default of the settings.
    async fn destined(
        &self,
        mut request: JobRequest,
        named: Option<Provider>,
    ) -> Result<(JobRequest, Option<Provider>), ApiError> {
        let settings = self.settings().await?;
        if named.is_some() {
            return Ok((request, named));
        }
        let provider = match settings.default_storage_provider_id {
            None => None,
            Some(id) => match self.provider(id)? {
                Some(copy) => Some(copy),
                None => account::provider(&self.env, id).await?,
            },
        };
        request.storage_provider_id = provider.as_ref().map(|provider| provider.id);
        Ok((request, provider))
    }

    /// The job that the same idempotency key and body made within a day, as it stands, if one did.
    pub(super) fn repeated(&self, Once { key, body }: &Once) -> Result<Option<Made>, ApiError> {
        let Some(RepeatRow { body: first, job_id: id }) = self.repeat(key, config::now().0)? else { return Ok(None) };
        if first != *body {
            let message = "this Idempotency-Key came with another body within the last day; use a new key";
            return Err(ApiError::new(Code::IdempotencyMismatch, message));
        }
        let Some(job) = self.find_job(id)? else {
            let message =
                format!("the job {id} that this Idempotency-Key made was deleted; use a new key for another job");
            return Err(ApiError::new(Code::Conflict, message));
        };
        let state = self.shown(job.record, self.task(id)?).state;
        Ok(Some(Made { id, state, replayed: true }))
    }

    /// A job as it stands.
    pub(super) fn read(&self, id: Id) -> Result<JobView, ApiError> {
        self.view(self.job(id)?, self.task(id)?)
    }

    /// A job as callers see it now.
    pub(super) fn view(&self, job: JobRow, task: Option<TaskRow>) -> Result<JobView, ApiError> {
        let links = self.links(&job.record, &job.origin)?;
        Ok(JobView::of(self.shown(job.record, task), |key| links.read_url(key)))
    }

    /// Deletes a job that is over, and everything that there is of it.
    pub(super) async fn delete(&self, id: Id) -> Result<(), ApiError> {
        let job = self.job(id)?;
        if let Some(task) = self.task(id)? {
            return Err(conflict(task.state, "deleted; cancel it first"));
        }
        self.forget(job, config::now())?;
        // Now rather than at the alarm, which does it if this comes to nothing.
        let mut files = self.uploads_of(id)?;
        files.extend(self.staged_of(id)?);
        self.remove_now(files).await
    }

    /// Stops a job.
    pub(super) async fn cancel(&self, id: Id) -> Result<JobView, ApiError> {
        let settings = self.settings().await?;
        let job = self.job(id)?;
        let Some(mut task) = self.task(id)? else { return Err(conflict(job.record.state, "cancelled")) };
        let step = machine::step(task.state, Event::Cancelled, &task.spent)
            .map_err(|Conflict| conflict(task.state, "cancelled"))?;
        let holder = match &task.phase {
            Phase::Leased { token, .. } => Some(Hold { task_id: task.id, token: token.clone(), fence: task.fence }),
            Phase::Waiting { .. } => None,
        };
        if holder.is_some() {
            self.note_live(&mut task);
            end_attempt(&mut task, Some(AttemptEnd::Cancelled));
        }
        let delivery = self.end(job, task, step.state, Ending::default(), &settings)?;
        if let Some(hold) = holder {
            self.memory.cancelled.borrow_mut().insert(id, hold);
        }
        self.arm().await?;
        self.wake_nodes();
        self.dispatch(delivery.as_ref());
        self.read(id)
    }

    /// Starts a failed or cancelled job again, under the same id; its attempts are kept.
    pub(super) async fn retry(&self, id: Id) -> Result<(), ApiError> {
        let request = self.retryable(id)?.record.request;
        self.use_uploads(id, &request).await?;
        // Time has passed: another request may have started it.
        let mut job = self.retryable(id)?;
        let now = config::now();
        let JobRecord { id, request, attempts, created_ms, .. } = job.record;
        job.record = JobRecord { attempts, created_ms, ..queued(id, request, now) };
        job.completed_by = None;
        job.turns += 1;
        self.take_up_staged(id, now)?;
        self.put_job(&job)?;
        self.put_task(&offer(&job, now))?;
        self.tell(id);
        self.arm().await?;
        self.wake_nodes();
        Ok(())
    }

    /// A job that can run again.
    fn retryable(&self, id: Id) -> Result<JobRow, ApiError> {
        let job = self.job(id)?;
        let state = self.task(id)?.map_or(job.record.state, |task| task.state);
        machine::step(state, Event::Retried, &[])
            .map_err(|Conflict| conflict(state, "retried; only failed and cancelled jobs can be"))?;
        if job.record.request.has_forgotten_headers() {
            let message = "the headers for this job's input were forgotten when it ended; create a new job with them";
            return Err(ApiError::new(Code::Conflict, message));
        }
        Ok(job)
    }

    /// Ends a job, in one turn: its row, its task, what it wrote, and the delivery. Gives the delivery to dispatch.
    pub(super) fn end(
        &self,
        mut job: JobRow,
        task: TaskRow,
        state: JobState,
        ending: Ending,
        settings: &Settings,
    ) -> Result<Option<DeliveryRow>, ApiError> {
        let now = config::now();
        let progress = if state == JobState::Completed { 100 } else { self.progress(&task) };
        let started_ms = job.record.started_ms.or(task.started_ms);
        job.record = JobRecord {
            state,
            progress,
            started_ms,
            finished_ms: Some(now.0),
            attempts: task.attempts,
            failure: ending.failure,
            result: ending.result,
            ..job.record
        };
        job.record.request.forget_headers();
        job.fence = task.fence;
        job.turns += 1;
        job.completed_by = ending.completed_by;
        let delivery = new_delivery(&job, settings, now)?;
        job.deliveries.extend(delivery.as_ref().map(|row| row.id));
        self.drop_uploads(task.id, job.record.result.as_ref().and_then(|published| published.key.as_deref()), now)?;
        self.leave_staged(job.record.id, settings.input_retention_days, now)?;
        self.put_job(&job)?;
        self.delete_task(task.id)?;
        if let Some(row) = &delivery {
            self.put_delivery(row)?;
        }
        self.memory.live.borrow_mut().remove(&task.id);
        self.tell(job.record.id);
        Ok(delivery)
    }

    /// Takes a failed or lost attempt to where the machine sends it.
    pub(super) fn settle(
        &self,
        mut task: TaskRow,
        step: Step,
        failure: Failure,
        settings: &Settings,
    ) -> Result<Option<DeliveryRow>, ApiError> {
        task.spent.extend(step.spent);
        end_attempt(&mut task, Some(AttemptEnd::Failed(failure.clone())));
        match step.then {
            Then::End => {
                let job = self.job(task.job_id)?;
                let ending = Ending { failure: Some(failure), ..Ending::default() };
                self.end(job, task, step.state, ending, settings)
            }
            Then::Offer { after_ms } => {
                task.refusals.was_tried();
                self.offer_again(task, after_ms, failure.kind == FailureKind::NodeLost).map(|()| None)
            }
            Then::Lease | Then::Note | Then::Resume | Then::Restart => {
                console_error!("shard: a failure ends an attempt; this leads elsewhere");
                Ok(None)
            }
        }
    }

    /// Ends the lease and offers the task again, from nothing. After a lease that ran out (`lapsed`) what its node has written
    /// stays until someone else takes the task: it may only have been out of reach.
    pub(super) fn offer_again(&self, mut task: TaskRow, after_ms: i64, lapsed: bool) -> Result<(), ApiError> {
        let now = config::now();
        let lapsed = match &task.phase {
            Phase::Leased { token, key, .. } if lapsed => Some(Lapsed { token: token.clone(), key: key.clone() }),
            Phase::Leased { .. } | Phase::Waiting { .. } => None,
        };
        if lapsed.is_none() {
            self.drop_written(&task, now)?;
        }
        task.state = JobState::Queued;
        task.offered_ms = now.0;
        task.phase = Phase::Waiting { ready_ms: now.plus(after_ms).0, lapsed };
        self.put_task(&task)?;
        self.memory.live.borrow_mut().remove(&task.id);
        self.tell(task.job_id);
        Ok(())
    }

    /// Marks what attempts that are over have written for removal. Copies of inputs that are whole stay.
    pub(super) fn drop_written(&self, task: &TaskRow, now: UnixMs) -> Result<(), ApiError> {
        self.drop_uploads(task.id, None, now)?;
        self.drop_half_staged(task.job_id, now)
    }

    /// The settings in force, by this shard's copy. A shard without one, which is new, asks `Account` for them: an await, so
    /// ask before reading rows.
    pub(super) async fn settings(&self) -> Result<Settings, ApiError> {
        match self.kept_settings() {
            Ok(Some(settings)) => return Ok(settings),
            Ok(None) => {}
            Err(error) => console_error!("settings: this shard's copy cannot be read: {error}"),
        }
        let settings = account::versioned_settings(&self.env).await?;
        self.keep_settings(&settings)?;
        Ok(settings.settings)
    }

    /// The task that a hold speaks for. Stale holds get the job's state. A lease that ran out holds again if nobody has had
    /// the task since: its node was out of reach, and is at work.
    pub(super) fn held(&self, hold: &Hold) -> Result<TaskRow, ApiError> {
        if let Some(task) = self.task(hold.task_id)? {
            return match &task.phase {
                Phase::Leased { token, .. } if hold.is(token, task.fence) => Ok(task),
                Phase::Waiting { lapsed: Some(Lapsed { token, .. }), .. } if hold.is(token, task.fence) => {
                    self.resume(task)
                }
                Phase::Leased { .. } | Phase::Waiting { .. } => Err(stale(task.state)),
            };
        }
        Err(stale(self.job(hold.task_id)?.record.state))
    }

    /// Lets the lease of a task that ran out hold again, with the attempt that its end cost.
    fn resume(&self, mut task: TaskRow) -> Result<TaskRow, ApiError> {
        let stage = task.attempts.last().map_or(Stage::Probe, |attempt| attempt.stage);
        let step =
            machine::step(task.state, Event::Resumed(stage), &task.spent).map_err(|Conflict| stale(task.state))?;
        let Phase::Waiting { lapsed: Some(Lapsed { token, key }), .. } = task.phase else {
            return Err(stale(task.state));
        };
        let now = config::now();
        let expires_ms = now.plus(Clock::STANDARD.lease_ms).0;
        task.state = step.state;
        task.phase = Phase::Leased { token, key, expires_ms, stage, progress: 0 };
        if let Some(attempt) = task.attempts.last_mut() {
            (attempt.finished_ms, attempt.end) = (None, None);
        }
        task.spent.pop();
        self.put_task(&task)?;
        self.memory.live.borrow_mut().insert(task.id, Live { expires_ms, stage, progress: 0, written_ms: now.0 });
        self.tell(task.job_id);
        Ok(task)
    }

    /// Brings stage and progress of a leased task up to its last heartbeat.
    pub(super) fn note_live(&self, task: &mut TaskRow) {
        let live = self.memory.live.borrow().get(&task.id).copied();
        if let Some(live) = live {
            bring_up(task, live);
        }
    }

    fn progress(&self, task: &TaskRow) -> u8 {
        match task.phase {
            Phase::Waiting { .. } => 0,
            Phase::Leased { progress, .. } => {
                self.memory.live.borrow().get(&task.id).map_or(progress, |live| live.progress)
            }
        }
    }

    /// A job with what its running task knows better.
    pub(super) fn shown(&self, mut record: JobRecord, task: Option<TaskRow>) -> JobRecord {
        if let Some(mut task) = task {
            self.note_live(&mut task);
            record.state = task.state;
            record.progress = self.progress(&task);
            record.started_ms = record.started_ms.or(task.started_ms);
            record.attempts = task.attempts;
        }
        record
    }
}

/// The delivery of a job that has just ended, if anyone wants to hear of it.
fn new_delivery(job: &JobRow, settings: &Settings, now: UnixMs) -> Result<Option<DeliveryRow>, ApiError> {
    let Some(url) = job.record.request.webhook_url.clone().or_else(|| settings.default_webhook_url.clone()) else {
        return Ok(None);
    };
    Ok(Some(DeliveryRow {
        // Beside its job.
        id: config::new_id(job.record.id.place())?,
        // Its message is sent by the request that ends the job; only if that fails does the alarm send it.
        delivery: Delivery::new(settings.webhook_schedule, now).sent(now),
        url,
        ended_ms: now.0,
        record: job.record.snapshot(),
        origin: job.origin.clone(),
        log: vec![],
        orphan: false,
    }))
}

fn conflict(state: JobState, what: &str) -> ApiError {
    let state = state.name();
    ApiError::new(Code::Conflict, format!("a job that is {state} cannot be {what}"))
}

/// Brings stage and progress of a leased task up to a heartbeat.
pub(super) fn bring_up(task: &mut TaskRow, live: Live) {
    if let Phase::Leased { expires_ms, stage, progress, .. } = &mut task.phase {
        (*expires_ms, *stage, *progress) = (live.expires_ms, live.stage, live.progress);
        task.state = live.stage.job_state();
        if let Some(attempt) = task.attempts.last_mut() {
            attempt.stage = live.stage;
        }
    }
}

/// Closes the attempt that was running.
pub(super) fn end_attempt(task: &mut TaskRow, end: Option<AttemptEnd>) {
    if let Some(attempt @ Attempt { finished_ms: None, .. }) = task.attempts.last_mut() {
        attempt.finished_ms = Some(config::now().0);
        attempt.end = end;
    }
}

fn queued(id: Id, request: JobRequest, now: UnixMs) -> JobRecord {
    JobRecord {
        id,
        state: JobState::Queued,
        progress: 0,
        created_ms: now.0,
        started_ms: None,
        finished_ms: None,
        request,
        attempts: vec![],
        failure: None,
        result: None,
        output_expired_ms: None,
    }
}

/// The one task of an undivided job.
fn offer(job: &JobRow, now: UnixMs) -> TaskRow {
    TaskRow {
        id: job.record.id,
        job_id: job.record.id,
        token_id: job.token_id.clone(),
        priority: job.record.request.priority,
        offered_ms: now.0,
        state: JobState::Queued,
        phase: Phase::Waiting { ready_ms: now.0, lapsed: None },
        fence: job.fence,
        started_ms: None,
        attempts: job.record.attempts.clone(),
        spent: vec![],
        heavy: Weight::of(&job.record.request.wanted) == Weight::Heavy,
        refusals: Refusals::default(),
    }
}
