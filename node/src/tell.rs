//! Telling the edge how an attempt ended, until it answers.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    board::Holding,
    edge::CallError,
    share::Share,
    stop::{Phase, Stop},
};

/// Between the first two tries; each later wait is twice as long.
const FIRST: Duration = Duration::from_millis(200);
/// Between two tries at most.
const LONGEST: Duration = Duration::from_secs(30);
/// How long an edge that does not answer is told the end of an attempt. Hours of work are worth waiting for whoever repairs
/// it in the morning.
const PATIENCE: Duration = Duration::from_hours(24);
/// Tries that an edge leaves without an answer while it renews the lease. After these the lease is left to end, about two
/// minutes later, so that another attempt can be made: this end of the attempt seems to be one that it cannot take.
const RENEWED: u32 = 10;

/// What an attempt still has while the edge is told of its end.
pub struct Rest {
    /// Its lease: heartbeats go on, so that an edge that comes back finds it held.
    pub holding: Holding,
    /// Its share of the node, which others get as soon as the edge is late to answer.
    pub share: Share,
    /// How long to go on.
    pub patience: Patience,
}

/// How long the edge is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The result of work: for [`PATIENCE`], or until a node that stops has come to the end of the lease.
    Work,
    /// That the task is given back: until the lease ends, which does the same.
    Release,
}

/// Why the edge was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTold {
    /// It answered, and does not want to hear it.
    #[error(transparent)]
    Refused(CallError),
    /// It never answered.
    #[error("the edge did not answer, in {} s", .0.as_secs())]
    Silent(Duration),
}

/// Says it until there is an answer. That the lease is someone else's is one: there is nothing more to say.
pub async fn until_answered<F: Future<Output = Result<(), CallError>>>(
    mut say: impl FnMut() -> F,
    stop: &Stop,
    Rest { holding, share, patience }: Rest,
) -> Result<(), NotTold> {
    let (begun, held) = (Instant::now(), holding.shared());
    let mut lease = Some(holding).filter(|_| patience == Patience::Work);
    let mut share = Some(share);
    let (mut wait, mut renewed) = (FIRST, 0);
    loop {
        held.hush(true);
        match say().await {
            Ok(()) | Err(CallError::Stale) => return Ok(()),
            Err(error @ (CallError::Key | CallError::Refused(_))) => return Err(NotTold::Refused(error)),
            Err(CallError::Unreachable) => held.hush(false),
        }
        drop(share.take());
        if held.answered_for() < LONGEST {
            renewed += 1;
        }
        if renewed > RENEWED {
            drop(lease.take());
        }
        let is_pressed = patience == Patience::Release || stop.phase() == Phase::Now;
        let until = if is_pressed { held.expires() } else { begun + PATIENCE };
        if Instant::now() + wait >= until {
            return Err(NotTold::Silent(begun.elapsed()));
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.reached(Phase::Now), if !is_pressed => {}
        }
        wait = (wait * 2).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready, sync::Arc};

    use tokio::sync::{Semaphore, watch};
    use xora_shared::{
        id::{Id, Place},
        job::lease::{Clock, Hold},
        protocol::Word,
        time::UnixMs,
    };

    use super::*;
    use crate::board::Board;

    const HOUR: Duration = Duration::from_hours(1);

    struct Node {
        board: Arc<Board>,
        slots: Arc<Semaphore>,
        phase: watch::Sender<Phase>,
        stop: Stop,
    }

    impl Node {
        fn new() -> Self {
            let (phase, receiver) = watch::channel(Phase::Running);
            let stop = Stop::following(receiver);
            Self { board: Arc::default(), slots: Arc::new(Semaphore::new(1)), phase, stop }
        }

        fn rest(&self, patience: Patience) -> Rest {
            let task_id = Id::new(UnixMs(1), 2, Place::new(0, 0).expect("in range"));
            let hold = Hold { task_id, token: "t".into(), fence: 1 };
            let holding = self.board.hold(hold, Clock::STANDARD, Instant::now());
            let slot = Arc::clone(&self.slots).try_acquire_owned().expect("free");
            Rest { holding, share: Share::of(slot, &Arc::new(Semaphore::new(1)), &Arc::default()), patience }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_edge_that_is_away_for_hours_hears_of_the_end_when_it_is_back_and_finds_the_lease_held() {
        let node = Node::new();
        let (started, tries) = (Instant::now(), Cell::new(0));
        let say = || {
            tries.set(tries.get() + 1);
            assert!(node.board.shown().is_empty(), "no heartbeat comes behind the end");
            assert_eq!(node.slots.available_permits(), usize::from(tries.get() > 1), "others may work meanwhile");
            ready(if started.elapsed() < HOUR * 2 { Err(CallError::Unreachable) } else { Ok(()) })
        };
        let heartbeats = async {
            sleep(HOUR).await;
            assert_eq!(node.board.shown().len(), 1, "heartbeats go on between two tries");
        };
        let (told, ()) = tokio::join!(until_answered(say, &node.stop, node.rest(Patience::Work)), heartbeats);
        assert_eq!(told, Ok(()));
        assert!(started.elapsed() < HOUR * 2 + Duration::from_secs(31), "soon after it is back");
        assert!((240..260).contains(&tries.get()), "waits grow to half a minute: {}", tries.get());
        assert_eq!(node.board.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_it_whatever_it_is() {
        for (answer, expected) in [
            (Ok(()), Ok(())),
            (Err(CallError::Stale), Ok(())),
            (Err(CallError::Key), Err(NotTold::Refused(CallError::Key))),
            (Err(CallError::Refused(413)), Err(NotTold::Refused(CallError::Refused(413)))),
        ] {
            let node = Node::new();
            let started = Instant::now();
            let answers = Cell::new(vec![answer, Err(CallError::Unreachable)]);
            let say = || {
                let mut left = answers.take();
                let answer = left.pop().expect("asked no more");
                answers.set(left);
                ready(answer)
            };
            assert_eq!(until_answered(say, &node.stop, node.rest(Patience::Work)).await, expected);
            assert_eq!(started.elapsed(), FIRST);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stops_and_a_task_that_is_given_back_wait_for_the_end_of_the_lease_only() {
        for patience in [Patience::Work, Patience::Release] {
            let node = Node::new();
            let started = Instant::now();
            let stopping = async {
                sleep(Duration::from_secs(5)).await;
                node.phase.send_replace(Phase::Now);
                std::future::pending::<()>().await;
            };
            let say = || ready(Err(CallError::Unreachable));
            tokio::select! {
                told = until_answered(say, &node.stop, node.rest(patience)) => {
                    assert!(matches!(told, Err(NotTold::Silent(_))), "{told:?}");
                }
                () = stopping => {}
            }
            assert!((10..=30).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_of_an_end_that_the_edge_cannot_take_is_left_to_another_attempt() {
        let node = Node::new();
        let rest = node.rest(Patience::Work);
        let held = rest.holding.shared();
        let started = Instant::now();
        let say = || {
            // Its heartbeats are answered all the time.
            held.hear(Word::Continue, Instant::now());
            ready(Err(if node.board.count() == 0 { CallError::Stale } else { CallError::Unreachable }))
        };
        assert_eq!(until_answered(say, &node.stop, rest).await, Ok(()));
        assert!((60..300).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    }
}
