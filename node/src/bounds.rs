//! How much a job process may say. It runs decoders on hostile bytes: what it says costs the supervisor time, and its texts
//! end in the row of its job, which takes 2 MB.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use xora_shared::report::{OutputFacts, RunReport, Strategy, StreamFate, Unchanged, VerifyReport};

use crate::ipc::JobFailure;

/// Lines for the log: those of libav at the end, of which `node/av` keeps 30, and a few more.
pub const LINES: u32 = 50;
/// Changes of stage: three in a run, and one in a verification.
pub const STAGES: u32 = 16;
/// Hardware encoders that are begun: one for each try.
pub const ENCODERS: u32 = 8;
/// Lists of byte ranges for each input: one for each of the three tries at a film, and those of a thumbnail.
pub const LISTS: u32 = 16;
/// Byte ranges in one list: `expect_sound` in `job/film.rs` names no more.
pub const RANGES: usize = 20_000;

/// Messages that may come at once, in units of [`UNIT`]. A sound process sends four a second.
const BURST: f64 = 2000.0;
/// Units a second after that.
const RATE: f64 = 50.0;
/// Bytes of a message that count as one more message.
const UNIT: usize = 4096;

/// Longest reason, warning or problem, in bytes.
const TEXT: usize = 1000;
/// Longest name of a codec or description of a stream, in bytes.
const NAME: usize = 120;
/// Entries of a list of texts.
const TEXTS: usize = 50;
/// Streams in a report: a subtitled film with its fonts has about a hundred.
const STREAMS: usize = 500;

/// The pace of messages. Whoever sends them faster is made to wait, because it cannot be told from one whose messages have
/// piled up while storage was slow.
#[derive(Debug)]
pub struct Pace {
    left: f64,
    since: Instant,
}

impl Pace {
    /// With a whole burst to spend.
    pub fn new() -> Self {
        Self { left: BURST, since: Instant::now() }
    }

    /// Waits until a message of this many bytes may be taken.
    pub async fn take(&mut self, bytes: usize) {
        let now = Instant::now();
        self.left = (self.left + (now - self.since).as_secs_f64() * RATE).min(BURST) - 1.0 - (bytes / UNIT) as f64;
        self.since = now;
        if self.left < 0.0 {
            sleep_until(now + Duration::from_secs_f64(-self.left / RATE)).await;
        }
    }
}

/// One fewer of so many. False when none is left.
pub fn spend(left: &mut u32) -> bool {
    let is_left = *left > 0;
    *left = left.saturating_sub(1);
    is_left
}

/// What is cut to a length that a row can hold.
pub trait Bounded {
    /// Cuts texts and lists.
    fn bound(&mut self);
}

impl Bounded for Strategy {
    fn bound(&mut self) {
        let Self { kind: _, reasons } = self;
        texts(reasons);
    }
}

impl Bounded for RunReport {
    fn bound(&mut self) {
        // What is expected goes to the second process and nowhere else.
        let Self { facts, expect: _, streams, warnings } = self;
        facts.bound();
        all(streams);
        texts(warnings);
    }
}

impl Bounded for Unchanged {
    fn bound(&mut self) {
        let Self { strategy, facts, streams, warnings, verified } = self;
        strategy.bound();
        facts.bound();
        all(streams);
        texts(warnings);
        verified.bound();
    }
}

impl Bounded for VerifyReport {
    fn bound(&mut self) {
        let Self { problems, coverage: _, duration_us: _, frames: _, av_offset_us: _ } = self;
        texts(problems);
    }
}

impl Bounded for JobFailure {
    fn bound(&mut self) {
        match self {
            Self::Uncopyable { reason: text } | Self::Known { message: text, kind: _ } => cut(text, TEXT),
            Self::Unreadable | Self::IndexTooSmall { needed: _ } | Self::Hardware => {}
        }
    }
}

impl Bounded for OutputFacts {
    fn bound(&mut self) {
        let Self { file_type: _, format: _, codec, duration_us: _, width: _, height: _ } = self;
        cut(codec, NAME);
    }
}

fn all(streams: &mut Vec<StreamFate>) {
    streams.truncate(STREAMS);
    for StreamFate { input: _, stream: _, what, fate: _, reason } in streams {
        cut(what, NAME);
        if let Some(reason) = reason {
            cut(reason, TEXT / 2);
        }
    }
}

fn texts(texts: &mut Vec<String>) {
    let more = texts.len().saturating_sub(TEXTS);
    texts.truncate(TEXTS);
    for text in texts.iter_mut() {
        cut(text, TEXT);
    }
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use xora_shared::{
        media::{FileType, Format},
        report::{Coverage, Expectation, Fate, StrategyKind},
    };

    use super::*;

    #[test]
    fn whatever_a_job_process_reports_fits_into_a_row() {
        let long = || "ä".repeat(3 << 20);
        let many = || vec![long(); 3].into_iter().chain(vec!["x".repeat(900); 100_000]).collect::<Vec<_>>();
        let facts = OutputFacts {
            file_type: FileType::Video,
            format: Format::Mp4,
            codec: long(),
            duration_us: None,
            width: None,
            height: None,
        };
        let fate = |what| StreamFate { input: 0, stream: 0, what, fate: Fate::Dropped, reason: Some("y".repeat(4000)) };
        let streams: Vec<_> = std::iter::once(fate(long())).chain(vec![fate("z".repeat(500)); 10_000]).collect();
        let verified = VerifyReport {
            problems: many(),
            coverage: Coverage::Full,
            duration_us: None,
            frames: None,
            av_offset_us: None,
        };
        let strategy = Strategy { kind: StrategyKind::Passthrough, reasons: many() };
        let mut unchanged = Unchanged { strategy, facts: facts.clone(), streams, warnings: many(), verified };
        unchanged.bound();
        let bytes = serde_json::to_vec(&unchanged).expect("JSON").len();
        assert!(bytes < 600_000, "{bytes}");
        assert_eq!(unchanged.warnings.last().expect("the last").as_str(), "and 99953 more");

        let expect = Expectation { format: Format::Mp4, bytes: 1, video: None, audio: None, chapters: 0, cover: false };
        let mut report = RunReport { facts, expect, streams: unchanged.streams, warnings: many() };
        report.bound();
        assert!(serde_json::to_vec(&report).expect("JSON").len() < 600_000);
        let mut failure = JobFailure::Uncopyable { reason: long() };
        failure.bound();
        assert!(format!("{failure:?}").len() < 2000);
    }

    #[test]
    fn what_a_sound_process_reports_is_left_as_it_is() {
        let reasons = vec!["the video is H.264 already".to_owned(), "größer als nötig".to_owned()];
        let mut strategy = Strategy { kind: StrategyKind::Remux, reasons: reasons.clone() };
        strategy.bound();
        assert_eq!(strategy.reasons, reasons);
    }

    #[tokio::test(start_paused = true)]
    async fn messages_beyond_a_burst_come_at_the_pace_that_is_allowed() {
        let mut pace = Pace::new();
        let started = Instant::now();
        for _ in 0..2000 {
            pace.take(100).await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _ in 0..500 {
            pace.take(100).await;
        }
        assert_eq!(started.elapsed().as_secs(), 10);
        pace.take(4 << 20).await;
        assert!(started.elapsed().as_secs() >= 30, "long ones count for many");
    }
}
