//! The common time of all streams of an input: begins at zero, and has no breaks.
//!
//! In transport streams and the like a clock may begin anew: a *break*. All streams make the same jump then, though not
//! at the same packet: up to some seconds of packets from before it still come in the other streams. Where one stream
//! alone goes on later while the others went on meanwhile, it has *paused* (audio that is muted, one picture a minute):
//! nothing is moved.

use xora_av::{MICROSECONDS, Packet, Rational, rescale};

/// A jump forward beyond this between packets of one stream is a break or a pause. In microseconds.
const FORWARD_US: i64 = 10_000_000;
/// A jump back beyond this is a break: decoding order never runs backwards. In microseconds.
const BACK_US: i64 = 100_000;
/// How long packets from before a break may still come in other streams, in microseconds of their own time.
const BEHIND_US: i64 = 2_000_000;

/// Moves the times of packets. One offset serves all streams, so audio and video keep their distance; only around a break
/// some streams have the old one and some the new one.
pub struct Timeline {
    clock: Clock,
    /// The latest offset, which all streams come to. In microseconds, as all here.
    offset_us: i64,
    tracks: Vec<Track>,
    jumps: u64,
}

/// One stream.
#[derive(Clone, Copy)]
struct Track {
    offset_us: i64,
    /// Where its last packet begins and ends, in the output.
    last: Option<Last>,
    /// Where it ended when another stream had a break that it has not had.
    break_us: i64,
    /// Where it came to its offset.
    begun_us: i64,
    /// From the packet before the last to the last one.
    step_us: i64,
}

#[derive(Clone, Copy)]
struct Last {
    begin_us: i64,
    end_us: i64,
}

impl Timeline {
    /// `start_us` becomes zero. Only where the clock `may_jump` are breaks closed; elsewhere jumps are meant. But sound
    /// that is `alone` need not be in step with anything, so all of it is kept where its clock goes back.
    pub fn new(start_us: i64, may_jump: bool, alone: bool, streams: usize) -> Self {
        let clock = match (may_jump, alone) {
            (true, _) => Clock::Jumps,
            (false, true) => Clock::GoesBack,
            (false, false) => Clock::Steady,
        };
        let offset_us = start_us.saturating_neg();
        let track = Track { offset_us, last: None, break_us: 0, begun_us: i64::MIN, step_us: 0 };
        Self { clock, offset_us, tracks: vec![track; streams], jumps: 0 }
    }

    /// Breaks closed so far.
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    /// Moves a packet to its time in the output, and returns where it ends there, in microseconds. A packet without a
    /// length is as long as the one before (the last one of WMA Pro in ASF says nothing, and is two seconds long).
    pub fn place(&mut self, packet: &mut Packet, time_base: Rational) -> Option<i64> {
        let us = |time: i64| rescale(time, time_base, MICROSECONDS);
        let stream = packet.stream();
        let dts = packet.dts().or(packet.pts());
        if let Some(dts) = dts {
            self.choose_offset(stream, us(dts));
        }
        let track = self.tracks.get_mut(stream)?;
        let offset = rescale(track.offset_us, MICROSECONDS, time_base);
        let moved = |time: i64| time.saturating_add(offset);
        packet.set_times(packet.pts().map(moved), packet.dts().map(moved));
        let begin_us = dts.map(|dts| us(moved(dts)));
        if let (Some(begin), Some(last)) = (begin_us, track.last) {
            track.step_us = begin.saturating_sub(last.begin_us).clamp(0, FORWARD_US);
        }
        let length_us = if packet.duration() > 0 { us(packet.duration()) } else { track.step_us };
        if let Some(begin_us) = begin_us {
            track.last = Some(Last { begin_us, end_us: begin_us.saturating_add(length_us) });
        }
        packet.pts().or(packet.dts()).map(|time| us(time).saturating_add(length_us))
    }

    fn choose_offset(&mut self, stream: usize, dts_us: i64) {
        let Some(track) = self.tracks.get(stream).copied() else { return };
        let Some(last) = track.last else {
            self.take_offset(stream, self.offset_us, i64::MIN);
            return;
        };
        let time = |offset: i64| dts_us.saturating_add(offset);
        match self.clock {
            Clock::Steady => return,
            // Not against its end: some containers say that packets last longer than they do.
            Clock::GoesBack if time(track.offset_us) >= last.begin_us.saturating_sub(BACK_US) => return,
            Clock::GoesBack => {}
            Clock::Jumps => {
                let goes_on = |offset: i64| (-BACK_US..=FORWARD_US).contains(&time(offset).saturating_sub(last.end_us));
                // Whatever still comes is from behind the break, whether it looks like it or not.
                let is_behind = last.end_us.saturating_sub(track.break_us) >= BEHIND_US;
                let (own, common) = (track.offset_us, self.offset_us);
                let choices = if is_behind { [common, own] } else { [own, common] };
                let is_pause = |offset: &i64| self.is_pause(stream, last.end_us, time(*offset));
                let kept = choices.into_iter().find(|offset| goes_on(*offset)).or(choices.into_iter().find(is_pause));
                if let Some(kept) = kept {
                    self.take_offset(stream, kept, last.end_us);
                    return;
                }
            }
        }
        self.offset_us = last.end_us.saturating_sub(dts_us);
        self.jumps += 1;
        self.take_offset(stream, self.offset_us, last.end_us);
        for other in &mut self.tracks {
            let end_us = other.last.map_or(0, |last| last.end_us);
            // One that has had this break itself just now has nothing from before it.
            let has_had_it = end_us.saturating_sub(other.begun_us) < BEHIND_US;
            other.break_us = if has_had_it { end_us.saturating_sub(BEHIND_US) } else { end_us };
        }
    }

    fn take_offset(&mut self, stream: usize, offset_us: i64, begun_us: i64) {
        if let Some(track) = self.tracks.get_mut(stream).filter(|track| track.offset_us != offset_us) {
            (track.offset_us, track.begun_us) = (offset_us, begun_us);
        }
    }

    /// Whether a stream that goes on so late was silent meanwhile: another one has come nearer to there than to where it
    /// stopped.
    fn is_pause(&self, stream: usize, end_us: i64, time_us: i64) -> bool {
        let others = self.tracks.iter().enumerate().filter(|(index, _)| *index != stream);
        time_us.saturating_sub(end_us) > FORWARD_US
            && others.filter_map(|(_, track)| track.last).any(|other| {
                other.end_us.saturating_sub(time_us).saturating_abs()
                    < other.end_us.saturating_sub(end_us).saturating_abs()
            })
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

    /// Places packets of 40 ms of a stream at each of its times, in milliseconds. Where the last one came to lie.
    fn run(timeline: &mut Timeline, stream: usize, from: i64, to: i64) -> Option<i64> {
        (from / 40..to / 40).map(|packet| place(timeline, stream, packet * 40)).last().flatten()
    }

    #[test]
    fn a_stream_that_pauses_while_others_go_on_moves_nothing() {
        // Muted, or without video, or with one picture a minute beside the others.
        for (streams, pauses, goes_on) in [(2, 0, 1), (2, 1, 0), (3, 2, 0)] {
            for length in [11_000, 15_000, 60_000, 600_000] {
                let mut timeline = Timeline::new(0, true, false, streams);
                for second in 0..length / 1000 + 200 {
                    let time = second * 1000;
                    for stream in 0..streams {
                        let is_silent = stream == pauses && (100_000..100_000 + length).contains(&time);
                        if stream == goes_on || !is_silent {
                            assert_eq!(run(&mut timeline, stream, time, time + 1000), Some(time + 960));
                        }
                    }
                }
                assert_eq!(timeline.jumps(), 0);
            }
        }
    }

    #[test]
    fn a_break_is_closed_where_each_stream_has_it() {
        // The video has it 3 s of packets later than the audio, forward and back.
        for new in [1_000_000, 5_000_000, 20_000] {
            let mut timeline = Timeline::new(0, true, false, 2);
            for second in 0..50 {
                run(&mut timeline, 0, second * 1000, second * 1000 + 1000);
                if second >= 3 {
                    run(&mut timeline, 1, second * 1000 - 3000, second * 1000 - 2000);
                }
            }
            assert_eq!(run(&mut timeline, 0, new, new + 1000), Some(50_960), "{new}");
            for second in 47..50 {
                let time = second * 1000;
                assert_eq!(run(&mut timeline, 1, time, time + 1000), Some(time + 960), "{new}: from before it");
            }
            assert_eq!(run(&mut timeline, 1, new, new + 1000), Some(50_960), "{new}");
            assert_eq!(timeline.jumps(), 1);
        }
    }

    #[test]
    fn a_break_that_leaves_a_gap_of_one_stream_keeps_all_in_step() {
        let mut timeline = Timeline::new(0, true, false, 2);
        run(&mut timeline, 0, 0, 10_000);
        run(&mut timeline, 1, 0, 10_520);
        // Both begin anew at once, so the shorter one gets a gap.
        for second in 0..10 {
            for stream in [0, 1] {
                run(&mut timeline, stream, 900_000 + second * 1000, 901_000 + second * 1000);
            }
        }
        assert_eq!(place(&mut timeline, 0, 910_000), place(&mut timeline, 1, 910_000));
        assert_eq!(place(&mut timeline, 0, 910_040), Some(20_560));
    }

    #[test]
    fn a_stream_with_a_clock_of_its_own_goes_on_and_leaves_the_other_alone() {
        for new in [1_000_000, 7_000_000] {
            let mut timeline = Timeline::new(2_000_000_000, true, false, 2);
            for second in 2000..2010 {
                run(&mut timeline, 0, second * 1000, second * 1000 + 1000);
                run(&mut timeline, 1, second * 1000, second * 1000 + 1000);
            }
            for second in 10..60 {
                let time = second * 1000;
                assert_eq!(run(&mut timeline, 0, new + time, new + time + 1000), Some(time + 960), "{new}");
                assert_eq!(run(&mut timeline, 1, 2_000_000 + time, 2_001_000 + time), Some(time + 960), "{new}");
            }
        }
    }

    #[test]
    fn a_clock_that_wraps_while_a_stream_pauses_keeps_all_in_step() {
        // 33 bits of 90 kHz, in milliseconds, to a whole packet.
        const WRAP: i64 = 95_443_720;
        let mut timeline = Timeline::new((WRAP - 60_000) * 1000, true, false, 2);
        for second in 0..120 {
            let time = second * 1000;
            let said = if time < 60_000 { WRAP - 60_000 + time } else { time - 60_000 };
            assert_eq!(run(&mut timeline, 0, said, said + 1000), Some(time + 960));
            if !(50_000..70_000).contains(&time) {
                assert_eq!(run(&mut timeline, 1, said, said + 1000), Some(time + 960));
            }
        }
        assert_eq!(timeline.jumps(), 1);
    }

    #[test]
    fn a_packet_without_a_length_lasts_as_long_as_the_one_before() {
        let mut timeline = Timeline::new(0, false, false, 1);
        let ends = [0, 1950].map(|dts| {
            let mut packet = Packet::new().expect("memory");
            packet.set_times(Some(dts), Some(dts));
            timeline.place(&mut packet, MILLISECONDS)
        });
        assert_eq!(ends, [Some(0), Some(3_900_000)]);
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
