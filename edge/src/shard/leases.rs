//! Leases: handing out tasks, renewing them, and hearing how they went.

use serde::Deserialize;
use worker::console_error;
use xora_shared::{
    failure::{Failure, FailureKind, Stage},
    id::Id,
    job::{
        JobState,
        lease::{Clock, Hold},
        machine::{self, Conflict, Event, Then},
        refusals::KNOWN_MS,
        view::{Attempt, AttemptEnd, JobRecord, Published},
    },
    protocol::{
        Beat, Complete, Fail, Heartbeat, InputAt, Lease, LeaseRequest, Release, ReleaseReason, Word, name_for_header,
    },
    report::StrategyKind,
    request::{Headers, Input},
    sign::hex,
};

use super::{
    JobShard, Live, alarm,
    jobs::{Ending, bring_up, end_attempt},
    received,
    rpc::{Asked, Speaker},
    staged, stale,
    store::{Phase, UploadRow},
};
use crate::{
    config,
    error::{ApiError, Code},
    routes::files,
};

/// How often the row of a running task is written when nothing but progress changes, in milliseconds.
const WRITE_MS: i64 = 60_000;

/// How long after the last write a new state is written, in milliseconds. Until then memory has it, and after a restart
/// the next heartbeat says it again: a short job is not worth a row for each of its stages.
const WRITE_STATE_MS: i64 = 5_000;

impl JobShard {
    /// Hands out the next task, if there is one.
    pub(super) async fn lease(&self, request: &LeaseRequest, asked: &Asked) -> Result<Option<Lease>, ApiError> {
        let (now, origin) = (config::now(), asked.origin.as_str());
        self.note_node(&request.node, now)?;
        let Some((mut task, job)) = self.next_task(request)? else { return Ok(None) };
        let Ok(step) = machine::step(task.state, Event::Leased, &task.spent) else { return Ok(None) };
        let staged = self.staged_of(task.job_id)?;
        let inputs = match self.inputs_of(&job.record, &staged, origin) {
            Ok(inputs) => inputs,
            // A secret is missing or another. The job ends before anything is written, so that no attempt is spent on it, and
            // it stops no other task.
            Err(error) => return self.misconfigured(task.id, &error).await.map(|()| None),
        };
        let pass_through = job.record.request.may_pass_through() && staged::whole(&staged, 0).is_none();
        let token = new_lease_token()?;
        // Of the lease before, if that ran out: from now on its node is too late.
        self.drop_written(&task, now)?;
        let expires_ms = now.plus(Clock::STANDARD.lease_ms).0;
        let stage = Stage::Probe;
        task.fence += 1;
        task.state = step.state;
        let key = asked.speaker.as_ref().map(|speaker| speaker.key.clone());
        task.phase = Phase::Leased { token: token.clone(), key, expires_ms, stage, progress: 0 };
        task.started_ms = task.started_ms.or(Some(now.0));
        let node = request.node.name.clone();
        task.attempts.push(Attempt { node, started_ms: now.0, finished_ms: None, stage, end: None });
        self.put_task(&task)?;
        self.memory.live.borrow_mut().insert(task.id, Live { expires_ms, stage, progress: 0, written_ms: now.0 });
        self.memory.turns.borrow_mut().serve(&task.token_id);
        self.tell(task.job_id);
        self.arm().await?;
        let request = job.record.request;
        Ok(Some(Lease {
            hold: Hold { task_id: task.id, token, fence: task.fence },
            job_id: task.job_id,
            attempt: u32::try_from(task.attempts.len()).unwrap_or(u32::MAX),
            clock: Clock::STANDARD,
            inputs,
            wanted: request.wanted,
            stage_input: request.stage_input,
            pass_through,
        }))
    }

    /// Where a node reads the inputs of a job; `origin` is where the node reached us. Fails for want of a secret only.
    fn inputs_of(&self, record: &JobRecord, staged: &[UploadRow], origin: &str) -> Result<Vec<InputAt>, ApiError> {
        let inputs =
            (0..).zip(&record.request.inputs).map(|(index, input)| match (staged::whole(staged, index), input) {
                (Some(key), _) => self.ours(key, origin),
                (None, Input::Url { url, .. }) => {
                    Ok(InputAt { url: url.clone(), headers: self.headers(input, record.id)?, ours: false })
                }
                (None, Input::Upload { upload_id }) => self.ours(&received::key(*upload_id), origin),
            });
        inputs.collect()
    }

    /// The headers of an input, opened.
    fn headers(&self, input: &Input, job: Id) -> Result<Headers, ApiError> {
        let secret = if input.has_sealed_headers() { config::credentials_secret(&self.env)? } else { String::new() };
        input.open_headers(&secret, job).ok_or_else(|| {
            let message = "the headers for the input cannot be opened, because CREDENTIALS_SECRET is another than when the \
                           job was created; create the job again";
            ApiError::new(Code::Internal, message)
        })
    }

    /// Ends a job that no node can be given, because this installation lacks a secret.
    async fn misconfigured(&self, task: Id, why: &ApiError) -> Result<(), ApiError> {
        let settings = self.settings().await?;
        // Time has passed: it may be over, or have been leased.
        let Some(task) = self.task(task)?.filter(|task| matches!(task.phase, Phase::Waiting { .. })) else {
            return Ok(());
        };
        let event = Event::Failed(FailureKind::Misconfigured);
        let leased = machine::step(task.state, Event::Leased, &task.spent);
        let Ok(step) = leased.and_then(|leased| machine::step(leased.state, event, &task.spent)) else { return Ok(()) };
        let failure = Failure { kind: FailureKind::Misconfigured, stage: Stage::Probe, message: why.to_string() };
        let delivery = self.settle(task, step, failure, &settings)?;
        self.arm().await?;
        self.dispatch(delivery.as_ref());
        Ok(())
    }

    /// What we keep ourselves.
    fn ours(&self, key: &str, origin: &str) -> Result<InputAt, ApiError> {
        let url = files::Signer::new(&self.env, origin)?.input_url(key);
        Ok(InputAt { url, headers: Headers::new(), ours: true })
    }

    /// The priority of the task that would be handed out next. The Worker asks every shard before it chooses one.
    pub(super) fn peek(&self, request: &LeaseRequest) -> Result<Option<u8>, ApiError> {
        let now = config::now();
        self.note_node(&request.node, now)?;
        self.top_priority(request)
    }

    /// Renews the leases of one node and answers a word for each, in order. What fails for one lease is unknown of that one
    /// alone.
    pub(super) async fn heartbeat(&self, heartbeat: &Heartbeat, by: Option<&Speaker>) -> Vec<Word> {
        if let Err(error) = self.note_node(&heartbeat.node, config::now()) {
            console_error!("node {}: {error}", heartbeat.node.name);
        }
        let name = Some(name_for_header(&heartbeat.node.name));
        let by = by.map(|by| Speaker { key: by.key.clone(), name });
        let word = |beat: &Beat| {
            self.beat(beat, by.as_ref()).unwrap_or_else(|error| {
                console_error!("heartbeat of task {}: {error}", beat.hold.task_id);
                Word::Unknown
            })
        };
        let words = heartbeat.leases.iter().map(word).collect();
        // A lease that holds again ends earlier than what the alarm waits for.
        let ends = self.memory.live.borrow().values().map(|live| live.expires_ms).min();
        alarm::report(self.arm_by(ends).await);
        words
    }

    /// Refuses the message of a node that another key or another name leased the task to: a stolen hold is worth nothing.
    pub(super) fn refuse_other_nodes(&self, asked: &Asked) -> Result<(), ApiError> {
        #[derive(Deserialize)]
        struct AboutALease {
            hold: Hold,
        }
        let AboutALease { hold } = asked.body()?;
        match self.task(hold.task_id)? {
            Some(task) if !task.is_held_by(asked.speaker.as_ref()) => Err(stale(task.state)),
            // What has ended is judged by its hold alone: it only hears how it ended.
            Some(_) | None => Ok(()),
        }
    }

    fn beat(&self, beat: &Beat, by: Option<&Speaker>) -> Result<Word, ApiError> {
        if self.task(beat.hold.task_id)?.is_some_and(|task| !task.is_held_by(by)) {
            return Ok(Word::Lost);
        }
        // Only its holder hears it: another node may name the task with a lease that is over.
        let is_cancelled =
            self.memory.cancelled.borrow().get(&beat.hold.task_id).is_some_and(|hold| *hold == beat.hold);
        if is_cancelled {
            self.memory.cancelled.borrow_mut().remove(&beat.hold.task_id);
            return Ok(Word::Cancel);
        }
        let mut task = match self.held(&beat.hold) {
            Ok(task) => task,
            Err(error) if error.is_ours() => return Err(error),
            Err(_) => return Ok(Word::Lost),
        };
        let Ok(step) = machine::step(task.state, Event::Entered(beat.stage), &task.spent) else {
            return Ok(Word::Lost);
        };
        let now = config::now();
        let before = self.memory.live.borrow().get(&task.id).copied();
        // Progress never goes back within an attempt.
        let progress = beat.progress.min(99).max(before.map_or(0, |live| live.progress));
        let expires_ms = now.plus(Clock::STANDARD.lease_ms).0;
        let write_after = if step.state == task.state { WRITE_MS } else { WRITE_STATE_MS };
        let unchanged = before.filter(|live| now.0 - live.written_ms < write_after);
        let live = Live { expires_ms, stage: beat.stage, progress, written_ms: now.0 };
        if let Some(before) = unchanged {
            self.memory.live.borrow_mut().insert(task.id, Live { written_ms: before.written_ms, ..live });
        } else {
            bring_up(&mut task, live);
            self.put_task(&task)?;
            self.memory.live.borrow_mut().insert(task.id, live);
        }
        if before.is_none_or(|live| (live.stage, live.progress) != (beat.stage, progress)) {
            self.tell(task.job_id);
        }
        Ok(Word::Continue)
    }

    /// Publishes a verified output: the job refers to it from this turn on.
    pub(super) async fn complete(&self, complete: Complete) -> Result<JobState, ApiError> {
        let settings = self.settings().await?;
        let Complete { hold, result } = complete;
        let written = self.written(&hold).await?;
        let job = self.job(hold.task_id)?;
        if job.completed_by.as_ref() == Some(&hold) {
            return Ok(job.record.state);
        }
        let mut task = self.held(&hold)?;
        self.note_live(&mut task);
        let step = machine::step(task.state, Event::Completed, &task.spent).map_err(|Conflict| stale(task.state))?;
        if !result.verified.problems.is_empty() {
            let problems = result.verified.problems.join("; ");
            return Err(unproven(&format!("the output did not verify: {problems}")));
        }
        let is_input = result.strategy.kind == StrategyKind::Passthrough;
        let (key, own) = if is_input {
            if !job.record.request.may_pass_through() {
                return Err(unproven("this job's input cannot be its result; write a copy"));
            }
            (None, None)
        } else {
            let (key, own) = self.stored(&hold, written, result.bytes)?;
            (Some(key), own)
        };
        end_attempt(&mut task, None);
        let ending = Ending { result: Some(Published { key, own, result }), completed_by: Some(hold), failure: None };
        let delivery = self.end(job, task, step.state, ending, &settings)?;
        self.arm().await?;
        self.dispatch(delivery.as_ref());
        Ok(step.state)
    }

    /// Ends an attempt that failed: offered again, or the end of the job.
    pub(super) async fn fail(&self, fail: Fail) -> Result<JobState, ApiError> {
        let settings = self.settings().await?;
        let mut task = self.held(&fail.hold)?;
        self.note_live(&mut task);
        let event = Event::Failed(fail.failure.kind);
        let step = machine::step(task.state, event, &task.spent).map_err(|Conflict| stale(task.state))?;
        if let Some(attempt) = task.attempts.last_mut() {
            attempt.stage = fail.failure.stage;
        }
        let delivery = self.settle(task, step, fail.failure, &settings)?;
        self.arm().await?;
        self.dispatch(delivery.as_ref());
        Ok(step.state)
    }

    /// Takes a task back from a node that is told to stop, or that cannot do it. One that has no room for what the plan
    /// says has only looked, and leaves no attempt behind.
    pub(super) async fn release(&self, release: &Release) -> Result<JobState, ApiError> {
        if let Some(reason) = &release.reason {
            return self.refuse(&release.hold, reason).await;
        }
        let mut task = self.held(&release.hold)?;
        self.note_live(&mut task);
        let step = machine::step(task.state, Event::Released, &task.spent).map_err(|Conflict| stale(task.state))?;
        if release.heavy {
            task.heavy = true;
            task.attempts.pop();
        } else {
            end_attempt(&mut task, Some(AttemptEnd::Released));
        }
        self.offer_again(task, 0, false)?;
        self.arm().await?;
        self.wake_nodes();
        Ok(step.state)
    }

    /// Takes a task back from a node that cannot do it, and offers it to others; or ends its job, where there are none.
    async fn refuse(&self, hold: &Hold, reason: &ReleaseReason) -> Result<JobState, ApiError> {
        let settings = self.settings().await?;
        let now = config::now();
        let mut task = self.held(hold)?;
        self.note_live(&mut task);
        let known = self.nodes_since(now.0 - KNOWN_MS)?;
        let Some(attempt) = task.attempts.last_mut() else { return Err(stale(task.state)) };
        attempt.stage = reason.failure.stage;
        let node = attempt.node.clone();
        let refused = task.refusals.note(&node, reason, task.offered_ms, now, &known);
        let step =
            machine::step(task.state, Event::Refused(refused), &task.spent).map_err(|Conflict| stale(task.state))?;
        // One attempt of each node that cannot do it says enough.
        task.attempts.retain(|attempt| attempt.node != node || !matches!(attempt.end, Some(AttemptEnd::Refused(_))));
        let delivery = if let Then::Offer { after_ms } = step.then {
            end_attempt(&mut task, Some(AttemptEnd::Refused(reason.failure.clone())));
            self.offer_again(task, after_ms, false)?;
            None
        } else {
            let failure = if refused.by_all { reason.failure.clone() } else { unable(&node, &reason.failure) };
            self.settle(task, step, failure, &settings)?
        };
        self.arm().await?;
        self.dispatch(delivery.as_ref());
        Ok(step.state)
    }
}

/// Why a task was given up that no node could do for a day.
fn unable(node: &str, last: &Failure) -> Failure {
    let message = format!("no node could do this job within 24 hours; the node {node} said last: {}", last.message);
    Failure { kind: FailureKind::Unclaimed, stage: last.stage, message }
}

/// A result that the edge does not publish.
fn unproven(message: &str) -> ApiError {
    ApiError::new(Code::Conflict, message)
}

/// 32 hexadecimal digits from the runtime's cryptographic source.
fn new_lease_token() -> Result<String, ApiError> {
    Ok(hex(&config::random::<16>()?))
}
