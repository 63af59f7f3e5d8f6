//! The version of a job: a number that only grows, one for each thing that callers can see change.
//!
//! It is computed from what the job is, so that it costs no row and is the same after a restart.

use super::view::{Attempt, JobRecord};

const PROGRESS: u64 = 128;
const STAGES: u64 = 8;
const PHASES: u64 = 4096;

/// The version of a job that was ended or retried `turns` times in all, and whose last lease had this fence.
pub fn version(turns: u32, fence: u64, record: &JobRecord) -> u64 {
    let running = record.attempts.last().filter(|last| !record.state.is_terminal() && is_running(last));
    // Waiting before the first lease is 0, the first lease 1, waiting after it 2, and so on.
    let phase = (fence * 2).saturating_sub(u64::from(running.is_some())).min(PHASES - 1);
    let stage = running.map_or(0, |attempt| attempt.stage as u64);
    ((u64::from(turns) * PHASES + phase) * STAGES + stage) * PROGRESS + u64::from(record.progress)
}

fn is_running(attempt: &Attempt) -> bool {
    attempt.finished_ms.is_none() && attempt.end.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        failure::Stage,
        id::{Id, Place},
        job::{JobState, view::AttemptEnd},
        request::JobRequest,
        time::UnixMs,
    };

    fn record(state: JobState, progress: u8, attempts: impl Into<Vec<Attempt>>) -> JobRecord {
        serde_json::from_value(serde_json::json!({
            "id": Id::new(UnixMs(1), 2, Place::FIRST),
            "state": state, "progress": progress, "createdMs": 1, "attempts": attempts.into(),
            "request": request(),
        }))
        .expect("a record")
    }

    fn request() -> JobRequest {
        let text = include_str!("../../tests/wire/request/thumbnail-stored.json");
        serde_json::from_str(text).expect("a request")
    }

    fn attempt(stage: Stage, end: Option<AttemptEnd>) -> Attempt {
        Attempt { node: "a".to_owned(), started_ms: 1, finished_ms: end.as_ref().map(|_| 2), stage, end }
    }

    #[test]
    fn whatever_happens_to_a_job_its_version_grows() {
        use JobState::{Cancelled, Completed, Probing, Queued, Transcoding};
        let (probe, encode) = (attempt(Stage::Probe, None), attempt(Stage::Transcode, None));
        let given_back = attempt(Stage::Transcode, Some(AttemptEnd::Released));
        let cancelled = attempt(Stage::Probe, Some(AttemptEnd::Cancelled));
        // Turns, fence, and how the job stands.
        let history = [
            (0, 0, record(Queued, 0, [])),
            (0, 1, record(Probing, 0, [probe.clone()])),
            // A look that leaves no attempt behind.
            (0, 1, record(Queued, 0, [])),
            (0, 2, record(Probing, 0, [probe.clone()])),
            (0, 2, record(Transcoding, 0, [encode.clone()])),
            (0, 2, record(Transcoding, 40, [encode.clone()])),
            (0, 2, record(Transcoding, 41, [encode.clone()])),
            (0, 2, record(Transcoding, 99, [attempt(Stage::Verify, None)])),
            (0, 2, record(Queued, 0, [given_back.clone()])),
            (0, 3, record(Probing, 0, [given_back.clone(), probe])),
            (1, 3, record(Cancelled, 0, [given_back.clone(), cancelled.clone()])),
            (2, 3, record(Queued, 0, [given_back.clone(), cancelled.clone()])),
            (2, 4, record(Transcoding, 5, [given_back.clone(), cancelled.clone(), encode])),
            (3, 4, record(Completed, 100, [given_back, cancelled, attempt(Stage::Verify, None)])),
        ];
        let versions: Vec<_> = history.iter().map(|(turns, fence, record)| version(*turns, *fence, record)).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    }

    #[test]
    fn a_version_fits_where_javascript_counts_exactly() {
        let running = record(JobState::Transcoding, 99, [attempt(Stage::Verify, None)]);
        assert!(version(u32::MAX / 4, 1 << 40, &running) < 1 << 53);
    }
}
