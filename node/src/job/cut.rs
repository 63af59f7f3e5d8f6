//! A picture track that is copied, but for what lies around its cuts.
//!
//! The output begins with pictures that are decoded and encoded anew, up to the first place where decoding can begin;
//! from there on packets are copied. At the end, packets are copied up to the last one before which everything is shown
//! that was decoded; what is wanted of the rest is encoded anew. What is encoded has parameter sets with an id of their
//! own beside the input's, no reordering, and the input's decoding delay, so that all decoding times keep their order.
//! Where any of this does not hold, the packets are [uncopyable](Fault::uncopyable), and everything is encoded.

use xora_av::{
    Decoder, Encoder, Frame, Input, MICROSECONDS, Orientation, Packet, Poll, Rational, Stream, VideoEncoding, rescale,
};

use crate::job::{
    copy::{CopyFacts, CopyPath, Window},
    damage::Damage,
    decode::decode,
    fault::{Done, Fault},
    h264::{Form, Header, lengths_to_start_codes},
    mux::Mux,
    plan::VideoEncode,
    rate,
    video::{ASTRAY, NO_PICTURE_US, Setup, length_of},
};

/// The most bytes that wait for the next place where decoding can begin.
const MOST_HELD: usize = 64 << 20;

/// See the module.
pub struct CutPath<'a> {
    encode: &'a VideoEncode,
    index: usize,
    time_base: Rational,
    frame_rate: Rational,
    /// How the container says that the pictures must be turned.
    orientation: Orientation,
    /// Where the track ends by its container's word, where that can be believed.
    ends: Option<i64>,
    /// Where the last picture that was encoded ends.
    last_end: i64,
    window: Window,
    /// Where the first picture of the track begins.
    begins: i64,
    /// Whether the input was gone to a place in, instead of read from its start.
    has_sought: bool,
    copy: CopyPath,
    decoder: Decoder,
    header: Header,
    phase: Phase,
    /// Makes what is not copied; none until the first picture shows what it has to look like.
    encoder: Option<Encoder>,
    /// The sets that the encoder makes; they must be the same at the start and at the end.
    own: Option<Header>,
    /// The last picture from before the wanted part: it may still be shown when that begins.
    before: Option<Frame>,
    /// Whether a picture of the wanted part was found.
    has_begun: bool,
    /// Pictures from before the first packet that is copied.
    head: Vec<Packet>,
    /// Packets since the last place where decoding can begin.
    held: Vec<Packet>,
    /// Bytes of `head` and `held`.
    held_bytes: usize,
    joints: Vec<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has been copied yet.
    Head,
    Copy,
    Done,
}

/// What a finished track tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutFacts {
    /// As for any copied track.
    pub copy: CopyFacts,
    /// Where pictures that were encoded meet others that were copied, in microseconds.
    pub joints_us: Vec<i64>,
}

impl<'a> CutPath<'a> {
    /// Describes track 0 of the output, as far as it is known.
    pub fn open(input: &Input, stream: &Stream, setup: &Setup<'a>, mux: &mut Mux) -> Done<Self> {
        const INDEX: usize = 0;
        let Setup { means, encode, window, begins, has_sought, ends_us, .. } = *setup;
        let header = Header::parse(&input.header(stream.index))
            .ok_or_else(|| Fault::uncopyable("the header of the pictures is not understood"))?;
        mux.describe_copy(INDEX, input, stream.index)?;
        Ok(Self {
            encode,
            index: INDEX,
            time_base: stream.time_base,
            orientation: stream.orientation,
            frame_rate: rate::or_unknown(stream.frame_rate),
            ends: ends_us.map(|us| rescale(us, MICROSECONDS, stream.time_base)),
            last_end: i64::MIN,
            window,
            begins,
            has_sought,
            copy: CopyPath::described(input, stream, INDEX, Window { from_us: None, ..window }, mux),
            decoder: Decoder::open(input, stream.index, means.threads, means.limits.pixels)?,
            header,
            phase: Phase::Head,
            encoder: None,
            own: None,
            before: None,
            has_begun: false,
            head: Vec::new(),
            held: Vec::new(),
            held_bytes: 0,
            joints: Vec::new(),
        })
    }

    /// Takes a packet, which is empty afterwards. Returns the time reached, in microseconds of the output.
    pub fn take(&mut self, packet: &mut Packet, mux: &mut Mux, damage: &mut Damage) -> Done<i64> {
        let Some(pts) = packet.pts() else { return Err(Fault::uncopyable("a picture of the input has no time")) };
        // What is hidden shows nothing of what the pictures look like.
        let begins = packet.is_key() && !packet.is_discarded() && self.header.is_idr(packet.data());
        match self.phase {
            Phase::Head if begins && !self.window.begins_before(self.us(pts)) => {
                self.end_head(packet, pts, mux, damage)?;
                self.hold(packet)?;
            }
            Phase::Head => {
                self.copy.follow(packet);
                self.decode_head(Some(packet), damage)?;
            }
            Phase::Copy
                if begins && (self.is_past_end(packet) || self.held.iter().any(|held| self.is_past_end(held))) =>
            {
                self.end_group(mux, damage)?;
                self.phase = Phase::Done;
            }
            Phase::Copy if begins => {
                self.write_held(usize::MAX, mux)?;
                self.hold(packet)?;
            }
            Phase::Copy => self.hold(packet)?,
            Phase::Done => {}
        }
        Ok(self.us(pts))
    }

    /// Ends the track.
    pub fn finish(mut self, mux: &mut Mux, damage: &mut Damage) -> Done<CutFacts> {
        match self.phase {
            Phase::Head => {
                self.decode_head(None, damage)?;
                self.show_before(None)?;
                self.write_head(None, mux)?;
            }
            Phase::Copy => self.end_group(mux, damage)?,
            Phase::Done => {}
        }
        let joints_us = self.joints.iter().map(|time| self.us(*time)).collect();
        Ok(CutFacts { copy: self.copy.finish(mux)?, joints_us })
    }

    /// Decodes what comes before the copied part, and encodes what is wanted of it.
    fn decode_head(&mut self, packet: Option<&Packet>, damage: &mut Damage) -> Done<()> {
        let mut frames = Vec::new();
        decode(&mut self.decoder, packet, damage, |frame| {
            frames.push(frame.take()?);
            Ok(())
        })?;
        for mut frame in frames {
            self.open_encoder(&frame)?;
            let Some(pts) = frame.best_effort_pts() else { continue };
            frame.set_pts(Some(pts));
            if self.window.end_us.is_none_or(|end| self.us(pts) < end) {
                self.last_end = pts.saturating_add(length_of(&frame, self.frame_rate, self.time_base));
            }
            if self.window.begins_before(self.us(pts)) {
                self.before = Some(frame);
            } else if !self.window.excludes(self.us(pts)) {
                self.show_before(Some(pts))?;
                self.encode_into_head(Some(&mut frame))?;
            }
        }
        Ok(())
    }

    /// Begins with the picture from before the part, where the first of the part comes too late or not at all.
    fn show_before(&mut self, first: Option<i64>) -> Done<()> {
        let Some(from_us) = self.window.from_us.filter(|_| !self.has_begun) else { return Ok(()) };
        self.has_begun = true;
        let first_us = first.map_or(i64::MAX, |first| self.us(first));
        let Some(mut shown) = self.before.take() else {
            let is_missed = self.has_sought && self.window.is_missed_by(first_us, self.us(self.begins));
            return if is_missed { Err(ASTRAY) } else { Ok(()) };
        };
        if first_us.saturating_sub(from_us) < NO_PICTURE_US {
            return Ok(());
        }
        shown.set_pts(Some(rescale(from_us, MICROSECONDS, self.time_base)));
        self.encode_into_head(Some(&mut shown))
    }

    fn encode_into_head(&mut self, frame: Option<&mut Frame>) -> Done<()> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        for packet in encoded(encoder, frame)? {
            self.keep(packet.size())?;
            self.head.push(packet);
        }
        Ok(())
    }

    /// Counts what is about to wait.
    fn keep(&mut self, bytes: usize) -> Done<()> {
        self.held_bytes += bytes;
        if self.held_bytes > MOST_HELD {
            return Err(Fault::uncopyable("the places at which the pictures can be begun are too far apart"));
        }
        Ok(())
    }

    /// Ends the pictures that are encoded at the start, before the first packet that is copied.
    fn end_head(&mut self, first: &Packet, pts: i64, mux: &mut Mux, damage: &mut Damage) -> Done<()> {
        self.decode_head(None, damage)?;
        self.show_before(Some(pts))?;
        if self.encoder.is_none() {
            // The cut is just here: only its looks are of interest.
            self.decoder.reset();
            self.decode_head_of(first, damage)?;
        }
        self.decoder.reset();
        let is_wanted = !self.is_past_end(first);
        self.write_head(is_wanted.then_some((first, pts)), mux)?;
        self.phase = if is_wanted { Phase::Copy } else { Phase::Done };
        Ok(())
    }

    fn decode_head_of(&mut self, first: &Packet, damage: &mut Damage) -> Done<()> {
        for packet in [Some(first), None] {
            let mut shown = None;
            decode(&mut self.decoder, packet, damage, |frame| {
                shown = Some(frame.take()?);
                Ok(())
            })?;
            if let Some(frame) = shown {
                self.open_encoder(&frame)?;
            }
        }
        Ok(())
    }

    /// Writes what was encoded at the start, up to the first packet that is copied.
    fn write_head(&mut self, first: Option<(&Packet, i64)>, mux: &mut Mux) -> Done<()> {
        self.encode_into_head(None)?;
        // It has been told that there is no more: the end gets a new one.
        self.encoder = None;
        let own = self.own.as_ref().ok_or(Fault::Nothing("no picture of the input could be decoded"))?;
        mux.open_with(self.index, &self.header.with(own))?;
        let head = std::mem::take(&mut self.head);
        self.held_bytes = 0;
        if head.is_empty() {
            return Ok(());
        }
        let delay = match first {
            None => 0,
            Some((first, pts)) => {
                self.joints.push(pts);
                delay_of(first)?
            }
        };
        self.write_encoded(head, delay, first.map(|(_, pts)| pts), mux)
    }

    /// Ends the copied part: copies what is shown before everything that follows it, encodes the rest of what is wanted.
    fn end_group(&mut self, mux: &mut Mux, damage: &mut Damage) -> Done<()> {
        let whole = self.clean_prefix();
        let copied_to = self.held.iter().take(whole).filter_map(Packet::pts).max().unwrap_or(i64::MIN);
        let rest = self.held.iter().skip(whole).any(|packet| !self.is_past_end(packet));
        let delay = self.held.first().map(delay_of);
        let tail = if rest { self.decode_held(copied_to, damage)? } else { Vec::new() };
        self.write_held(whole, mux)?;
        let (Some(first), Some(delay)) = (tail.first().and_then(Frame::pts), delay) else { return Ok(()) };
        self.joints.push(first);
        let length = |frame: &Frame| length_of(frame, self.frame_rate, self.time_base);
        let end = tail.last().and_then(|last| Some(last.pts()?.saturating_add(length(last))));
        self.last_end = end.unwrap_or(self.last_end);
        let mut packets = Vec::new();
        for mut frame in tail {
            self.open_encoder(&frame)?;
            if let Some(encoder) = &mut self.encoder {
                packets.extend(encoded(encoder, Some(&mut frame))?);
            }
        }
        if let Some(encoder) = &mut self.encoder {
            packets.extend(encoded(encoder, None)?);
        }
        self.write_encoded(packets, delay?, None, mux)
    }

    /// How many of the held packets can be copied so that exactly their pictures are shown: all of them are wanted, and
    /// none that follows is shown before one of them.
    fn clean_prefix(&self) -> usize {
        let times: Vec<i64> = self.held.iter().map(|packet| packet.pts().unwrap_or(i64::MAX)).collect();
        let wanted = self.held.iter().position(|packet| self.is_past_end(packet)).unwrap_or(times.len());
        let is_clean = |count: &usize| {
            let (before, after) = times.split_at(*count);
            before.iter().max().is_none_or(|last| after.iter().all(|time| time > last))
        };
        (0..=wanted).rev().find(is_clean).unwrap_or(0)
    }

    /// The pictures of the held packets that are wanted and shown after a time.
    fn decode_held(&mut self, after: i64, damage: &mut Damage) -> Done<Vec<Frame>> {
        let Self { decoder, held, window, time_base, .. } = self;
        decoder.reset();
        let mut frames = Vec::new();
        for packet in held.iter().map(Some).chain([None]) {
            decode(decoder, packet, damage, |frame| {
                let pts = frame.best_effort_pts().filter(|pts| *pts > after);
                if pts.is_some_and(|pts| !window.excludes(rescale(pts, *time_base, MICROSECONDS))) {
                    frame.set_pts(pts);
                    frames.push(frame.take()?);
                }
                Ok(())
            })?;
        }
        Ok(frames)
    }

    fn hold(&mut self, packet: &mut Packet) -> Done<()> {
        if self.phase == Phase::Done {
            return Ok(());
        }
        self.copy.follow(packet);
        self.copy.check_header()?;
        if !self.header.covers(packet.data()) {
            return Err(Fault::uncopyable("the parameters of the pictures change"));
        }
        self.keep(packet.size())?;
        self.held.push(std::mem::replace(packet, Packet::new()?));
        Ok(())
    }

    /// Copies the first held packets, and forgets all.
    fn write_held(&mut self, count: usize, mux: &mut Mux) -> Done<()> {
        self.held_bytes = 0;
        for mut packet in std::mem::take(&mut self.held).into_iter().take(count) {
            if self.header.form == Form::Lengths && !lengths_to_start_codes(packet.data_mut()?) {
                return Err(Fault::uncopyable("a picture of the input is damaged"));
            }
            self.copy.take(&mut packet, mux)?;
        }
        Ok(())
    }

    /// Writes what was encoded, each picture shown until the next, and the last until `next`, or its own end.
    fn write_encoded(&mut self, packets: Vec<Packet>, delay: i64, next: Option<i64>, mux: &mut Mux) -> Done<()> {
        let times: Vec<i64> = packets.iter().filter_map(Packet::pts).collect();
        let next = next.unwrap_or(self.ends.map_or(self.last_end, |end| end.max(self.last_end)));
        for (place, mut packet) in packets.into_iter().enumerate() {
            let Some(pts) = packet.pts() else { continue };
            let length = (times.get(place + 1).copied().unwrap_or(next) - pts).max(0);
            packet.set_duration(length);
            packet.set_times(Some(pts), Some(pts - delay));
            self.copy.take(&mut packet, mux)?;
        }
        Ok(())
    }

    /// Opens the encoder, once there is a picture to see what it has to make, and joins its header with the input's.
    fn open_encoder(&mut self, first: &Frame) -> Done<()> {
        if self.encoder.is_some() {
            return Ok(());
        }
        if first.orientation().is_some_and(|orientation| orientation != self.orientation) {
            return Err(Fault::uncopyable("the pictures say themselves how they must be turned"));
        }
        let refuse = || Fault::uncopyable("the parameters of the pictures leave no room for others");
        let id = self.header.free_id().ok_or_else(refuse)?;
        let profile = match self.header.profile().ok_or_else(refuse)? {
            66 => "baseline",
            77 => "main",
            100 => "high",
            _ => return Err(Fault::uncopyable("the profile of the pictures is unusual")),
        };
        let mut options = self.encode.options.clone();
        options.push(("profile", profile.to_owned()));
        options.push(("x264-params", format!("sps-id={id}")));
        let how = VideoEncoding {
            encoder: self.encode.encoder,
            time_base: self.time_base,
            frame_rate: self.frame_rate,
            // A few pictures: more threads would only wait for each other.
            threads: 1,
            options: &options,
            global_header: true,
        };
        let encoder = Encoder::video(&how, first).map_err(|error| Fault::of_encoder(self.encode.encoder, error))?;
        let own = Header::parse(&encoder.header()).ok_or_else(refuse)?;
        if self.own.get_or_insert_with(|| own.clone()) != &own {
            return Err(Fault::uncopyable("the pictures at both ends cannot be encoded alike"));
        }
        self.encoder = Some(encoder);
        Ok(())
    }

    fn is_past_end(&self, packet: &Packet) -> bool {
        let time = packet.pts().map(|pts| self.us(pts));
        time.is_some_and(|time| self.window.end_us.is_some_and(|end| time >= end))
    }

    fn us(&self, time: i64) -> i64 {
        rescale(time, self.time_base, MICROSECONDS)
    }
}

/// How long before it is shown a packet where decoding can begin is decoded.
fn delay_of(packet: &Packet) -> Done<i64> {
    match (packet.pts(), packet.dts()) {
        (Some(pts), Some(dts)) if pts >= dts => Ok(pts - dts),
        _ => Err(Fault::uncopyable("the pictures of the input have no decoding times")),
    }
}

/// What comes out of an encoder for a picture, or at its end.
fn encoded(encoder: &mut Encoder, mut frame: Option<&mut Frame>) -> Done<Vec<Packet>> {
    if let Some(frame) = &mut frame {
        frame.forget_picture_type();
    }
    let mut packets = Vec::new();
    let mut packet = Packet::new()?;
    loop {
        let sent = encoder.send(frame.as_deref())?;
        while encoder.receive(&mut packet)? == Poll::Ready {
            packets.push(std::mem::replace(&mut packet, Packet::new()?));
        }
        if sent != Poll::More {
            return Ok(packets);
        }
    }
}
