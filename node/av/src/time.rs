//! Integer media time.

pub use ffmpeg_next::Rational;
use ffmpeg_next::ffi;

/// The time base of everything we compare across streams: microseconds.
pub const MICROSECONDS: Rational = Rational(1, 1_000_000);

/// No time is further from zero than this, in whatever unit: sums and differences of a few never overflow, whatever a
/// file says. In microseconds it is 36,000 years.
const FAR: i64 = 1 << 60;

/// Converts a time between time bases, rounding to the nearest. What would be further than any time may be is as far as
/// that; a time base that is not positive makes zero.
pub fn rescale(value: i64, from: Rational, to: Rational) -> i64 {
    if from.0 <= 0 || from.1 <= 0 || to.0 <= 0 || to.1 <= 0 {
        return 0;
    }
    // SAFETY: a pure function of its arguments; the divisors were checked above.
    match unsafe { ffi::av_rescale_q(value, from.into(), to.into()) } {
        // libav's word for what it cannot hold.
        i64::MIN => value.signum() * FAR,
        rescaled => bounded(rescaled),
    }
}

/// A time or length of a file, no further from zero than any may be.
pub(crate) fn bounded(time: i64) -> i64 {
    time.clamp(-FAR, FAR)
}

/// A time base whose ticks are a tenth of a millisecond at most, and how many of them are one of `coarse`. Some
/// containers count in whole pictures, to which nothing else can be moved without being moved by half a picture.
pub(crate) fn fine(coarse: Rational) -> (Rational, i64) {
    const PER_SECOND: i64 = 10_000;
    let (num, den) = (i64::from(coarse.0), i64::from(coarse.1));
    if num <= 0 || den <= 0 || den >= num.saturating_mul(1000) {
        return (coarse, 1);
    }
    let ticks = (num.saturating_mul(PER_SECOND) + den - 1) / den;
    match i32::try_from(den.saturating_mul(ticks)) {
        Ok(finer) => (Rational(coarse.0, finer), ticks),
        Err(_) => (coarse, 1),
    }
}

/// libav's "no timestamp" as an `Option`, any other [`bounded`].
pub(crate) fn known(timestamp: i64) -> Option<i64> {
    (timestamp != ffi::AV_NOPTS_VALUE).then(|| bounded(timestamp))
}

/// An `Option` as libav's "no timestamp".
pub(crate) fn unknown(timestamp: Option<i64>) -> i64 {
    timestamp.unwrap_or(ffi::AV_NOPTS_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescaling_rounds_to_the_nearest_tick() {
        assert_eq!(rescale(1, Rational(1, 30), MICROSECONDS), 33_333);
        assert_eq!(rescale(2, Rational(1, 3), Rational(1, 1)), 1);
        assert_eq!(rescale(5, Rational(1, 0), MICROSECONDS), 0);
    }

    #[test]
    fn no_time_is_so_far_that_sums_of_it_overflow() {
        for (value, far) in [(i64::MAX, FAR), (i64::MIN, -FAR), (FAR, FAR), (-FAR, -FAR)] {
            assert_eq!(rescale(value, Rational(1, 1), MICROSECONDS), far);
            assert_eq!(rescale(value, MICROSECONDS, MICROSECONDS), far);
        }
        assert_eq!((known(i64::MIN), known(i64::MIN + 1), known(i64::MAX)), (None, Some(-FAR), Some(FAR)));
    }

    #[test]
    fn coarse_time_bases_become_finer_by_whole_numbers() {
        for (coarse, finer, ticks) in [
            (Rational(1, 25), Rational(1, 10_000), 400),
            (Rational(1001, 30_000), Rational(1001, 10_020_000), 334),
            (Rational(1, 1), Rational(1, 10_000), 10_000),
            (Rational(1, 1000), Rational(1, 1000), 1),
            (Rational(1, 12_800), Rational(1, 12_800), 1),
            (Rational(i32::MAX, 1), Rational(i32::MAX, 1), 1),
            (Rational(0, 1), Rational(0, 1), 1),
        ] {
            assert_eq!(fine(coarse), (finer, ticks), "{coarse:?}");
        }
    }
}
