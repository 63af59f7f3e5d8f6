//! Times of audio frames without their jitter: real gaps stay, drift is followed slowly.
//!
//! Recorders stamp audio by a wall clock (MediaRecorder, WebRTC, RTMP from phones), so that stamps scatter by tens of
//! milliseconds around the time that the samples take. A frame's *lateness* is its stamp minus the length of all samples
//! before it. A gap is a step of the lateness that lasts: the next frame is late, and those after it are. What does not
//! last is jitter. Both are told apart by half a second of frames on either side, so this much waits here twice.

use std::collections::VecDeque;

use xora_av::Rational;

/// The unit of all times here. One sample at 192 kHz is 5,208 of them.
pub const NANOSECONDS: Rational = Rational(1, 1_000_000_000);

const MS: i64 = 1_000_000;
/// Audio looked at on either side of a frame, and the least number of frames in it.
const WINDOW: i64 = 500 * MS;
const NEAR: usize = 5;
/// The least step that is a gap: less than any packet of AAC lasts (21 ms), more than rounding to 10 ms makes of a stamp.
const LEAST_GAP: i64 = 15 * MS;
/// The same where few frames are known on one side, as at the start: some stamps may be wrong. Few are [`FEW`] where
/// stamps are exact to 2 ms, else [`FEW_IN_JITTER`].
const LEAST_GAP_OF_FEW: i64 = 40 * MS;
const EXACT: i64 = 2 * MS;
const FEW: usize = 4;
const FEW_IN_JITTER: usize = 12;
/// A gap is at least so many times the usual difference from one lateness to the next. Uniform jitter of ±15 ms has a
/// usual difference of 9 ms, so that a gap in it has 35 ms at least.
const GAP_OVER_JITTER: i64 = 4;
/// Lateness that is not followed: it is not heard, and a median over half a second of ±30 ms of jitter stays below it.
const DEAD_BAND: i64 = 5 * MS;
/// Lateness beyond this is made up for at once: a clock that is wrong by more than [`MOST_STRETCH`].
const MOST_LATE: i64 = 100 * MS;
/// How fast drift is followed: its whole in two seconds, but at most one part in a hundred.
const FOLLOW: i64 = 2_000 * MS;
const MOST_STRETCH: i64 = 100;
/// How often the drift is measured.
const MEASURED_EVERY: i64 = 50 * MS;

/// See the module. `T` is what the times belong to.
pub struct Steady<T> {
    /// Frames given out that still count, then those whose gap is decided, then the others.
    frames: VecDeque<Entry<T>>,
    given: usize,
    judged: usize,
    /// All samples so far: the length of those at earlier sample rates, and those at this one.
    earlier: i64,
    samples: i64,
    rate: u32,
    /// All gaps so far.
    gaps: i64,
    /// What is put on the times beside the gaps; none before the first frame.
    shift: Option<i64>,
    /// Median lateness, and how long ago it was measured.
    target: i64,
    measured: i64,
    is_over: bool,
}

struct Entry<T> {
    item: Option<T>,
    length: i64,
    /// Length of all samples before it.
    counted: i64,
    /// Its stamp minus that.
    late: i64,
    /// All gaps up to it.
    gaps: i64,
}

impl<T> Entry<T> {
    fn rest(&self) -> i64 {
        self.late - self.gaps
    }
}

impl<T> Default for Steady<T> {
    fn default() -> Self {
        Self {
            frames: VecDeque::new(),
            given: 0,
            judged: 0,
            earlier: 0,
            samples: 0,
            rate: 0,
            gaps: 0,
            shift: None,
            target: 0,
            measured: 0,
            is_over: false,
        }
    }
}

impl<T> Steady<T> {
    /// Takes a frame with its stamp, in nanoseconds.
    pub fn push(&mut self, item: T, time: i64, samples: i64, rate: u32) {
        if rate != self.rate {
            self.earlier = self.counted();
            (self.samples, self.rate) = (0, rate);
        }
        let counted = self.counted();
        self.samples += samples;
        let length = self.counted() - counted;
        self.frames.push_back(Entry { item: Some(item), length, counted, late: time - counted, gaps: 0 });
    }

    /// There will be no more.
    pub fn end(&mut self) {
        self.is_over = true;
    }

    /// The next frame with its time in nanoseconds, once enough is known of those after it.
    pub fn pop(&mut self) -> Option<(T, i64)> {
        while self.judged < self.frames.len() && self.knows_after(self.judged, self.frames.len()) {
            self.judge();
        }
        if self.given >= self.judged || !self.knows_after(self.given, self.judged) {
            return None;
        }
        let shift = self.follow();
        let entry = &mut self.frames[self.given];
        let time = entry.counted + entry.gaps + shift;
        let item = entry.item.take();
        self.given += 1;
        // Behind what is given out next there are always two windows, or the start.
        while self.given > 2 * self.count_before(self.given) && self.given > 2 * NEAR {
            self.frames.pop_front();
            self.given -= 1;
            self.judged -= 1;
        }
        item.map(|item| (item, time))
    }

    fn counted(&self) -> i64 {
        self.earlier + xora_av::rescale(self.samples, rate_base(self.rate), NANOSECONDS)
    }

    /// Whether a window of frames from `index` to before `end` is known, or all that will come.
    fn knows_after(&self, index: usize, end: usize) -> bool {
        let known = end == self.frames.len() && self.is_over;
        known || (end - index > NEAR && self.frames[end - 1].counted - self.frames[index].counted >= WINDOW)
    }

    /// Frames before `index` that are in its window.
    fn count_before(&self, index: usize) -> usize {
        let begin = self.frames.get(index).map_or(i64::MAX, |entry| entry.counted).saturating_sub(WINDOW);
        let within = self.frames.iter().take(index).rev().take_while(|entry| entry.counted >= begin).count();
        within.max(NEAR).min(index)
    }

    /// Frames from `index` on to before `end` that are in its window.
    fn count_after(&self, index: usize, end: usize) -> usize {
        let until = self.frames[index].counted.saturating_add(WINDOW);
        let within = self.frames.range(index..end).take_while(|entry| entry.counted <= until).count();
        within.max(NEAR).min(end - index)
    }

    /// Decides whether there is a gap before the first frame that is not decided.
    fn judge(&mut self) {
        let index = self.judged;
        self.judged += 1;
        self.gaps += self.gap_before(index).unwrap_or(0);
        self.frames[index].gaps = self.gaps;
    }

    fn gap_before(&self, index: usize) -> Option<i64> {
        let last = self.frames.get(index.checked_sub(1)?)?.rest();
        let jump = self.frames[index].late - self.gaps - last;
        if jump.abs() < LEAST_GAP / 2 {
            return None;
        }
        let before: Vec<i64> = self.frames.range(index - self.count_before(index)..index).map(Entry::rest).collect();
        let after = self.frames.range(index..index + self.count_after(index, self.frames.len()));
        let after: Vec<i64> = after.map(|entry| entry.late - self.gaps).collect();
        let near = median(&after[..after.len().min(NEAR)]) - median(&before[before.len().saturating_sub(NEAR)..]);
        let far = median(&after) - median(&before);
        let changes = before.windows(2).chain(after.windows(2)).map(|pair| (pair[1] - pair[0]).abs());
        let jitter = median(&changes.collect::<Vec<_>>());
        let few = if jitter <= EXACT { FEW } else { FEW_IN_JITTER };
        let is_sure = before.len() >= few && after.len() >= few;
        let least = (jitter * GAP_OVER_JITTER).max(if is_sure { LEAST_GAP } else { LEAST_GAP_OF_FEW });
        // The step is this frame's own, at least for the most part, and it lasts.
        let agrees = |other: i64| other.signum() == near.signum() && other.abs() >= near.abs() / 2;
        (near.abs() >= least && agrees(jump) && agrees(far)).then_some(near)
    }

    /// What is put on the time of the next frame, beside the gaps.
    fn follow(&mut self) -> i64 {
        let length = self.frames[self.given].length;
        let first = self.frames[self.given].rest();
        self.measured += length;
        if self.shift.is_none() || self.measured >= MEASURED_EVERY {
            let begin = self.given - self.count_before(self.given);
            let end = self.given + self.count_after(self.given, self.judged);
            self.target = median(&self.frames.range(begin..end).map(Entry::rest).collect::<Vec<_>>());
            self.measured = 0;
        }
        // A first stamp that is about right is right: a track that begins at zero does so exactly.
        let start = if (self.target - first).abs() <= DEAD_BAND { first } else { self.target };
        let shift = self.shift.unwrap_or(start);
        let behind = self.target - shift;
        let followed = match behind.abs() {
            0..=DEAD_BAND => shift,
            ..=MOST_LATE => {
                let most = length / MOST_STRETCH;
                let wanted = i128::from(behind) * i128::from(length) / i128::from(FOLLOW);
                shift + i64::try_from(wanted).unwrap_or(0).clamp(-most, most)
            }
            _ => self.target,
        };
        self.shift = Some(followed);
        followed
    }
}

fn rate_base(rate: u32) -> Rational {
    Rational(1, i32::try_from(rate).unwrap_or(1).max(1))
}

/// The middle one of some numbers; 0 of none.
fn median(numbers: &[i64]) -> i64 {
    let mut sorted = numbers.to_vec();
    let middle = sorted.len() / 2;
    if sorted.is_empty() { 0 } else { *sorted.select_nth_unstable(middle).1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 48_000;

    /// Times of frames of 1024 samples with these stamps, in microseconds.
    fn steadied(stamps: &[i64]) -> Vec<i64> {
        let mut steady = Steady::default();
        let mut times = Vec::new();
        for stamp in stamps {
            steady.push((), stamp * 1000, 1024, RATE);
            times.extend(std::iter::from_fn(|| steady.pop()).map(|((), time)| time / 1000));
        }
        steady.end();
        times.extend(std::iter::from_fn(|| steady.pop()).map(|((), time)| time / 1000));
        assert_eq!(times.len(), stamps.len());
        times
    }

    /// Stamps of a clock that is right, in microseconds, each changed.
    fn stamps(count: i64, change: impl Fn(i64, i64) -> i64) -> Vec<i64> {
        (0..count).map(|index| change(index, index * 1024 * 1_000_000 / i64::from(RATE))).collect()
    }

    /// Numbers from -1000 to 1000, the same every time.
    fn noise(index: i64) -> i64 {
        let mix = |number: u64, by: u64| (number ^ number >> 31).wrapping_mul(by);
        let mixed = mix(mix(index.unsigned_abs() + 1, 0x9e37_79b9_7f4a_7c15), 0xbf58_476d_1ce4_e5b9);
        i64::try_from((mixed >> 33) % 2001).expect("small") - 1000
    }

    /// Where a frame does not begin at the end of the one before, in microseconds: the frame, and by how much.
    fn steps(times: &[i64]) -> Vec<(usize, i64)> {
        let pairs = times.windows(2).enumerate();
        pairs.map(|(index, pair)| (index + 1, pair[1] - pair[0] - 21_333)).filter(|(_, step)| step.abs() > 1).collect()
    }

    #[test]
    fn jitter_of_any_usual_size_is_taken_out() {
        for most_ms in [1, 5, 10, 15, 30] {
            let times = steadied(&stamps(3000, |index, time| time + noise(index) * most_ms));
            assert_eq!(steps(&times).iter().filter(|(_, step)| step.abs() > 220).count(), 0, "±{most_ms} ms");
            assert!(times[0].abs() <= 5_000, "±{most_ms} ms: begins at {} µs", times[0]);
        }
    }

    #[test]
    fn a_few_late_packets_move_nothing() {
        for (from, to, late) in [(50, 50, 16_000), (50, 50, 150_000), (50, 52, 90_000), (50, 50, -40_000)] {
            let times =
                steadied(&stamps(200, |index, time| if (from..=to).contains(&index) { time + late } else { time }));
            assert_eq!(steps(&times), [], "{late} µs");
        }
    }

    #[test]
    fn gaps_and_overlaps_that_last_stay_where_they_are_and_as_long_as_they_are() {
        for gap in [16_000, 21_333, 60_000, 300_000, 15_000_000, -21_333, -200_000] {
            let times = steadied(&stamps(200, |index, time| if index >= 70 { time + gap } else { time }));
            assert_eq!(steps(&times), [(70, gap)]);
        }
        // The first frame alone, and all but the last.
        for at in [1, 199] {
            let times = steadied(&stamps(200, |index, time| if index >= at { time + 100_000 } else { time }));
            assert_eq!(steps(&times), [(usize::try_from(at).expect("small"), 100_000)]);
        }
    }

    #[test]
    fn a_gap_is_found_within_jitter() {
        let times =
            steadied(&stamps(400, |index, time| time + noise(index) * 15 + if index >= 200 { 100_000 } else { 0 }));
        let gaps: Vec<_> = steps(&times).into_iter().filter(|(_, step)| step.abs() > 1_000).collect();
        assert!(matches!(gaps[..], [(200, 80_000..=120_000)]), "{gaps:?}");
    }

    #[test]
    fn speech_in_bursts_keeps_each_of_its_pauses() {
        // 213 ms of speech, then as long a pause.
        let times = steadied(&stamps(200, |index, time| time + index / 10 * 213_333));
        let expected: Vec<_> = (1..20).map(|burst| (burst * 10, 213_333)).collect();
        let near =
            |(found, meant): (&(usize, i64), &(usize, i64))| found.0 == meant.0 && (found.1 - meant.1).abs() <= 1;
        let found = steps(&times);
        assert!(found.len() == expected.len() && found.iter().zip(&expected).all(near), "{found:?}");
    }

    #[test]
    fn drift_is_followed_a_little_at_a_time() {
        for thousandths in [-8, -3, 3, 8] {
            let stamps = stamps(3000, |_, time| time + time * thousandths / 1000);
            let times = steadied(&stamps);
            assert!(steps(&times).iter().all(|(_, step)| step.abs() <= 215), "{thousandths}");
            let most = times.iter().zip(&stamps).map(|(time, stamp)| (time - stamp).abs()).max();
            assert!(most.is_some_and(|most| most <= 30_000), "{thousandths}: {most:?} µs");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_altogether_is_kept_up_with() {
        let stamps = stamps(1000, |_, time| time * 48 / 44);
        let most = steadied(&stamps).iter().zip(&stamps).map(|(time, stamp)| (time - stamp).abs()).max();
        assert!(most.is_some_and(|most| most <= 150_000), "{most:?} µs");
    }

    #[test]
    fn frames_of_another_sample_rate_follow_without_a_step() {
        let mut steady = Steady::default();
        for index in 0..100_i64 {
            let (rate, time) = if index < 50 { (48_000, index * 20) } else { (16_000, 1000 + (index - 50) * 20) };
            steady.push((), time * 1_000_000, i64::from(rate) / 50, rate);
        }
        steady.end();
        let times: Vec<_> = std::iter::from_fn(|| steady.pop()).map(|((), time)| time).collect();
        assert_eq!(times, (0..100).map(|index| index * 20_000_000).collect::<Vec<_>>());
    }
}
