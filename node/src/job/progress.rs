//! Saying how far the work is.

use std::time::{Duration, Instant};

use crate::{
    ipc::Up,
    job::{fault::Done, link::Link},
};

/// Between two messages at least.
const INTERVAL: Duration = Duration::from_millis(250);

/// Says how far the work is, by media time that never goes back.
pub struct Progress {
    link: Link,
    total_us: u64,
    done_us: u64,
    said_us: u64,
    said_at: Instant,
}

impl Progress {
    /// `total_us` is 0 when unknown.
    pub fn new(link: Link, total_us: u64) -> Self {
        Self { link, total_us, done_us: 0, said_us: 0, said_at: Instant::now() }
    }

    /// The work has come to this time, in microseconds of the output.
    pub fn reach(&mut self, time_us: i64) -> Done<()> {
        self.done_us = self.done_us.max(u64::try_from(time_us).unwrap_or(0));
        if self.done_us > self.said_us && self.said_at.elapsed() >= INTERVAL {
            self.say()?;
        }
        Ok(())
    }

    /// Says the last of it.
    pub fn finish(&mut self) -> Done<()> {
        self.done_us = self.done_us.max(self.total_us);
        self.say()
    }

    fn say(&mut self) -> Done<()> {
        self.said_us = self.done_us;
        self.said_at = Instant::now();
        let total_us = if self.total_us == 0 { 0 } else { self.total_us.max(self.done_us) };
        Ok(self.link.say(Up::Progress { done_us: self.done_us, total_us })?)
    }
}
