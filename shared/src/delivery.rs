//! The delivery machine: when a webhook attempt is due, who may send it, and what follows from how it went.
//!
//! The row in the shard is the record; the Queue only carries ids. An attempt is claimed (compare and set) before it is
//! sent and recorded after, so a repeated message sends nothing, and a claim that is never recorded is sent again under
//! the same number. `tests/delivery_model.rs` walks all this with a crash at every point.

use serde::{Deserialize, Serialize};

use crate::time::UnixMs;

/// How long a receiver has for one attempt, in milliseconds.
pub const ATTEMPT_TIMEOUT_MS: i64 = 15_000;

/// How long a claim is good: the attempt's timeout and some time to record it.
const CLAIM_MS: i64 = ATTEMPT_TIMEOUT_MS + 5_000;

/// How long a message may take to its consumer before the attempt is sent to the Queue again, in milliseconds. Messages
/// are seldom lost, and a second one of a slow first costs only an idle claim. The wait doubles with each message of the same
/// attempt, because a Queue that is behind does not catch up by getting more.
const IN_FLIGHT_MS: i64 = 30_000;

/// How often that wait doubles at most: to 16 minutes.
const DOUBLINGS: u32 = 5;

/// How long a second interruption of an attempt is waited out before it is sent again, in milliseconds; twice as long after
/// each further one. After the first it is sent again at once.
const RECOVERY_MS: i64 = 30_000;

/// How soon the next attempt must be for the sender of the last one to make it as well, in milliseconds.
const SOON_MS: i64 = LAST_STANDARD_WAIT_MS;

/// How long after its time such an attempt is sent by the alarm, if nobody has claimed it, in milliseconds.
const GRACE_MS: i64 = 2_000;

/// How often one attempt may be interrupted (claimed and never recorded) at no cost. The next interruption costs this attempt:
/// it counts as failed, and the schedule goes on.
pub const MAX_INTERRUPTIONS: u32 = 5;

/// Waits before the second, third, … attempt, in milliseconds from the end of the failed one. The fixed schedule ends
/// with the second of them; the durable one goes on over a day and a half.
const WAITS_MS: [i64; 10] = [
    500,
    LAST_STANDARD_WAIT_MS,
    5_000,
    30_000,
    5 * MINUTE_MS,
    30 * MINUTE_MS,
    120 * MINUTE_MS,
    300 * MINUTE_MS,
    600 * MINUTE_MS,
    1_200 * MINUTE_MS,
];
const LAST_STANDARD_WAIT_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60_000;

/// Most that a receiver's `Retry-After` can put an attempt off, in milliseconds.
const MAX_RETRY_AFTER_MS: i64 = 60 * MINUTE_MS;

/// How much of a receiver's answer is kept, in bytes.
pub const ANSWER_BYTES: usize = 4096;

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The next attempt is sent to the Queue at this time.
    Due {
        /// When.
        at: i64,
    },
    /// The next attempt's message is on its way; without a claim by then it is sent again.
    Sent {
        /// Until when it may be on its way.
        until: i64,
    },
    /// A consumer is sending.
    Claimed {
        /// Until when it must have recorded the outcome.
        until: i64,
    },
    /// A receiver took it.
    Delivered,
    /// All attempts failed.
    Abandoned,
}

/// How long a delivery is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Three attempts within two seconds. Heeds nothing that the receiver says.
    #[default]
    Standard,
    /// Eleven attempts over a day and a half, with jitter. Heeds `Retry-After` and 410.
    Durable,
}

/// What a consumer holds: an attempt, and which try of it, because an interrupted attempt is claimed again under its
/// number. The record of a sender that was given up for dead changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// How often it was interrupted before.
    pub interruptions: u32,
}

/// One delivery, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Where it is.
    pub phase: Phase,
    /// The number of the attempt that is due, sent or claimed, from 1; of the last one when all is over.
    pub attempt: u32,
    /// How often this attempt was claimed and never recorded.
    pub interruptions: u32,
    /// How many messages of this attempt came to nothing: not claimed in time, or given back.
    #[serde(default)]
    pub resends: u32,
    /// How long it is tried.
    pub schedule: Schedule,
    /// Whether the current attempt was asked for by hand after all was over: nothing follows it.
    pub by_hand: bool,
}

/// What a failed attempt's answer says about the next one. Only the durable schedule heeds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wish {
    /// `Retry-After`, in milliseconds.
    pub retry_after_ms: Option<i64>,
    /// 410 Gone: send nothing more.
    pub gone: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 2xx.
    Ok,
    /// An answer that is neither 2xx nor 3xx.
    Status,
    /// 3xx: redirects are not followed.
    Redirect,
    /// No answer in time.
    Timeout,
    /// No connection, or one that broke.
    Network,
    /// The URL is not allowed (any more).
    RefusedByPolicy,
    /// The sender died in between, or could not begin; costs no attempt.
    Interrupted,
}

impl Delivery {
    /// A new delivery, due at once.
    pub const fn new(schedule: Schedule, now: UnixMs) -> Self {
        Self { phase: Phase::Due { at: now.0 }, attempt: 1, interruptions: 0, resends: 0, schedule, by_hand: false }
    }

    /// When the machine has to look at this delivery again by itself; none when it is over.
    pub const fn wakes_at(&self) -> Option<i64> {
        match self.phase {
            Phase::Due { at } => Some(at),
            Phase::Sent { until } | Phase::Claimed { until } => Some(until),
            Phase::Delivered | Phase::Abandoned => None,
        }
    }

    /// The message of the current attempt goes to the Queue.
    #[must_use]
    pub const fn sent(self, now: UnixMs) -> Self {
        let doublings = if self.resends < DOUBLINGS { self.resends } else { DOUBLINGS };
        Self { phase: Phase::Sent { until: now.plus(IN_FLIGHT_MS << doublings).0 }, ..self }
    }

    /// A consumer wants to send this attempt. None when it is not the current one, or someone has it.
    pub const fn claim(self, attempt: u32, now: UnixMs) -> Option<Self> {
        match self.phase {
            Phase::Due { .. } | Phase::Sent { .. } if attempt == self.attempt => {
                Some(Self { phase: Phase::Claimed { until: now.plus(CLAIM_MS).0 }, ..self })
            }
            Phase::Due { .. } | Phase::Sent { .. } | Phase::Claimed { .. } | Phase::Delivered | Phase::Abandoned => {
                None
            }
        }
    }

    /// What the consumer that claimed this holds.
    pub const fn held(&self) -> Claim {
        Claim { attempt: self.attempt, interruptions: self.interruptions }
    }

    /// Someone asks for an attempt now. It takes the place of the one that waits; after the end it is one more. None
    /// while an attempt is being made.
    pub const fn redeliver(self, now: UnixMs) -> Option<Self> {
        let phase = Phase::Due { at: now.0 };
        match self.phase {
            Phase::Claimed { .. } => None,
            Phase::Due { .. } | Phase::Sent { .. } => Some(Self { phase, resends: 0, ..self }),
            Phase::Delivered | Phase::Abandoned => {
                Some(Self { phase, attempt: self.attempt + 1, interruptions: 0, resends: 0, by_hand: true, ..self })
            }
        }
    }

    /// A consumer says how the attempt that it claimed went, and when it ended. None when it no longer has that claim.
    /// `jitter` is any random number; it spreads the waits of the durable schedule. A consumer that could not begin gives
    /// its claim back: the attempt is sent again as if its message were lost, however often that happens.
    pub fn record(self, claim: Claim, outcome: Outcome, wish: Wish, jitter: u32, ended: UnixMs) -> Option<Self> {
        let holds = matches!(self.phase, Phase::Claimed { .. }) && claim == self.held();
        holds.then(|| match outcome {
            Outcome::Ok => Self { phase: Phase::Delivered, ..self },
            Outcome::Interrupted => Self { resends: self.resends.saturating_add(1), ..self }.sent(ended),
            Outcome::Status | Outcome::Redirect | Outcome::Timeout | Outcome::Network | Outcome::RefusedByPolicy => {
                self.failed(wish, jitter, ended)
            }
        })
    }

    /// Leaves the next attempt to the sender that has just recorded the last one, if it is soon: an alarm and a message are
    /// later than a sender that is there. Unless it is claimed, its message is sent a little after its time. Gives its time.
    pub const fn entrusted(self, now: UnixMs) -> Option<(Self, UnixMs)> {
        match self.phase {
            Phase::Due { at } if at <= now.plus(SOON_MS).0 => {
                Some((Self { phase: Phase::Sent { until: at + GRACE_MS }, ..self }, UnixMs(at)))
            }
            Phase::Due { .. } | Phase::Sent { .. } | Phase::Claimed { .. } | Phase::Delivered | Phase::Abandoned => {
                None
            }
        }
    }

    /// Time has come to [`Self::wakes_at`]. What is due must now be sent to the Queue. `jitter` as for [`Self::record`].
    #[must_use]
    pub fn wake(self, jitter: u32, now: UnixMs) -> Self {
        match self.phase {
            Phase::Sent { until } if until <= now.0 => {
                Self { phase: Phase::Due { at: now.0 }, resends: self.resends.saturating_add(1), ..self }
            }
            Phase::Claimed { until } if until <= now.0 => self.interrupted(jitter, now),
            Phase::Due { .. } | Phase::Sent { .. } | Phase::Claimed { .. } | Phase::Delivered | Phase::Abandoned => {
                self
            }
        }
    }

    /// The trouble is ours, so the receiver still gets the attempts that it is owed.
    fn interrupted(self, jitter: u32, now: UnixMs) -> Self {
        if self.interruptions >= MAX_INTERRUPTIONS {
            return self.failed(Wish::default(), jitter, now);
        }
        let wait = if self.interruptions == 0 { 0 } else { RECOVERY_MS << (self.interruptions - 1) };
        Self { phase: Phase::Due { at: now.plus(wait).0 }, interruptions: self.interruptions + 1, ..self }
    }

    fn failed(self, wish: Wish, jitter: u32, ended: UnixMs) -> Self {
        match self.wait(wish, jitter) {
            Some(ms) => {
                let phase = Phase::Due { at: ended.plus(ms).0 };
                Self { phase, attempt: self.attempt + 1, interruptions: 0, resends: 0, ..self }
            }
            None => Self { phase: Phase::Abandoned, ..self },
        }
    }

    /// The wait before the attempt after this one. None when there is none.
    fn wait(&self, wish: Wish, jitter: u32) -> Option<i64> {
        if self.by_hand {
            return None;
        }
        let planned = *WAITS_MS.get(usize::try_from(self.attempt).ok()?.checked_sub(1)?)?;
        match self.schedule {
            Schedule::Standard => (planned <= LAST_STANDARD_WAIT_MS).then_some(planned),
            Schedule::Durable if wish.gone => None,
            Schedule::Durable => {
                let asked = wish.retry_after_ms.unwrap_or(0).min(MAX_RETRY_AFTER_MS);
                Some(spread(planned.max(asked), jitter))
            }
        }
    }
}

/// A wait with up to a tenth added, so that receivers that failed together are not called together. The waits of the
/// first three attempts are exact on either schedule.
fn spread(wait: i64, jitter: u32) -> i64 {
    if wait <= LAST_STANDARD_WAIT_MS { wait } else { wait + wait / 10 * i64::from(jitter % 1000) / 1000 }
}

/// Judges an HTTP status that a receiver answered.
pub const fn judge_status(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Ok,
        300..=399 => Outcome::Redirect,
        _ => Outcome::Status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000);

    fn claimed(attempt: u32) -> Delivery {
        let phase = Phase::Claimed { until: NOW.0 + CLAIM_MS };
        Delivery { phase, attempt, ..Delivery::new(Schedule::Standard, NOW) }
    }

    fn record(delivery: Delivery, outcome: Outcome, now: UnixMs) -> Option<Delivery> {
        delivery.record(delivery.held(), outcome, Wish::default(), 0, now)
    }

    #[test]
    fn attempts_come_at_once_then_half_a_second_then_a_second_after_the_failure_and_no_more() {
        let first = Delivery::new(Schedule::Standard, NOW);
        assert_eq!(first.wakes_at(), Some(NOW.0));
        let second = record(claimed(1), Outcome::Status, NOW).expect("claimed");
        assert_eq!((second.attempt, second.wakes_at()), (2, Some(NOW.0 + 500)));
        let third = record(claimed(2), Outcome::Timeout, NOW).expect("claimed");
        assert_eq!((third.attempt, third.wakes_at()), (3, Some(NOW.0 + 1_000)));
        let last = record(claimed(3), Outcome::Network, NOW).expect("claimed");
        assert_eq!((last.phase, last.wakes_at()), (Phase::Abandoned, None));
    }

    #[test]
    fn an_attempt_that_is_soon_is_left_to_the_sender_of_the_last_one_and_sent_anyway_if_that_is_gone() {
        let second = record(claimed(1), Outcome::Status, NOW).expect("claimed");
        let (entrusted, at) = second.entrusted(NOW).expect("soon");
        assert_eq!((at, entrusted.wakes_at()), (NOW.plus(500), Some(NOW.plus(500 + GRACE_MS).0)));
        assert!(entrusted.claim(2, at).is_some());
        assert!(matches!(entrusted.wake(0, NOW.plus(500 + GRACE_MS)).phase, Phase::Due { .. }));
        let durable = Delivery { schedule: Schedule::Durable, ..claimed(3) };
        assert_eq!(record(durable, Outcome::Status, NOW).expect("claimed").entrusted(NOW), None);
        assert_eq!(record(claimed(3), Outcome::Status, NOW).expect("claimed").entrusted(NOW), None);
    }

    #[test]
    fn an_attempt_is_claimed_once() {
        let claimed = Delivery::new(Schedule::Standard, NOW).claim(1, NOW).expect("due");
        assert_eq!(claimed.claim(1, NOW), None);
        assert_eq!(Delivery::new(Schedule::Standard, NOW).claim(2, NOW), None);
    }

    #[test]
    fn an_interrupted_attempt_is_sent_again_under_its_number() {
        let after = claimed(2).wake(0, NOW.plus(CLAIM_MS));
        assert_eq!((after.attempt, after.interruptions), (2, 1));
        assert!(matches!(after.phase, Phase::Due { .. }));
    }

    #[test]
    fn a_sender_that_was_given_up_for_dead_records_nothing() {
        let late = claimed(1);
        let again = late.wake(0, NOW.plus(CLAIM_MS)).claim(1, NOW.plus(CLAIM_MS)).expect("due again");
        assert_eq!(again.record(late.held(), Outcome::Status, Wish::default(), 0, NOW), None);
        assert!(record(again, Outcome::Ok, NOW).is_some());
    }

    #[test]
    fn a_sender_that_could_not_begin_gives_its_claim_back_at_no_cost() {
        let back = record(claimed(2), Outcome::Interrupted, NOW).expect("claimed");
        assert_eq!((back.attempt, back.interruptions), (2, 0));
        assert_eq!(back.phase, Phase::Sent { until: NOW.0 + 2 * IN_FLIGHT_MS });
        assert_eq!(record(back, Outcome::Ok, NOW), None, "it holds nothing any more");
    }

    /// Claims of one attempt until something else follows, none of which is recorded, and what follows then.
    fn interrupted(mut delivery: Delivery) -> (u32, Delivery, UnixMs) {
        let (attempt, mut now, mut claims) = (delivery.attempt, NOW, 0);
        while delivery.attempt == attempt && delivery.wakes_at().is_some() {
            now = now.max(UnixMs(delivery.wakes_at().unwrap_or(now.0)));
            let claimed = delivery.claim(attempt, now).expect("due");
            claims += 1;
            now = now.plus(CLAIM_MS);
            delivery = claimed.wake(0, now);
        }
        (claims, delivery, now)
    }

    #[test]
    fn interruptions_cost_an_attempt_in_the_end_and_not_the_delivery() {
        for schedule in [Schedule::Standard, Schedule::Durable] {
            let (claims, next, now) = interrupted(Delivery::new(schedule, NOW));
            assert_eq!((claims, next.attempt, next.interruptions), (MAX_INTERRUPTIONS + 1, 2, 0), "{schedule:?}");
            assert_eq!(next.phase, Phase::Due { at: now.0 + WAITS_MS[0] }, "as after any failed attempt");
            assert!(now.since(NOW) > 7 * MINUTE_MS, "a bad deployment is waited out");
            let (_, third, _) = interrupted(next);
            assert_eq!(third.attempt, 3, "{schedule:?}");
            let (_, last, _) = interrupted(third);
            let ends = matches!(last.phase, Phase::Abandoned);
            assert_eq!(ends, schedule == Schedule::Standard, "the schedule decides, as for any attempt: {last:?}");
        }
    }

    #[test]
    fn an_interrupted_attempt_is_sent_again_at_once_the_first_time_and_later_each_further_time() {
        let waits: Vec<_> = (0..MAX_INTERRUPTIONS)
            .map(|interruptions| {
                let woken = Delivery { interruptions, ..claimed(1) }.wake(0, NOW.plus(CLAIM_MS));
                woken.wakes_at().expect("due") - NOW.0 - CLAIM_MS
            })
            .collect();
        assert_eq!(waits, [0, 30_000, 60_000, 120_000, 240_000]);
    }

    #[test]
    fn a_message_that_nobody_claims_is_sent_again_after_twice_as_long_each_time() {
        let (mut delivery, mut now, mut waits) = (Delivery::new(Schedule::Standard, NOW).sent(NOW), NOW, Vec::new());
        for _ in 0..8 {
            let until = UnixMs(delivery.wakes_at().expect("sent"));
            waits.push(until.since(now) / 1000);
            now = until;
            delivery = delivery.wake(0, now).sent(now);
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 960, 960]);
        let claimed = delivery.claim(1, now).expect("however late");
        let next = record(claimed, Outcome::Status, now).expect("claimed").sent(now);
        assert_eq!(next.wakes_at(), Some(now.0 + IN_FLIGHT_MS), "the next attempt begins anew");
    }

    #[test]
    fn rows_of_before_resends_were_counted_are_read() {
        let row = r#"{"phase":{"due":{"at":5}},"attempt":2,"interruptions":1,"schedule":"durable","byHand":false}"#;
        let read: Delivery = serde_json::from_str(row).expect("JSON");
        assert_eq!((read.attempt, read.resends), (2, 0));
    }

    #[test]
    fn only_2xx_is_success() {
        for (status, outcome) in [
            (200, Outcome::Ok),
            (204, Outcome::Ok),
            (301, Outcome::Redirect),
            (304, Outcome::Redirect),
            (400, Outcome::Status),
            (410, Outcome::Status),
            (500, Outcome::Status),
            (101, Outcome::Status),
        ] {
            assert_eq!(judge_status(status), outcome, "{status}");
        }
    }

    #[test]
    fn the_durable_schedule_goes_on_over_a_day_with_jitter_only_ever_added() {
        let mut delivery = Delivery::new(Schedule::Durable, NOW);
        let mut waits = Vec::new();
        while delivery.wakes_at().is_some() {
            let claimed = delivery.claim(delivery.attempt, NOW).expect("due");
            delivery = claimed.record(claimed.held(), Outcome::Status, Wish::default(), 999, NOW).expect("claimed");
            waits.extend(delivery.wakes_at().map(|at| at - NOW.0));
        }
        assert_eq!(waits.len(), WAITS_MS.len());
        assert_eq!(waits[..2], WAITS_MS[..2], "the first three attempts come as they always do");
        for (found, planned) in waits.iter().zip(WAITS_MS).skip(2) {
            assert!((planned + 1..=planned + planned / 10).contains(found), "{found} for {planned}");
        }
    }

    #[test]
    fn only_the_durable_schedule_heeds_what_the_receiver_says() {
        let wish = |retry_after_ms, gone| Wish { retry_after_ms, gone };
        let after = |schedule, wish| {
            let delivery = Delivery { schedule, ..claimed(1) };
            delivery
                .record(delivery.held(), Outcome::Status, wish, 0, NOW)
                .expect("claimed")
                .wakes_at()
                .map(|at| at - NOW.0)
        };
        let table = [
            (wish(Some(7_000), false), Some(500), Some(7_000)),
            (wish(Some(1), false), Some(500), Some(500)),
            (wish(Some(i64::MAX), false), Some(500), Some(MAX_RETRY_AFTER_MS)),
            (wish(Some(-5), false), Some(500), Some(500)),
            (wish(None, true), Some(500), None),
        ];
        for (wish, standard, durable) in table {
            assert_eq!(after(Schedule::Standard, wish), standard, "{wish:?}");
            assert_eq!(after(Schedule::Durable, wish), durable, "{wish:?}");
        }
    }

    #[test]
    fn one_more_attempt_can_be_asked_for_after_the_end_and_nothing_follows_it() {
        let over = Delivery { phase: Phase::Abandoned, ..claimed(3) };
        let again = over.redeliver(NOW).expect("over");
        assert_eq!((again.attempt, again.wakes_at()), (4, Some(NOW.0)));
        let failed = record(again.claim(4, NOW).expect("due"), Outcome::Status, NOW).expect("claimed");
        assert_eq!(failed.phase, Phase::Abandoned);
        assert_eq!(claimed(1).redeliver(NOW), None);
    }

    #[test]
    fn an_attempt_asked_for_while_one_waits_takes_its_place() {
        let waiting = record(claimed(1), Outcome::Status, NOW).expect("claimed");
        let now = waiting.redeliver(NOW).expect("waits");
        assert_eq!((now.attempt, now.wakes_at()), (2, Some(NOW.0)));
    }
}
