//! What this node holds: one entry a lease, shared by the attempt that does the work and the heartbeats that keep it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};
use xora_shared::{
    failure::Stage,
    id::Id,
    job::lease::{Clock, Hold},
    protocol::{Beat, Heartbeat, Word},
};

use crate::edge::{CallError, Edge};

/// Between two heartbeats at least: stages follow each other quickly in a short job.
const APART: Duration = Duration::from_millis(100);

/// Between two heartbeats that tell of progress only, at least.
const TOLD: Duration = Duration::from_millis(400);

/// Between two looks at the time of an attempt, at least.
const LOOK: Duration = Duration::from_millis(250);

/// What a job process may be given of an input without getting anywhere, beside four times its size, in bytes.
const IDLE: u64 = 1 << 30;
/// A read counts for this many bytes at least.
const READ: u64 = 64 << 10;

/// Why an attempt must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The caller cancelled the job.
    Cancelled,
    /// The edge says that the lease is someone else's or over.
    Lost,
    /// Nothing advanced for too long.
    Stalled {
        /// Whether the job process was waiting for bytes of its input.
        reading: bool,
    },
    /// The attempt as a whole took longer than this.
    Late {
        /// The limit.
        limit: Duration,
    },
    /// The node is told to stop.
    Drained,
}

/// All leases of this node.
#[derive(Default)]
pub struct Board {
    held: Mutex<HashMap<Id, Arc<Held>>>,
    /// Asks for a heartbeat now.
    pub beat: Notify,
}

/// One lease, and how the work under it goes.
pub struct Held {
    /// What to show with every message.
    pub hold: Hold,
    clock: Clock,
    asked: Instant,
    live: Mutex<Live>,
    halt: watch::Sender<Option<Halt>>,
}

#[derive(Clone, Copy)]
struct Live {
    stage: Stage,
    progress: u8,
    /// When the last answered message was sent.
    answered: Instant,
    /// When anything last advanced.
    advanced: Instant,
    /// Bytes of inputs that were given to the job process since then.
    idle: u64,
    /// Since when the job process waits for bytes of its input.
    reading: Option<Instant>,
    /// When the edge was last told of progress out of turn.
    told: Instant,
    /// How long it has waited for them before, in all.
    waited: Duration,
    /// How long the attempt may take, waiting for the input left out.
    limit: Option<Duration>,
    /// Whether heartbeats leave it out.
    quiet: bool,
}

impl Board {
    /// Puts a lease on the board, which was asked for at `asked`. It stays until the guard is dropped.
    pub fn hold(self: &Arc<Self>, hold: Hold, clock: Clock, asked: Instant) -> Holding {
        let live = Live {
            stage: Stage::Probe,
            progress: 0,
            answered: asked,
            advanced: Instant::now(),
            idle: 0,
            reading: None,
            told: Instant::now(),
            waited: Duration::ZERO,
            limit: None,
            quiet: false,
        };
        let held = Arc::new(Held { hold, clock, asked, live: Mutex::new(live), halt: watch::channel(None).0 });
        lock(&self.held).insert(held.hold.task_id, Arc::clone(&held));
        self.beat.notify_one();
        Holding { board: Arc::clone(self), held }
    }

    /// How many leases are held.
    pub fn count(&self) -> usize {
        lock(&self.held).len()
    }

    /// Those that heartbeats show.
    pub fn shown(&self) -> Vec<Arc<Held>> {
        lock(&self.held).values().filter(|held| !lock(&held.live).quiet).cloned().collect()
    }

    /// Sends heartbeats for ever.
    pub async fn keep(&self, edge: &Edge) {
        loop {
            let held = self.shown();
            if !held.is_empty() {
                let _ = self.say(edge, &held).await;
            }
            let every = held.iter().map(|held| millis(held.clock.heartbeat_ms)).min().unwrap_or(Duration::MAX);
            let _ = tokio::time::timeout(every, self.beat.notified()).await;
            tokio::time::sleep(APART).await;
        }
    }

    /// Shows the edge all leases, once. False when it does not answer.
    pub async fn renew(&self, edge: &Edge) -> bool {
        let held = self.shown();
        held.is_empty() || self.say(edge, &held).await
    }

    /// Answers whether the edge did.
    async fn say(&self, edge: &Edge, held: &[Arc<Held>]) -> bool {
        let sent = Instant::now();
        let leases = held.iter().map(|held| held.beat()).collect();
        match edge.heartbeat(&Heartbeat { node: edge.node.clone(), leases }).await {
            Ok(answer) => {
                // A lease without a word is one that the edge does not know about just now.
                for (held, word) in held.iter().zip(answer.words) {
                    held.hear(word, sent);
                }
                return true;
            }
            Err(error @ (CallError::Unreachable | CallError::Stale)) => debug!("heartbeat: {error}"),
            Err(error @ (CallError::Key | CallError::Refused(_))) => warn!("heartbeat: {error}"),
        }
        false
    }
}

/// A lease on the board. Dropping it takes the lease off.
pub struct Holding {
    board: Arc<Board>,
    held: Arc<Held>,
}

impl Holding {
    /// The work enters a stage; the edge hears of it at once.
    pub fn enter(&self, stage: Stage) {
        let changed = std::mem::replace(&mut lock(&self.held.live).stage, stage) != stage;
        if changed {
            self.held.advance();
            self.board.beat.notify_one();
        }
    }

    /// How far the work is, 0 to 99. Whoever watches the job hears of each hundredth soon, which is at most a hundred
    /// heartbeats for a job.
    pub fn progress(&self, percent: u8) {
        let mut live = lock(&self.held.live);
        let more = percent.min(99) > live.progress;
        live.progress = live.progress.max(percent.min(99));
        if more && live.told.elapsed() >= TOLD {
            live.told = Instant::now();
            self.board.beat.notify_one();
        }
    }
}

impl Holding {
    /// A second handle on the lease, which does not keep it on the board.
    pub fn shared(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }
}

impl std::ops::Deref for Holding {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut all = lock(&self.board.held);
        let ours = all.get(&self.held.hold.task_id).is_some_and(|held| Arc::ptr_eq(held, &self.held));
        if ours {
            all.remove(&self.held.hold.task_id);
        }
    }
}

impl Held {
    /// Where the work is.
    pub fn stage(&self) -> Stage {
        lock(&self.live).stage
    }

    /// Something advanced: bytes that came from or went to storage or the origin, or media time.
    pub fn advance(&self) {
        let mut live = lock(&self.live);
        live.advanced = Instant::now();
        live.idle = 0;
    }

    /// The job process waits for bytes of an input of `size` bytes, or was given this many. That is an advance too, but not
    /// for ever: a demuxer that reads the same bytes again and again, which cost nobody a request, gets nowhere.
    pub fn reading(&self, reading: bool, bytes: u64, size: u64) {
        let mut live = lock(&self.live);
        let waited = live.reading.map_or(Duration::ZERO, |since| since.elapsed());
        live.waited += waited;
        live.reading = reading.then(Instant::now);
        live.idle = live.idle.saturating_add(bytes.max(READ));
        if live.idle <= size.saturating_mul(4).saturating_add(IDLE) {
            live.advanced = Instant::now();
        }
    }

    /// Leaves it out of heartbeats, or no longer does: while the edge is being told that the lease is over, a heartbeat that
    /// comes behind would hold it again.
    pub fn hush(&self, quiet: bool) {
        lock(&self.live).quiet = quiet;
    }

    /// Waits for a call that has a limit of its own, and in which nothing can advance.
    pub async fn outlast<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = std::pin::pin!(call);
        loop {
            match tokio::time::timeout(Duration::from_secs(1), &mut call).await {
                Ok(answer) => return answer,
                Err(_) => self.advance(),
            }
        }
    }

    /// Sets how long the attempt may take in all, waiting for the input left out: how fast an origin is, its clock of
    /// standing still judges.
    pub fn limit(&self, limit: Duration) {
        lock(&self.live).limit = Some(limit);
    }

    /// How long ago a heartbeat was sent that the edge has answered, or the lease was asked for.
    pub fn answered_for(&self) -> Duration {
        lock(&self.live).answered.elapsed()
    }

    /// Until when the edge has not given the task to someone else for want of heartbeats. After that it may or may not
    /// have: a lease that nobody has taken since is renewed by the next heartbeat.
    pub fn expires(&self) -> Instant {
        lock(&self.live).answered + millis(self.clock.lease_ms)
    }

    /// Waits until the work must stop: by word of the edge, or because it does not advance or takes too long.
    ///
    /// An edge that is silent stops nothing. It may be restarted in the third hour of an encode, and the fence of the lease
    /// makes harmless whatever this node still says of a task that someone else has by then.
    pub async fn halted(&self) -> Halt {
        let mut said = self.halt.subscribe();
        loop {
            let live = *lock(&self.live);
            let stalled = live.advanced + millis(self.clock.stall_ms);
            let now = Instant::now();
            let waited = live.waited + live.reading.map_or(Duration::ZERO, |since| now - since);
            let late = live.limit.map(|limit| (self.asked + waited + limit, limit));
            // Nothing wakes us when the limit is set, or when a wait moves it away.
            let look = late.map_or(now, |(late, _)| late).max(now + LOOK);
            let first = look.min(stalled);
            if now >= stalled {
                return Halt::Stalled { reading: live.reading.is_some() };
            }
            if let Some((_, limit)) = late.filter(|(late, _)| now >= *late) {
                return Halt::Late { limit };
            }
            tokio::select! {
                Ok(halt) = said.wait_for(Option::is_some) => {
                    if let Some(halt) = *halt {
                        return halt;
                    }
                }
                () = sleep_until(first) => {}
            }
        }
    }

    fn beat(&self) -> Beat {
        let live = *lock(&self.live);
        Beat { hold: self.hold.clone(), stage: live.stage, progress: live.progress }
    }

    /// Takes a word of the edge about this lease, which answers what was sent at `sent`.
    pub fn hear(&self, word: Word, sent: Instant) {
        match word {
            Word::Continue => {
                let mut live = lock(&self.live);
                live.answered = live.answered.max(sent);
            }
            Word::Cancel => drop(self.halt.send_replace(Some(Halt::Cancelled))),
            Word::Lost => drop(self.halt.send_replace(Some(Halt::Lost))),
            Word::Unknown => {}
        }
    }
}

/// A time of the protocol as a duration.
pub fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Nothing here panics while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xora_shared::{id::Place, time::UnixMs};

    fn holding() -> (Arc<Board>, Holding) {
        let task_id = Id::new(UnixMs(1), 2, Place::new(0, 0).expect("in range"));
        let board = Arc::new(Board::default());
        let hold = Hold { task_id, token: "t".into(), fence: 1 };
        let holding = board.hold(hold, Clock::STANDARD, Instant::now());
        (board, holding)
    }

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_while_the_edge_is_silent_and_stops_when_it_says_so() {
        let (_board, holding) = holding();
        let started = Instant::now();
        let working = async {
            for second in 0.. {
                tokio::time::sleep(Duration::from_secs(1)).await;
                holding.advance();
                // An hour without an answer; then one that does not know this lease, as its shard fails; then the shard.
                match second {
                    3600 => holding.hear(Word::Unknown, Instant::now()),
                    3700 => holding.hear(Word::Lost, Instant::now()),
                    _ => {}
                }
            }
        };
        let halt = tokio::select! { halt = holding.halted() => halt, () = working => unreachable!("endless") };
        assert_eq!(halt, Halt::Lost);
        assert_eq!(started.elapsed().as_secs(), 3701);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_advance_is_stopped_though_the_edge_answers() {
        let (_board, holding) = holding();
        holding.reading(true, 0, 1000);
        let beating = async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                holding.hear(Word::Continue, Instant::now());
            }
        };
        let halt = tokio::select! { halt = holding.halted() => halt, () = beating => unreachable!("endless") };
        assert_eq!(halt, Halt::Stalled { reading: true });
    }

    #[tokio::test(start_paused = true)]
    async fn a_demuxer_that_reads_the_same_bytes_for_ever_is_stopped() {
        let (_board, holding) = holding();
        let reading = async {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                holding.reading(true, 0, 5_000_000);
                holding.reading(false, 1 << 20, 5_000_000);
            }
        };
        let halt = tokio::select! { halt = holding.halted() => halt, () = reading => unreachable!("endless") };
        assert_eq!(halt, Halt::Stalled { reading: false });
    }

    #[tokio::test(start_paused = true)]
    async fn what_reads_its_input_again_and_gets_on_is_not_stopped() {
        let (_board, holding) = holding();
        let reading = async {
            for _ in 0..600 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                holding.reading(false, 100 << 20, 5_000_000);
                holding.advance();
            }
        };
        tokio::select! { halt = holding.halted() => panic!("{halt:?}"), () = reading => {} }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_minutes_is_not_a_job_that_stands_still() {
        let (_board, holding) = holding();
        let beating = async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                holding.hear(Word::Continue, Instant::now());
            }
        };
        let call = holding.outlast(tokio::time::sleep(Duration::from_mins(5)));
        tokio::select! {
            () = call => {}
            halt = holding.halted() => panic!("{halt:?}"),
            () = beating => unreachable!("endless"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_of_an_attempt_does_not_count_the_wait_for_its_input() {
        let (_board, holding) = holding();
        let (started, limit) = (Instant::now(), Duration::from_secs(100));
        let working = async {
            for second in 0.. {
                tokio::time::sleep(Duration::from_secs(1)).await;
                holding.reading((50..80).contains(&second), 1000, 1000);
                holding.limit(limit);
                holding.hear(Word::Continue, Instant::now());
            }
        };
        let halt = tokio::select! { halt = holding.halted() => halt, () = working => unreachable!("endless") };
        assert_eq!(halt, Halt::Late { limit });
        let took = started.elapsed().as_secs();
        assert!((130..=131).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn cancel_and_lost_stop_the_work_at_once() {
        for (word, expected) in [(Word::Cancel, Halt::Cancelled), (Word::Lost, Halt::Lost)] {
            let (_board, holding) = holding();
            holding.hear(word, Instant::now());
            assert_eq!(holding.halted().await, expected);
        }
    }

    #[test]
    fn a_lease_is_off_the_board_when_its_attempt_is_over() {
        let (board, holding) = holding();
        assert_eq!(board.count(), 1);
        drop(holding);
        assert_eq!(board.count(), 0);
    }
}
