//! One attempt at one task, from the lease to the last word about it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use reqwest::Client;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use xora_shared::{
    failure::{FailureKind, Stage},
    job::{
        lease::Hold,
        weight::{Weight, always_reads_through, reads_through, reads_whole},
    },
    media::Format,
    protocol::{Complete, Fail, InputAt, Lease, NodeResult, NodeTimings, Release, ReleaseReason, Usage},
    report::{Expectation, Fate, RunReport, Strategy, Unchanged, VerifyReport},
    request::Headers,
};

use crate::{
    board::{Board, Halt, Holding},
    classify::{Cause, classify, lack},
    config::Config,
    conversation::{Breach, Broken, Conversation, Heard},
    digest::{Running, Sum},
    edge::{CallError, Edge},
    ipc::{Assignment, JobFailure, Source as About, Work},
    output::{LAST, Output, Sizes, StorageFault, Stored, Ways},
    process::{Ended, JobProcess, Launcher},
    refused::Refused,
    share::Share,
    source::{AHEAD, HEAD, Origin, Room, Source, SourceFault},
    stage::Staging,
    stop::{Phase, Stop},
    tell::{Patience, Rest, until_answered},
    tried::{Found, Tried},
};

/// How often a job process's CPU time is compared with its limit.
const LOOK: Duration = Duration::from_millis(250);
/// Longest line of a job process in the log, in characters.
const LINE: usize = 500;
/// Bytes of an output that are read back with the first request, where most of it is read anyway. Of smaller ones every
/// byte is compared, and of larger ones that do not tell their length, which are read whole.
const AT_ONCE: u64 = 4 << 20;
/// How long giving a task back may take.
const RELEASING: Duration = Duration::from_secs(5);

/// What all attempts of a node share.
pub struct Node {
    /// What the operator chose.
    pub config: Config,
    /// The edge.
    pub edge: Arc<Edge>,
    /// What is held.
    pub board: Arc<Board>,
    /// Starts job processes.
    pub launcher: Launcher,
    /// For inputs: every address judged.
    pub inputs: Client,
    /// For storage.
    pub storage: Client,
    /// Where inputs without ranges go.
    pub room: Arc<Room>,
    /// Whether to go on.
    pub stop: Stop,
    /// What was given back lately.
    pub refused: Refused,
}

/// Does the work of a lease that was asked for at `asked`, and tells the edge how it went.
pub async fn run(node: &Arc<Node>, lease: Lease, asked: Instant, share: Share) {
    let job = lease.job_id;
    info!(%job, attempt = lease.attempt, recipe = lease.wanted.recipe.name(), "leased");
    let holding = node.board.hold(lease.hold.clone(), lease.clock, asked);
    let (done_us, storing) = (AtomicU64::new(0), AtomicBool::new(false));
    let attempt = Attempt { node, lease: &lease, holding: &holding, share: &share, asked, done_us, storing };
    let longest = node.config.longest;
    let result = tokio::select! {
        result = attempt.work() => result,
        halt = holding.halted() => Err(attempt.halted(halt)),
        () = sleep(longest) => Err(Cause::Halted(Halt::Late { limit: longest })),
        () = node.stop.reached(Phase::Now) => Err(Cause::Halted(Halt::Drained)),
    };
    let stage = holding.stage();
    let word = last_word(&node.refused, lease.hold, result, stage);
    match &word {
        Last::Complete(complete) => info!(%job, bytes = complete.result.bytes, "done"),
        Last::Fail(fail) => warn!(%job, kind = ?fail.failure.kind, ?stage, "failed: {}", fail.failure.message),
        Last::Release(Release { reason: Some(reason), .. }) => {
            info!(%job, lack = ?reason.lack, "given back: {}", reason.failure.message);
        }
        Last::Release(_) => info!(%job, "given back"),
        Last::Nothing(cause) => info!(%job, ?cause, "dropped"),
    }
    tell(node, &word, holding, share).await;
}

/// What the edge hears last about a lease.
enum Last {
    Complete(Box<Complete>),
    Fail(Fail),
    Release(Release),
    Nothing(Cause),
}

fn last_word(refused: &Refused, hold: Hold, result: Result<NodeResult, Cause>, stage: Stage) -> Last {
    match result {
        Ok(result) => Last::Complete(Box::new(Complete { hold, result })),
        Err(Cause::Halted(Halt::Drained)) => Last::Release(Release { hold, heavy: false, reason: None }),
        Err(Cause::NoRoom) => Last::Release(Release { hold, heavy: true, reason: None }),
        Err(cause) => match (classify(&cause, stage), lack(&cause)) {
            (Some(failure), Some((lack, lasting))) if refused.heeds(hold.task_id) => {
                let reason = Some(ReleaseReason { lack, lasting, failure });
                Last::Release(Release { hold, heavy: false, reason })
            }
            (Some(failure), _) => Last::Fail(Fail { hold, failure }),
            (None, _) => Last::Nothing(cause),
        },
    }
}

/// Tells the edge until it answers.
async fn tell(node: &Node, word: &Last, holding: Holding, share: Share) {
    let edge = &node.edge;
    let patience = if matches!(word, Last::Release(_)) { Patience::Release } else { Patience::Work };
    let say = || async move {
        match word {
            Last::Complete(complete) => edge.complete(complete).await,
            Last::Fail(fail) => edge.fail(fail).await,
            Last::Release(release) => timeout(RELEASING, edge.release(release)).await.unwrap_or(Err(CallError::Stale)),
            Last::Nothing(_) => Ok(()),
        }
    };
    if let Err(error) = until_answered(say, &node.stop, Rest { holding, share, patience }).await {
        warn!("the edge was not told how an attempt ended: {error}");
    }
}

struct Attempt<'a> {
    node: &'a Arc<Node>,
    lease: &'a Lease,
    holding: &'a Holding,
    share: &'a Share,
    asked: Instant,
    /// Media time done, in microseconds. Limits of time grow with it and not with what a file claims.
    done_us: AtomicU64,
    /// Whether everything waits for storage.
    storing: AtomicBool,
}

/// What a job process made, before it is verified.
struct Made {
    report: Box<RunReport>,
    strategy: Strategy,
    output: Output,
    /// The hardware encoder of its pictures.
    hardware: Option<String>,
    /// About to end.
    process: JobProcess,
}

/// How the first process's part ended.
enum Run {
    Made(Box<Made>),
    /// The input is the result.
    Unchanged {
        unchanged: Box<Unchanged>,
        ended: Ended,
    },
    /// It has to be done again, knowing more.
    Again {
        found: Found,
        wasted: u64,
        ended: Ended,
    },
}

impl Attempt<'_> {
    async fn work(&self) -> Result<NodeResult, Cause> {
        self.share.settle(Weight::of(&self.lease.wanted));
        // Locks itself down while the origin is asked.
        let mut process = self.start().await?;
        let mut sources = Arc::new(self.open_all(false).await?);
        let opened = Instant::now();
        self.advance(0);
        let mut usage = Usage::default();
        let mut tried = Tried::default();
        let mut staging = Staging::default();
        // Bytes read before the inputs were opened once more, where they were.
        let mut earlier = None;
        loop {
            let run = match self.produce(process, &sources, &tried, &mut staging).await {
                Err(Cause::Source(SourceFault::Unsteady)) if earlier.is_none() => {
                    earlier = Some(sources.iter().map(Source::received).sum::<u64>());
                    staging = Staging::default();
                    sources = Arc::new(self.open_all(true).await?);
                    process = self.start().await?;
                    continue;
                }
                run => run?,
            };
            let bytes_read = || earlier.unwrap_or(0) + sources.iter().map(Source::received).sum::<u64>();
            let mut made = match run {
                Run::Made(made) => made,
                Run::Unchanged { unchanged, ended } => {
                    count(&mut usage, &ended, 0);
                    usage.bytes_read = bytes_read();
                    let bytes = sources.iter().filter_map(Source::size).sum();
                    return Ok(self.pass_through(*unchanged, bytes, usage, opened));
                }
                Run::Again { found, wasted, ended } => {
                    count(&mut usage, &ended, wasted);
                    tried = tried.and(found).ok_or(Cause::Confused)?;
                    process = self.start().await?;
                    continue;
                }
            };
            let copied = made.report.streams.iter().any(|stream| stream.fate == Fate::Kept);
            let hardware = made.hardware.take();
            let software = tried.no_hardware.iter().map(|why| format!("encoded in software, because {why}"));
            made.report.warnings.extend(software);
            usage.bytes_read = bytes_read();
            let times = (opened, Instant::now());
            let found = match (self.publish(*made, &mut usage, times).await, hardware) {
                (Err(Cause::Problems(problems)), Some(encoder)) => {
                    let problems = problems.join("; ");
                    Found::NoHardware(format!("what the hardware encoder {encoder} made was wrong: {problems}"))
                }
                // What was copied was wrong already; encoding may put it right.
                (Err(Cause::Problems(problems)), None) if copied => Found::Uncopyable(problems.join("; ")),
                (Ok(result), _) => return Ok(result),
                (Err(cause), _) => {
                    staging.finish().await;
                    return Err(cause);
                }
            };
            tried = tried.and(found).ok_or(Cause::Confused)?;
            process = self.start().await?;
        }
    }

    fn pass_through(&self, unchanged: Unchanged, bytes: u64, usage: Usage, opened: Instant) -> NodeResult {
        let Unchanged { strategy, facts, streams, warnings, verified } = unchanged;
        let (fetch_ms, process_ms) = (ms(opened - self.asked), ms(opened.elapsed()));
        let timings = NodeTimings { fetch_ms, process_ms, upload_ms: 0 };
        let (sha256, sha256_part_size) = (None, None);
        NodeResult { facts, bytes, sha256, sha256_part_size, strategy, streams, warnings, verified, timings, usage }
    }

    /// Lets storage finish the output, and has it verified.
    async fn publish(
        &self,
        made: Made,
        usage: &mut Usage,
        (opened, produced): (Instant, Instant),
    ) -> Result<NodeResult, Cause> {
        let Made { report, strategy, output, process: made_by, hardware: _ } = made;
        let RunReport { facts, expect, streams, warnings } = *report;

        self.holding.enter(Stage::Upload);
        let (part_size, max) = (output.part_size(), self.node.config.limits.output_bytes);
        let (process, ended, stored) = tokio::join!(self.start(), made_by.end(), self.stored(output.finish()));
        let (process, stored) = (process?, stored.map_err(|why| Cause::not_taken(why, max))?);
        count(usage, &ended, stored.bytes);
        self.holding.enter(Stage::Verify);
        let (verified, sha256, ended) = self.verify(process, &stored, expect).await?;
        let Stored { bytes, sum, .. } = stored;
        count(usage, &ended, 0);
        if !verified.problems.is_empty() {
            return Err(Cause::Problems(verified.problems));
        }
        let sha256_part_size = matches!(sum, Sum::Parts(_)).then_some(part_size);
        let timings = NodeTimings {
            fetch_ms: ms(opened - self.asked),
            process_ms: ms(produced - opened),
            upload_ms: ms(produced.elapsed()),
        };
        Ok(NodeResult {
            facts,
            bytes,
            sha256: Some(sha256),
            sha256_part_size,
            strategy,
            streams,
            warnings,
            verified: *verified,
            timings,
            usage: *usage,
        })
    }

    async fn start(&self) -> Result<(JobProcess, tokio::net::UnixStream), Cause> {
        self.node.launcher.start_job(&self.lease.job_id.to_string()).await.map_err(|error| {
            warn!("cannot start a job process: {error}");
            Cause::NotStarted
        })
    }

    /// Opens all inputs at once, each to be read `whole` by one request if so wanted. The limit is for them together.
    async fn open_all(&self, whole: bool) -> Result<Vec<Source>, Cause> {
        self.holding.reading(true, 0, 0);
        let is_one = self.lease.inputs.len() == 1;
        let opening = self.lease.inputs.iter().zip(1..).map(|(input, number)| async move {
            let named = |cause| if is_one { cause } else { Cause::OfInput(number, Box::new(cause)) };
            self.open(input, whole).await.map_err(named)
        });
        let sources = try_join_all(opening).await;
        self.holding.reading(false, 0, 0);
        let (sources, limit) = (sources?, self.node.config.max_input_bytes);
        let known = sources.iter().filter_map(Source::size).fold(0, u64::saturating_add);
        let over = SourceFault::TooLarge { limit, size: Some(known) };
        if known > limit { Err(Cause::Source(over)) } else { Ok(sources) }
    }

    async fn open(&self, input: &InputAt, whole: bool) -> Result<Source, Cause> {
        let origin = self.origin(input).map_err(Cause::Source)?;
        let head = if always_reads_through(&self.lease.wanted) { AHEAD } else { HEAD };
        let (room, limit) = (&self.node.room, self.node.config.max_input_bytes);
        let source = if whole && !input.ours {
            Source::open_whole(origin, room, limit).await
        } else {
            Source::open(origin, room, limit, head).await
        };
        let is_gone = |fault: &SourceFault| input.ours && *fault == SourceFault::Status(404);
        source.map_err(|fault| if is_gone(&fault) { gone() } else { Cause::Source(fault) })
    }

    fn origin(&self, at: &InputAt) -> Result<Origin, SourceFault> {
        let Node { storage, inputs, config, .. } = self.node.as_ref();
        if at.ours {
            Origin::trusted(storage.clone(), &at.url)
        } else {
            Origin::judged(inputs.clone(), at, config.policy)
        }
    }

    /// Lets the first process make the output, and takes it.
    async fn produce(
        &self,
        (process, stream): (JobProcess, tokio::net::UnixStream),
        sources: &Arc<Vec<Source>>,
        tried: &Tried,
        staging: &mut Staging,
    ) -> Result<Run, Cause> {
        let inputs = sources.iter().map(|source| About { size: source.size() }).collect();
        let (index_bytes, uncopyable) = (tried.index_bytes, tried.uncopyable.clone());
        let (wanted, has_address) = (self.lease.wanted.clone(), self.lease.pass_through);
        let work = Work::Run { inputs, wanted, index_bytes, uncopyable, has_address };
        let allowed = tried.no_hardware.is_none();
        let mut talk = match self.begin(stream, (work, allowed), Arc::clone(sources)).await {
            Ok(talk) => talk,
            Err(cause) => return Err(self.why(cause, process, None).await),
        };
        let mut planned: Option<(Strategy, Output)> = None;
        let mut hardware: Option<String> = None;
        loop {
            let heard = match (self.hear(&mut talk, &process).await, &hardware) {
                (Ok(heard), _) => heard,
                // A driver may take its process with it.
                (Err(Broken::Died), Some(encoder)) if talk.fault().is_none() => {
                    let why = format!("the process died in which the hardware encoder {encoder} was at work");
                    return Ok(Self::in_vain(Found::NoHardware(why), planned, process).await);
                }
                (Err(cause), _) => return Err(self.why(cause, process, talk.fault()).await),
            };
            match (heard, planned.take()) {
                (Heard::Planned { strategy, format, expected_bytes, part_size }, None) => {
                    let weight = Weight::of(&self.lease.wanted).planned(strategy.kind);
                    // A second run is none that the edge could have foreseen, and another node would only find the
                    // same.
                    if !self.share.settle(weight) && tried.uncopyable.is_none() {
                        return Err(Cause::NoRoom);
                    }
                    if reads_through(&self.lease.wanted, strategy.kind) {
                        sources.iter().for_each(Source::read_through);
                    }
                    if reads_whole(&self.lease.wanted, strategy.kind) && self.lease.stage_input {
                        staging.begin(self.node, self.lease, sources);
                    }
                    planned = Some((strategy, self.output(format, expected_bytes, part_size)?));
                }
                (Heard::Part { number, bytes }, Some((strategy, mut output))) => {
                    let max = self.node.config.limits.output_bytes;
                    self.stored(output.take(number, bytes)).await.map_err(|why| Cause::not_taken(why, max))?;
                    self.holding.advance();
                    planned = Some((strategy, output));
                }
                (Heard::Produced(report), Some((strategy, output))) => {
                    sources.iter().for_each(|source| source.follow(u64::MAX));
                    return Ok(Run::Made(Box::new(Made { report, strategy, output, hardware, process })));
                }
                (Heard::Failed(JobFailure::IndexTooSmall { needed }), planned @ Some(_)) => {
                    return Ok(Self::in_vain(Found::IndexBytes(needed), planned, process).await);
                }
                (Heard::Failed(JobFailure::Uncopyable { reason }), planned @ Some(_)) => {
                    return Ok(Self::in_vain(Found::Uncopyable(reason), planned, process).await);
                }
                (Heard::Failed(JobFailure::Hardware), planned @ Some(_)) if hardware.is_some() => {
                    let why = format!("the hardware encoder {} failed", hardware.unwrap_or_default());
                    return Ok(Self::in_vain(Found::NoHardware(why), planned, process).await);
                }
                (Heard::InHardware(encoder), kept) => (planned, hardware) = (kept, Some(encoder)),
                (Heard::Unchanged(unchanged), None) => {
                    let ended = process.end().await;
                    return Ok(Run::Unchanged { unchanged, ended });
                }
                (Heard::Failed(failure), _) => return Err(of_job(failure, talk.fault())),
                (Heard::Stage(_) | Heard::Progress { .. } | Heard::Log(_), kept) => planned = kept,
                (Heard::Part { .. }, None) => return Err(Cause::Breach(Breach::Part)),
                (Heard::Planned { .. } | Heard::Unchanged(_), Some(_))
                | (Heard::Produced(_), None)
                | (Heard::Verified(_), _) => {
                    return Err(Cause::Breach(Breach::Message));
                }
            }
        }
    }

    /// The end of a run that has to be done again.
    async fn in_vain(found: Found, planned: Option<(Strategy, Output)>, process: JobProcess) -> Run {
        let wasted = planned.map_or(0, |(_, output)| output.bytes());
        Run::Again { found, wasted, ended: process.end().await }
    }

    /// Lets a second process read the stored object back and compare it with what was meant.
    async fn verify(
        &self,
        (process, stream): (JobProcess, tokio::net::UnixStream),
        Stored { bytes, sum, ends, read_url, foreign }: &Stored,
        expect: Expectation,
    ) -> Result<(Box<VerifyReport>, String, Ended), Cause> {
        let bytes = *bytes;
        let at = InputAt { url: read_url.clone(), headers: Headers::new(), ours: !foreign };
        let origin = self.origin(&at).map_err(Cause::Unreadable)?;
        let edges = expect.format.tells_length() && bytes > AT_ONCE;
        let head = if edges { HEAD } else { bytes.clamp(HEAD, AT_ONCE) };
        let stored = Source::open(origin, &self.node.room, u64::MAX, head).await.map_err(Cause::Unreadable)?;
        if edges {
            stored.expect_end(LAST as u64);
        } else {
            stored.read_through();
        }
        if stored.size().is_some_and(|size| size != bytes) {
            return Err(Cause::Problems(vec!["storage has another number of bytes than was sent".into()]));
        }
        let stored = Arc::new(vec![stored]);
        let work = Work::Verify { input: About { size: Some(bytes) }, expect };
        let mut talk = match self.begin(stream, (work, false), Arc::clone(&stored)).await {
            Ok(talk) => talk,
            Err(cause) => return Err(self.why(cause, process, None).await),
        };
        let verified = loop {
            let heard = match self.hear(&mut talk, &process).await {
                Ok(heard) => heard,
                Err(cause) => return Err(read_back(self.why(cause, process, talk.fault()).await)),
            };
            match heard {
                Heard::Verified(report) => break report,
                Heard::Failed(failure) => return Err(read_back(of_job(failure, talk.fault()))),
                Heard::Stage(_) | Heard::Progress { .. } | Heard::Log(_) => {}
                Heard::Part { .. } => return Err(Cause::Breach(Breach::Part)),
                Heard::Planned { .. } | Heard::Produced(_) | Heard::Unchanged(_) | Heard::InHardware(_) => {
                    return Err(Cause::Breach(Breach::Message));
                }
            }
        };
        let sha256 = match sum {
            Sum::Parts(sum) => sum.clone(),
            Sum::Object(sum) if edges => sum.clone(),
            Sum::Object(_) | Sum::ReadBack => self.sum(&stored[0], bytes).await.map_err(Cause::Unreadable)?,
        };
        let mut is_same = !matches!(sum, Sum::Object(sent) if *sent != sha256);
        // They were read for the job process already.
        for (offset, sent) in ends {
            is_same &= stored[0].read(*offset, sent.len() as u64).await.map_err(Cause::Unreadable)? == *sent;
        }
        if !is_same {
            return Err(Cause::Problems(vec!["storage has other bytes than were sent".into()]));
        }
        Ok((verified, sha256, process.end().await))
    }

    /// The checksum of an object that is not in memory.
    async fn sum(&self, stored: &Source, bytes: u64) -> Result<String, SourceFault> {
        let mut running = Running::default();
        let mut at = 0;
        while at < bytes {
            let read = stored.read(at, 1 << 20).await?;
            if read.is_empty() {
                return Err(SourceFault::Truncated { at, promised: Some(bytes) });
            }
            self.holding.advance();
            running.take(&read);
            at += read.len() as u64;
        }
        Ok(running.finish())
    }

    async fn begin(
        &self,
        stream: tokio::net::UnixStream,
        (work, in_hardware): (Work, bool),
        sources: Arc<Vec<Source>>,
    ) -> Result<Conversation, Broken> {
        let threads = u32::try_from(self.node.config.threads).unwrap_or(1);
        let limits = self.node.config.limits.clone();
        let hardware = if in_hardware { self.node.config.hardware.clone() } else { Vec::new() };
        let assignment = Assignment { work, limits, threads, hardware };
        Conversation::begin(stream, assignment, sources, self.holding.shared()).await.map_err(|_| Broken::Died)
    }

    /// The next thing said, noted; and an eye on the process's memory meanwhile.
    async fn hear(&self, talk: &mut Conversation, process: &JobProcess) -> Result<Heard, Broken> {
        let heard = tokio::select! {
            heard = talk.next() => heard?,
            () = process.exceeds(self.node.config.max_job_memory) => return Err(Broken::Overgrown),
            () = self.overspends(process) => return Err(Broken::Overspent),
        };
        match &heard {
            // A second process is at its own stage before its first word.
            Heard::Stage(stage) => self.holding.enter(*stage),
            Heard::Progress { done_us, total_us } => {
                self.advance(*done_us);
                self.holding.progress(percent(*done_us, *total_us));
            }
            Heard::Log(line) => {
                let line: String = line.chars().take(LINE).collect();
                info!(job = %self.lease.job_id, "media: {}", line.escape_debug());
            }
            Heard::InHardware(encoder) => info!(job = %self.lease.job_id, encoder, "in hardware"),
            Heard::Planned { strategy, .. } => info!(job = %self.lease.job_id, way = ?strategy.kind, "planned"),
            Heard::Part { .. } | Heard::Produced(_) | Heard::Unchanged(_) | Heard::Verified(_) | Heard::Failed(_) => {}
        }
        Ok(heard)
    }

    /// What a broken conversation means. An input that could not be read explains whatever followed.
    async fn why(&self, broken: Broken, process: JobProcess, fault: Option<SourceFault>) -> Cause {
        match (broken, fault) {
            (Broken::Breach(breach), _) => Cause::Breach(breach),
            (Broken::Overgrown, _) => Cause::Memory { limit: self.node.config.max_job_memory },
            (Broken::Overspent, _) => Cause::CpuTime { limit: self.cpu_limit() },
            (Broken::Died, Some(fault)) => Cause::Source(fault),
            (Broken::Died, None) => Cause::Died { signal: process.end().await.signal },
        }
    }

    fn output(&self, format: Format, expected_bytes: u64, part_size: u64) -> Result<Output, Cause> {
        let Node { edge, storage, inputs, config, .. } = self.node.as_ref();
        let ways = Ways { ours: storage.clone(), judged: inputs.clone(), policy: config.policy };
        let max = config.limits.output_bytes;
        let sizes = Sizes { expected_bytes, part_size, max_bytes: max };
        let output = Output::begin(Arc::clone(edge), ways, self.holding.shared(), format, sizes);
        output.map_err(|why| Cause::not_taken(why, max))
    }

    /// Waits for storage.
    async fn stored<T>(&self, storing: impl Future<Output = T>) -> T {
        self.storing.store(true, Ordering::Relaxed);
        let stored = storing.await;
        self.storing.store(false, Ordering::Relaxed);
        stored
    }

    /// What it means that the work must stop. A job that stood still because storage took nothing has not died.
    fn halted(&self, halt: Halt) -> Cause {
        match halt {
            Halt::Stalled { reading: false } if self.storing.load(Ordering::Relaxed) => {
                Cause::Storage(StorageFault::Unavailable)
            }
            other @ (Halt::Cancelled | Halt::Lost | Halt::Stalled { .. } | Halt::Late { .. } | Halt::Drained) => {
                Cause::Halted(other)
            }
        }
    }

    /// Notes how much media time is done, in microseconds, which earns the attempt more time.
    fn advance(&self, done_us: u64) {
        if self.done_us.fetch_max(done_us, Ordering::Relaxed) < done_us {
            self.holding.advance();
        }
        self.holding.limit(self.allowed(self.node.config.wall_factor));
    }

    /// Opening takes little, and does not get what is meant for the work.
    fn cpu_limit(&self) -> Duration {
        let Config { cpu_factor, open, .. } = self.node.config;
        let inputs = u32::try_from(self.lease.inputs.len()).unwrap_or(u32::MAX);
        let is_opening = self.holding.stage() == Stage::Probe;
        let most = if is_opening { open.saturating_mul(inputs) } else { Duration::MAX };
        self.allowed(cpu_factor).min(most)
    }

    fn allowed(&self, factor: u32) -> Duration {
        let config = &self.node.config;
        // A job process may claim to have done anything.
        let longest = Duration::from_secs(config.limits.duration_seconds);
        let done = Duration::from_micros(self.done_us.load(Ordering::Relaxed)).min(longest);
        config.grace.saturating_add(done.saturating_mul(factor))
    }

    /// Waits until a job process has had more CPU time than it may.
    async fn overspends(&self, process: &JobProcess) {
        while process.cpu_time() <= self.cpu_limit() {
            sleep(LOOK).await;
        }
    }
}

fn of_job(failure: JobFailure, fault: Option<SourceFault>) -> Cause {
    match (failure, fault) {
        (_, Some(fault)) => Cause::Source(fault),
        (JobFailure::Known { kind, message }, None) => Cause::Job { kind, message },
        (
            JobFailure::Unreadable
            | JobFailure::IndexTooSmall { .. }
            | JobFailure::Uncopyable { .. }
            | JobFailure::Hardware,
            None,
        ) => Cause::Confused,
    }
}

/// An upload whose time was over before the job was done.
fn gone() -> Cause {
    let message = "the uploaded file is not stored any more; upload it again, and create a new job";
    Cause::Job { kind: FailureKind::OriginRefused, message: message.into() }
}

/// In verification the input is the stored object.
fn read_back(cause: Cause) -> Cause {
    match cause {
        Cause::Source(fault) => Cause::Unreadable(fault),
        // Of the node, not of the object.
        Cause::Job { kind, message } if kind != FailureKind::NoDecoder => Cause::Problems(vec![message]),
        Cause::Job { .. }
        | Cause::Confused
        | Cause::Died { .. }
        | Cause::Breach(_)
        | Cause::Memory { .. }
        | Cause::CpuTime { .. }
        | Cause::NotStarted
        | Cause::NoRoom
        | Cause::OutputTooLarge { .. }
        | Cause::Storage(_)
        | Cause::Unreadable(_)
        | Cause::Problems(_)
        | Cause::Halted(_)
        | Cause::OfInput(..) => cause,
    }
}

fn count(usage: &mut Usage, ended: &Ended, written: u64) {
    usage.cpu_seconds += ended.cpu_seconds;
    usage.peak_memory_bytes = usage.peak_memory_bytes.max(ended.peak_memory);
    usage.bytes_written += written;
}

/// 0 to 99: the last hundredth is that the edge knows.
fn percent(done_us: u64, total_us: u64) -> u8 {
    let percent = done_us.saturating_mul(100).checked_div(total_us).unwrap_or(0).min(99);
    u8::try_from(percent).unwrap_or(99)
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
