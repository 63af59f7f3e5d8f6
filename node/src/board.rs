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

/// Why an attempt must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The caller cancelled the job.
    Cancelled,
    /// The lease is someone else's or over.
    Lost,
    /// The edge has not answered for as long as a lease allows.
    Silent,
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
    /// Since when the job process waits for bytes of its input.
    reading: Option<Instant>,
    /// When the edge was last told of progress out of turn.
    told: Instant,
    /// How long it has waited for them before, in all.
    waited: Duration,
    /// How long the attempt may take, waiting for the input left out.
    limit: Option<Duration>,
}

impl Board {
    /// Puts a lease on the board, which was asked for at `asked`. It stays until the guard is dropped.
    pub fn hold(self: &Arc<Self>, hold: Hold, clock: Clock, asked: Instant) -> Holding {
        let live = Live {
            stage: Stage::Probe,
            progress: 0,
            answered: asked,
            advanced: Instant::now(),
            reading: None,
            told: Instant::now(),
            waited: Duration::ZERO,
            limit: None,
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

    /// Sends heartbeats for ever.
    pub async fn keep(&self, edge: &Edge) {
        loop {
            let held: Vec<_> = lock(&self.held).values().cloned().collect();
            if !held.is_empty() {
                self.say(edge, &held).await;
            }
            let every = held.iter().map(|held| millis(held.clock.heartbeat_ms)).min().unwrap_or(Duration::MAX);
            let _ = tokio::time::timeout(every, self.beat.notified()).await;
            tokio::time::sleep(APART).await;
        }
    }

    async fn say(&self, edge: &Edge, held: &[Arc<Held>]) {
        let sent = Instant::now();
        let leases = held.iter().map(|held| held.beat()).collect();
        match edge.heartbeat(&Heartbeat { node: edge.node.clone(), leases }).await {
            Ok(answer) => {
                for (held, word) in held.iter().zip(answer.words) {
                    held.hear(word, sent);
                }
            }
            Err(error @ (CallError::Unreachable | CallError::Stale)) => debug!("heartbeat: {error}"),
            Err(error @ (CallError::Key | CallError::Refused(_))) => warn!("heartbeat: {error}"),
        }
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
        let changed = self.held.update(|live| std::mem::replace(&mut live.stage, stage) != stage);
        if changed {
            self.board.beat.notify_one();
        }
    }

    /// How far the work is, 0 to 99. Whoever watches the job hears of each hundredth soon, which is at most a hundred
    /// heartbeats for a job.
    pub fn progress(&self, percent: u8) {
        let tell = self.held.update(|live| {
            let more = percent.min(99) > live.progress;
            live.progress = live.progress.max(percent.min(99));
            let tell = more && live.told.elapsed() >= TOLD;
            if tell {
                live.told = Instant::now();
            }
            tell
        });
        if tell {
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

    /// Something advanced: bytes or media time.
    pub fn advance(&self) {
        self.update(|_| ());
    }

    /// The job process waits for bytes of its input, or no longer does.
    pub fn reading(&self, reading: bool) {
        self.update(|live| {
            live.waited += live.reading.map_or(Duration::ZERO, |since| since.elapsed());
            live.reading = reading.then(Instant::now);
        });
    }

    /// Sets how long the attempt may take in all, waiting for the input left out: how fast an origin is, its clock of
    /// standing still judges.
    pub fn limit(&self, limit: Duration) {
        lock(&self.live).limit = Some(limit);
    }

    /// Until when the edge cannot have given the task to someone else for want of heartbeats.
    pub fn expires(&self) -> Instant {
        lock(&self.live).answered + millis(self.clock.lease_ms)
    }

    /// Waits until the work must stop: by word of the edge, or by the clock rules of the lease.
    pub async fn halted(&self) -> Halt {
        let mut said = self.halt.subscribe();
        loop {
            let live = *lock(&self.live);
            let silent = live.answered + millis(self.clock.silence_ms);
            let stalled = live.advanced + millis(self.clock.stall_ms);
            let now = Instant::now();
            let waited = live.waited + live.reading.map_or(Duration::ZERO, |since| now - since);
            let late = live.limit.map(|limit| (self.asked + waited + limit, limit));
            // Nothing wakes us when the limit is set, or when a wait moves it away.
            let look = late.map_or(now, |(late, _)| late).max(now + LOOK);
            let first = look.min(silent).min(stalled);
            if now >= silent {
                return Halt::Silent;
            }
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

    fn hear(&self, word: Word, sent: Instant) {
        match word {
            Word::Continue => {
                let mut live = lock(&self.live);
                live.answered = live.answered.max(sent);
            }
            Word::Cancel => drop(self.halt.send_replace(Some(Halt::Cancelled))),
            Word::Lost => drop(self.halt.send_replace(Some(Halt::Lost))),
        }
    }

    /// Changes what is known; every change is an advance.
    fn update<T>(&self, change: impl FnOnce(&mut Live) -> T) -> T {
        let mut live = lock(&self.live);
        live.advanced = Instant::now();
        change(&mut live)
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
    async fn an_edge_that_stays_silent_stops_the_work_before_the_lease_ends() {
        let (_board, holding) = holding();
        let started = Instant::now();
        let beating = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                holding.advance();
            }
        };
        let halt = tokio::select! { halt = holding.halted() => halt, () = beating => unreachable!("endless") };
        assert_eq!(halt, Halt::Silent);
        assert_eq!(started.elapsed().as_secs(), 25);
        assert!(Instant::now() < holding.expires());
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_advance_is_stopped_though_the_edge_answers() {
        let (_board, holding) = holding();
        holding.reading(true);
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
    async fn the_limit_of_an_attempt_does_not_count_the_wait_for_its_input() {
        let (_board, holding) = holding();
        let (started, limit) = (Instant::now(), Duration::from_secs(100));
        let working = async {
            for second in 0.. {
                tokio::time::sleep(Duration::from_secs(1)).await;
                holding.reading((50..80).contains(&second));
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
