//! Several inputs, one after the other, as one file.
//!
//! Each input is moved as a whole to where the one before it ends, so its sound and pictures keep their distance. It
//! ends with its last picture; sound that is only a codec's padding is cut there, sound that is missing becomes
//! silence.

use xora_av::{ErrorKind, Input, MICROSECONDS, Packet, Rational, Stream, rescale};
use xora_shared::{
    failure::Stage,
    media::Format,
    report::{Expectation, ExpectedAudio, ExpectedVideo, RunReport, StreamFate},
};

use crate::{
    ipc::{Limits, Source},
    job::{
        Means, Tried, abilities,
        copy::{self, CopyFacts, CopyPath, Window},
        damage::Damage,
        fault::{Done, Fault},
        film::{SILENCE_US, facts},
        first::FirstPictures,
        mux::{Layout, Length, Mux},
        plan::{
            Way,
            concat::{Candidate, Clip, Join, Plan, decide},
        },
        probe::{self, Probe},
        progress::Progress,
        sounds::Sounds,
        timeline::Timeline,
        video::{Alike, Setup, VideoPath},
    },
};

/// Sound that goes on behind the last picture for less than this is padding; in microseconds.
const PADDING_US: i64 = 100_000;

/// Opens all inputs, plans, and joins them.
pub fn run(means: Means, sources: &[Source], format: Format, tried: &Tried) -> Done<RunReport> {
    let Means { link, limits, .. } = means;
    link.stage(Stage::Probe);
    let mut inputs = Vec::new();
    for (source, index) in sources.iter().zip(0..) {
        inputs.push(probe::open(link, index, source, limits).map_err(|fault| fault.of_input(index as usize + 1))?);
    }
    check_length(&inputs, limits)?;
    link.stage(Stage::Plan);
    let headers: Vec<Vec<Vec<u8>>> = inputs
        .iter()
        .map(|(input, probe)| probe.streams.iter().map(|stream| input.header(stream.index)).collect())
        .collect();
    let candidates = inputs.iter().zip(&headers).map(|((_, probe), headers)| Candidate { probe, headers });
    let candidates: Vec<_> = candidates.collect();
    let Plan { mut strategy, fates, join } = decide(&candidates, format, abilities(tried.uncopyable.is_none(), false))?;
    strategy.reasons.extend(tried.reasons());
    let layout = Layout::of(format, join.expected_bytes, 0, tried.index_bytes);
    link.planned(strategy, format, join.expected_bytes, layout.part_size)?;
    link.stage(Stage::Transcode);
    make(means, &mut inputs, &join, layout, fates)
}

/// The limit is for the inputs together.
fn check_length(inputs: &[(Input, Probe)], limits: &Limits) -> Done<()> {
    let total_us = inputs.iter().filter_map(|(_, probe)| probe.duration_us).fold(0, u64::saturating_add);
    let limit = limits.duration_seconds;
    if total_us / 1_000_000 <= limit {
        return Ok(());
    }
    let total = total_us / 1_000_000;
    Err(Fault::too_large(
        format!("the inputs are {total} seconds long together; the limit is {limit} seconds"),
        "--max-duration-seconds",
    ))
}

fn make(
    means: Means,
    inputs: &mut [(Input, Probe)],
    join: &Join,
    layout: Layout,
    fates: Vec<StreamFate>,
) -> Done<RunReport> {
    let Means { link, limits, .. } = means;
    let tracks = usize::from(join.video.is_some()) + usize::from(join.audio.is_some());
    let mut mux = Mux::create(link, join.format, tracks, layout, limits.output_bytes)?;
    let is_declared = inputs.iter().all(|(_, probe)| probe.declares_duration);
    let us = join.duration_us.filter(|_| is_declared).and_then(|us| i64::try_from(us).ok());
    mux.expect(|| us.map(|us| Length { us, is_declared }));
    let mut tape = Tape {
        means,
        join,
        video: None,
        first: None,
        audio: None,
        at_us: 0,
        damage: Damage::within(limits.pictures),
        progress: Progress::new(link.clone(), join.duration_us.unwrap_or(0)),
        jumps: 0,
        warnings: Vec::new(),
    };
    for (index, (input, probe)) in inputs.iter_mut().enumerate() {
        tape.append(index, input, probe, &mut mux).map_err(|fault| fault.of_input(index + 1))?;
    }
    let Tape { video, audio, mut damage, mut progress, jumps, mut warnings, .. } = tape;
    warnings.extend(inputs.iter().flat_map(|(_, probe)| probe.warnings.clone()));
    let first = |pick: fn(&Clip) -> Option<usize>| {
        let found = join.clips.iter().zip(inputs.iter()).find_map(|(clip, (_, probe))| probe.streams.get(pick(clip)?));
        found.cloned()
    };
    let (pictures, sound) = (first(|clip| clip.video), first(|clip| clip.audio));
    let video = video.zip(pictures).map(|(video, like)| video.finish(&like, &mut mux, &mut damage, &mut warnings));
    let audio = audio.zip(sound).map(|(audio, like)| audio.finish(&like, &mut mux));
    let (video, audio) = (video.transpose()?, audio.transpose()?);
    damage.check()?;
    let bytes = mux.finish(&mut warnings)?;
    progress.finish()?;
    warnings.extend(damage.warning());
    warnings.extend((jumps > 0).then(|| format!("{jumps} jumps of the inputs' clocks were closed")));
    let expect = Expectation { format: join.format, bytes, video, audio, chapters: 0, cover: false };
    Ok(RunReport { facts: facts(join.format, &expect), expect, streams: fates, warnings })
}

/// The output, as far as it is made.
struct Tape<'a> {
    means: Means<'a>,
    join: &'a Join,
    video: Option<Pictures<'a>>,
    /// Until enough was seen of pictures of the input at hand that are copied.
    first: Option<FirstPictures>,
    audio: Option<Sound<'a>>,
    /// Where the input at hand begins, in microseconds of the output.
    at_us: i64,
    damage: Damage,
    progress: Progress,
    jumps: u64,
    /// What a caller should know.
    warnings: Vec<String>,
}

/// The picture track on its way.
enum Pictures<'a> {
    Copy(Box<Copied>),
    Encode(Box<VideoPath<'a>>),
}

/// The sound track on its way.
enum Sound<'a> {
    Copy(Box<Copied>),
    Encode(Box<Sounds<'a>>),
}

/// A track whose packets are copied from one input after the other.
struct Copied {
    path: CopyPath,
    /// Where the input at hand ends so far, in microseconds of the output.
    end_us: i64,
}

impl Tape<'_> {
    fn append(&mut self, index: usize, input: &mut Input, probe: &Probe, mux: &mut Mux) -> Done<()> {
        let clip = self.join.clips[index];
        for stream in 0..probe.streams.len() {
            input.want(stream, clip.uses(stream));
        }
        self.begin_pictures(clip, input, probe, mux)?;
        self.begin_sound(clip, input, probe, mux)?;
        let alone = clip.video.is_none() && probe.mp4.is_none();
        let mut timeline = Timeline::new(clip.start_us, input.may_jump(), alone, probe.streams.len());
        let (mut packet, mut read_us) = (Packet::new()?, 0);
        loop {
            match input.read(&mut packet) {
                Ok(true) => {}
                Ok(false) => break,
                // The demuxer may find its way behind it.
                Err(error) if error.kind == ErrorKind::InvalidData => {
                    self.damage.unreadable()?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let Some(known) = probe.streams.get(packet.stream()).filter(|known| clip.uses(known.index)) else {
                continue;
            };
            self.damage.packet();
            read_us = read_us.max(timeline.place(&mut packet, known.time_base).unwrap_or(0));
            self.check_length(read_us)?;
            let reached = self.take(known, clip, index, &mut packet, mux)?;
            self.progress.reach(reached)?;
        }
        self.warnings.extend(probe.check_complete(probe.declared_us(|stream| clip.uses(stream)), read_us)?);
        self.jumps += timeline.jumps();
        self.end(sound_us(clip, probe), mux)
    }

    fn begin_pictures(&mut self, clip: Clip, input: &Input, probe: &Probe, mux: &mut Mux) -> Done<()> {
        let (Some(way), Some(stream)) = (&self.join.video, clip.video.map(|stream| &probe.streams[stream])) else {
            return Ok(());
        };
        match (&mut self.video, way) {
            (Some(Pictures::Encode(path)), _) => {
                return path.go_on(input, stream, self.at_us, probe.ends_us(stream, clip.start_us));
            }
            (Some(Pictures::Copy(_)), _) => {}
            (None, Way::Copy) => self.video = Some(Pictures::Copy(Box::new(Copied::open(input, stream, 0, mux)?))),
            // Joining cuts nothing.
            (None, Way::Cut(pictures) | Way::Encode(pictures)) => {
                let setup = Setup {
                    means: self.means,
                    stream: stream.index,
                    encode: &pictures.encode,
                    index: 0,
                    frame_rate: stream.frame_rate,
                    ends_us: probe.ends_us(stream, clip.start_us),
                    window: Window::default(),
                    begins: 0,
                    has_sought: false,
                    alike: Some(Alike { rate: pictures.rate }),
                };
                self.video = Some(Pictures::Encode(Box::new(VideoPath::open(input, setup)?)));
            }
        }
        if let Some(Pictures::Copy(_)) = &self.video {
            self.first = Some(FirstPictures::open(input, stream.index, self.means.limits.pixels)?);
        }
        Ok(())
    }

    fn begin_sound(&mut self, clip: Clip, input: &Input, probe: &Probe, mux: &mut Mux) -> Done<()> {
        let Some(way) = &self.join.audio else { return Ok(()) };
        let index = usize::from(self.join.video.is_some());
        if self.audio.is_none() {
            self.audio = match (way, clip.audio.map(|stream| &probe.streams[stream])) {
                (Way::Cut(encode) | Way::Encode(encode), _) => {
                    Some(Sound::Encode(Box::new(Sounds::new(encode, index))))
                }
                (Way::Copy, Some(stream)) => Some(Sound::Copy(Box::new(Copied::open(input, stream, index, mux)?))),
                (Way::Copy, None) => None,
            };
        }
        match &mut self.audio {
            Some(Sound::Encode(sounds)) => sounds.begin(input, clip.audio),
            Some(Sound::Copy(_)) | None => Ok(()),
        }
    }

    /// Takes a packet, with times from the start of its input. Returns the time reached, in microseconds of the output.
    fn take(&mut self, known: &Stream, clip: Clip, index: usize, packet: &mut Packet, mux: &mut Mux) -> Done<i64> {
        if clip.video == Some(known.index) {
            if packet.is_discarded() && index > 0 && matches!(self.video, Some(Pictures::Copy(_))) {
                return Err(Fault::uncopyable(
                    "its first pictures are hidden, which only works at the start of a file",
                ));
            }
            FirstPictures::look_on(&mut self.first, Some(packet))?;
            let reached = match &mut self.video {
                Some(Pictures::Copy(copied)) => copied.take(packet, known.time_base, self.at_us, mux)?,
                Some(Pictures::Encode(path)) => path.take(Some(packet), mux, &mut self.damage)?,
                None => 0,
            };
            if let Some(Sound::Encode(sounds)) = &mut self.audio {
                sounds.follow(reached, mux)?;
            }
            return Ok(reached);
        }
        match &mut self.audio {
            Some(Sound::Copy(copied)) => copied.take(packet, known.time_base, self.at_us, mux),
            Some(Sound::Encode(sounds)) => {
                let time = packet.pts().or(packet.dts()).unwrap_or(0);
                sounds.take(Some(packet), mux, &mut self.damage)?;
                // Pictures are the slower half, but may end early.
                let reached = self.at_us + rescale(time, known.time_base, MICROSECONDS);
                Ok(if self.video.is_some() { reached - SILENCE_US } else { reached })
            }
            None => Ok(0),
        }
    }

    /// Ends the input at hand, whose sound says that it is this long, and sets where the next one begins.
    fn end(&mut self, sound_us: Option<i64>, mux: &mut Mux) -> Done<()> {
        FirstPictures::look_on(&mut self.first, None)?;
        let pictures = match &mut self.video {
            Some(Pictures::Copy(copied)) => Some(copied.end_us),
            Some(Pictures::Encode(path)) => Some(path.end_input(mux, &mut self.damage)?),
            None => None,
        };
        let sound = match &mut self.audio {
            Some(Sound::Copy(copied)) => Some(copied.end_us),
            Some(Sound::Encode(sounds)) => {
                let said = sound_us.map(|length| self.at_us + length);
                let heard = sounds.end(mux, &mut self.damage)?;
                heard.map(|end| said.filter(|said| (0..=PADDING_US).contains(&(end - said))).unwrap_or(end))
            }
            None => None,
        };
        let end_us = joint(pictures, sound).unwrap_or(self.at_us);
        self.at_us = match &self.video {
            Some(Pictures::Encode(path)) => path.next_tick(end_us),
            Some(Pictures::Copy(_)) | None => end_us,
        };
        match &mut self.audio {
            Some(Sound::Encode(sounds)) => sounds.settle(self.at_us, mux),
            Some(Sound::Copy(_)) | None => Ok(()),
        }
    }

    /// The containers may have been silent about their lengths, or wrong.
    fn check_length(&self, read_us: i64) -> Done<()> {
        let limit = self.means.limits.duration_seconds;
        if (self.at_us + read_us) / 1_000_000 <= i64::try_from(limit).unwrap_or(i64::MAX) {
            return Ok(());
        }
        Err(Fault::too_large(
            format!("here the inputs become longer than the limit of {limit} seconds together"),
            "--max-duration-seconds",
        ))
    }
}

/// Where an MP4 says that its sound ends, in microseconds from its start: the last packet may go on behind it.
fn sound_us(clip: Clip, probe: &Probe) -> Option<i64> {
    probe.ends_us(&probe.streams[clip.audio?], clip.start_us)
}

/// Where the next input begins: after the last picture, or after sound that goes on for longer than any padding.
fn joint(pictures: Option<i64>, sound: Option<i64>) -> Option<i64> {
    match (pictures, sound) {
        (Some(pictures), Some(sound)) if sound - pictures > PADDING_US => Some(sound),
        (Some(pictures), _) => Some(pictures),
        (None, sound) => sound,
    }
}

impl Copied {
    fn open(input: &Input, stream: &Stream, index: usize, mux: &mut Mux) -> Done<Self> {
        Ok(Self { path: CopyPath::open(input, stream, index, Window::default(), mux)?, end_us: 0 })
    }

    fn take(&mut self, packet: &mut Packet, time_base: Rational, at_us: i64, mux: &mut Mux) -> Done<i64> {
        packet.rescale(time_base, self.path.time_base());
        let offset = rescale(at_us, MICROSECONDS, self.path.time_base());
        let moved = |time: i64| time.saturating_add(offset);
        packet.set_times(packet.pts().map(moved), packet.dts().map(moved));
        let reached = self.path.take(packet, mux)?;
        self.end_us = self.end_us.max(reached);
        Ok(reached)
    }
}

impl Pictures<'_> {
    fn finish(
        self,
        like: &Stream,
        mux: &mut Mux,
        damage: &mut Damage,
        warnings: &mut Vec<String>,
    ) -> Done<ExpectedVideo> {
        match self {
            Self::Copy(copied) => Ok(copied.path.finish(mux)?.pictures(like, Vec::new(), warnings)),
            Self::Encode(path) => path.finish(mux, damage, warnings),
        }
    }
}

impl Sound<'_> {
    fn finish(self, like: &Stream, mux: &mut Mux) -> Done<ExpectedAudio> {
        match self {
            Self::Copy(copied) => {
                let has_times = mux.has_times();
                let CopyFacts { start_us, duration_us, length_us, .. } = copied.path.finish(mux)?;
                let duration_us = if has_times { duration_us } else { length_us };
                Ok(copy::sound(like, start_us, duration_us))
            }
            Self::Encode(sounds) => sounds.finish(mux),
        }
    }
}
