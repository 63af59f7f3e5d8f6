//! A track that is copied: packets of the input are packets of the output, undecoded.

use xora_av::{Input, Kind, MICROSECONDS, Packet, Rational, Stream, rescale};
use xora_shared::report::{ExpectedAudio, ExpectedVideo};

use crate::job::{
    fault::{Done, Fault},
    h264::Header,
    mux::Mux,
};

/// The most packets that wait for a decoding time: twice the longest reordering that H.264 knows.
const MOST_UNTIMED: usize = 32;

/// Passes the packets of one stream on. Their times are those of the input, moved by its [`super::timeline::Timeline`];
/// decoding times that are missing or run backwards are mended, because every muxer refuses them.
pub struct CopyPath {
    index: usize,
    is_video: bool,
    time_base: Rational,
    /// Length of a packet that does not say its own, in `time_base`.
    usual_length: i64,
    /// Samples of every packet, and how many make a second: containers round the lengths of packets.
    frame: Option<(u64, u64)>,
    /// Bytes of a second of samples; 0 for what is compressed.
    bytes_per_second: u64,
    /// What is put on all times, in `time_base`.
    delay: i64,
    window: Window,
    /// What no packet may change.
    form: Form,
    /// The codec's header, which the output has once for the whole track.
    header: Vec<u8>,
    /// Whether the container has put another one in force.
    is_changed: bool,
    /// What becomes of packets that are hidden, because players leave out what an edit list does.
    hidden: Hidden,
    /// Hidden packets that may have to go before the first that is not.
    primers: Vec<Packet>,
    /// Packets from before the first one that has a decoding time.
    untimed: Vec<Packet>,
    last_dts: Option<i64>,
    next_dts: Option<i64>,
    facts: Facts,
}

/// What a container can do with packets that are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hidden {
    /// It hides them as well.
    Kept,
    /// It cannot, and without the last of them a decoder would not be right from the start.
    Primer,
    /// It cannot.
    Dropped,
    /// It cannot, and nothing can be decoded without them.
    Refused,
}

/// What a container says once for a whole track, and packets of streams that are broadcast say again and again.
enum Form {
    /// Nothing that is looked at.
    Any,
    /// Parameter sets of H.264.
    Pictures(Header),
    /// The second half of what is fixed in the headers of ADTS (ISO 13818-7, section 6.2.1): profile, sample rate, channels.
    Adts(Option<[u8; 2]>),
}

impl Form {
    fn of(input: &Input, stream: &Stream, mux: &Mux) -> Self {
        match stream.codec.as_str() {
            _ if !mux.hides_start() => Self::Any,
            "h264" => Header::parse(&input.header(stream.index)).map_or(Self::Any, Self::Pictures),
            "aac" if !stream.has_header => Self::Adts(None),
            _ => Self::Any,
        }
    }

    fn check(&mut self, packet: &Packet) -> Done<()> {
        match (self, packet.data()) {
            (Self::Pictures(header), data) if packet.is_key() && !header.covers_sequences(data) => {
                Err(Fault::uncopyable("the parameters of the pictures change"))
            }
            (Self::Adts(first), [0xff, 0xf0..=0xff, profile, channels, ..]) => {
                let found = [profile & 0xfd, channels & 0xc0];
                if *first.get_or_insert(found) == found {
                    return Ok(());
                }
                Err(Fault::uncopyable("the sample rate or the channels of the sound change"))
            }
            (Self::Any | Self::Pictures(_) | Self::Adts(_), _) => Ok(()),
        }
    }
}

/// The part of a track that is wanted, in microseconds of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Packets that end at or before this are left out.
    pub from_us: Option<i64>,
    /// Packets that begin here or later are left out.
    pub end_us: Option<i64>,
}

impl Window {
    /// Whether a time lies before what is wanted.
    pub fn begins_before(self, time_us: i64) -> bool {
        self.from_us.is_some_and(|from| time_us < from)
    }

    /// Whether a picture that begins at this time is left out.
    pub fn excludes(self, time_us: i64) -> bool {
        self.begins_before(time_us) || self.end_us.is_some_and(|end| time_us >= end)
    }
}

/// In the track's time base.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    packets: u64,
    start: Option<i64>,
    end: i64,
    length: i64,
    bytes: u64,
    mended: u64,
}

/// What a finished track tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFacts {
    /// Packets written.
    pub packets: u64,
    /// First time that is shown, in microseconds.
    pub start_us: i64,
    /// From there to the end of the last packet, in microseconds.
    pub duration_us: u64,
    /// The packets' lengths together, in microseconds: what is left where the format has no times.
    pub length_us: u64,
    /// Packets whose decoding time was mended.
    pub mended: u64,
}

impl CopyFacts {
    /// What a track must be that has these pictures of a stream, and joints at these times in microseconds. `warnings`
    /// get what a caller should know.
    pub fn pictures(self, stream: &Stream, joints_us: Vec<i64>, warnings: &mut Vec<String>) -> ExpectedVideo {
        let Self { packets: frames, start_us, duration_us, length_us: _, mended } = self;
        warnings.extend((mended > 0).then(|| format!("{mended} pictures had their decoding time mended")));
        let (codec, width, height) = (stream.codec.clone(), stream.width, stream.height);
        ExpectedVideo { codec, width, height, frames, start_us, duration_us, joints_us }
    }
}

/// What a track must be that has this much of the sound of a stream, in microseconds.
pub fn sound(stream: &Stream, start_us: i64, duration_us: u64) -> ExpectedAudio {
    let (codec, sample_rate, channels) = (stream.codec.clone(), stream.sample_rate, stream.channels);
    let samples = duration_us.saturating_mul(sample_rate.into()) / 1_000_000;
    ExpectedAudio { codec, sample_rate, channels, samples, start_us }
}

impl CopyPath {
    /// Describes track `index` of the output as what `stream` of the input holds.
    pub fn open(input: &Input, stream: &Stream, index: usize, window: Window, mux: &mut Mux) -> Done<Self> {
        mux.open_copy(index, input, stream.index)?;
        Ok(Self { form: Form::of(input, stream, mux), ..Self::described(input, stream, index, window, mux) })
    }

    /// For a track that has been described.
    pub fn described(input: &Input, stream: &Stream, index: usize, window: Window, mux: &Mux) -> Self {
        Self {
            index,
            is_video: stream.kind == Kind::Video,
            time_base: stream.time_base,
            usual_length: usual_length(stream),
            frame: (stream.frame_size > 0 && stream.sample_rate > 0)
                .then_some((stream.frame_size.into(), stream.sample_rate.into())),
            bytes_per_second: bytes_per_second(stream),
            delay: if mux.counts_priming() { priming(stream) } else { 0 },
            window,
            form: Form::Any,
            header: input.header(stream.index),
            is_changed: false,
            hidden: hidden(stream, mux),
            primers: Vec::new(),
            untimed: Vec::new(),
            last_dts: None,
            next_dts: None,
            facts: Facts::default(),
        }
    }

    /// Unit of the times of the packets that it takes, in seconds.
    pub fn time_base(&self) -> Rational {
        self.time_base
    }

    /// Notes what the container says beside a packet, whether the packet is copied or not. What has no header of its own is
    /// described by the numbers of the container.
    pub fn follow(&mut self, packet: &Packet) {
        if let Some(header) = packet.new_header() {
            self.is_changed = header != self.header;
        } else if self.header.is_empty() {
            self.is_changed |= packet.has_new_parameters();
        }
    }

    /// Fails where another header is in force than the output has.
    pub fn check_header(&self) -> Done<()> {
        if self.is_changed { Err(Fault::uncopyable("the codec's header changes in mid-stream")) } else { Ok(()) }
    }

    /// Takes a packet, which is empty afterwards. Returns the time reached, in microseconds of the output.
    pub fn take(&mut self, packet: &mut Packet, mux: &mut Mux) -> Done<i64> {
        self.follow(packet);
        let Some(pts) = packet.pts().or(packet.dts()) else {
            return Err(Fault::uncopyable("a packet of the input has no time"));
        };
        let end = pts.saturating_add(self.length_of(packet));
        if self.is_outside(pts, end) {
            return Ok(self.us(pts));
        }
        self.check_header()?;
        self.form.check(packet)?;
        match self.hidden {
            Hidden::Primer if packet.is_discarded() => {
                self.primers.clear();
                self.primers.push(std::mem::replace(packet, Packet::new()?));
                return Ok(self.us(pts));
            }
            Hidden::Kept if packet.is_discarded() && self.is_video && self.facts.packets == 0 => {
                self.primers.push(std::mem::replace(packet, Packet::new()?));
                return Ok(self.us(pts));
            }
            Hidden::Dropped if packet.is_discarded() => return Ok(self.us(pts)),
            Hidden::Refused if packet.is_discarded() => {
                return Err(Fault::uncopyable("its first pictures are hidden, which the format cannot say"));
            }
            Hidden::Kept | Hidden::Primer | Hidden::Dropped | Hidden::Refused => {}
        }
        let mut primers = std::mem::take(&mut self.primers);
        // Where decoding can begin with what is shown, players leave out what comes before it.
        if self.is_video && packet.is_key() {
            primers.clear();
        }
        for mut primer in primers {
            self.pass(&mut primer, mux)?;
        }
        self.pass(packet, mux)?;
        Ok(self.us(end))
    }

    fn pass(&mut self, packet: &mut Packet, mux: &mut Mux) -> Done<()> {
        match (packet.dts(), self.next_dts) {
            (None, None) if self.untimed.len() < MOST_UNTIMED => {
                self.untimed.push(std::mem::replace(packet, Packet::new()?));
            }
            (Some(dts), None) => {
                self.write_untimed(dts, mux)?;
                self.write(packet, dts, mux)?;
            }
            (Some(dts), Some(_)) => self.write(packet, dts, mux)?,
            (None, Some(next)) => self.write(packet, next, mux)?,
            (None, None) => return Err(Fault::uncopyable("the packets of the input have no decoding times")),
        }
        Ok(())
    }

    /// Containers that keep no decoding times leave them out until the decoder's delay is filled: they are counted back
    /// from the first one.
    fn write_untimed(&mut self, first: i64, mux: &mut Mux) -> Done<()> {
        let untimed = std::mem::take(&mut self.untimed);
        let mut before: i64 = untimed.iter().map(|packet| self.length_of(packet).max(1)).sum();
        for mut packet in untimed {
            let dts = first.saturating_sub(before);
            before -= self.length_of(&packet).max(1);
            self.write(&mut packet, dts, mux)?;
        }
        Ok(())
    }

    fn write(&mut self, packet: &mut Packet, dts: i64, mux: &mut Mux) -> Done<()> {
        let pts = packet.pts().unwrap_or(dts);
        let length = self.length_until_end(pts, self.length_of(packet));
        // Equal times are refused, too.
        let mended = self.last_dts.map_or(dts.min(pts), |last| dts.min(pts).max(last + 1));
        if mended > pts {
            return Err(Fault::uncopyable("the packets of the input are out of order"));
        }
        let facts = &mut self.facts;
        facts.mended += u64::from(mended != dts);
        facts.packets += 1;
        facts.bytes += packet.size() as u64;
        facts.length = facts.length.saturating_add(length);
        if !packet.is_discarded() {
            facts.start = Some(facts.start.map_or(pts, |start| start.min(pts)));
            facts.end = facts.end.max(pts.saturating_add(length));
        }
        self.last_dts = Some(mended);
        self.next_dts = Some(mended.saturating_add(length));
        packet.set_times(Some(pts + self.delay), Some(mended + self.delay));
        packet.set_duration(length);
        mux.write(self.index, self.time_base, packet)
    }

    /// Writes what is left, and tells what was copied.
    pub fn finish(mut self, mux: &mut Mux) -> Done<CopyFacts> {
        // None had a decoding time: they are shown in the order in which they are decoded, or cannot be copied.
        for mut packet in std::mem::take(&mut self.untimed) {
            let dts = packet.pts().unwrap_or(0);
            self.write(&mut packet, dts, mux)?;
        }
        let Some(start) = self.facts.start else {
            return Err(Fault::uncopyable("a track has no packets in the part that is wanted"));
        };
        // What comes before the wanted part only primes the decoder, and is hidden.
        let start_us = self.us(start).max(self.window.from_us.map_or(i64::MIN, |_| 0));
        Ok(CopyFacts {
            packets: self.facts.packets,
            start_us,
            duration_us: u64::try_from(self.us(self.facts.end) - start_us).unwrap_or(0),
            length_us: self.length_us(),
            mended: self.facts.mended,
        })
    }

    fn length_us(&self) -> u64 {
        let Facts { packets, length, bytes, .. } = self.facts;
        if let Some(us) = bytes.saturating_mul(1_000_000).checked_div(self.bytes_per_second) {
            return us;
        }
        match self.frame {
            Some((samples, rate)) => packets.saturating_mul(samples).saturating_mul(1_000_000) / rate,
            None => u64::try_from(self.us(length)).unwrap_or(0),
        }
    }

    /// How long a packet is shown, in the track's time base.
    pub fn length_of(&self, packet: &Packet) -> i64 {
        if packet.duration() > 0 { packet.duration() } else { self.usual_length }
    }

    /// The last picture is shown until the part ends.
    fn length_until_end(&self, pts: i64, length: i64) -> i64 {
        let end = self.window.end_us.filter(|_| self.is_video).map(|end| rescale(end, MICROSECONDS, self.time_base));
        end.map_or(length, |end| length.min((end - pts).max(1)))
    }

    fn is_outside(&self, pts: i64, end: i64) -> bool {
        self.window.from_us.is_some_and(|from| self.us(end) <= from)
            || self.window.end_us.is_some_and(|limit| self.us(pts) >= limit)
    }

    fn us(&self, time: i64) -> i64 {
        rescale(time, self.time_base, MICROSECONDS)
    }
}

fn bytes_per_second(stream: &Stream) -> u64 {
    let sample = match stream.codec.as_str() {
        "pcm_u8" => 1,
        "pcm_s16le" => 2,
        "pcm_s24le" => 3,
        "pcm_s32le" | "pcm_f32le" => 4,
        "pcm_f64le" => 8,
        _ => 0,
    };
    sample * u64::from(stream.channels) * u64::from(stream.sample_rate)
}

/// One picture at the stream's rate; for sound the muxers know it from the codec.
fn usual_length(stream: &Stream) -> i64 {
    match stream.kind {
        Kind::Video if stream.frame_rate.0 > 0 => {
            rescale(1, Rational(stream.frame_rate.1, stream.frame_rate.0), stream.time_base)
        }
        Kind::Video | Kind::Audio | Kind::Subtitle | Kind::Attachment | Kind::Data => 0,
    }
}

fn hidden(stream: &Stream, mux: &Mux) -> Hidden {
    match stream.kind {
        _ if mux.hides_start() => Hidden::Kept,
        Kind::Video => Hidden::Refused,
        Kind::Audio if !mux.has_times() && matches!(stream.codec.as_str(), "aac" | "mp3") => Hidden::Primer,
        Kind::Audio | Kind::Subtitle | Kind::Attachment | Kind::Data => Hidden::Dropped,
    }
}

/// The codec's delay, in the stream's time base.
fn priming(stream: &Stream) -> i64 {
    let rate = i32::try_from(stream.sample_rate).unwrap_or(0);
    if rate > 0 { rescale(stream.priming.into(), Rational(1, rate), stream.time_base) } else { 0 }
}
