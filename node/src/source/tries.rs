//! How often an origin is asked again, and what it means that it never went on.

use std::time::Duration;

use tokio::time::Instant;

use super::fault::{SourceFault, Trouble};

/// Waits before the second and further tries; the last again and again.
const WAITS: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5)];
/// Tries after which an origin is believed that it has no more bytes, or cannot answer.
const TRIES: usize = 4;
/// How long an origin may be in trouble while a job reads it: an outage of 50 seconds is survived. Less than a job may stand
/// still, so that it ends with the origin's trouble as its reason.
pub const PATIENCE: Duration = Duration::from_secs(50);
/// Breaks in all that one stretch may have while hardly anything comes between them.
const BREAKS: u32 = 20;
/// Bytes between two breaks with which an origin goes on well enough to have all its tries again.
const ENOUGH: u64 = 16 << 10;
/// The origin allows no more requests just now. If it stays so, it is final as every 4xx.
const BUSY: Trouble = Trouble::Status(429);

/// Counts the tries of one stretch of bytes. Progress earns new ones. By default for an origin that has never answered:
/// [`TRIES`] in all.
#[derive(Default)]
pub struct Tries {
    /// How long trouble that may pass is waited out.
    patience: Duration,
    /// When the first fruitless one ended.
    since: Option<Instant>,
    /// In a row without a byte.
    fruitless: usize,
    /// Since one that brought enough.
    breaks: u32,
    /// Of the fruitless ones, those that ended early as if all were said.
    ended: usize,
}

impl Tries {
    /// For an origin that has answered before: its trouble is waited out for [`PATIENCE`].
    pub fn patient() -> Self {
        Self { patience: PATIENCE, ..Self::default() }
    }

    /// After a try that came to byte `at` and brought `came` bytes: how long to wait before the next one, or what to
    /// make of it all. The first failure at an offset does not count: the bytes before it arrived.
    pub fn again(
        &mut self,
        fault: SourceFault,
        came: u64,
        at: u64,
        promised: Option<u64>,
    ) -> Result<Duration, SourceFault> {
        let Some(trouble) = fault.trouble() else { return Err(fault) };
        self.breaks = if came < ENOUGH { self.breaks + 1 } else { 1 };
        if came > 0 {
            (self.fruitless, self.ended, self.since) = (0, 0, None);
        }
        let wait = WAITS[self.fruitless.min(WAITS.len() - 1)];
        self.fruitless += 1;
        self.ended += usize::from(trouble == Trouble::Ended);
        let is_cut = self.ended == self.fruitless;
        let outlasts = self.since.get_or_insert_with(Instant::now).elapsed() + wait <= self.patience;
        // A file that is cut does not grow, and an origin that answers nonsense has no outage.
        let may_pass = outlasts && !is_cut && trouble != Trouble::Odd;
        if self.breaks <= BREAKS && (self.fruitless < TRIES || may_pass) {
            return Ok(wait.mul_f64(0.75 + fastrand::f64() / 2.0));
        }
        if is_cut {
            return Err(SourceFault::Truncated { at, promised });
        }
        Err(if trouble == BUSY { SourceFault::Status(429) } else { fault })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: SourceFault = SourceFault::Unavailable(Trouble::Ended);
    const RESET: SourceFault = SourceFault::Unavailable(Trouble::Reset);

    #[test]
    fn ending_at_the_same_byte_each_time_is_a_cut_file_and_anything_else_an_origin_in_trouble() {
        let last = |faults: [SourceFault; 4]| {
            let mut tries = Tries::default();
            faults.into_iter().find_map(|fault| tries.again(fault, 0, 7, Some(9)).err())
        };
        assert_eq!(last([ENDED, ENDED, ENDED, ENDED]), Some(SourceFault::Truncated { at: 7, promised: Some(9) }));
        assert_eq!(last([ENDED, ENDED, RESET, ENDED]), Some(ENDED));
        assert_eq!(last([RESET, RESET, RESET, RESET]), Some(RESET));
        assert_eq!(last([RESET, RESET, RESET, SourceFault::Unavailable(BUSY)]), Some(SourceFault::Status(429)));
    }

    #[test]
    fn progress_earns_new_tries_but_not_without_end() {
        let mut tries = Tries::default();
        let breaks = (1..1000).find(|_| tries.again(RESET, 1, 0, None).is_err());
        assert_eq!(breaks, Some(BREAKS + 1));
    }

    #[test]
    fn an_origin_that_breaks_off_for_ever_but_brings_enough_each_time_is_read_to_the_end() {
        let mut tries = Tries::default();
        assert!((1..1000).all(|_| tries.again(RESET, ENOUGH, 0, None).is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_in_mid_job_is_waited_out_and_one_that_goes_on_is_not() {
        for trouble in [Trouble::Status(503), Trouble::Connect, Trouble::Reset, Trouble::Name, BUSY] {
            let (mut tries, started) = (Tries::patient(), Instant::now());
            let mut tried = 0;
            while let Ok(wait) = tries.again(SourceFault::Unavailable(trouble), 0, 0, None) {
                tried += 1;
                tokio::time::sleep(wait).await;
            }
            let took = started.elapsed();
            assert!((40..=PATIENCE.as_secs() + 2).contains(&took.as_secs()), "{trouble:?}: {took:?}");
            assert!(tried < 20, "{trouble:?}: {tried} tries");
        }
        let mut tries = Tries::patient();
        let nonsense = SourceFault::Unavailable(Trouble::Odd);
        assert_eq!((1..9).find(|_| tries.again(nonsense.clone(), 0, 0, None).is_err()), Some(TRIES));
        let mut tries = Tries::patient();
        assert_eq!((1..9).find(|_| tries.again(ENDED, 0, 0, None).is_err()), Some(TRIES));
    }

    #[test]
    fn what_asking_again_cannot_cure_is_not_asked_again() {
        assert_eq!(Tries::default().again(SourceFault::Status(404), 0, 0, None), Err(SourceFault::Status(404)));
    }
}
