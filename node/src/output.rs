//! The output of one attempt: parts are checked, summed and sent to storage while they are made.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use reqwest::{
    Body, Client, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG},
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};
use xora_shared::{
    job::lease::Hold,
    media::Format,
    net::{Policy, check_url},
    protocol::{MAX_PART, OutputBegin, OutputBegun, OutputFinish, OutputTargets, PartDone, PartTarget},
    refusal::Code,
    s3::{Said, Verdict},
};

use crate::{
    board::Held,
    conversation::Breach,
    digest::{Digest, Sum},
    edge::{CallError, Edge, Refusal},
    source::SourceFault,
};

/// Smallest part but the last, in bytes (S3 and R2 alike).
const MIN_PART: u64 = 5 << 20;
/// Most parts of one output (S3 and R2 alike).
const MAX_PARTS: u32 = 10_000;
/// Parts on their way at once: with the one being made, what an output holds in memory.
const IN_FLIGHT: usize = 2;
/// Bytes at the start of an output that are remembered, and compared when it is read back.
const FIRST: usize = 64 << 10;
/// Those at its end: its last pictures, as a rule.
pub const LAST: usize = 256 << 10;
/// Bytes that a connection takes at a time; each is a sign of life.
const CHUNK: usize = 256 << 10;
/// Waits between tries; the last again and again.
const WAITS: [Duration; 4] =
    [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(6)];
/// Most redirects of one part that are followed.
const REDIRECTS: usize = 2;
/// A target that is younger than this has not expired, however clocks differ.
const FRESH: Duration = Duration::from_mins(1);
/// Most bytes of an answer that is no success that are read.
const ANSWER: usize = 64 << 10;
/// How long storage or the edge may be out of reach in mid-job: an outage of 50 seconds is survived. Less than a job may
/// stand still, so that it ends with the true reason.
const PATIENCE: Duration = Duration::from_secs(50);
/// How long the edge may take in all, tries included, until storage has put an output together. S3 takes minutes for
/// thousands of parts.
const FINISH: Duration = Duration::from_mins(10);

/// Counts the tries of one call.
#[derive(Default)]
struct Tries {
    /// When the first one failed.
    since: Option<Instant>,
    failed: usize,
}

impl Tries {
    /// After a try that failed: how long to wait before the next one. None when that has been going on for [`PATIENCE`].
    fn again(&mut self) -> Option<Duration> {
        let wait = WAITS[self.failed.min(WAITS.len() - 1)];
        self.failed += 1;
        let since = self.since.get_or_insert_with(Instant::now);
        Some(wait).filter(|_| since.elapsed() + wait <= PATIENCE)
    }
}

/// Why storage does not have the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageFault {
    /// The lease is over: nobody waits for it.
    Stale,
    /// Storage or the edge refuses with this status.
    Refused(u16),
    /// The bucket refuses, and goes on to until someone changes it, its rights or the key: in these words.
    Denied(String),
    /// The bucket is at this `Location` for now.
    Moved(String),
    /// The bucket is where this node must not go.
    Address,
    /// The edge knows no bucket for it any more.
    Gone,
    /// Storage or the edge does not answer, or cannot just now.
    Unavailable,
    /// Something stands already where one request was to write.
    Stands,
    /// The bucket does not know the condition under which one request writes.
    Unconditional,
}

/// Why a part was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The job process broke the rules.
    Breach(Breach),
    /// The output is over its limit.
    TooLarge,
    /// Storage failed.
    Storage(StorageFault),
}

impl From<StorageFault> for NotTaken {
    fn from(fault: StorageFault) -> Self {
        Self::Storage(fault)
    }
}

/// See the module. Dropping it stops what is on its way.
pub struct Output {
    ledger: Ledger,
    begin: OutputBegin,
    sender: Arc<Sender>,
    on_their_way: JoinSet<Result<PartDone, StorageFault>>,
    done: Vec<PartDone>,
    digest: Option<Digest>,
    /// The first bytes of the first part.
    first: Bytes,
    /// The last bytes of the last part so far, and its number.
    last: (u32, Bytes),
}

/// How parts travel.
#[derive(Clone)]
pub struct Ways {
    /// To the edge and to storage that it vouches for.
    pub ours: Client,
    /// To buckets of callers: every address is judged.
    pub judged: Client,
    /// What callers' buckets may be.
    pub policy: Policy,
}

/// How long an output may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// About how long it becomes.
    pub expected_bytes: u64,
    /// Every part but the last.
    pub part_size: u64,
    /// The most that it may become.
    pub max_bytes: u64,
}

/// What stands in storage.
pub struct Stored {
    /// Size in bytes.
    pub bytes: u64,
    /// Its checksum.
    pub sum: Sum,
    /// Its first and its last bytes, each with their offset.
    pub ends: [(u64, Bytes); 2],
    /// Where to read it back.
    pub read_url: String,
    /// Whether that is in a caller's bucket.
    pub foreign: bool,
}

impl Output {
    /// Opens an output without waiting for it: the first part waits. What is expected to take less than half a part is
    /// to be written by one request, without a multipart upload.
    pub fn begin(
        edge: Arc<Edge>,
        ways: Ways,
        held: Arc<Held>,
        format: Format,
        Sizes { expected_bytes, part_size, max_bytes }: Sizes,
    ) -> Result<Self, NotTaken> {
        let ledger = Ledger::new(part_size, max_bytes).map_err(NotTaken::Breach)?;
        let begin = OutputBegin { hold: held.hold.clone(), format, part_size, single: expected_bytes < part_size / 2 };
        let sender = Arc::new(Sender { edge, ways, held, begin: begin.clone(), targets: Arc::default() });
        let mut output = Self {
            ledger,
            begin: begin.clone(),
            sender: Arc::clone(&sender),
            on_their_way: JoinSet::new(),
            done: Vec::new(),
            digest: Some(Digest::expecting(expected_bytes)),
            first: Bytes::new(),
            last: (0, Bytes::new()),
        };
        // Locked before the first part can ask for its target.
        if let Ok(targets) = Arc::clone(&sender.targets).try_lock_owned() {
            output.on_their_way.spawn(async move {
                sender.open(targets, begin).await?;
                Ok(PartDone { number: 0, etag: String::new() })
            });
        }
        Ok(output)
    }

    /// Takes a part. Waits while enough others are on their way.
    pub async fn take(&mut self, number: u32, bytes: Vec<u8>) -> Result<(), NotTaken> {
        self.ledger.enter(number, bytes.len() as u64)?;
        // The first part may come last.
        if self.begin.single && (number > 1 || bytes.len() as u64 == self.ledger.part_size) {
            self.begin_parts().await?;
        }
        // Copies, so that no whole part is held for them.
        if number == 1 {
            self.first = Bytes::copy_from_slice(&bytes[..bytes.len().min(FIRST)]);
        }
        if number > self.last.0 {
            self.last = (number, Bytes::copy_from_slice(&bytes[bytes.len().saturating_sub(LAST)..]));
        }
        let bytes = Bytes::from(bytes);
        if let Some(mut digest) = self.digest.take() {
            let summed = bytes.clone();
            let work = move || {
                digest.take(number, summed);
                digest
            };
            self.digest = spawn_blocking(work).await.ok();
        }
        // The opening counts as one until it is done.
        while self.on_their_way.len() >= IN_FLIGHT {
            self.one_more().await?;
        }
        let sender = Arc::clone(&self.sender);
        self.on_their_way.spawn(async move { sender.send(number, bytes).await });
        Ok(())
    }

    /// Waits for all parts and has them put together.
    pub async fn finish(mut self) -> Result<Stored, NotTaken> {
        let bytes = self.ledger.close().map_err(NotTaken::Breach)?;
        let ends = [(0, self.first.clone()), (bytes - self.last.1.len() as u64, self.last.1.clone())];
        while !self.on_their_way.is_empty() {
            self.one_more().await?;
        }
        if let Targets { read_url: Some(read_url), foreign, .. } = &*self.sender.targets.lock().await {
            let sum = self.digest.map_or(Sum::ReadBack, Digest::finish);
            return Ok(Stored { bytes, sum, ends, read_url: read_url.clone(), foreign: *foreign });
        }
        self.done.sort_by_key(|part| part.number);
        let parts = std::mem::take(&mut self.done);
        let finish = OutputFinish { hold: self.sender.held.hold.clone(), bytes, parts };
        let finishing = timeout(FINISH, retry(|| self.sender.edge.finish(&finish)));
        let finished = self.sender.held.outlast(finishing).await.map_err(|_| StorageFault::Unavailable)??;
        let sum = self.digest.map_or(Sum::ReadBack, Digest::finish);
        Ok(Stored { bytes, sum, ends, read_url: finished.read_url, foreign: finished.foreign })
    }

    /// Begins again: there are more parts than was thought.
    async fn begin_parts(&mut self) -> Result<(), StorageFault> {
        self.begin.single = false;
        while !self.on_their_way.is_empty() {
            self.one_more().await?;
        }
        self.sender.open(Arc::clone(&self.sender.targets).lock_owned().await, self.begin.clone()).await
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.ledger.bytes
    }

    /// Size of every part but the last, in bytes.
    pub fn part_size(&self) -> u64 {
        self.ledger.part_size
    }

    async fn one_more(&mut self) -> Result<(), StorageFault> {
        match self.on_their_way.join_next().await {
            Some(Ok(Ok(part))) => self.done.extend(Some(part).filter(|part| part.number > 0)),
            Some(Ok(Err(fault))) => return Err(fault),
            Some(Err(_)) => return Err(StorageFault::Unavailable),
            None => {}
        }
        Ok(())
    }
}

/// Which parts have come, and whether they may be what they are.
struct Ledger {
    part_size: u64,
    max_bytes: u64,
    seen: BTreeSet<u32>,
    /// The one part that is shorter: the last.
    short: Option<u32>,
    bytes: u64,
}

impl Ledger {
    fn new(part_size: u64, max_bytes: u64) -> Result<Self, Breach> {
        let ledger = Self { part_size, max_bytes, seen: BTreeSet::new(), short: None, bytes: 0 };
        if (MIN_PART..=MAX_PART).contains(&part_size) { Ok(ledger) } else { Err(Breach::Part) }
    }

    fn enter(&mut self, number: u32, bytes: u64) -> Result<(), NotTaken> {
        let short = bytes < self.part_size;
        let fits = (1..=MAX_PARTS).contains(&number) && (1..=self.part_size).contains(&bytes);
        if !fits || (short && self.short.is_some()) || !self.seen.insert(number) {
            return Err(NotTaken::Breach(Breach::Part));
        }
        if short {
            self.short = Some(number);
        }
        self.bytes += bytes;
        if self.bytes > self.max_bytes { Err(NotTaken::TooLarge) } else { Ok(()) }
    }

    /// The size of the output, if nothing is missing.
    fn close(&self) -> Result<u64, Breach> {
        let last = self.seen.last().copied().ok_or(Breach::Part)?;
        let whole = self.seen.len() == last as usize && self.short.is_none_or(|short| short == last);
        if whole { Ok(self.bytes) } else { Err(Breach::Part) }
    }
}

/// Sends parts to where the edge says.
struct Sender {
    edge: Arc<Edge>,
    ways: Ways,
    held: Arc<Held>,
    begin: OutputBegin,
    targets: Arc<Mutex<Targets>>,
}

/// Where an output goes.
#[derive(Default)]
struct Targets {
    /// Where parts go, by number.
    parts: BTreeMap<u32, Target>,
    /// Where to read it back, when the first part is all of it.
    read_url: Option<String>,
    foreign: bool,
}

impl Targets {
    /// Takes the answer to what was asked at `asked`. Targets count as good for nine tenths of their time: a slow clock
    /// or a slow start must not make them late.
    fn told(&mut self, begun: OutputBegun, asked: Instant) {
        let OutputBegun { targets, read_url, good_for_seconds, foreign } = begun;
        let single = read_url.is_some();
        (self.read_url, self.foreign) = (read_url, foreign);
        let until = asked + Duration::from_secs(good_for_seconds).mul_f64(0.9);
        self.parts.extend(targets.into_iter().map(|to| (to.number, Target { to, foreign, single, asked, until })));
    }
}

/// Where one part goes, and how long one may begin to send it there.
#[derive(Clone)]
struct Target {
    to: PartTarget,
    foreign: bool,
    /// Whether it takes the whole output.
    single: bool,
    asked: Instant,
    until: Instant,
}

impl Sender {
    async fn open(&self, mut targets: OwnedMutexGuard<Targets>, begin: OutputBegin) -> Result<(), StorageFault> {
        let asked = Instant::now();
        let begun = retry(|| self.edge.begin(&begin)).await?;
        *targets = Targets::default();
        targets.told(begun, asked);
        self.held.advance();
        Ok(())
    }

    async fn send(&self, number: u32, bytes: Bytes) -> Result<PartDone, StorageFault> {
        let mut tries = Tries::default();
        let (mut moved, mut redirects) = (None, 0);
        loop {
            let target = self.target(number, moved.take()).await?;
            let fault = match self.put(&target, &bytes).await {
                Ok(etag) => return Ok(PartDone { number, etag }),
                // As a rule an earlier try of ours, whose answer was lost. What stands is read back and compared anyway.
                Err(StorageFault::Stands) => return Ok(PartDone { number, etag: String::new() }),
                Err(fault) => fault,
            };
            match fault {
                StorageFault::Unavailable => {}
                // A multipart upload needs no condition: once it is complete it takes no more parts.
                StorageFault::Unconditional => {
                    let begin = OutputBegin { single: false, ..self.begin.clone() };
                    self.open(Arc::clone(&self.targets).lock_owned().await, begin).await?;
                    continue;
                }
                // With a target for where it is now.
                StorageFault::Moved(location) if redirects < REDIRECTS => {
                    redirects += 1;
                    moved = Some(location);
                    continue;
                }
                StorageFault::Moved(_) => {
                    return Err(StorageFault::Denied("it answers 307 TemporaryRedirect again and again".into()));
                }
                // An old target may have expired before its time, where clocks differ: the next one is fresh.
                StorageFault::Denied(_) if target.asked.elapsed() > FRESH => {
                    self.targets.lock().await.parts.remove(&number);
                }
                StorageFault::Refused(403) => drop(self.targets.lock().await.parts.remove(&number)),
                StorageFault::Refused(_)
                | StorageFault::Denied(_)
                | StorageFault::Address
                | StorageFault::Gone
                | StorageFault::Stale
                | StorageFault::Stands => return Err(fault),
            }
            sleep(tries.again().ok_or(fault)?).await;
        }
    }

    /// A target that is still good: others are asked for before they are used.
    /// One that is for a bucket that `moved` there is always asked for.
    async fn target(&self, number: u32, moved: Option<String>) -> Result<Target, StorageFault> {
        let mut targets = self.targets.lock().await;
        let asked = Instant::now();
        let known = targets.parts.get(&number).filter(|target| moved.is_none() && asked < target.until);
        if let Some(target) = known {
            return Ok(target.clone());
        }
        let wanted = OutputTargets { hold: self.hold(), from: number, moved };
        targets.told(retry(|| self.edge.targets(&wanted)).await?, asked);
        targets.parts.get(&number).cloned().ok_or(StorageFault::Unavailable)
    }

    /// One try. Gives the `ETag`.
    async fn put(&self, Target { to, foreign, single, .. }: &Target, bytes: &Bytes) -> Result<String, StorageFault> {
        let http = if *foreign { &self.ways.judged } else { &self.ways.ours };
        if *foreign {
            check_url(&to.url, self.ways.policy).map_err(|_| StorageFault::Address)?;
        }
        // Slower than 64 KiB/s is no connection.
        let within = Duration::from_secs(30 + bytes.len() as u64 / (64 << 10));
        let mut request = http.put(&to.url).timeout(within).header(CONTENT_LENGTH, bytes.len());
        request = request.header(CONTENT_TYPE, self.begin.format.mime_type());
        for (name, value) in to.headers.iter() {
            request = request.header(name, value);
        }
        let response = request.body(self.body(bytes)).send().await.map_err(unsent)?;
        self.held.advance();
        // A whole output is written once. The edge sees to that itself and answers 409; a bucket is told by a header.
        let is_conditional = *single && !to.headers.is_empty();
        match response.status() {
            status if status.is_success() => etag(&response).ok_or(StorageFault::Unavailable),
            StatusCode::PRECONDITION_FAILED if is_conditional => Err(StorageFault::Stands),
            // Another write of the same object is on its way.
            StatusCode::CONFLICT if is_conditional => Err(StorageFault::Unavailable),
            StatusCode::NOT_IMPLEMENTED if is_conditional => Err(StorageFault::Unconditional),
            StatusCode::CONFLICT if *single => Err(StorageFault::Stands),
            status => Err(match refusal(response).await {
                // But not if it only asks for the part again.
                StorageFault::Refused(_) | StorageFault::Denied(_)
                    if is_conditional && status == StatusCode::BAD_REQUEST =>
                {
                    StorageFault::Unconditional
                }
                other @ (StorageFault::Refused(_)
                | StorageFault::Denied(_)
                | StorageFault::Stale
                | StorageFault::Moved(_)
                | StorageFault::Address
                | StorageFault::Gone
                | StorageFault::Unavailable
                | StorageFault::Stands
                | StorageFault::Unconditional) => other,
            }),
        }
    }

    fn body(&self, bytes: &Bytes) -> Body {
        let chunks = (0..bytes.len()).step_by(CHUNK).map(|at| bytes.slice(at..bytes.len().min(at + CHUNK)));
        let chunks: Vec<_> = chunks.collect();
        let held = Arc::clone(&self.held);
        Body::wrap_stream(stream::iter(chunks.into_iter().map(move |chunk| {
            held.advance();
            Ok::<_, std::convert::Infallible>(chunk)
        })))
    }

    fn hold(&self) -> Hold {
        self.held.hold.clone()
    }
}

fn unsent(error: reqwest::Error) -> StorageFault {
    match SourceFault::from(error) {
        SourceFault::Refused(_) => StorageFault::Address,
        SourceFault::Status(_)
        | SourceFault::Redirects
        | SourceFault::Encoded
        | SourceFault::Unavailable(_)
        | SourceFault::Changed
        | SourceFault::Unsteady
        | SourceFault::Truncated { .. }
        | SourceFault::TooLarge { .. }
        | SourceFault::NoRoom { .. }
        | SourceFault::Full
        | SourceFault::Disk => StorageFault::Unavailable,
    }
}

/// What an answer of storage that is no success means.
async fn refusal(mut response: Response) -> StorageFault {
    let status = response.status();
    let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    let (location, region) = (header("location"), header("x-amz-bucket-region"));
    if let (StatusCode::TEMPORARY_REDIRECT, Some(location)) = (status, location) {
        return StorageFault::Moved(location);
    }
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() >= ANSWER {
                return;
            }
        }
    };
    // A status that came in time stands, however the rest goes.
    let _ = timeout(Duration::from_secs(5), reading).await;
    let said = Said::of(status.as_u16(), &String::from_utf8_lossy(&body), region.as_deref());
    match said.verdict() {
        Verdict::Passes => StorageFault::Unavailable,
        Verdict::Broken => StorageFault::Refused(said.status),
        Verdict::Permanent => StorageFault::Denied(format!("it answers {said}")),
    }
}

pub fn etag(response: &Response) -> Option<String> {
    response.headers().get(ETAG)?.to_str().ok().map(str::to_owned)
}

/// Asks the edge until it answers or there is no hope.
pub async fn retry<T, F: Future<Output = Result<T, Refusal>>>(call: impl Fn() -> F) -> Result<T, StorageFault> {
    let mut tries = Tries::default();
    loop {
        let Refusal { error, message } = match call().await {
            Ok(answer) => return Ok(answer),
            Err(refusal) => refusal,
        };
        match error {
            CallError::Stale => return Err(StorageFault::Stale),
            CallError::Key => return Err(StorageFault::Refused(403)),
            CallError::Refused(404) => return Err(StorageFault::Gone),
            CallError::Refused(status) if status == Code::StorageRefused.status() => {
                return Err(StorageFault::Denied(message));
            }
            CallError::Refused(status) => return Err(StorageFault::Refused(status)),
            CallError::Unreachable => sleep(tries.again().ok_or(StorageFault::Unavailable)?).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_edge_that_is_gone_for_50_seconds_is_asked_again_until_it_is_back() {
        let started = Instant::now();
        let call = async |back: Duration| {
            retry(|| async move {
                if started.elapsed() < back { Err(CallError::Unreachable.into()) } else { Ok(started.elapsed()) }
            })
            .await
        };
        let answered = call(Duration::from_secs(45)).await.expect("it came back");
        assert!(answered < PATIENCE, "{answered:?}");
        assert_eq!(call(Duration::from_hours(1)).await, Err(StorageFault::Unavailable));
        assert!(started.elapsed() < Duration::from_secs(100));
    }

    const BREACH: NotTaken = NotTaken::Breach(Breach::Part);
    const SIZE: u64 = 8 << 20;

    fn entered(parts: &[(u32, u64)]) -> Result<u64, NotTaken> {
        let mut ledger = Ledger::new(SIZE, 4 * SIZE).map_err(NotTaken::Breach)?;
        for (number, bytes) in parts {
            ledger.enter(*number, *bytes)?;
        }
        ledger.close().map_err(NotTaken::Breach)
    }

    #[test]
    fn parts_may_come_in_any_order_when_only_the_last_is_shorter() {
        assert_eq!(entered(&[(1, 5)]), Ok(5));
        assert_eq!(entered(&[(2, SIZE), (3, 7), (1, SIZE)]), Ok(2 * SIZE + 7));
        assert_eq!(entered(&[(2, SIZE), (1, SIZE)]), Ok(2 * SIZE));
    }

    #[test]
    fn whatever_else_a_process_sends_is_a_breach() {
        for parts in [
            &[][..],
            &[(0, 5)],
            &[(1, 0)],
            &[(1, SIZE + 1)],
            &[(2, SIZE)],
            &[(1, 5), (1, 5)],
            &[(1, SIZE), (1, SIZE)],
            &[(1, 5), (2, SIZE)],
            &[(1, 5), (2, 6)],
            &[(MAX_PARTS + 1, SIZE)],
        ] {
            assert_eq!(entered(parts), Err(BREACH), "{parts:?}");
        }
    }

    #[test]
    fn more_bytes_than_allowed_are_told_apart_from_a_breach() {
        assert_eq!(entered(&[(1, SIZE), (2, SIZE), (3, SIZE), (4, SIZE), (5, 1)]), Err(NotTaken::TooLarge));
    }

    #[test]
    fn part_sizes_that_storage_would_refuse_are_a_breach() {
        assert_eq!(Ledger::new(MIN_PART - 1, 1).err(), Some(Breach::Part));
        assert_eq!(Ledger::new(MAX_PART + 1, 1).err(), Some(Breach::Part));
    }
}
