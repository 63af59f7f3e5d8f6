//! The sound of several inputs as one track, exact to the sample at every joint.
//!
//! One encoder serves all: sound that is encoded apart and joined clicks and drifts, because codecs overlap their
//! packets. The last moments of each input wait until it is known where it ends, and are then cut or followed by
//! silence, so that the next one begins where its pictures do.

use std::collections::VecDeque;

use xora_av::{AudioShape, Frame, Graph, Input, MICROSECONDS, Packet, Poll, rescale};
use xora_shared::report::ExpectedAudio;

use crate::job::{
    audio::{AudioSink, STEADY, SoundDecoder, conversion},
    copy::Window,
    damage::Damage,
    fault::Done,
    mux::Mux,
    plan::AudioEncode,
};

/// How much waits for the end of its input, in microseconds: more than the padding of any codec.
const KEPT_US: i64 = 250_000;
/// How far silence may lag behind pictures before it is made, in microseconds.
const LAG_US: i64 = 500_000;

/// See the module.
pub struct Sounds<'a> {
    encode: &'a AudioEncode,
    sink: AudioSink<'a>,
    source: Option<Source>,
    /// What waits, and its length in samples.
    kept: VecDeque<Frame>,
    kept_samples: i64,
    /// Samples that went on to the encoder.
    sent: i64,
    /// Where the input began, in samples.
    begun: i64,
    /// Where the next audio should begin, in samples from there, once filters are new.
    begins: Option<i64>,
}

/// The sound of the input at hand.
struct Source {
    decoder: SoundDecoder,
    convert: Option<(AudioShape, Graph)>,
}

impl<'a> Sounds<'a> {
    /// A track of the output, by its index.
    pub fn new(encode: &'a AudioEncode, index: usize) -> Self {
        let sink = AudioSink::new(encode, index, Window::default());
        Self { encode, sink, source: None, kept: VecDeque::new(), kept_samples: 0, sent: 0, begun: 0, begins: None }
    }

    /// Begins with an input, which may have no sound. What was before is settled.
    pub fn begin(&mut self, input: &Input, stream: Option<usize>) -> Done<()> {
        self.begun = self.sent;
        let decoder = stream.map(|stream| SoundDecoder::open(input, stream)).transpose()?;
        self.source = decoder.map(|decoder| Source { decoder, convert: None });
        Ok(())
    }

    /// Takes a packet, with times from the start of its input.
    pub fn take(&mut self, packet: Option<&Packet>, mux: &mut Mux, damage: &mut Damage) -> Done<()> {
        let Some(mut source) = self.source.take() else { return Ok(()) };
        let Source { decoder, convert } = &mut source;
        decoder.take(packet, damage, |frame, shape| {
            if convert.as_ref().is_none_or(|(same, _)| *same != shape) {
                if let Some((_, mut other)) = convert.take() {
                    self.pass(&mut other, None, mux)?;
                }
                let begins = self.sent + self.kept_samples - self.begun;
                self.begins = Some(begins);
                *convert = Some((shape.clone(), Graph::sound(&shape, &self.chain(&shape, begins))?));
            }
            let Some((_, graph)) = convert else { return Ok(()) };
            self.pass(graph, Some(frame), mux)
        })?;
        self.source = Some(source);
        Ok(())
    }

    /// Takes what is left of the input, and tells where its sound ends, in microseconds of the output; none where it has
    /// none.
    pub fn end(&mut self, mux: &mut Mux, damage: &mut Damage) -> Done<Option<i64>> {
        self.take(None, mux, damage)?;
        let Some(source) = self.source.take() else { return Ok(None) };
        if let Some((_, mut graph)) = source.convert {
            self.pass(&mut graph, None, mux)?;
        }
        let end = self.sent + self.kept_samples;
        Ok((end > self.begun).then(|| self.us(end)))
    }

    /// Cuts the track off at a time, or makes it last until then with silence; in microseconds of the output.
    pub fn settle(&mut self, time_us: i64, mux: &mut Mux) -> Done<()> {
        let wanted = rescale(time_us, MICROSECONDS, self.sink.time_base()) - self.sent;
        self.kept_samples = 0;
        let kept = std::mem::take(&mut self.kept);
        if wanted <= 0 {
            return Ok(());
        }
        for mut frame in self.made_last(kept, wanted)? {
            self.send(&mut frame, mux)?;
        }
        Ok(())
    }

    /// Audio that lasts for exactly so many samples: cut off, or followed by silence.
    fn made_last(&self, frames: VecDeque<Frame>, samples: i64) -> Done<Vec<Frame>> {
        let mut graph = Graph::sound(&self.shape(), &format!("apad=whole_len={samples},atrim=end_sample={samples}"))?;
        // All before the first is taken out: the filter closes its end once it has enough.
        let mut at = 0;
        for mut frame in frames {
            frame.set_pts(Some(at));
            at += length(&frame);
            graph.push(Some(&mut frame))?;
        }
        graph.push(None)?;
        let (mut made, mut frame) = (Vec::new(), Frame::new()?);
        while graph.pull(&mut frame)? == Poll::Ready {
            made.push(frame.take()?);
        }
        Ok(made)
    }

    /// The pictures of an input have come to a time: where it has no sound, silence follows them.
    pub fn follow(&mut self, time_us: i64, mux: &mut Mux) -> Done<()> {
        if self.source.is_none() && time_us - self.us(self.sent) > LAG_US {
            self.settle(time_us, mux)?;
        }
        Ok(())
    }

    /// Flushes everything, and tells what the track must be.
    pub fn finish(self, mux: &mut Mux) -> Done<ExpectedAudio> {
        self.sink.finish(mux)
    }

    /// From one form of sound to the track's, without the input's gaps and overlaps, and nothing from before its start.
    /// (`first_pts` of `aresample` would count from there again when it begins to stretch.)
    fn chain(&self, shape: &AudioShape, begins: i64) -> String {
        format!("{},{STEADY},atrim=start_pts={begins}", conversion(self.encode, shape))
    }

    /// Passes a frame, or the end, through the filters, and keeps what comes out for a while.
    fn pass(&mut self, graph: &mut Graph, frame: Option<&mut Frame>, mux: &mut Mux) -> Done<()> {
        graph.push(frame)?;
        let mut converted = Frame::new()?;
        while graph.pull(&mut converted)? == Poll::Ready {
            if let (Some(begins), Some(pts)) = (self.begins.take(), converted.pts()) {
                let late = rescale(pts, graph.time_base(), self.sink.time_base()) - begins;
                let silence = if late > 0 { self.made_last(VecDeque::new(), late)? } else { Vec::new() };
                for frame in silence {
                    self.keep(frame, mux)?;
                }
            }
            self.keep(converted.take()?, mux)?;
        }
        Ok(())
    }

    fn keep(&mut self, frame: Frame, mux: &mut Mux) -> Done<()> {
        let most = rescale(KEPT_US, MICROSECONDS, self.sink.time_base());
        self.kept_samples += length(&frame);
        self.kept.push_back(frame);
        while let Some(first) = self.kept.front().map(length).filter(|first| self.kept_samples - first >= most) {
            let Some(mut frame) = self.kept.pop_front() else { break };
            self.kept_samples -= first;
            self.send(&mut frame, mux)?;
        }
        Ok(())
    }

    /// Times are counted, so nothing can drift.
    fn send(&mut self, frame: &mut Frame, mux: &mut Mux) -> Done<()> {
        frame.set_pts(Some(self.sent));
        self.sent += length(frame);
        let time_base = self.sink.time_base();
        self.sink.take(Some(frame), time_base, mux)
    }

    fn us(&self, samples: i64) -> i64 {
        rescale(samples, self.sink.time_base(), MICROSECONDS)
    }

    fn shape(&self) -> AudioShape {
        AudioShape {
            sample_rate: self.encode.sample_rate,
            format: self.encode.sample_format.to_owned(),
            channels: self.encode.channels,
            layout: self.encode.layout.clone(),
            time_base: self.sink.time_base(),
        }
    }
}

fn length(frame: &Frame) -> i64 {
    i64::try_from(frame.samples()).unwrap_or(0)
}
