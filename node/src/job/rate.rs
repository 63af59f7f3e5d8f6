//! The frame rate of video whose container does not say it, or says one that cannot be.

use xora_av::{MICROSECONDS, Packet, Rational, rescale};

/// The rate that an encoder gets where none is known, and none can be measured.
pub const UNKNOWN: Rational = Rational(30, 1);

/// Whether a container's frame rate is what a film usually has. Others are measured: WebM of MediaRecorder has no
/// `DefaultDuration`, and libav makes 1000 frames per second of its milliseconds, for which x264 writes level 6, which
/// hardware decoders refuse.
pub fn is_credible(rate: Rational) -> bool {
    is_up_to(rate, 61)
}

/// The rate for an encoder of a few frames, for which nothing is measured.
pub fn or_unknown(rate: Rational) -> Rational {
    if is_up_to(rate, 120) { rate } else { UNKNOWN }
}

fn is_up_to(rate: Rational, most: i64) -> bool {
    rate.1 > 0 && rate.0 >= rate.1 && i64::from(rate.0) <= most * i64::from(rate.1)
}

/// A rate, and whether it is one that cameras have, so that frames keep to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Frames per second.
    pub rate: Rational,
    /// Whether it is.
    pub is_usual: bool,
}

/// Whether these first packets are enough to [`measure`] by: 60 frames, or five seconds of them, or what one may keep.
pub fn is_enough(packets: &[Packet], time_base: Rational) -> bool {
    const FRAMES: usize = 60;
    const SPAN_US: i64 = 5_000_000;
    const MOST_BYTES: usize = 64 << 20;
    let span = span(packets).map_or(0, |(_, first, last)| rescale(last - first, time_base, MICROSECONDS));
    packets.len() >= FRAMES || span >= SPAN_US || packets.iter().map(Packet::size).sum::<usize>() >= MOST_BYTES
}

/// Frames per second of the first packets of a stream; none where fewer than two have a time.
pub fn measure(packets: &[Packet], time_base: Rational) -> Option<Measured> {
    /// In thousandths of a frame per second: what is nearer than one in a hundred to one of these is meant to be it.
    const USUAL: [(i32, i32); 14] = [
        (10, 1),
        (12, 1),
        (15, 1),
        (20, 1),
        (24_000, 1001),
        (24, 1),
        (25, 1),
        (30_000, 1001),
        (30, 1),
        (48, 1),
        (50, 1),
        (60_000, 1001),
        (60, 1),
        (120, 1),
    ];
    const LEAST: i64 = 1_000;
    const MOST: i64 = 1_000_000;
    let (frames, first, last) = span(packets)?;
    let span_us = rescale(last - first, time_base, MICROSECONDS);
    let thousandths = (frames - 1).checked_mul(1_000_000_000)?.checked_div(span_us)?.clamp(LEAST, MOST);
    let distance = |(count, seconds): &(i32, i32)| (i64::from(*count) * 1000 / i64::from(*seconds) - thousandths).abs();
    let usual = USUAL.into_iter().min_by_key(distance).filter(|rate| distance(rate) * 100 <= thousandths);
    let measured = || Rational(i32::try_from(thousandths).unwrap_or(30_000), 1000);
    let rate = usual.map_or_else(measured, |(count, seconds)| Rational(count, seconds));
    Some(Measured { rate, is_usual: usual.is_some() })
}

/// How many packets are frames with a time of their own, and the first and the last of these times.
fn span(packets: &[Packet]) -> Option<(i64, i64, i64)> {
    let mut times: Vec<i64> = packets
        .iter()
        .filter(|packet| !packet.is_discarded())
        .filter_map(|packet| packet.pts().or(packet.dts()))
        .collect();
    times.sort_unstable();
    times.dedup();
    let (first, last) = (*times.first()?, *times.last()?);
    (first < last).then(|| (i64::try_from(times.len()).unwrap_or(i64::MAX), first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECONDS: Rational = Rational(1, 1000);

    fn packets(times: impl Iterator<Item = i64>) -> Vec<Packet> {
        let packet = |time| {
            let mut packet = Packet::new().expect("memory");
            packet.set_times(Some(time), None);
            packet
        };
        times.map(packet).collect()
    }

    fn rate(times: impl Iterator<Item = i64>) -> Option<(i32, i32)> {
        measure(&packets(times), MILLISECONDS).map(|measured| (measured.rate.0, measured.rate.1))
    }

    #[test]
    fn times_in_milliseconds_tell_the_usual_rates() {
        for (count, seconds) in [(15, 1), (24, 1), (25, 1), (30_000, 1001), (30, 1), (50, 1), (60, 1), (120, 1)] {
            let found = rate((0..60).map(|frame| frame * 1000 * i64::from(seconds) / i64::from(count)));
            let (one, two) = found.expect("measured");
            let difference = i64::from(one) * i64::from(seconds) * 1000 / (i64::from(two) * i64::from(count)) - 1000;
            assert!(difference.abs() <= 2, "{count}/{seconds}: {found:?}");
        }
        assert_eq!(rate((0..60).map(|frame| frame * 40 + frame % 3)), Some((25, 1)), "with jitter");
        assert_eq!(rate([0, 80, 40, 160, 120].into_iter()), Some((25, 1)), "in the order of decoding");
        assert_eq!(rate((0..5).map(|frame| frame * 770)), Some((1298, 1000)));
        assert_eq!(
            rate((0..1000).map(|frame| frame / 2)),
            Some((1_000_000, 1000)),
            "no more than a clock of milliseconds tells"
        );
        assert_eq!((rate([7].into_iter()), rate([7, 7].into_iter())), (None, None));
    }

    #[test]
    fn only_rates_that_films_have_are_believed() {
        for (rate, expected) in
            [((25, 1), true), ((60, 1), true), ((1, 1), true), ((1000, 1), false), ((90_000, 1), false)]
        {
            assert_eq!(is_credible(Rational(rate.0, rate.1)), expected, "{rate:?}");
        }
        assert!(!is_credible(Rational(0, 1)) && !is_credible(Rational(1, 0)) && !is_credible(Rational(1, 10)));
    }

    #[test]
    fn enough_are_sixty_frames_or_five_seconds() {
        assert!(!is_enough(&packets((0..59).map(|frame| frame * 40)), MILLISECONDS));
        assert!(is_enough(&packets((0..60).map(|frame| frame * 40)), MILLISECONDS));
        assert!(is_enough(&packets([0, 5000].into_iter()), MILLISECONDS));
    }
}
