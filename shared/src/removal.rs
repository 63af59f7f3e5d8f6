//! When an object that nothing refers to is removed from storage: at once, then after waits that double from a minute to a
//! day, for a week. Storage may be out for hours, and a bucket of a caller's may be gone for good.

use serde::{Deserialize, Serialize};

use crate::time::UnixMs;

const MINUTE_MS: i64 = 60 * 1000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// How long removal is tried, in milliseconds from the first try.
const GIVEN_UP_MS: i64 = 7 * DAY_MS;

/// The tries so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    tries: u32,
    /// When the first began, in ms since 1970.
    since_ms: i64,
}

impl Removal {
    /// A try begins now. Gives the tries with it, and when the next is due if it comes to nothing; none when it is too late
    /// for another.
    pub fn begin(self, now: UnixMs) -> Option<(Self, UnixMs)> {
        let since = if self.tries == 0 { now } else { UnixMs(self.since_ms) };
        if now.since(since) > GIVEN_UP_MS {
            return None;
        }
        let wait = (MINUTE_MS << self.tries.min(11)).min(DAY_MS);
        Some((Self { tries: self.tries + 1, since_ms: since.0 }, now.plus(wait)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_is_tried_after_growing_waits_and_given_up_after_a_week() {
        let start = UnixMs(1_700_000_000_000);
        let (mut removal, mut now, mut waits) = (Removal::default(), start, Vec::new());
        while let Some((tried, next)) = removal.begin(now) {
            waits.push(next.since(now) / MINUTE_MS);
            (removal, now) = (tried, next);
        }
        assert_eq!(waits[..12], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440]);
        assert!(waits[12..].iter().all(|wait| *wait == 1440), "{waits:?}");
        let days = now.since(start) / DAY_MS;
        assert!((7..=8).contains(&days), "given up after {days} days");
    }

    #[test]
    fn rows_of_before_removals_were_counted_are_read() {
        let read: Removal = serde_json::from_str(r#"{"tries":0,"sinceMs":0}"#).expect("JSON");
        assert_eq!(read, Removal::default());
    }
}
