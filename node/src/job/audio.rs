//! The sound track: packets of the input to packets of the output.

use xora_av::{
    AudioEncoding, AudioShape, Decoder, Encoder, Frame, Graph, Input, MICROSECONDS, Packet, Poll, Rational, rescale,
};
use xora_shared::report::ExpectedAudio;

use crate::job::{
    copy::Window,
    damage::Damage,
    decode::decode,
    encoders,
    fault::{Done, Fault},
    mux::Mux,
    plan::AudioEncode,
    steady::{NANOSECONDS, Steady},
};

/// Two graphs: the first makes any sound of the input into one form and is rebuilt when the input changes; the second
/// lives as long as the track, fills gaps with silence, cuts overlaps, and cuts frames as the encoder wants them.
pub struct AudioPath<'a> {
    encode: &'a AudioEncode,
    decoder: SoundDecoder,
    convert: Option<(AudioShape, Graph)>,
    sink: AudioSink<'a>,
}

/// A decoder of sound whose frames all have an order of channels and a time, in samples, that is free of jitter.
pub struct SoundDecoder {
    decoder: Decoder,
    /// Where the next sound should begin, in the decoder's time base, if it does not say.
    next: i64,
    has_begun: bool,
    /// The first sound, until the second tells where it ends.
    first: Option<Frame>,
    steady: Steady<(Frame, AudioShape)>,
}

impl SoundDecoder {
    /// Opens it for a stream.
    pub fn open(input: &Input, stream: usize) -> Done<Self> {
        // More threads do not help sound.
        let decoder = Decoder::open(input, stream, 1, u64::MAX)?;
        Ok(Self { decoder, next: 0, has_begun: false, first: None, steady: Steady::default() })
    }

    /// Gives it a packet, or with `None` its end, and hands on what comes out. The decoder of WMA leaves out some of
    /// the start and counts that as more than it is, so that the first sound would last into the second, and something
    /// of it be cut: it begins earlier instead.
    pub fn take(
        &mut self,
        packet: Option<&Packet>,
        damage: &mut Damage,
        mut take: impl FnMut(&mut Frame, AudioShape) -> Done<()>,
    ) -> Done<()> {
        const OVERLAP_US: std::ops::RangeInclusive<i64> = 15_000..=100_000;
        let time_base = self.decoder.time_base();
        let Self { decoder, next, has_begun, first, steady } = self;
        decode(decoder, packet, damage, |frame| {
            frame.settle_layout();
            let shape = frame.audio_shape(time_base);
            let pts = frame.best_effort_pts().unwrap_or(*next);
            frame.set_pts(Some(pts));
            if let Some(mut first) = first.take() {
                let overlap = next.saturating_sub(pts);
                if OVERLAP_US.contains(&rescale(overlap, time_base, MICROSECONDS)) {
                    first.set_pts(first.pts().map(|pts| pts - overlap));
                }
                let shape = first.audio_shape(time_base);
                wait(steady, first, shape);
            }
            *next = pts.saturating_add(rescale(samples(frame), rate_base(&shape), time_base));
            let frame = frame.take()?;
            if *has_begun {
                wait(steady, frame, shape);
            } else {
                *has_begun = true;
                *first = Some(frame);
            }
            Ok(())
        })?;
        if packet.is_none() {
            if let Some(first) = first.take() {
                let shape = first.audio_shape(time_base);
                wait(steady, first, shape);
            }
            steady.end();
        }
        while let Some(((mut frame, shape), time)) = steady.pop() {
            let shape = AudioShape { time_base: rate_base(&shape), ..shape };
            frame.set_pts(Some(rescale(time, NANOSECONDS, shape.time_base)));
            take(&mut frame, shape)?;
        }
        Ok(())
    }
}

/// Has a frame wait for those after it, which tell whether its time is right.
fn wait(steady: &mut Steady<(Frame, AudioShape)>, frame: Frame, shape: AudioShape) {
    let time = rescale(frame.pts().unwrap_or(0), shape.time_base, NANOSECONDS);
    let (samples, rate) = (samples(&frame), shape.sample_rate);
    steady.push((frame, shape), time, samples, rate);
}

fn samples(frame: &Frame) -> i64 {
    i64::try_from(frame.samples()).unwrap_or(0)
}

/// One sample, in seconds.
fn rate_base(shape: &AudioShape) -> Rational {
    Rational(1, i32::try_from(shape.sample_rate).unwrap_or(1).max(1))
}

impl<'a> AudioPath<'a> {
    /// Opens the decoder; everything behind it waits for the first sound.
    pub fn open(input: &Input, stream: usize, encode: &'a AudioEncode, index: usize, window: Window) -> Done<Self> {
        let decoder = SoundDecoder::open(input, stream)?;
        let sink = AudioSink::new(encode, index, window);
        Ok(Self { encode, decoder, convert: None, sink })
    }

    /// Takes a packet, or with `None` the end of the input. Returns the time reached, in microseconds of the output.
    pub fn take(&mut self, packet: Option<&Packet>, mux: &mut Mux, damage: &mut Damage) -> Done<i64> {
        let Self { encode, decoder, convert, sink } = self;
        decoder.take(packet, damage, |frame, shape| {
            let mut graph = match convert.take() {
                Some((same, graph)) if same == shape => graph,
                Some((_, mut other)) => {
                    drain(&mut other, None, sink, mux)?;
                    Graph::sound(&shape, &conversion(encode, &shape))?
                }
                None => Graph::sound(&shape, &conversion(encode, &shape))?,
            };
            drain(&mut graph, Some(frame), sink, mux)?;
            *convert = Some((shape, graph));
            Ok(())
        })?;
        Ok(sink.reached_us())
    }

    /// Flushes everything, and tells what the track must be.
    pub fn finish(mut self, mux: &mut Mux, damage: &mut Damage) -> Done<ExpectedAudio> {
        self.take(None, mux, damage)?;
        if let Some((_, mut graph)) = self.convert.take() {
            drain(&mut graph, None, &mut self.sink, mux)?;
        }
        self.sink.finish(mux)
    }
}

/// The filters from one form of sound to the track's. What is mixed down keeps its loudness, as in the `ffmpeg`
/// command, and where that would clip it is held back.
pub fn conversion(encode: &AudioEncode, shape: &AudioShape) -> String {
    let AudioEncode { sample_rate, sample_format, channels, layout, .. } = encode;
    let form = format!("sample_rates={sample_rate}:channel_layouts={layout}");
    if shape.channels <= *channels {
        return format!("aresample,aformat={form}:sample_fmts={sample_format}");
    }
    // Without a largest value, sums of integers would be made quieter and sums of others would not.
    format!(
        "aresample=rematrix_maxval=100,aformat={form}:sample_fmts=dbl,alimiter=level=disabled:latency=1,\
         aformat=sample_fmts={sample_format}"
    )
}

/// The filter that fills gaps with silence, cuts overlaps, and stretches the audio by up to two in a hundred where its
/// times drift. [`Steady`] has decided what is a gap: at least 15 ms, while drift is never more than 10 ms ahead.
pub const STEADY: &str = "aresample=async=1:max_soft_comp=0.02:min_hard_comp=0.0125";

/// How much of an encoder's priming may be heard, as silence, in microseconds. MP4 hides it at zero only; where sound
/// begins later it is part of the track, and that would begin too early against the pictures. So a few milliseconds of
/// the sound are left out, and the track begins as much later.
const SHOWN_PRIMING_US: i64 = 18_000;

fn drain(graph: &mut Graph, frame: Option<&mut Frame>, sink: &mut AudioSink, mux: &mut Mux) -> Done<()> {
    graph.push(frame)?;
    let mut converted = Frame::new()?;
    while graph.pull(&mut converted)? == Poll::Ready {
        sink.take(Some(&mut converted), graph.time_base(), mux)?;
    }
    Ok(())
}

/// The encoder's side of the track.
pub struct AudioSink<'a> {
    encode: &'a AudioEncode,
    index: usize,
    window: Window,
    regular: Option<Graph>,
    encoder: Option<Encoder>,
    /// The end of the wanted part has been passed.
    is_done: bool,
    /// First time, in samples.
    first: Option<i64>,
    samples: u64,
    /// Where the last frame ends, in samples.
    end: i64,
}

impl<'a> AudioSink<'a> {
    /// Waits for the first sound.
    pub fn new(encode: &'a AudioEncode, index: usize, window: Window) -> Self {
        Self { encode, index, window, regular: None, encoder: None, is_done: false, first: None, samples: 0, end: 0 }
    }

    /// One sample.
    pub fn time_base(&self) -> Rational {
        Rational(1, i32::try_from(self.encode.sample_rate).unwrap_or(1))
    }

    fn reached_us(&self) -> i64 {
        rescale(self.end, self.time_base(), MICROSECONDS)
    }

    /// Takes sound in the track's form, or the end.
    pub fn take(&mut self, mut frame: Option<&mut Frame>, time_base: Rational, mux: &mut Mux) -> Done<()> {
        if self.is_done {
            return Ok(());
        }
        if let (Some(first), None) = (&mut frame, &self.regular) {
            self.open(first, time_base, mux)?;
        }
        let Some(mut graph) = self.regular.take() else { return Ok(()) };
        graph.push(frame)?;
        let mut regular = Frame::new()?;
        loop {
            match graph.pull(&mut regular)? {
                Poll::Ready => {}
                Poll::More => break,
                Poll::End => {
                    self.is_done = true;
                    break;
                }
            }
            let pts =
                rescale(regular.pts().unwrap_or(self.end), graph.time_base(), self.time_base()).max(self.end_or_any());
            regular.set_pts(Some(pts));
            // Only now is it sure that the track is not empty.
            if let (None, Some(encoder)) = (self.first, &self.encoder) {
                mux.open(self.index, encoder, Rational(0, 1), None)?;
            }
            self.first.get_or_insert(pts);
            self.samples += regular.samples() as u64;
            self.end = pts + i64::try_from(regular.samples()).unwrap_or(0);
            self.pump(Some(&regular), mux)?;
        }
        self.regular = Some(graph);
        Ok(())
    }

    /// The earliest time that the next frame may have.
    fn end_or_any(&self) -> i64 {
        if self.first.is_some() { self.end } else { i64::MIN }
    }

    fn open(&mut self, first: &Frame, time_base: Rational, mux: &mut Mux) -> Done<()> {
        let encoder = Encoder::audio(
            &AudioEncoding {
                encoder: self.encode.encoder,
                options: &self.encode.options,
                global_header: mux.wants_global_header(),
            },
            first,
        )
        .map_err(|error| Fault::of_encoder(self.encode.encoder, error))?;
        let shape = first.audio_shape(time_base);
        let begins = rescale(first.pts().unwrap_or(0), time_base, self.time_base());
        let is_late = begins > 0 && self.window.from_us.is_none() && self.encode.encoder == "aac" && mux.hides_start();
        let left_out = (i64::from(encoder.priming()) - self.samples(SHOWN_PRIMING_US)).max(0);
        let from = self.window.from_us.map(|us| self.samples(us)).or_else(|| is_late.then_some(begins + left_out));
        let chain = format!("{STEADY}{}", self.cut(from));
        let mut graph = Graph::sound(&shape, &chain)?;
        graph.set_frame_size(encoder.frame_size());
        self.regular = Some(graph);
        self.encoder = Some(encoder);
        Ok(())
    }

    fn samples(&self, us: i64) -> i64 {
        rescale(us, MICROSECONDS, self.time_base())
    }

    /// The filter that leaves out what is not wanted, to the sample.
    fn cut(&self, from: Option<i64>) -> String {
        let start = from.map(|start| format!(":start_pts={start}"));
        let end = self.window.end_us.map(|us| format!(":end_pts={}", self.samples(us)));
        let options = [start, end].into_iter().flatten().collect::<String>();
        options.strip_prefix(':').map_or_else(String::new, |options| format!(",atrim={options}"))
    }

    fn pump(&mut self, frame: Option<&Frame>, mux: &mut Mux) -> Done<()> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        let time_base = encoder.time_base();
        let delay = if mux.counts_priming() { i64::from(encoder.priming()) } else { 0 };
        let mut packet = Packet::new()?;
        loop {
            let sent = encoder.send(frame)?;
            while encoder.receive(&mut packet)? == Poll::Ready {
                packet.set_times(packet.pts().map(|pts| pts + delay), packet.dts().map(|dts| dts + delay));
                mux.write(self.index, time_base, &mut packet)?;
            }
            if sent != Poll::More {
                return Ok(());
            }
        }
    }

    /// Flushes everything, and tells what the track must be.
    pub fn finish(mut self, mux: &mut Mux) -> Done<ExpectedAudio> {
        let time_base = self.time_base();
        self.take(None, time_base, mux)?;
        if self.first.is_none() {
            return Err(Fault::Silent);
        }
        self.pump(None, mux)?;
        let first = self.first.unwrap_or(0);
        // MP4 cuts the encoder's priming off at zero only; where sound begins later, the priming is part of it.
        let priming = self.encoder.as_ref().map_or(0, |encoder| i64::from(encoder.priming()));
        let start = if first > 0 && self.encode.encoder == "aac" { (first - priming).max(0) } else { first };
        // What comes before zero is hidden, too.
        let hidden = if mux.hides_start() { start.min(0) } else { 0 };
        Ok(ExpectedAudio {
            codec: encoders::makes(self.encode.encoder).to_owned(),
            sample_rate: self.encode.sample_rate,
            channels: self.encode.channels,
            samples: self.samples.saturating_add_signed(hidden),
            start_us: rescale(start - hidden, time_base, MICROSECONDS),
        })
    }
}
