//! The delivery machine amid everything that can happen around it: a store that keeps what was written, a Queue that
//! loses, repeats and reorders, senders that stall or die, an edge that loses power at any point, a receiver that refuses.
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use proptest::prelude::*;
use xora_shared::{
    delivery::{Claim, Delivery, MAX_INTERRUPTIONS, Outcome, Phase, Schedule, Wish},
    time::UnixMs,
};

const START: UnixMs = UnixMs(1_700_000_000_000);
/// Attempts of the standard schedule.
const ATTEMPTS: u32 = 3;
/// More steps than any walk to the end takes.
const STEPS: usize = 400;

/// Someone who claimed an attempt and has not recorded it yet.
#[derive(Clone, Debug)]
struct Sender {
    claim: Claim,
    /// What the receiver answered, once it was asked.
    answer: Option<Outcome>,
}

#[derive(Clone, Debug)]
struct World {
    now: UnixMs,
    /// The row: survives everything.
    row: Delivery,
    /// Written and not yet handed to the Queue: what a request or an alarm was about to do. Memory.
    unsent: Vec<u32>,
    /// Attempt numbers on their way. Lost with the power.
    queue: Vec<u32>,
    /// Memory. Those given up for dead are still here until they record or die.
    senders: Vec<Sender>,
    /// The claim handed out last.
    current: Option<Claim>,
    /// The attempts of all claims so far.
    claims: Vec<u32>,
    /// What the receiver was sent, and how it answered.
    received: Vec<(u32, Outcome)>,
    /// What it answers next; the last one stays.
    script: Vec<Outcome>,
    /// Attempts asked for by hand.
    asked: u32,
    schedule: Schedule,
    /// Whether senders go on, when nothing disturbs them.
    go_on: bool,
}

/// The single steps of the real system, each of which happens whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// What is written goes to the Queue.
    Enqueue,
    /// A consumer takes message `n` and claims its attempt.
    Claim(usize),
    /// Sender `n` sends.
    Send(usize),
    /// Sender `n` records. It may go on with the next attempt, if that is soon.
    Record(usize, bool),
    /// The alarm looks at the row.
    Wake,
    /// Time passes, in milliseconds.
    Wait(i64),
    /// The Queue loses message `n`.
    Lose(usize),
    /// The Queue hands message `n` out twice.
    Repeat(usize),
    /// Sender `n` dies.
    Die(usize),
    /// Someone asks for an attempt by hand.
    Redeliver,
    /// Everything but the row is gone.
    PowerCut,
}

impl World {
    /// The turn that ends the job: its state and this row are written together.
    fn new(schedule: Schedule, script: Vec<Outcome>) -> Self {
        let row = Delivery::new(schedule, START).sent(START);
        Self {
            now: START,
            row,
            unsent: vec![row.attempt],
            queue: vec![],
            senders: vec![],
            current: None,
            claims: vec![],
            received: vec![],
            script,
            asked: 0,
            schedule,
            go_on: true,
        }
    }

    fn answer(&mut self) -> Outcome {
        if self.script.len() > 1 { self.script.remove(0) } else { self.script[0] }
    }

    fn step(&mut self, step: Step) {
        let before = self.row;
        match step {
            Step::Enqueue => self.queue.append(&mut self.unsent),
            Step::Claim(n) if n < self.queue.len() => {
                let attempt = self.queue.remove(n);
                if let Some(claimed) = self.row.claim(attempt, self.now) {
                    assert!(!matches!(before.phase, Phase::Claimed { .. }), "claimed twice: {before:?}");
                    let claim = claimed.held();
                    assert!(self.senders.iter().all(|sender| sender.claim != claim), "two senders hold {claim:?}");
                    self.row = claimed;
                    self.current = Some(claim);
                    self.claims.push(attempt);
                    self.senders.push(Sender { claim, answer: None });
                }
            }
            Step::Send(n) if n < self.senders.len() && self.senders[n].answer.is_none() => {
                let answer = self.answer();
                self.senders[n].answer = Some(answer);
                self.received.push((self.senders[n].claim.attempt, answer));
            }
            Step::Record(n, goes_on) if self.senders.get(n).is_some_and(|sender| sender.answer.is_some()) => {
                let Sender { claim, answer } = self.senders.remove(n);
                let outcome = answer.expect("asked above");
                if let Some(row) = self.row.record(claim, outcome, Wish::default(), 0, self.now) {
                    assert_eq!(self.current, Some(claim), "a sender that was given up for dead recorded");
                    self.row = row;
                    if let Some((row, _)) = row.entrusted(self.now).filter(|_| goes_on) {
                        self.row = row;
                        // What a sender waits to claim is lost with it, like a message.
                        self.queue.push(row.attempt);
                    }
                }
            }
            Step::Wake => {
                self.row = self.row.wake(0, self.now);
                if matches!(self.row.phase, Phase::Due { at } if at <= self.now.0) {
                    self.row = self.row.sent(self.now);
                    self.unsent.push(self.row.attempt);
                }
            }
            Step::Wait(ms) => self.now = self.now.plus(ms),
            Step::Lose(n) if n < self.queue.len() => drop(self.queue.remove(n)),
            Step::Repeat(n) if n < self.queue.len() => self.queue.push(self.queue[n]),
            Step::Die(n) if n < self.senders.len() => drop(self.senders.remove(n)),
            Step::Redeliver => {
                if let Some(row) = self.row.redeliver(self.now) {
                    self.asked += 1;
                    self.row = row.sent(self.now);
                    self.unsent.push(row.attempt);
                }
            }
            Step::PowerCut => (self.unsent, self.queue, self.senders) = (vec![], vec![], vec![]),
            Step::Claim(_) | Step::Send(_) | Step::Record(..) | Step::Lose(_) | Step::Repeat(_) | Step::Die(_) => {}
        }
        self.check(before);
    }

    fn check(&self, before: Delivery) {
        assert!(self.row.attempt >= before.attempt, "an attempt went back: {before:?} → {:?}", self.row);
        if before.attempt == self.row.attempt {
            assert!(self.row.interruptions >= before.interruptions, "{before:?} → {:?}", self.row);
        }
        // Every attempt before the current one reached the receiver and failed there, or was interrupted again and again.
        for attempt in 1..self.row.attempt {
            let sent = self.received.iter().any(|(number, _)| *number == attempt);
            let interrupted = self.claims.iter().filter(|number| **number == attempt).count();
            assert!(sent || interrupted > MAX_INTERRUPTIONS as usize, "attempt {attempt} was never sent");
        }
        match self.row.phase {
            Phase::Delivered => assert!(
                self.received.contains(&(self.row.attempt, Outcome::Ok)),
                "delivered, and nobody took it: {:?}",
                self.received
            ),
            Phase::Abandoned => assert!(self.may_be_abandoned(), "{:?} after {:?}", self.row, self.received),
            Phase::Due { .. } | Phase::Sent { .. } | Phase::Claimed { .. } => {}
        }
    }

    /// After the last attempt of the schedule, or one asked for by hand, failed or was interrupted too often. Never before.
    fn may_be_abandoned(&self) -> bool {
        let Delivery { attempt, interruptions, by_hand, .. } = self.row;
        let last = match self.schedule {
            Schedule::Standard => ATTEMPTS,
            Schedule::Durable => 11,
        };
        let failed = self.received.iter().any(|(number, outcome)| *number == attempt && *outcome != Outcome::Ok);
        (failed || interruptions >= MAX_INTERRUPTIONS) && (attempt >= last || by_hand)
    }

    /// What the real system does next when nothing disturbs it. None at the end.
    fn next(&self) -> Option<Step> {
        if !self.unsent.is_empty() {
            return Some(Step::Enqueue);
        }
        if !self.queue.is_empty() {
            return Some(Step::Claim(0));
        }
        if let Some(sender) = self.senders.first() {
            return Some(if sender.answer.is_some() { Step::Record(0, self.go_on) } else { Step::Send(0) });
        }
        let at = self.row.wakes_at()?;
        Some(if at > self.now.0 { Step::Wait(at - self.now.0) } else { Step::Wake })
    }

    /// Left alone, it comes to its end.
    fn finish(&mut self) {
        for _ in 0..STEPS {
            let Some(step) = self.next() else { return };
            self.step(step);
        }
        panic!("no end in sight: {self:?}");
    }

    fn sent(&self, attempt: u32) -> usize {
        self.received.iter().filter(|(number, _)| *number == attempt).count()
    }
}

/// Every way in which three attempts can go, with senders that go on and senders that do not.
fn walks() -> Vec<(Vec<Outcome>, bool)> {
    use Outcome::{Network, Ok, Status, Timeout};
    let scripts = [vec![Ok], vec![Status, Ok], vec![Timeout, Network, Ok], vec![Status]];
    scripts.into_iter().flat_map(|script| [(script.clone(), false), (script, true)]).collect()
}

/// Walks to the end with the power cut before step `first`, and again `then` steps after it. Answers the world and how
/// many steps there were.
fn walk(script: &[Outcome], go_on: bool, first: Option<usize>, then: Option<usize>) -> (World, usize) {
    let mut world = World { go_on, ..World::new(Schedule::Standard, script.to_vec()) };
    let second = first.zip(then).map(|(first, then)| first + then);
    for number in 0..STEPS {
        if Some(number) == first || Some(number) == second {
            world.step(Step::PowerCut);
        }
        let Some(step) = world.next() else { return (world, number) };
        world.step(step);
    }
    panic!("no end in sight: {world:?}");
}

#[test]
fn undisturbed_every_attempt_is_sent_once() {
    for (script, go_on) in walks() {
        let (world, _) = walk(&script, go_on, None, None);
        let numbers: Vec<_> = world.received.iter().map(|(number, _)| *number).collect();
        let expected = if script == [Outcome::Status] { ATTEMPTS } else { u32::try_from(script.len()).expect("short") };
        assert_eq!(numbers, (1..=expected).collect::<Vec<_>>(), "{script:?}");
    }
}

/// A cut before step `n + 1` is one after step `n`, so this is before and after every step.
#[test]
fn a_power_cut_before_or_after_any_step_costs_no_attempt_and_loses_nothing() {
    for (script, go_on) in walks() {
        let (quiet, steps) = walk(&script, go_on, None, None);
        for first in 0..=steps {
            let (world, walked) = walk(&script, go_on, Some(first), None);
            assert_eq!(world.row.wakes_at(), None);
            // What was interrupted is sent again under its own number: the receiver misses no attempt.
            for attempt in 1..=quiet.row.attempt.min(world.row.attempt) {
                let sent = world.sent(attempt);
                assert!(
                    (1..=2).contains(&sent),
                    "{script:?}, cut before step {first}: {attempt} was sent {sent} times"
                );
            }
            for then in 1..=walked.saturating_sub(first) {
                let (world, _) = walk(&script, go_on, Some(first), Some(then));
                assert_eq!(world.row.wakes_at(), None);
            }
        }
    }
}

#[test]
fn a_receiver_that_takes_the_third_attempt_gets_it_wherever_the_power_was_cut() {
    let script = [Outcome::Status, Outcome::Status, Outcome::Ok];
    for go_on in [false, true] {
        let (_, steps) = walk(&script, go_on, None, None);
        for first in 0..=steps {
            let (world, _) = walk(&script, go_on, Some(first), None);
            assert_eq!(world.row.phase, Phase::Delivered, "cut before step {first}: {:?}", world.received);
        }
    }
}

/// Senders die for as long as the trouble on our side lasts; the receiver would take every attempt.
#[test]
fn trouble_on_our_side_that_ends_loses_no_delivery() {
    for schedule in [Schedule::Standard, Schedule::Durable] {
        for deaths in 0..=2 * MAX_INTERRUPTIONS {
            let mut world = World::new(schedule, vec![Outcome::Ok]);
            let mut left = deaths;
            for _ in 0..STEPS {
                let Some(mut step) = world.next() else { break };
                if left > 0 && matches!(step, Step::Send(_)) {
                    left -= 1;
                    step = Step::Die(0);
                }
                world.step(step);
            }
            assert_eq!((left, world.row.phase), (0, Phase::Delivered), "{schedule:?}, {deaths} deaths");
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        4 => Just(Step::Enqueue),
        6 => (0usize..3).prop_map(Step::Claim),
        6 => (0usize..3).prop_map(Step::Send),
        6 => (0usize..3, any::<bool>()).prop_map(|(n, goes_on)| Step::Record(n, goes_on)),
        4 => Just(Step::Wake),
        4 => prop_oneof![0i64..2_000, 10_000i64..40_000].prop_map(Step::Wait),
        1 => (0usize..3).prop_map(Step::Lose),
        2 => (0usize..3).prop_map(Step::Repeat),
        1 => (0usize..3).prop_map(Step::Die),
        1 => Just(Step::Redeliver),
        1 => Just(Step::PowerCut),
    ];
    prop::collection::vec(one, 0..150)
}

fn outcomes() -> impl Strategy<Value = Vec<Outcome>> {
    let one = prop_oneof![
        Just(Outcome::Ok),
        Just(Outcome::Status),
        Just(Outcome::Redirect),
        Just(Outcome::Timeout),
        Just(Outcome::Network),
        Just(Outcome::RefusedByPolicy),
    ];
    prop::collection::vec(one, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The invariants are in [`World::check`], after every step.
    #[test]
    fn whatever_happens_the_invariants_hold_and_left_alone_every_delivery_ends(
        all in steps(), script in outcomes(), durable: bool
    ) {
        let mut world = World::new(if durable { Schedule::Durable } else { Schedule::Standard }, script);
        for step in all {
            world.step(step);
        }
        world.finish();
        prop_assert!(!world.received.is_empty(), "left alone, the receiver hears of it: {:?}", world.row);
    }
}
