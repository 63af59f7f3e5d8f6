//! The picture track: packets of the input to packets of the output.

use std::fmt::Write as _;

use xora_av::{
    Color, Decoder, Encoder, FieldOrder, Frame, Graph, Input, Orientation, Packet, PictureShape, Poll, Rational,
    Stream, VideoEncoding, rescale,
};
use xora_shared::report::ExpectedVideo;

use crate::{
    ipc::{JobFailure, Up},
    job::{
        Means,
        copy::Window,
        damage::Damage,
        decode::decode,
        encoders::{self, Choice},
        fault::{Done, Fault},
        mux::Mux,
        plan::VideoEncode,
        rate,
        shape::{Chain, Picture, Size, chain, fit_into},
    },
};

/// What is fixed for the whole track.
pub struct Setup<'a> {
    /// What it is made with.
    pub means: Means<'a>,
    /// The input's stream.
    pub stream: usize,
    /// How it is encoded.
    pub encode: &'a VideoEncode,
    /// Its index in the output.
    pub index: usize,
    /// Pictures per second, as the container says; 0 when unknown. Not believed where it is not [credible](rate::is_credible).
    pub frame_rate: Rational,
    /// Where the track ends, as a container says that can be believed; in microseconds of the output.
    pub ends_us: Option<i64>,
    /// Pictures that begin before or after are left out.
    pub window: Window,
    /// Where the first picture begins if it does not say, in the stream's time base.
    pub begins: i64,
    /// Whether the input was gone to a place in, instead of read from its start.
    pub has_sought: bool,
    /// Whether pictures of further inputs follow, and must become like the first.
    pub alike: Option<Alike>,
}

/// What makes the pictures of several inputs one film.
#[derive(Clone, Copy, Debug)]
pub struct Alike {
    /// The rate that they all get; none where they have the same.
    pub rate: Option<Rational>,
}

/// See the module.
pub struct VideoPath<'a> {
    setup: Setup<'a>,
    decoder: Decoder,
    filter: Option<Filter>,
    sink: VideoSink<'a>,
    /// What the pictures of the input at hand must be.
    picture: Picture,
    /// Where the next picture should begin, in the decoder's time base, if it does not say.
    next: i64,
    /// The last picture from before the wanted part: it may still be shown when that begins.
    before: Option<Frame>,
    /// Packets that wait until the frame rate can be measured; none where it is known.
    unmeasured: Option<Vec<Packet>>,
}

/// The longest time, in microseconds, that a part may be without a picture at its start.
pub const NO_PICTURE_US: i64 = 100_000;

/// From this much on, in microseconds, a picture that should have been shown before the last one is left out: its sound
/// was heard then.
const LATE_US: i64 = 250_000;

/// What going to a place in the input has missed, reading it from its start may find.
pub const ASTRAY: Fault = Fault::Nothing("the pictures that the part begins with could not be decoded");

impl Window {
    /// Whether pictures are missing between the start of what is wanted and the first that was found, where the track
    /// begins earlier; in microseconds.
    pub fn is_missed_by(self, first_us: i64, begins_us: i64) -> bool {
        self.from_us.is_some_and(|from| begins_us < from && first_us - from >= NO_PICTURE_US)
    }
}

/// The filters for pictures of one shape.
struct Filter {
    graph: Graph,
    shape: PictureShape,
    /// How the frames themselves say that they must be turned.
    orientation: Option<Orientation>,
    chain: Chain,
    /// Where the last picture ends, in the unit of what goes in.
    end: i64,
}

impl<'a> VideoPath<'a> {
    /// Opens the decoder; everything behind it waits for the first picture.
    pub fn open(input: &Input, setup: Setup<'a>) -> Done<Self> {
        let decoder = Decoder::open(input, setup.stream, setup.means.threads, setup.means.limits.pixels)?;
        let sink = VideoSink::new(&setup);
        let (picture, next) = (setup.encode.picture.clone(), setup.begins);
        let unmeasured = (!sink.has_rate).then(Vec::new);
        Ok(Self { setup, decoder, filter: None, sink, picture, next, before: None, unmeasured })
    }

    /// Goes on with the pictures of another input, at a time of the output that is not before the end of the last one;
    /// in microseconds. `ends_us` is as in [`Setup`], from the start of that input.
    pub fn go_on(&mut self, input: &Input, stream: &Stream, time_us: i64, ends_us: Option<i64>) -> Done<()> {
        self.decoder = Decoder::open(input, stream.index, self.setup.means.threads, self.setup.means.limits.pixels)?;
        if rate::is_credible(stream.frame_rate) {
            self.setup.frame_rate = stream.frame_rate;
        }
        self.setup.ends_us = ends_us;
        self.picture.orientation = stream.orientation;
        self.picture.deinterlace = stream.is_interlaced;
        self.sink.offset = rescale(time_us, xora_av::MICROSECONDS, self.sink.time_base);
        self.next = 0;
        Ok(())
    }

    /// Takes what is left of the input at hand, and tells where its last picture ends, in microseconds of the output.
    pub fn end_input(&mut self, mux: &mut Mux, damage: &mut Damage) -> Done<i64> {
        self.take(None, mux, damage)?;
        self.show_before(mux)?;
        if let Some(mut filter) = self.filter.take() {
            drain(&mut filter, None, &mut self.sink, mux)?;
        }
        self.sink.end_input(self.decoder.time_base(), self.setup.ends_us);
        Ok(self.sink.reached_us())
    }

    /// The first time at or after this one at which a picture can begin, in microseconds of the output.
    pub fn next_tick(&self, time_us: i64) -> i64 {
        let time_base = self.sink.time_base;
        let tick = rescale(time_us, xora_av::MICROSECONDS, time_base);
        let us = rescale(tick, time_base, xora_av::MICROSECONDS);
        if us < time_us { rescale(tick + 1, time_base, xora_av::MICROSECONDS) } else { us }
    }

    /// Takes a packet, or with `None` the end of the input. Returns the time reached, in microseconds of the output.
    pub fn take(&mut self, packet: Option<&Packet>, mux: &mut Mux, damage: &mut Damage) -> Done<i64> {
        let Some(waiting) = &mut self.unmeasured else { return self.decode(packet, mux, damage) };
        if let Some(packet) = packet {
            waiting.push(packet.share()?);
            if !rate::is_enough(waiting, self.decoder.time_base()) {
                return Ok(self.sink.reached_us());
            }
        }
        let waiting = self.unmeasured.take().unwrap_or_default();
        let measured = rate::measure(&waiting, self.decoder.time_base());
        self.sink.has_rate = measured.is_some_and(|measured| measured.is_usual);
        self.setup.frame_rate = measured.map_or(rate::UNKNOWN, |measured| measured.rate);
        for packet in &waiting {
            self.decode(Some(packet), mux, damage)?;
        }
        if packet.is_none() { self.decode(None, mux, damage) } else { Ok(self.sink.reached_us()) }
    }

    fn decode(&mut self, packet: Option<&Packet>, mux: &mut Mux, damage: &mut Damage) -> Done<i64> {
        let Self { setup, decoder, filter, sink, picture, next, before, unmeasured: _ } = self;
        let time_base = decoder.time_base();
        let us = |time| rescale(time, time_base, xora_av::MICROSECONDS);
        decode(decoder, packet, damage, |frame| {
            let pts = frame.best_effort_pts().unwrap_or(*next);
            frame.set_pts(Some(pts));
            *next = pts.saturating_add(frame.duration().max(1));
            let ends = pts.saturating_add(length_of(frame, setup.frame_rate, time_base));
            // Some containers say that they begin with a picture that is shown only after some that follow it.
            let precedes = setup.window.from_us.is_none() && us(pts) < 0 && us(*next) <= 1_000;
            if precedes || setup.window.begins_before(us(pts)) {
                *before = Some(frame.take()?);
                sink.ends = ends;
                return Ok(());
            }
            if setup.window.excludes(us(pts)) {
                sink.is_past_end = true;
                return Ok(());
            }
            let is_first = filter.is_none() && before.is_none();
            if is_first && setup.has_sought && setup.window.is_missed_by(us(pts), us(setup.begins)) {
                return Err(ASTRAY);
            }
            let shape = |frame: &Frame| frame.picture_shape(time_base, setup.frame_rate);
            if let (Some(mut shown), Some(from)) = (before.take(), setup.window.from_us)
                && us(pts) - from >= NO_PICTURE_US
            {
                shown.set_pts(Some(rescale(from, xora_av::MICROSECONDS, time_base)));
                let shape = shape(&shown);
                show(setup, filter, sink, picture, (&mut shown, shape), mux)?;
            }
            sink.ends = ends;
            let shape = shape(frame);
            show(setup, filter, sink, picture, (frame, shape), mux)
        })?;
        Ok(sink.reached_us())
    }

    /// Where nothing begins in the wanted part, what was shown before it goes on.
    fn show_before(&mut self, mux: &mut Mux) -> Done<()> {
        let Self { setup, decoder, filter, sink, picture, before, .. } = self;
        let Some(mut shown) = before.take().filter(|_| sink.first.is_none()) else { return Ok(()) };
        let from = setup.window.from_us.unwrap_or(0);
        shown.set_pts(Some(rescale(from, xora_av::MICROSECONDS, decoder.time_base())));
        let shape = shown.picture_shape(decoder.time_base(), setup.frame_rate);
        show(setup, filter, sink, picture, (&mut shown, shape), mux)
    }

    /// Flushes everything, and tells what the track must be. `warnings` get what a caller should know.
    pub fn finish(mut self, mux: &mut Mux, damage: &mut Damage, warnings: &mut Vec<String>) -> Done<ExpectedVideo> {
        self.end_input(mux, damage)?;
        self.sink.finish(mux, warnings)
    }
}

/// Passes a picture of the wanted part on, through filters that fit its shape.
fn show(
    setup: &Setup,
    filter: &mut Option<Filter>,
    sink: &mut VideoSink,
    picture: &Picture,
    (frame, shape): (&mut Frame, PictureShape),
    mux: &mut Mux,
) -> Done<()> {
    let orientation = frame.orientation();
    let mut fitting = match (filter.take(), setup.alike) {
        (Some(filter), _) if filter.shape == shape && filter.orientation == orientation => filter,
        (Some(mut other), None) => {
            drain(&mut other, None, sink, mux)?;
            let later = sink.later_picture();
            let chain = chain(&shape, &Picture { orientation: orientation.unwrap_or(later.orientation), ..later });
            Filter::of((shape, orientation), chain, setup)?
        }
        (None, None) => {
            let chain = chain(&shape, &first_picture(picture, frame));
            Filter::of((shape, orientation), chain, setup)?
        }
        (other, Some(alike)) => {
            if let Some(mut other) = other {
                drain(&mut other, None, sink, mux)?;
            }
            let chain = sink.make_alike(chain(&shape, &first_picture(picture, frame)), alike);
            Filter::of((shape, orientation), chain, setup)?
        }
    };
    drain(&mut fitting, Some(frame), sink, mux)?;
    *filter = Some(fitting);
    Ok(())
}

/// Fields are looked for in the first frame, too: many containers are silent about them. How a frame says that it must be
/// turned counts more than what the container says.
pub fn first_picture(picture: &Picture, frame: &Frame) -> Picture {
    let deinterlace = picture.deinterlace || frame.field_order() != FieldOrder::Progressive;
    let orientation = frame.orientation().unwrap_or(picture.orientation);
    Picture { orientation, deinterlace, ..picture.clone() }
}

impl Filter {
    fn of((shape, orientation): (PictureShape, Option<Orientation>), chain: Chain, setup: &Setup) -> Done<Self> {
        let chain = chain.within(setup.means.limits.pixels)?;
        let graph = Graph::pictures(&shape, &chain.text, setup.means.threads)?;
        Ok(Self { graph, shape, orientation, chain, end: 0 })
    }
}

/// Passes a frame, or the end, through the filters and on to the encoder.
fn drain(filter: &mut Filter, frame: Option<&mut Frame>, sink: &mut VideoSink, mux: &mut Mux) -> Done<()> {
    match frame {
        Some(frame) => {
            filter.end = sink.ends.max(frame.pts().unwrap_or(filter.end));
            filter.graph.push(Some(frame))?;
        }
        None => filter.graph.end_at(filter.end)?,
    }
    let mut filtered = Frame::new()?;
    while filter.graph.pull(&mut filtered)? == Poll::Ready {
        filtered.set_color(filter.chain.color);
        filtered.forget_orientation();
        sink.take(&mut filtered, filter, mux)?;
    }
    Ok(())
}

/// The encoder's side of the track.
struct VideoSink<'a> {
    means: Means<'a>,
    encode: &'a VideoEncode,
    index: usize,
    encoder: Option<Encoder>,
    /// Which encoder it became, where there was a choice.
    choice: Option<Choice>,
    time_base: Rational,
    /// Frames per second, as far as they keep to it; 0 where they do not.
    frame_rate: Rational,
    /// Whether they keep to the rate that the filters say, and whether a filter sees to that.
    has_rate: bool,
    is_paced: bool,
    /// Where the last picture given to the filters ends, in the unit of what goes in, and in `time_base` once there are
    /// no more of its input.
    ends: i64,
    own_end: Option<i64>,
    /// The last picture, kept back until the next one tells how long it is shown.
    held: Option<Frame>,
    /// When the picture before that begins.
    encoded_at: Option<i64>,
    picture: Picture,
    /// Start and length of the pictures that are inside the encoder.
    inside: Vec<(i64, i64)>,
    first: Option<i64>,
    /// What is put on the times of all pictures, in `time_base`.
    offset: i64,
    end: i64,
    /// Where the wanted part ends, in microseconds, and whether a picture has begun there or later.
    part_end_us: Option<i64>,
    is_past_end: bool,
    last_length: i64,
    size: (u32, u32),
    color: Color,
    frames: u64,
    nudged: u64,
    /// Pictures that were left out.
    late: u64,
    hdr_left: bool,
    /// From this time on, in microseconds, the next picture is one that a player can begin at.
    next_key_us: i64,
}

impl<'a> VideoSink<'a> {
    fn new(setup: &Setup<'a>) -> Self {
        let is_paced = setup.alike.is_some_and(|alike| alike.rate.is_some());
        Self {
            means: setup.means,
            encode: setup.encode,
            index: setup.index,
            encoder: None,
            choice: None,
            time_base: Rational(0, 1),
            frame_rate: Rational(0, 1),
            has_rate: is_paced || rate::is_credible(setup.frame_rate),
            is_paced,
            ends: 0,
            own_end: None,
            held: None,
            encoded_at: None,
            picture: setup.encode.picture.clone(),
            inside: Vec::new(),
            first: None,
            offset: 0,
            end: 0,
            part_end_us: setup.window.end_us,
            is_past_end: false,
            last_length: 1,
            size: (0, 0),
            color: Color::UNSPECIFIED,
            frames: 0,
            nudged: 0,
            late: 0,
            hdr_left: false,
            next_key_us: i64::MIN,
        }
    }

    /// What pictures must be once the encoder is open: its size is for good.
    fn later_picture(&self) -> Picture {
        if self.size.0 == 0 {
            self.picture.clone()
        } else {
            Picture { size: Size::Within(self.size.0, self.size.1), ..self.picture.clone() }
        }
    }

    /// Makes what comes out of a chain like what the encoder was opened with: the size between black bars, the colours
    /// by the same matrix, the rate.
    fn make_alike(&self, mut chain: Chain, Alike { rate }: Alike) -> Chain {
        if self.encoder.is_some() {
            chain = fit_into(chain, self.size, self.color);
        }
        if let Some(Rational(count, seconds)) = rate {
            let _ = write!(chain.text, ",fps={count}/{seconds}");
        }
        chain
    }

    fn reached_us(&self) -> i64 {
        rescale(self.end, self.time_base, xora_av::MICROSECONDS)
    }

    /// Takes a filtered picture; it goes into the encoder when its successor comes.
    fn take(&mut self, frame: &mut Frame, filter: &Filter, mux: &mut Mux) -> Done<()> {
        if self.encoder.is_none() {
            self.open(frame, filter, mux)?;
        }
        frame.set_color(self.color);
        frame.forget_picture_type();
        let time = frame.pts().map(|pts| rescale(pts, filter.graph.time_base(), self.time_base));
        let wanted = time.map_or(self.end, |time| time.saturating_add(self.offset));
        let mut pts = wanted;
        let held_at = self.held.as_ref().map_or(wanted, |held| held.pts().unwrap_or(0));
        if wanted < held_at.saturating_sub(rescale(LATE_US, xora_av::MICROSECONDS, self.time_base))
            && !self.correct_held(wanted)
        {
            self.late += 1;
            return Ok(());
        }
        if let Some(held) = self.held.take() {
            let start = held.pts().unwrap_or(0);
            // Two pictures at one time, or one out of order: shown one tick apart rather than lost.
            pts = pts.max(start + 1);
            self.last_length = pts - start;
            self.encode(&held, self.last_length, mux)?;
        }
        self.nudged += u64::from(pts != wanted);
        frame.set_pts(Some(pts));
        self.ask_for_key(frame);
        self.first.get_or_insert(pts);
        self.end = pts + frame_length(self.frame_rate, self.time_base).unwrap_or(self.last_length);
        self.held = Some(frame.take()?);
        Ok(())
    }

    /// When a picture is late, the one before may have been early by mistake: it is moved to where it belongs, unless
    /// the late one is late for what was shown before that, too.
    fn correct_held(&mut self, late: i64) -> bool {
        let Some(previous) = self.encoded_at.filter(|encoded| late > encoded + 1) else { return false };
        let usual = frame_length(self.frame_rate, self.time_base).unwrap_or(self.last_length);
        let corrected = (previous + usual).min(late - 1);
        if let Some(held) = &mut self.held {
            held.set_pts(Some(corrected));
        }
        // It has told how long the one before it is shown.
        if let Some((_, length)) = self.inside.iter_mut().find(|(start, _)| *start == previous) {
            *length = corrected - previous;
        }
        self.nudged += 1;
        self.next_key_us = i64::MIN;
        true
    }

    /// Keeps to the times at which a player must be able to begin, whatever the rate of pictures.
    fn ask_for_key(&mut self, frame: &mut Frame) {
        let Some(every) = self.encode.key_every_us else { return };
        let time = rescale(frame.pts().unwrap_or(0), self.time_base, xora_av::MICROSECONDS);
        if time >= self.next_key_us {
            frame.ask_for_key();
            self.next_key_us = (time.div_euclid(every) + 1) * every;
        }
    }

    fn open(&mut self, first: &Frame, filter: &Filter, mux: &mut Mux) -> Done<()> {
        self.time_base = filter.graph.time_base();
        let rate = filter.graph.frame_rate();
        let is_sensible = rate.1 > 0 && (1..=1000).contains(&(rate.0 / rate.1));
        // Always one: libav takes the time base for it otherwise.
        let rate = if is_sensible { rate } else { rate::UNKNOWN };
        self.frame_rate = if self.has_rate { rate } else { Rational(0, 1) };
        self.size = (first.width(), first.height());
        self.color = filter.chain.color;
        self.hdr_left = filter.chain.hdr_left;
        encoders::check_size(self.encode.encoder, self.size)?;
        let (encoder, choice) = encoders::open(
            &VideoEncoding {
                encoder: self.encode.encoder,
                time_base: self.time_base,
                frame_rate: rate,
                threads: self.means.threads,
                options: &self.options(rate),
                global_header: mux.wants_global_header(),
            },
            first,
            self.means.hardware,
        )
        .map_err(|error| Fault::of_encoder(self.encode.encoder, error))?;
        if let Some(Choice::Hardware(name)) = &choice {
            self.means.link.say(Up::InHardware(name.clone()))?;
        }
        self.choice = choice;
        mux.open(self.index, &encoder, self.frame_rate, self.encode.tag)?;
        self.encoder = Some(encoder);
        Ok(())
    }

    /// libav tells x265 the time base as its frame rate, which would end in an absurd level: it is told the rate here.
    fn options(&self, rate: Rational) -> Vec<(&'static str, String)> {
        let mut options = self.encode.options.clone();
        for (key, value) in &mut options {
            if *key == "x265-params" {
                let _ = write!(value, ":fps={}/{}", rate.0, rate.1);
            }
        }
        options
    }

    fn encode(&mut self, frame: &Frame, length: i64, mux: &mut Mux) -> Done<()> {
        let start = frame.pts().unwrap_or(0);
        self.inside.push((start, length));
        self.encoded_at = Some(start);
        self.frames += 1;
        self.pump(Some(frame), mux)
    }

    fn pump(&mut self, frame: Option<&Frame>, mux: &mut Mux) -> Done<()> {
        let Self { encoder: Some(encoder), choice, inside, index, time_base, .. } = self else { return Ok(()) };
        let mut packet = Packet::new()?;
        loop {
            let sent = encoder.send(frame).map_err(|error| failed(error, choice.as_ref()))?;
            while encoder.receive(&mut packet).map_err(|error| failed(error, choice.as_ref()))? == Poll::Ready {
                let known = inside.iter().position(|(start, _)| Some(*start) == packet.pts());
                packet.set_duration(known.map_or(0, |index| inside.swap_remove(index).1));
                mux.write(*index, *time_base, &mut packet)?;
            }
            if sent != Poll::More {
                return Ok(());
            }
        }
    }

    fn finish(mut self, mux: &mut Mux, warnings: &mut Vec<String>) -> Done<ExpectedVideo> {
        let Some(last) = self.held.take() else {
            return Err(Fault::Nothing("no picture of the input could be decoded"));
        };
        let (start, first) = (last.pts().unwrap_or(0), self.first.unwrap_or(0));
        let length = self.length_of_last(start);
        self.encode(&last, length, mux)?;
        self.pump(None, mux)?;
        let us = |time| rescale(time, self.time_base, xora_av::MICROSECONDS);
        warnings.extend(self.warnings());
        Ok(ExpectedVideo {
            codec: encoders::makes(self.encode.encoder).to_owned(),
            width: self.size.0,
            height: self.size.1,
            frames: self.frames,
            start_us: us(first),
            duration_us: u64::try_from(us(start + length - first)).unwrap_or(0),
            joints_us: Vec::new(),
        })
    }

    /// The last picture of an input is shown for as long as its own container says; a filter that sees to the rate has
    /// repeated it.
    fn end_input(&mut self, time_base: Rational, ends_us: Option<i64>) {
        let Some(start) = self.held.as_ref().and_then(Frame::pts).filter(|_| !self.is_paced) else { return };
        let own = rescale(self.ends, time_base, self.time_base);
        let said = ends_us.map_or(own, |us| rescale(us, xora_av::MICROSECONDS, self.time_base));
        self.own_end = Some(own.max(said).saturating_add(self.offset)).filter(|end| *end > start);
        self.end = self.own_end.unwrap_or(self.end);
    }

    /// The last picture is shown until the part ends, or until its own end, or for as long as any.
    fn length_of_last(&self, start: i64) -> i64 {
        let usual = frame_length(self.frame_rate, self.time_base).unwrap_or(self.last_length);
        let usual = self.own_end.map_or(usual, |end| end - start);
        let rest = self.part_end_us.map(|end| rescale(end, xora_av::MICROSECONDS, self.time_base) - start);
        match rest.filter(|rest| *rest > 0) {
            Some(rest) if self.is_past_end => rest,
            Some(rest) => usual.min(rest),
            None => usual,
        }
    }

    fn warnings(&self) -> Vec<String> {
        let nudged =
            (self.nudged > 0).then(|| format!("{} pictures had times out of order and were moved", self.nudged));
        let late = (self.late > 0).then(|| format!("{} pictures were left out: their time had passed", self.late));
        let hdr = "the picture is in high dynamic range, which this node cannot map to standard; colours may look flat";
        nudged
            .into_iter()
            .chain(late)
            .chain(self.hdr_left.then(|| hdr.to_owned()))
            .chain(self.choice.as_ref().map(Choice::note))
            .collect()
    }
}

/// What the failure of an encoder means: software may do what hardware could not.
fn failed(error: xora_av::Error, choice: Option<&Choice>) -> Fault {
    match choice {
        Some(Choice::Hardware(_)) => Fault::Job(JobFailure::Hardware),
        Some(Choice::Software(_)) | None => error.into(),
    }
}

/// How long a picture is shown by its container's word, in ticks, or else at this rate. What is much less than usual is
/// no length: some muxers write one tick for the last.
pub fn length_of(frame: &Frame, rate: Rational, time_base: Rational) -> i64 {
    let own = frame.duration();
    match frame_length(rate, time_base) {
        Some(usual) if own == 0 || own < usual / 4 => usual,
        Some(_) | None => own.max(1),
    }
}

/// How long one picture is shown at this rate, in ticks.
fn frame_length(rate: Rational, time_base: Rational) -> Option<i64> {
    (rate.0 > 0).then(|| rescale(1, Rational(rate.1, rate.0), time_base).max(1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use xora_av::Orientation;
    use xora_shared::media::Format;

    use super::*;
    use crate::job::{link::Link, media_test::LIMITS, mux::Layout, shape::Pixels};

    /// An encoder that opens, takes a picture, and refuses the next one: its time has been before.
    #[test]
    fn what_a_hardware_encoder_refuses_in_mid_job_is_for_software_and_what_software_refuses_is_the_end() {
        let (_supervisor, ours) = UnixStream::pair().expect("a pair");
        let link = Link::new(ours);
        let picture = Picture {
            orientation: Orientation::Upright,
            deinterlace: false,
            can_tonemap: false,
            size: Size::AsInput,
            pixels: Pixels::Film,
        };
        let encode = VideoEncode { encoder: "mpeg4", options: Vec::new(), tag: None, picture, key_every_us: None };
        let mut frame = Frame::blank_picture(64, 64).expect("frame");
        frame.set_pts(Some(1));
        let (time_base, frame_rate) = (Rational(1, 25), Rational(25, 1));
        let how = VideoEncoding {
            encoder: encode.encoder,
            time_base,
            frame_rate,
            threads: 1,
            options: &[],
            global_header: true,
        };
        let mut refusal = |choice| {
            let mut mux =
                Mux::create(&link, Format::Mp4, 1, Layout::of(Format::Mp4, 1, 0, None), 1 << 20).expect("mux");
            let mut sink = VideoSink::new(&Setup {
                means: Means { link: &link, limits: &LIMITS, threads: 1, hardware: &[] },
                stream: 0,
                encode: &encode,
                index: 0,
                frame_rate,
                ends_us: None,
                window: Window::default(),
                begins: 0,
                has_sought: false,
                alike: None,
            });
            (sink.encoder, sink.choice) = (Some(Encoder::video(&how, &frame).expect("opens")), choice);
            sink.time_base = time_base;
            sink.encode(&frame, 1, &mut mux).expect("the first is taken");
            frame.set_pts(Some(1));
            sink.encode(&frame, 1, &mut mux).and_then(|()| sink.pump(None, &mut mux)).expect_err("refused")
        };
        let of_hardware = refusal(Some(Choice::Hardware("h264_nvenc".into())));
        assert!(matches!(of_hardware.into_failure(), Some(JobFailure::Hardware)));
        for choice in [None, Some(Choice::Software("h264_nvenc".into()))] {
            assert!(matches!(refusal(choice).into_failure(), Some(JobFailure::Known { .. })));
        }
    }
}
