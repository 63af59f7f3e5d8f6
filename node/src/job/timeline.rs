//! The common time of all streams of an input: begins at zero, and has no jumps.

use xora_av::{MICROSECONDS, Packet, Rational, rescale};

/// A jump forward beyond this between packets of one stream is a break in the recording, not a pause. In microseconds.
const FORWARD_US: i64 = 10_000_000;
/// A jump back beyond this is a break: decoding order never runs backwards. In microseconds.
const BACK_US: i64 = 100_000;

/// Moves the times of packets. One offset serves all streams, so sound and pictures keep their distance.
pub struct Timeline {
    offset_us: i64,
    clock: Clock,
    /// Where each stream's last packet begins and ends, in microseconds of the output.
    last_us: Vec<Option<(i64, i64)>>,
    jumps: u64,
}

impl Timeline {
    /// `start_us` becomes zero. Only where the clock `may_jump` are jumps closed; elsewhere they are meant. But sound
    /// that is `alone` need not be in step with anything, so all of it is kept where its clock goes back.
    pub fn new(start_us: i64, may_jump: bool, alone: bool, streams: usize) -> Self {
        let clock = match (may_jump, alone) {
            (true, _) => Clock::Jumps,
            (false, true) => Clock::GoesBack,
            (false, false) => Clock::Steady,
        };
        Self { offset_us: start_us.saturating_neg(), clock, last_us: vec![None; streams], jumps: 0 }
    }

    /// Jumps closed so far.
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// Moves a packet to its place, and returns where it ends, in microseconds of the output.
    pub fn place(&mut self, packet: &mut Packet, time_base: Rational) -> Option<i64> {
        if let Some(dts) = packet.dts().or(packet.pts()) {
            self.close_jump(packet.stream(), rescale(dts, time_base, MICROSECONDS));
        }
        let offset = rescale(self.offset_us, MICROSECONDS, time_base);
        let moved = |time: i64| time.saturating_add(offset);
        packet.set_times(packet.pts().map(moved), packet.dts().map(moved));
        let end = |time: i64| rescale(time.saturating_add(packet.duration()), time_base, MICROSECONDS);
        if let (Some(dts), Some(last)) = (packet.dts().or(packet.pts()), self.last_us.get_mut(packet.stream())) {
            *last = Some((rescale(dts, time_base, MICROSECONDS), end(dts)));
        }
        packet.pts().or(packet.dts()).map(end)
    }

    fn close_jump(&mut self, stream: usize, dts_us: i64) {
        let Some((begun, next)) = self.last_us.get(stream).copied().flatten() else { return };
        let time = dts_us.saturating_add(self.offset_us);
        let delta = time.saturating_sub(next);
        let jumps = match self.clock {
            Clock::Jumps => !(-BACK_US..=FORWARD_US).contains(&delta),
            // Not against its end: some containers say that packets last longer than they do.
            Clock::GoesBack => time < begun.saturating_sub(BACK_US),
            Clock::Steady => false,
        };
        if jumps {
            self.offset_us = self.offset_us.saturating_sub(delta);
            self.jumps += 1;
        }
    }
}

/// What is made of the times of an input.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// All are meant.
    Steady,
    /// What goes back is a break.
    GoesBack,
    /// What goes back, or far ahead, is a break.
    Jumps,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECONDS: Rational = Rational(1, 1000);

    fn place(timeline: &mut Timeline, stream: usize, dts: i64) -> Option<i64> {
        let mut packet = Packet::new().expect("memory");
        packet.set_stream(stream);
        packet.set_times(Some(dts), Some(dts));
        packet.set_duration(40);
        timeline.place(&mut packet, MILLISECONDS);
        packet.pts()
    }

    #[test]
    fn streams_keep_their_distance() {
        let mut timeline = Timeline::new(1_400_000, true, false, 2);
        assert_eq!(place(&mut timeline, 0, 1400), Some(0));
        assert_eq!(place(&mut timeline, 1, 1900), Some(500));
    }

    #[test]
    fn a_jump_is_closed_for_all_streams_alike() {
        let mut timeline = Timeline::new(0, true, false, 2);
        place(&mut timeline, 0, 0);
        place(&mut timeline, 1, 10);
        assert_eq!(place(&mut timeline, 0, 90_000_000), Some(40));
        assert_eq!(place(&mut timeline, 1, 90_000_010), Some(50));
        assert_eq!(timeline.jumps(), 1);
    }

    #[test]
    fn a_clock_that_begins_again_goes_on_instead() {
        let mut timeline = Timeline::new(0, true, false, 1);
        for dts in 0..50 {
            place(&mut timeline, 0, dts * 40);
        }
        assert_eq!(place(&mut timeline, 0, 0), Some(2000));
    }

    #[test]
    fn a_pause_is_left_where_jumps_are_not_ordinary() {
        let mut timeline = Timeline::new(0, false, false, 1);
        place(&mut timeline, 0, 0);
        assert_eq!(place(&mut timeline, 0, 90_000), Some(90_000));
    }

    #[test]
    fn sound_alone_has_pauses_but_never_goes_back() {
        let mut timeline = Timeline::new(0, false, true, 1);
        place(&mut timeline, 0, 0);
        assert_eq!(place(&mut timeline, 0, 90_000), Some(90_000));
        assert_eq!(place(&mut timeline, 0, 1000), Some(90_040));
        assert_eq!(place(&mut timeline, 0, 1010), Some(90_050), "packets that overlap do not go back");
    }
}
