//! The delivery machine: when a webhook attempt is due, who may send it, and what follows from how it went.
//!
//! The row in the shard is the record; the Queue only carries ids. An attempt is claimed (compare and set) before it is
//! sent and recorded after, so a repeated message sends nothing, and a claim that is never recorded is sent again under
//! the same number.

use serde::{Deserialize, Serialize};

use crate::time::UnixMs;

/// How long a receiver has for one attempt, in milliseconds.
pub const ATTEMPT_TIMEOUT_MS: i64 = 15_000;

/// How long a claim is good: the attempt's timeout and some time to record it.
const CLAIM_MS: i64 = ATTEMPT_TIMEOUT_MS + 5_000;

/// How long a message may take to its consumer before the attempt is sent to the Queue again, in milliseconds. Messages
/// are seldom lost, and a second one of a slow first costs only an idle claim.
const IN_FLIGHT_MS: i64 = 30_000;

/// How often one attempt may be interrupted (claimed and never recorded) before the delivery is abandoned.
const MAX_INTERRUPTIONS: u32 = 5;

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
    /// The sender died in between; costs no attempt.
    Interrupted,
}

impl Delivery {
    /// A new delivery, due at once.
    pub const fn new(schedule: Schedule, now: UnixMs) -> Self {
        Self { phase: Phase::Due { at: now.0 }, attempt: 1, interruptions: 0, schedule, by_hand: false }
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
        Self { phase: Phase::Sent { until: now.plus(IN_FLIGHT_MS).0 }, ..self }
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

    /// Someone asks for an attempt now. It takes the place of the one that waits; after the end it is one more. None
    /// while an attempt is being made.
    pub const fn redeliver(self, now: UnixMs) -> Option<Self> {
        let phase = Phase::Due { at: now.0 };
        match self.phase {
            Phase::Claimed { .. } => None,
            Phase::Due { .. } | Phase::Sent { .. } => Some(Self { phase, ..self }),
            Phase::Delivered | Phase::Abandoned => {
                Some(Self { phase, attempt: self.attempt + 1, interruptions: 0, by_hand: true, ..self })
            }
        }
    }

    /// A consumer says how the attempt that it claimed went, at its end. None when it no longer has that attempt.
    /// `jitter` is any random number; it spreads the waits of the durable schedule.
    pub fn record(self, attempt: u32, outcome: Outcome, wish: Wish, jitter: u32, now: UnixMs) -> Option<Self> {
        let claimed = matches!(self.phase, Phase::Claimed { .. }) && attempt == self.attempt;
        claimed.then(|| match outcome {
            Outcome::Ok => Self { phase: Phase::Delivered, ..self },
            Outcome::Interrupted => self.interrupted(now),
            Outcome::Status | Outcome::Redirect | Outcome::Timeout | Outcome::Network | Outcome::RefusedByPolicy => {
                self.failed(wish, jitter, now)
            }
        })
    }

    /// Time has come to [`Self::wakes_at`]. What is due must now be sent to the Queue.
    #[must_use]
    pub fn wake(self, now: UnixMs) -> Self {
        match self.phase {
            Phase::Sent { until } if until <= now.0 => Self { phase: Phase::Due { at: now.0 }, ..self },
            Phase::Claimed { until } if until <= now.0 => self.interrupted(now),
            Phase::Due { .. } | Phase::Sent { .. } | Phase::Claimed { .. } | Phase::Delivered | Phase::Abandoned => {
                self
            }
        }
    }

    fn interrupted(self, now: UnixMs) -> Self {
        let interruptions = self.interruptions + 1;
        let phase = if interruptions > MAX_INTERRUPTIONS { Phase::Abandoned } else { Phase::Due { at: now.0 } };
        Self { phase, interruptions, ..self }
    }

    fn failed(self, wish: Wish, jitter: u32, now: UnixMs) -> Self {
        match self.wait(wish, jitter) {
            Some(ms) => {
                let phase = Phase::Due { at: now.plus(ms).0 };
                Self { phase, attempt: self.attempt + 1, interruptions: 0, ..self }
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
            // Jitter is only ever added: up to a tenth.
            Schedule::Durable => {
                let asked = wish.retry_after_ms.unwrap_or(0).min(MAX_RETRY_AFTER_MS);
                let wait = planned.max(asked);
                Some(wait + wait / 10 * i64::from(jitter % 1000) / 1000)
            }
        }
    }
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
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMs = UnixMs(1_000_000);

    fn claimed(attempt: u32) -> Delivery {
        let phase = Phase::Claimed { until: NOW.0 + CLAIM_MS };
        Delivery { phase, attempt, ..Delivery::new(Schedule::Standard, NOW) }
    }

    fn record(delivery: Delivery, outcome: Outcome, now: UnixMs) -> Option<Delivery> {
        delivery.record(delivery.attempt, outcome, Wish::default(), 0, now)
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
    fn an_attempt_is_claimed_once() {
        let claimed = Delivery::new(Schedule::Standard, NOW).claim(1, NOW).expect("due");
        assert_eq!(claimed.claim(1, NOW), None);
        assert_eq!(Delivery::new(Schedule::Standard, NOW).claim(2, NOW), None);
    }

    #[test]
    fn an_interrupted_attempt_is_sent_again_under_its_number() {
        let after = claimed(2).wake(NOW.plus(CLAIM_MS));
        assert_eq!((after.attempt, after.interruptions), (2, 1));
        assert!(matches!(after.phase, Phase::Due { .. }));
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

    /// What can happen to a delivery, the death of its sender at any point included.
    #[derive(Clone, Debug)]
    enum Happens {
        Sent,
        Claim,
        Record(Outcome),
        Wait(i64),
    }

    fn happenings() -> impl Strategy<Value = Vec<Happens>> {
        let outcome = prop_oneof![Just(Outcome::Ok), Just(Outcome::Status), Just(Outcome::Timeout)];
        let one = prop_oneof![
            Just(Happens::Sent),
            Just(Happens::Claim),
            outcome.prop_map(Happens::Record),
            (0i64..30_000).prop_map(Happens::Wait)
        ];
        prop::collection::vec(one, 0..60)
    }

    fn schedules() -> impl Strategy<Value = Schedule> {
        prop_oneof![Just(Schedule::Standard), Just(Schedule::Durable)]
    }

    #[test]
    fn the_durable_schedule_goes_on_over_a_day_with_jitter_only_ever_added() {
        let mut delivery = Delivery::new(Schedule::Durable, NOW);
        let mut waits = Vec::new();
        while delivery.wakes_at().is_some() {
            let claimed = delivery.claim(delivery.attempt, NOW).expect("due");
            delivery = claimed.record(claimed.attempt, Outcome::Status, Wish::default(), 999, NOW).expect("claimed");
            waits.extend(delivery.wakes_at().map(|at| at - NOW.0));
        }
        assert_eq!(waits.len(), WAITS_MS.len());
        for (found, planned) in waits.iter().zip(WAITS_MS) {
            assert!((planned..=planned + planned / 10).contains(found), "{found} for {planned}");
        }
    }

    #[test]
    fn only_the_durable_schedule_heeds_what_the_receiver_says() {
        let wish = |retry_after_ms, gone| Wish { retry_after_ms, gone };
        let after = |schedule, wish| {
            let delivery = Delivery { schedule, ..claimed(1) };
            delivery.record(1, Outcome::Status, wish, 0, NOW).expect("claimed").wakes_at().map(|at| at - NOW.0)
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

    proptest! {
        #[test]
        fn whatever_happens_no_attempt_number_goes_back_and_nothing_ends_without_its_attempts(
            all in happenings(), schedule in schedules()
        ) {
            let mut now = NOW;
            let mut delivery = Delivery::new(schedule, now);
            let mut sends = 0;
            for happens in all {
                let before = delivery;
                delivery = match happens {
                    Happens::Sent if matches!(delivery.phase, Phase::Due { at } if at <= now.0) => delivery.sent(now),
                    Happens::Sent => delivery,
                    Happens::Claim => {
                        let claimed = delivery.claim(delivery.attempt, now);
                        sends += u32::from(claimed.is_some());
                        claimed.unwrap_or(delivery)
                    }
                    Happens::Record(outcome) => record(delivery, outcome, now).unwrap_or(delivery),
                    Happens::Wait(ms) => {
                        now = now.plus(ms);
                        delivery.wake(now)
                    }
                };
                prop_assert!(delivery.attempt >= before.attempt);
                prop_assert!(sends >= delivery.attempt - 1 + u32::from(delivery.wakes_at().is_none()));
            }
        }

        #[test]
        fn left_alone_with_time_every_delivery_ends(all in happenings(), schedule in schedules(), outcome in prop_oneof![Just(Outcome::Ok), Just(Outcome::Status)]) {
            let mut now = NOW;
            let mut delivery = Delivery::new(schedule, now);
            for happens in all {
                if let Happens::Claim = happens { delivery = delivery.claim(delivery.attempt, now).unwrap_or(delivery); }
            }
            for _ in 0..40 {
                let Some(at) = delivery.wakes_at() else { break };
                now = UnixMs(at.max(now.0));
                delivery = delivery.wake(now);
                if let Some(claimed) = delivery.claim(delivery.attempt, now) {
                    delivery = record(claimed, outcome, now).expect("claimed");
                }
            }
            prop_assert_eq!(delivery.wakes_at(), None);
        }
    }
}
