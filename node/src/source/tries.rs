//! How often an origin is asked again, and what it means that it never went on.

use std::time::Duration;

use super::fault::{SourceFault, Trouble};

/// Waits before the second, third and fourth try.
const WAITS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];
/// Breaks in all that one stretch may have while hardly anything comes between them.
const BREAKS: u32 = 20;
/// Bytes between two breaks with which an origin goes on well enough to have all its tries again.
const ENOUGH: u64 = 16 << 10;
/// The origin allows no more requests just now. If it stays so, it is final as every 4xx.
const BUSY: Trouble = Trouble::Status(429);

/// Counts the tries of one stretch of bytes. Progress earns new ones.
#[derive(Default)]
pub struct Tries {
    /// In a row without a byte.
    fruitless: usize,
    /// Since one that brought enough.
    breaks: u32,
    /// Of the fruitless ones, those that ended early as if all were said.
    ended: usize,
}

impl Tries {
    /// After a try that came to byte `at` and brought `came` bytes: how long to wait before the next one, or what to
    /// make of it all. The first break at a place is not yet fruitless: the bytes before it came.
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
            (self.fruitless, self.ended) = (0, 0);
        }
        self.ended += usize::from(trouble == Trouble::Ended);
        let wait = WAITS.get(self.fruitless).filter(|_| self.breaks <= BREAKS);
        self.fruitless += 1;
        match wait {
            Some(wait) => Ok(wait.mul_f64(0.75 + fastrand::f64() / 2.0)),
            None if self.ended == self.fruitless => Err(SourceFault::Truncated { at, promised }),
            None if trouble == BUSY => Err(SourceFault::Status(429)),
            None => Err(fault),
        }
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

    #[test]
    fn what_asking_again_cannot_cure_is_not_asked_again() {
        assert_eq!(Tries::default().again(SourceFault::Status(404), 0, 0, None), Err(SourceFault::Status(404)));
    }
}
