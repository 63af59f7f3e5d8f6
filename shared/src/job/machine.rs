//! The job machine: state × event → what follows. The shard loads, asks here, stores and performs; it decides nothing.

use super::JobState;
use crate::failure::{FailureKind, Stage, TryAgain};

/// Attempts that a task has in all. A drain does not use one up.
pub const MAX_ATTEMPTS: usize = 3;

/// How long a job waits before its second and third attempt, in milliseconds.
const BACKOFF_MS: [i64; MAX_ATTEMPTS - 1] = [1_000, 5_000];

/// The same after an outage of an origin or of storage. An attempt itself waits for less than a minute; together that is
/// longer than most servers take to restart.
const OUTAGE_MS: [i64; MAX_ATTEMPTS - 1] = [10_000, 60_000];

/// How long a task waits after a node could not do it, in milliseconds: at first, and at most. The wait doubles each time
/// that the same node refuses it.
const REFUSED_MS: (i64, i64) = (5_000, 300_000);

/// A task that nodes have refused for longer than this is given up, in milliseconds.
const REFUSED_MOST_MS: i64 = 24 * 3600 * 1000;

/// What happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node took it.
    Leased,
    /// The node that has it entered a stage.
    Entered(Stage),
    /// The node that has it has published a verified result.
    Completed,
    /// The node that has it gave up.
    Failed(FailureKind),
    /// The node that has it is told to stop, and gives it back unharmed.
    Released,
    /// The node that has it cannot do it, and gives it back for others.
    Refused(Refused),
    /// The lease ran out unrenewed.
    Expired,
    /// The node whose lease ran out is heard of again, at this stage, before anyone else has the task.
    Resumed(Stage),
    /// The caller stopped it.
    Cancelled,
    /// The caller wants it tried again.
    Retried,
    /// It waited for a node for a day.
    Unclaimed,
}

/// What is known when a node gives a task back because it cannot do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the job ends with if no node can do it.
    pub kind: FailureKind,
    /// Whether no known node can do it, each for as long as it is configured as it is.
    pub by_all: bool,
    /// How often this node has refused the task before.
    pub before: u32,
    /// How long the task has been waiting for a node that can do it, in milliseconds.
    pub waited_ms: i64,
}

/// What follows from an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The new state.
    pub state: JobState,
    /// What has to be done.
    pub then: Then,
    /// The attempt that this costs, if it costs one.
    pub spent: Option<FailureKind>,
}

/// What the shard has to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Grant a lease under a new fence.
    Lease,
    /// Note the stage.
    Note,
    /// Offer the task again after this many milliseconds, progress at 0; the lease is void.
    Offer {
        /// How long to wait.
        after_ms: i64,
    },
    /// The lease that ran out holds again, and the attempt that its end cost is given back.
    Resume,
    /// Start again from nothing: a new task, all attempts before it.
    Restart,
    /// The job is over: the lease is void, the delivery row is written in the same turn.
    End,
}

/// The event does not apply in this state; nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// What follows from `event` in `state`, when the attempts `spent` so far ended as listed.
pub fn step(state: JobState, event: Event, spent: &[FailureKind]) -> Result<Step, Conflict> {
    use JobState::{Cancelled, Completed, Failed, Merging, Planning, Probing, Queued, Rejected, Transcoding};
    match (state, event) {
        (Queued, Event::Leased) => go(Probing, Then::Lease),
        (Queued | Probing | Planning | Transcoding | Merging, Event::Cancelled) => go(Cancelled, Then::End),
        (Queued, Event::Unclaimed) => Ok(give_up(FailureKind::Unclaimed)),
        (Queued, Event::Resumed(stage)) => go(stage.job_state(), Then::Resume),

        (Probing | Planning | Transcoding | Merging, Event::Entered(stage)) => go(stage.job_state(), Then::Note),
        (Probing | Planning | Transcoding | Merging, Event::Completed) => go(Completed, Then::End),
        (Probing | Planning | Transcoding | Merging, Event::Failed(kind)) => Ok(after_failure(kind, spent)),
        (Probing | Planning | Transcoding | Merging, Event::Expired) => Ok(after_failure(FailureKind::NodeLost, spent)),
        (Probing | Planning | Transcoding | Merging, Event::Released) => go(Queued, Then::Offer { after_ms: 0 }),
        (Probing | Planning | Transcoding | Merging, Event::Refused(refused)) => Ok(after_refusal(refused)),

        (Failed | Cancelled, Event::Retried) => go(Queued, Then::Restart),

        (
            Queued,
            Event::Entered(_)
            | Event::Completed
            | Event::Failed(_)
            | Event::Released
            | Event::Refused(_)
            | Event::Expired
            | Event::Retried,
        )
        | (
            Probing | Planning | Transcoding | Merging,
            Event::Leased | Event::Resumed(_) | Event::Retried | Event::Unclaimed,
        )
        | (
            Completed | Rejected | Failed | Cancelled,
            Event::Leased
            | Event::Entered(_)
            | Event::Completed
            | Event::Failed(_)
            | Event::Released
            | Event::Refused(_)
            | Event::Expired
            | Event::Resumed(_)
            | Event::Cancelled
            | Event::Unclaimed,
        )
        | (Completed | Rejected, Event::Retried) => Err(Conflict),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "reads as the other arms of the table do")]
fn go(state: JobState, then: Then) -> Result<Step, Conflict> {
    Ok(Step { state, then, spent: None })
}

fn after_failure(kind: FailureKind, spent: &[FailureKind]) -> Step {
    let again = match kind.verdict().again {
        TryAgain::Never => false,
        TryAgain::Once => !spent.contains(&kind),
        TryAgain::WhileAttemptsLast => true,
    };
    let is_outage = matches!(kind, FailureKind::OriginUnavailable | FailureKind::Storage);
    let backoff = if is_outage { OUTAGE_MS } else { BACKOFF_MS };
    match backoff.get(spent.len()) {
        Some(&after_ms) if again => Step { state: JobState::Queued, then: Then::Offer { after_ms }, spent: Some(kind) },
        _ => give_up(kind),
    }
}

/// Ends the job where no node can do it, or none could for a day. Else the task waits, and no attempt is spent.
fn after_refusal(Refused { kind, by_all, before, waited_ms }: Refused) -> Step {
    if by_all {
        return give_up(kind);
    }
    if waited_ms >= REFUSED_MOST_MS {
        return give_up(FailureKind::Unclaimed);
    }
    let (first, most) = REFUSED_MS;
    let after_ms = first.saturating_mul(1 << before.min(16)).min(most);
    Step { state: JobState::Queued, then: Then::Offer { after_ms }, spent: None }
}

fn give_up(kind: FailureKind) -> Step {
    Step { state: kind.verdict().state, then: Then::End, spent: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use JobState::*;

    const STATES: [JobState; 9] =
        [Queued, Probing, Planning, Transcoding, Merging, Completed, Failed, Rejected, Cancelled];

    /// One row an event, one column a state: the state that follows, or `-` for a conflict.
    const TABLE: [(Event, [&str; 9]); 13] = [
        //                                 queued     probing    planning   transcod.  merging    compl. failed rej. canc.
        (Event::Leased, ["probing", "-", "-", "-", "-", "-", "-", "-", "-"]),
        (
            Event::Entered(Stage::Verify),
            ["-", "transcoding", "transcoding", "transcoding", "transcoding", "-", "-", "-", "-"],
        ),
        (Event::Completed, ["-", "completed", "completed", "completed", "completed", "-", "-", "-", "-"]),
        (Event::Failed(FailureKind::Transcode), ["-", "failed", "failed", "failed", "failed", "-", "-", "-", "-"]),
        (Event::Failed(FailureKind::Storage), ["-", "queued", "queued", "queued", "queued", "-", "-", "-", "-"]),
        (Event::Released, ["-", "queued", "queued", "queued", "queued", "-", "-", "-", "-"]),
        (refused(false, 0, 0), ["-", "queued", "queued", "queued", "queued", "-", "-", "-", "-"]),
        (refused(true, 0, 0), ["-", "rejected", "rejected", "rejected", "rejected", "-", "-", "-", "-"]),
        (Event::Expired, ["-", "queued", "queued", "queued", "queued", "-", "-", "-", "-"]),
        (Event::Cancelled, ["cancelled", "cancelled", "cancelled", "cancelled", "cancelled", "-", "-", "-", "-"]),
        (Event::Retried, ["-", "-", "-", "-", "-", "-", "queued", "-", "queued"]),
        (Event::Resumed(Stage::Verify), ["transcoding", "-", "-", "-", "-", "-", "-", "-", "-"]),
        (Event::Unclaimed, ["failed", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ];

    const fn refused(by_all: bool, before: u32, waited_ms: i64) -> Event {
        Event::Refused(Refused { kind: FailureKind::InputTooLarge, by_all, before, waited_ms })
    }

    fn name(state: JobState) -> String {
        serde_json::to_value(state).ok().and_then(|name| name.as_str().map(str::to_owned)).expect("a name")
    }

    #[test]
    fn every_pair_of_state_and_event_does_what_the_table_says() {
        for (event, row) in TABLE {
            for (state, expected) in STATES.into_iter().zip(row) {
                let found = step(state, event, &[]).map_or("-".to_owned(), |step| name(step.state));
                assert_eq!(found, expected, "{state:?} × {event:?}");
            }
        }
    }

    #[test]
    fn every_kind_of_failure_ends_as_its_verdict_says_once_attempts_are_used_up() {
        for kind in FailureKind::ALL {
            let step = step(Transcoding, Event::Failed(kind), &[kind, kind]).expect("applies");
            assert_eq!((step.state, step.then), (kind.verdict().state, Then::End), "{kind:?}");
        }
    }

    #[test]
    fn a_failure_is_tried_again_as_often_as_its_kind_allows() {
        for kind in FailureKind::ALL {
            let mut spent = Vec::new();
            while step(Probing, Event::Failed(kind), &spent).expect("applies").then != Then::End {
                spent.push(kind);
            }
            let expected = match kind.verdict().again {
                TryAgain::Never => 0,
                TryAgain::Once => 1,
                TryAgain::WhileAttemptsLast => MAX_ATTEMPTS - 1,
            };
            assert_eq!(spent.len(), expected, "{kind:?}");
        }
    }

    #[test]
    fn the_wait_grows_with_each_attempt() {
        let outage = |kind| (Event::Failed(kind), [10_000, 60_000]);
        for (event, expected) in
            [(Event::Expired, [1_000, 5_000]), outage(FailureKind::OriginUnavailable), outage(FailureKind::Storage)]
        {
            let waits =
                [&[][..], &[FailureKind::NodeLost]].map(|spent| step(Probing, event, spent).expect("applies").then);
            assert_eq!(waits, expected.map(|after_ms| Then::Offer { after_ms }), "{event:?}");
        }
    }

    #[test]
    fn a_node_that_cannot_do_a_task_costs_no_attempt_and_waits_longer_each_time() {
        let spent = [FailureKind::NodeLost; MAX_ATTEMPTS - 1];
        let waits: Vec<_> = (0..9)
            .map(|before| step(Probing, refused(false, before, 0), &spent).expect("applies"))
            .map(|step| match step {
                Step { state: Queued, then: Then::Offer { after_ms }, spent: None } => after_ms,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(waits, [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000]);
        assert_eq!(step(Probing, refused(false, u32::MAX, 0), &[]).map(|step| step.state), Ok(Queued));
    }

    #[test]
    fn a_task_that_no_node_can_do_ends_at_once_and_one_that_none_could_for_a_day_ends_then() {
        let end = |event| step(Planning, event, &[]).map(|step| (step.state, step.then, step.spent));
        assert_eq!(end(refused(true, 0, 0)), Ok((Rejected, Then::End, Some(FailureKind::InputTooLarge))));
        let day = 24 * 3600 * 1000;
        assert_eq!(end(refused(false, 9, day)), Ok((Failed, Then::End, Some(FailureKind::Unclaimed))));
        assert_eq!(end(refused(false, 9, day - 1)).map(|(state, ..)| state), Ok(Queued));
    }

    #[test]
    fn a_drain_costs_no_attempt_and_a_crash_does() {
        assert_eq!(step(Transcoding, Event::Released, &[]).expect("applies").spent, None);
        assert_eq!(step(Transcoding, Event::Expired, &[]).expect("applies").spent, Some(FailureKind::NodeLost));
    }

    #[test]
    fn a_terminal_state_is_always_reached_through_end() {
        for (event, _) in TABLE {
            for state in STATES {
                if let Ok(step) = step(state, event, &[]) {
                    assert_eq!(step.state.is_terminal(), step.then == Then::End, "{state:?} × {event:?}");
                }
            }
        }
    }
}
