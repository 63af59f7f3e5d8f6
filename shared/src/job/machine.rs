//! The job machine: state × event → what follows. The shard loads, asks here, stores and performs; it decides nothing.

use super::JobState;
use crate::failure::{FailureKind, Stage, TryAgain};

/// Attempts that a task has in all. A drain does not use one up.
pub const MAX_ATTEMPTS: usize = 3;

/// How long a job waits before its second and third attempt, in milliseconds.
const BACKOFF_MS: [i64; MAX_ATTEMPTS - 1] = [1_000, 5_000];

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

        (Failed | Cancelled, Event::Retried) => go(Queued, Then::Restart),

        (
            Queued,
            Event::Entered(_) | Event::Completed | Event::Failed(_) | Event::Released | Event::Expired | Event::Retried,
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
    match BACKOFF_MS.get(spent.len()) {
        Some(&after_ms) if again => Step { state: JobState::Queued, then: Then::Offer { after_ms }, spent: Some(kind) },
        _ => give_up(kind),
    }
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
    const TABLE: [(Event, [&str; 9]); 11] = [
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
        (Event::Expired, ["-", "queued", "queued", "queued", "queued", "-", "-", "-", "-"]),
        (Event::Cancelled, ["cancelled", "cancelled", "cancelled", "cancelled", "cancelled", "-", "-", "-", "-"]),
        (Event::Retried, ["-", "-", "-", "-", "-", "-", "queued", "-", "queued"]),
        (Event::Resumed(Stage::Verify), ["transcoding", "-", "-", "-", "-", "-", "-", "-", "-"]),
        (Event::Unclaimed, ["failed", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ];

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
        let waits: Vec<_> = [&[][..], &[FailureKind::NodeLost]]
            .into_iter()
            .map(|spent| step(Probing, Event::Expired, spent).expect("applies").then)
            .collect();
        assert_eq!(waits, [Then::Offer { after_ms: 1_000 }, Then::Offer { after_ms: 5_000 }]);
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
