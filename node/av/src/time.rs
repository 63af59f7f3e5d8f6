//! Integer media time.

pub use ffmpeg_next::Rational;
use ffmpeg_next::ffi;

/// The time base of everything we compare across streams: microseconds.
pub const MICROSECONDS: Rational = Rational(1, 1_000_000);

/// Converts a time between time bases, rounding to the nearest; saturates instead of overflowing.
pub fn rescale(value: i64, from: Rational, to: Rational) -> i64 {
    if from.1 == 0 || to.0 == 0 {
        return 0;
    }
    // SAFETY: a pure function of its arguments; the divisors were checked above.
    unsafe { ffi::av_rescale_q(value, from.into(), to.into()) }
}

/// libav's "no timestamp" as an `Option`.
pub(crate) fn known(timestamp: i64) -> Option<i64> {
    (timestamp != ffi::AV_NOPTS_VALUE).then_some(timestamp)
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
}
