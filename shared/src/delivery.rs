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

/// How long a message may take to its consumer before the attempt is sent to the Queue again, in milliseconds.
const IN_FLIGHT_MS: i64 = 5_000;

/// How often one attempt may be interrupted (claimed and never recorded) before the delivery is abandoned.
const MAX_INTERRUPTIONS: u32 = 5;

/// Waits before the second, third, … attempt of the fixed schedule, in milliseconds from the end of the failed one.
const STANDARD_MS: [i64; 2] = [500, 1_000];

/// How much of a receiver's answer is kept, in bytes.
pub const ANSWER_BYTES: usize = 4096;

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
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

/// One delivery, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Where it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// The number of the attempt that is due, sent or claimed, from 1; of the last one when all is over.
    pub attempt: u32,
    /// How often this attempt was claimed and never recorded.
    pub interruptions: u32,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    pub const fn new(now: UnixMs) -> Self {
        Self { phase: Phase::Due { at: now.0 }, attempt: 1, interruptions: 0 }
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

    /// A consumer says how the attempt that it claimed went, at its end. None when it no longer has that attempt.
    pub fn record(self, attempt: u32, outcome: Outcome, now: UnixMs) -> Option<Self> {
        let claimed = matches!(self.phase, Phase::Claimed { .. }) && attempt == self.attempt;
        claimed.then(|| match outcome {
            Outcome::Ok => Self { phase: Phase::Delivered, ..self },
            Outcome::Interrupted => self.interrupted(now),
            Outcome::Status | Outcome::Redirect | Outcome::Timeout | Outcome::Network | Outcome::RefusedByPolicy => {
                self.failed(now)
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

    fn failed(self, now: UnixMs) -> Self {
        let wait = usize::try_from(self.attempt - 1).ok().and_then(|done| STANDARD_MS.get(done));
        match wait {
            Some(&ms) => Self { phase: Phase::Due { at: now.plus(ms).0 }, attempt: self.attempt + 1, interruptions: 0 },
            None => Self { phase: Phase::Abandoned, ..self },
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
        Delivery { phase: Phase::Claimed { until: NOW.0 + CLAIM_MS }, attempt, interruptions: 0 }
    }

    #[test]
    fn attempts_come_at_once_then_half_a_second_then_a_second_after_the_failure_and_no_more() {
        let first = Delivery::new(NOW);
        assert_eq!(first.wakes_at(), Some(NOW.0));
        let second = claimed(1).record(1, Outcome::Status, NOW).expect("claimed");
        assert_eq!((second.attempt, second.wakes_at()), (2, Some(NOW.0 + 500)));
        let third = claimed(2).record(2, Outcome::Timeout, NOW).expect("claimed");
        assert_eq!((third.attempt, third.wakes_at()), (3, Some(NOW.0 + 1_000)));
        let last = claimed(3).record(3, Outcome::Network, NOW).expect("claimed");
        assert_eq!((last.phase, last.wakes_at()), (Phase::Abandoned, None));
    }

    #[test]
    fn an_attempt_is_claimed_once() {
        let claimed = Delivery::new(NOW).claim(1, NOW).expect("due");
        assert_eq!(claimed.claim(1, NOW), None);
        assert_eq!(Delivery::new(NOW).claim(2, NOW), None);
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

    proptest! {
        #[test]
        fn whatever_happens_no_attempt_number_goes_back_and_nothing_ends_without_its_attempts(all in happenings()) {
            let mut now = NOW;
            let mut delivery = Delivery::new(now);
            let mut sends = 0;
            for happens in all {
                let before = delivery;
                delivery = match happens {
                    Happens::Sent => match delivery.phase {
                        Phase::Due { at } if at <= now.0 => delivery.sent(now),
                        _ => delivery,
                    },
                    Happens::Claim => {
                        let claimed = delivery.claim(delivery.attempt, now);
                        sends += u32::from(claimed.is_some());
                        claimed.unwrap_or(delivery)
                    }
                    Happens::Record(outcome) => delivery.record(delivery.attempt, outcome, now).unwrap_or(delivery),
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
        fn left_alone_with_time_every_delivery_ends(all in happenings(), outcome in prop_oneof![Just(Outcome::Ok), Just(Outcome::Status)]) {
            let mut now = NOW;
            let mut delivery = Delivery::new(now);
            for happens in all {
                if let Happens::Claim = happens { delivery = delivery.claim(delivery.attempt, now).unwrap_or(delivery); }
            }
            for _ in 0..40 {
                let Some(at) = delivery.wakes_at() else { break };
                now = UnixMs(at.max(now.0));
                delivery = delivery.wake(now);
                if let Some(claimed) = delivery.claim(delivery.attempt, now) {
                    delivery = claimed.record(claimed.attempt, outcome, now).expect("claimed");
                }
            }
            prop_assert_eq!(delivery.wakes_at(), None);
        }
    }
}
