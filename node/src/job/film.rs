//! Making a file of pictures and sound.
//!
//! One thread pumps packets through decoder, filters, encoder and muxer; the codecs bring their own threads. For an
//! input of upright, progressive 8-bit 4:2:0 pictures with square pixels, `compress` to MP4 makes the same pictures as
//! [`COMMAND`].

use std::iter::successors;

use xora_av::{ErrorKind, Input, MICROSECONDS, Packet, Rational, Stream, rescale};
use xora_shared::{
    media::{FileType, Format},
    report::{Expectation, ExpectedAudio, ExpectedVideo, OutputFacts, RunReport, StreamFate},
};

use crate::{
    ipc::Limits,
    job::{
        Means,
        about::About,
        audio::AudioPath,
        copy::{self, CopyFacts, CopyPath, Window},
        cut::{CutFacts, CutPath},
        damage::Damage,
        fault::{Done, Fault},
        first::FirstPictures,
        mux::{Layout, Length, Mux},
        plan::{AudioEncode, Film, Track, VideoEncode, Way, has_times, hides_start},
        probe::Probe,
        progress::Progress,
        still::{STEP_BACK_US, least_back_us},
        streams::{belong_together, pick_video},
        timeline::Timeline,
        video::{Setup, VideoPath},
    },
};

/// The command that `compress` to MP4 at constant quality 28 with two threads equals, picture for picture.
#[cfg_attr(not(test), expect(dead_code, reason = "documentation that a test runs"))]
pub const COMMAND: &str = "ffmpeg -threads 2 -i INPUT -map 0:v:0 -map 0:a:0? -dn -sn \
     -c:v libx264 -preset veryfast -profile:v high -pix_fmt yuv420p -crf 28 -threads:v 2 \
     -fps_mode passthrough -enc_time_base:v -1 -c:a aac -b:a 128k -ac 2 -ar 48000 OUTPUT.mp4";

/// How far apart sound and pictures of one file may be, in microseconds: where one of them says nothing for longer, it
/// is silent, or over.
pub const SILENCE_US: i64 = 10_000_000;

/// What the work of one film needs beside its plan.
pub struct Job<'a> {
    /// What it is made with.
    pub means: Means<'a>,
    /// What the input is.
    pub probe: &'a Probe,
    /// What the output says of itself.
    pub about: &'a About,
    /// Whether to go to the wanted part at once, instead of reading all that is before it.
    pub seeks: bool,
}

/// Makes it.
pub fn make(job: &Job, input: &mut Input, film: &Film, layout: Layout, fates: Vec<StreamFate>) -> Done<RunReport> {
    let tracks = usize::from(film.video.is_some()) + usize::from(film.audio.is_some());
    let mut mux = Mux::create(job.means.link, film.format, tracks, layout, job.means.limits.output_bytes)?;
    mux.tell(job.about, input)?;
    let mut pump = Pump::open(job, input, film, &mut mux)?;
    pump.run(input, &mut mux)?;
    if pump.read_us <= 0 && seems_behind(film, job.probe) {
        return Err(Fault::unsupported("startSeconds is behind the end of the input: begin earlier"));
    }
    FirstPictures::look_on(&mut pump.first, None)?;
    let shorter = pump.check_complete()?;
    let Pump { video, audio, mut damage, timeline, mut progress, .. } = pump;
    let mut warnings = job.probe.warnings.clone();
    warnings.extend(shorter);
    let pictures = film.video.as_ref().map(|track| &job.probe.streams[track.stream]);
    let video = video.zip(pictures);
    let video =
        video.map(|(way, stream)| finish_video(way, stream, &mut mux, &mut damage, &mut warnings)).transpose()?;
    let audio = audio.map(|way| finish_audio(way, film, job.probe, &mut mux, &mut damage)).transpose()?;
    damage.check()?;
    let bytes = mux.finish(&mut warnings)?;
    progress.finish()?;
    warnings.extend(damage.warning());
    warnings
        .extend((timeline.jumps() > 0).then(|| format!("{} jumps of the input's clock were closed", timeline.jumps())));
    let (chapters, cover) = (job.about.chapters(), job.about.has_cover());
    let expect = Expectation { format: film.format, bytes, video, audio, chapters, cover };
    Ok(RunReport { facts: facts(film.format, &expect), expect, streams: fates, warnings })
}

/// The picture track on its way.
enum Pictures<'a> {
    Copy(Box<CopyPath>),
    Cut(Box<CutPath<'a>>),
    Encode(Box<VideoPath<'a>>),
}

/// The sound track on its way.
enum Sound<'a> {
    Copy(Box<CopyPath>),
    Encode(Box<AudioPath<'a>>),
}

struct Pump<'a> {
    video: Option<Pictures<'a>>,
    audio: Option<Sound<'a>>,
    /// Until enough was seen of pictures that are copied.
    first: Option<FirstPictures>,
    film: &'a Film,
    probe: &'a Probe,
    limits: &'a Limits,
    damage: Damage,
    timeline: Timeline,
    progress: Progress,
    /// How far the input's packets went, in microseconds of the output.
    read_us: i64,
    /// Whether the end of the wanted part has been passed, by pictures and by sound.
    passed: [bool; 2],
}

impl<'a> Pump<'a> {
    fn open(job: &Job<'a>, input: &mut Input, film: &'a Film, mux: &mut Mux) -> Done<Self> {
        for stream in 0..job.probe.streams.len() {
            input.want(stream, film.uses(stream));
        }
        if film.part.from_start && job.seeks {
            seek_before(input, film, job.probe)?;
            expect_part(input, film, job.probe);
        }
        expect_sound(input, film, job.probe);
        let video = film.video.as_ref().map(|track| open_video(job, input, film, track, mux)).transpose()?;
        let first = match &video {
            Some(Pictures::Copy(_)) => film.video.as_ref().map(|track| track.stream),
            Some(Pictures::Cut(_) | Pictures::Encode(_)) | None => None,
        };
        let first = first.map(|stream| FirstPictures::open(input, stream, job.means.limits.pixels)).transpose()?;
        let index = usize::from(video.is_some());
        let audio = film.audio.as_ref().map(|track| open_audio(job, input, film, (track, index), mux)).transpose()?;
        Ok(Self {
            passed: [video.is_none(), audio.is_none()],
            video,
            audio,
            first,
            film,
            probe: job.probe,
            limits: job.means.limits,
            damage: Damage::within(job.means.limits.pictures),
            timeline: Timeline::new(
                film.start_us,
                input.may_jump(),
                film.video.is_none() && job.probe.mp4.is_none(),
                job.probe.streams.len(),
            ),
            progress: Progress::new(job.means.link.clone(), film.duration_us.unwrap_or(0)),
            read_us: 0,
        })
    }

    fn run(&mut self, input: &mut Input, mux: &mut Mux) -> Done<()> {
        let mut packet = Packet::new()?;
        while !self.is_past_end() {
            match input.read(&mut packet) {
                Ok(true) => {
                    mux.expect(|| self.length(input));
                    self.take(&mut packet, mux)?;
                }
                Ok(false) => return Ok(()),
                // The demuxer may find its way behind it.
                Err(error) if error.kind == ErrorKind::InvalidData => self.damage.unreadable()?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// How long the output becomes: as the input says, or else by how many of its bytes the part so far took. What it says
    /// is not believed where it is many times as long as that (an AVI with a false count of frames).
    fn length(&self, input: &Input) -> Option<Length> {
        const MOST_UNEVEN: i64 = 8;
        let by_bytes = || {
            let (size, read) = (self.probe.size?, input.position().filter(|_| !self.film.part.from_start)?);
            let whole = i128::from(self.read_us) * i128::from(size) / i128::from(read.max(1));
            Some(i64::try_from(whole).unwrap_or(i64::MAX))
        };
        let said = self.film.duration_us.filter(|_| self.probe.declares_duration);
        let Some(said) = said.map(|us| i64::try_from(us).unwrap_or(i64::MAX)) else {
            let us = by_bytes()?;
            return Some(Length { us: self.film.part.end_us.map_or(us, |end| us.min(end)), is_declared: false });
        };
        // The tracks of an MP4 may lie one behind the other.
        let most = by_bytes().filter(|_| self.probe.mp4.is_none()).map(|us| us.saturating_mul(MOST_UNEVEN));
        Some(Length { us: most.map_or(said, |most| said.min(most)), is_declared: true })
    }

    fn take(&mut self, packet: &mut Packet, mux: &mut Mux) -> Done<()> {
        let stream = packet.stream();
        let Some(known) = self.probe.streams.get(stream).filter(|_| self.film.uses(stream)) else { return Ok(()) };
        self.damage.packet();
        if let Some(end) = self.timeline.place(packet, known.time_base) {
            self.read_us = self.read_us.max(end);
            self.check_length()?;
        }
        let is_video = self.film.video.as_ref().is_some_and(|track| track.stream == stream);
        self.note_end(packet, known.time_base, is_video);
        let reached = if is_video { self.take_video(packet, mux)? } else { self.take_audio(packet, mux)? };
        // Pictures are the slower half, but may end early.
        let is_ahead = !is_video && self.film.video.is_some();
        self.progress.reach(if is_ahead { reached.saturating_sub(SILENCE_US) } else { reached })
    }

    fn take_video(&mut self, packet: &mut Packet, mux: &mut Mux) -> Done<i64> {
        FirstPictures::look_on(&mut self.first, Some(packet))?;
        match &mut self.video {
            Some(Pictures::Copy(path)) => path.take(packet, mux),
            Some(Pictures::Cut(path)) => path.take(packet, mux, &mut self.damage),
            Some(Pictures::Encode(path)) => path.take(Some(packet), mux, &mut self.damage),
            None => Ok(0),
        }
    }

    fn take_audio(&mut self, packet: &mut Packet, mux: &mut Mux) -> Done<i64> {
        match &mut self.audio {
            Some(Sound::Copy(path)) => path.take(packet, mux),
            Some(Sound::Encode(path)) => path.take(Some(packet), mux, &mut self.damage),
            None => Ok(0),
        }
    }

    /// Decoding order never runs backwards: once it is past the end, so is everything that follows in this stream.
    /// Where the other stream has nothing more to say, it counts as past the end, too, some seconds later.
    fn note_end(&mut self, packet: &Packet, time_base: Rational, is_video: bool) {
        let (Some(end), Some(dts)) = (self.film.part.end_us, packet.dts().or(packet.pts())) else { return };
        let dts_us = rescale(dts, time_base, MICROSECONDS);
        self.passed[usize::from(!is_video)] |= dts_us >= end;
        self.passed[usize::from(is_video)] |= dts_us >= end.saturating_add(SILENCE_US);
    }

    fn is_past_end(&self) -> bool {
        self.film.part.end_us.is_some() && self.passed == [true, true]
    }

    /// The container may have been silent about its length, or wrong.
    fn check_length(&self) -> Done<()> {
        let limit = self.limits.duration_seconds;
        if self.read_us / 1_000_000 <= i64::try_from(limit).unwrap_or(i64::MAX) {
            return Ok(());
        }
        Err(Fault::too_large(
            format!("the input is longer than the limit of {limit} seconds"),
            "--max-duration-seconds",
        ))
    }

    /// Refuses an input that is much shorter than its container says, if it was cut; else says so.
    fn check_complete(&self) -> Done<Option<String>> {
        let declared = self.probe.declared_us(|stream| self.film.uses(stream)).saturating_sub(self.skipped_us());
        let declared = self.film.part.end_us.map_or(declared, |end| declared.min(end));
        // That nothing came at all has another reason, which is found next.
        if self.read_us <= 0 { Ok(None) } else { self.probe.check_complete(declared, self.read_us) }
    }

    /// What is left out at the start, in microseconds.
    fn skipped_us(&self) -> i64 {
        let used = self.probe.streams.iter().filter(|stream| self.film.uses(stream.index));
        let begins = used.filter_map(Stream::start_us).min();
        self.film.start_us.saturating_sub(begins.unwrap_or(0)).max(0)
    }
}

fn open_video<'a>(
    job: &Job<'a>,
    input: &mut Input,
    film: &Film,
    track: &'a Track<VideoEncode>,
    mux: &mut Mux,
) -> Done<Pictures<'a>> {
    let stream = &job.probe.streams[track.stream];
    let setup = |encode| Setup {
        means: job.means,
        stream: track.stream,
        encode,
        index: 0,
        frame_rate: stream.frame_rate,
        ends_us: job.probe.ends_us(stream, film.start_us),
        window: window(film),
        begins: stream.start.unwrap_or(0) - rescale(film.start_us, MICROSECONDS, stream.time_base),
        has_sought: job.seeks,
        alike: None,
    };
    Ok(match &track.way {
        Way::Copy => Pictures::Copy(Box::new(CopyPath::open(input, stream, 0, window(film), mux)?)),
        Way::Cut(encode) => Pictures::Cut(Box::new(CutPath::open(input, stream, &setup(encode), mux)?)),
        Way::Encode(encode) => Pictures::Encode(Box::new(VideoPath::open(input, setup(encode))?)),
    })
}

fn open_audio<'a>(
    job: &Job<'a>,
    input: &mut Input,
    film: &Film,
    (track, index): (&'a Track<AudioEncode>, usize),
    mux: &mut Mux,
) -> Done<Sound<'a>> {
    let stream = &job.probe.streams[track.stream];
    Ok(match &track.way {
        Way::Copy => {
            let window =
                Window { from_us: window(film).from_us.map(|from| from - preroll_us(film, stream)), ..window(film) };
            Sound::Copy(Box::new(CopyPath::open(input, stream, index, window, mux)?))
        }
        // What is cut of sound is cut to the sample, which needs no joints.
        Way::Cut(encode) | Way::Encode(encode) => {
            Sound::Encode(Box::new(AudioPath::open(input, track.stream, encode, index, window(film))?))
        }
    })
}

/// How much sound before the start a decoder needs to be right there: AAC overlaps its packets, MP3 keeps bits of up to
/// nine earlier ones. Only where players hide it.
fn preroll_us(film: &Film, stream: &Stream) -> i64 {
    match (hides_start(film.format), stream.codec.as_str()) {
        (true, "aac") => 50_000,
        (true, "mp3") => 250_000,
        _ => 0,
    }
}

/// The part of every track that is wanted.
fn window(film: &Film) -> Window {
    Window { from_us: film.part.from_start.then_some(0), end_us: film.part.end_us }
}

/// Whether the part begins behind the end of the input, by what that says of its length.
fn seems_behind(film: &Film, probe: &Probe) -> bool {
    let leader = film.leader().map(|stream| &probe.streams[stream]);
    let belongs = |stream: &&Stream| leader.is_none_or(|leader| belong_together(leader, stream));
    let starts = probe.streams.iter().filter(belongs).filter_map(Stream::start_us);
    let end = probe.duration_us.map(|length| starts.min().unwrap_or(0).saturating_add_unsigned(length));
    film.part.from_start && end.is_some_and(|end| film.start_us >= end)
}

/// How long before a place a decoder of sound begins, to be right there: MP3 keeps bits of up to nine earlier packets, Opus
/// wants 80 ms (RFC 7845, section 4.6), AAC overlaps its packets.
const LEAD_US: i64 = 250_000;

/// Goes to where decoding can begin at or before the start of the wanted part. Where containers do not know such
/// places, they are looked for further and further back.
fn seek_before(input: &mut Input, film: &Film, probe: &Probe) -> Done<()> {
    const FURTHEST_BACK_US: i64 = 60_000_000;
    let Some(stream) = film.leader() else { return Ok(()) };
    // Places in ADPCM are reckoned by a rate that headers have wrong; as sound alone it is soon read.
    if film.video.is_none() && probe.streams[stream].codec.starts_with("adpcm") {
        return Ok(());
    }
    let time_base = probe.streams[stream].time_base;
    let target = rescale(film.start_us, MICROSECONDS, time_base);
    // The end is an estimate, and there may be more: a clock that starts again in mid-file hides it.
    if !probe.declares_duration && seems_behind(film, probe) {
        return Err(Fault::Nothing("the part begins behind where the input seems to end"));
    }
    // These note places of pictures only: to find one of sound, libav would read all before it.
    let notes_pictures = matches!(input.format().as_str(), "matroska,webm" | "flv");
    let pictures = pick_video(&probe.streams).filter(|_| notes_pictures);
    let guide = pictures.map_or(stream, |pictures| pictures.index);
    let lead_us = if film.video.is_none() { LEAD_US } else { 0 };
    for back_us in [least_back_us(input).max(lead_us), STEP_BACK_US, FURTHEST_BACK_US] {
        let place = rescale(film.start_us.saturating_sub(back_us), MICROSECONDS, probe.streams[guide].time_base);
        let begins = input.seek(guide, place).is_ok() && begins_before(input, &probe.streams[stream], target)?;
        // Looking has moved on.
        if begins && input.seek(guide, place).is_ok() {
            return Ok(());
        }
    }
    let start = probe.streams[stream].start.unwrap_or(0);
    input.seek(stream, start.min(target)).map_err(|error| {
        let is_ours = error.kind != ErrorKind::Source;
        if is_ours { Fault::Nothing("the input has no place where its part can be begun") } else { error.into() }
    })
}

/// Says where a part lies that has been gone to, so that it is fetched ahead from its start on and little behind it: by
/// the index, where there is one, else by how many bytes a second of the input has.
fn expect_part(input: &mut Input, film: &Film, probe: &Probe) {
    /// What is read behind the end, in microseconds: pictures are shown later than they are decoded, and sound may lag.
    const BEHIND_US: i64 = 2_000_000;
    /// How many times as long as on average a place may be: an index that was made while places were looked for knows few.
    const UNEVEN: u64 = 2;
    let (Some(stream), Some(length_us), Some(size)) = (film.leader(), film.part.end_us, probe.size) else { return };
    let time = |us| rescale(us, MICROSECONDS, probe.streams[stream].time_base);
    let entry = |us: i64, before| input.entry(stream, time(us), before).map(|(place, _)| place);
    // The demuxer of MP4 goes to a place when it reads. Of sound alone its index tells more.
    let begin = match probe.mp4 {
        None => input.position(),
        Some(mp4) => entry(film.start_us, true).filter(|_| !mp4.is_fragmented && film.video.is_some()),
    };
    let (Some(begin), Some(whole_us @ 1..)) = (begin, probe.duration_us) else { return };
    let a_second = size.saturating_mul(1_000_000) / whole_us;
    let seconds = |us: i64| us.max(0).unsigned_abs().div_ceil(1_000_000);
    let reckoned = a_second.saturating_mul(seconds(length_us.saturating_add(2 * BEHIND_US)));
    let most = a_second.saturating_mul(seconds(length_us.saturating_add(STEP_BACK_US))).saturating_mul(UNEVEN);
    let known = entry(film.start_us.saturating_add(length_us).saturating_add(BEHIND_US), false);
    let length = known.and_then(|end| end.checked_sub(begin)).filter(|length| (1..=most).contains(length));
    let end = begin.saturating_add(length.unwrap_or(reckoned)).min(size);
    input.expect_only(std::iter::once(begin..end).collect());
}

/// Says where the sound lies, when it alone is wanted of a film with an index: cameras put half a second of pictures
/// between its places.
fn expect_sound(input: &mut Input, film: &Film, probe: &Probe) {
    /// Bytes between two places that are not left out even where requests are quick.
    const GAP: u64 = 16 << 10;
    /// Places that one message may name: of more, those that lie near each other are one.
    const MOST: usize = 20_000;
    let has_index = probe.mp4.is_some_and(|mp4| !mp4.is_fragmented);
    let (None, Some(track), true) = (&film.video, &film.audio, has_index) else { return };
    let stream = &probe.streams[track.stream];
    let time = |us: i64| rescale(us, MICROSECONDS, stream.time_base);
    let start = if film.part.from_start { time(film.start_us.saturating_sub(LEAD_US)) } else { i64::MIN };
    let end = film.part.end_us.map_or(i64::MAX, |end| time(film.start_us.saturating_add(end)));
    let gaps = successors(Some(GAP), |gap| gap.checked_mul(2));
    let mut places = gaps.map_while(|gap| input.places(stream.index, start..end.max(start), gap));
    if let Some(places) = places.find(|places| places.len() <= MOST) {
        input.expect_only(places);
    }
}

/// Whether the next packet that decoding can begin at is shown at or before a time. Where it tells only when it is
/// decoded, it is shown some pictures later, and those in between cannot be decoded without earlier ones.
fn begins_before(input: &mut Input, stream: &Stream, time: i64) -> Done<bool> {
    const PACKETS: u32 = 2_000;
    const REORDERED: i64 = 8;
    let picture = match stream.frame_rate {
        Rational(count, seconds) if count > 0 => rescale(1, Rational(seconds, count), stream.time_base),
        _ => 0,
    };
    let mut packet = Packet::new()?;
    for _ in 0..PACKETS {
        match input.read(&mut packet) {
            Ok(true) if packet.stream() == stream.index && packet.is_key() => {
                let decoded = packet.dts().map(|dts| dts.saturating_add(picture * REORDERED));
                return Ok(packet.pts().or(decoded).is_some_and(|shown| shown <= time));
            }
            // Nothing that follows is shown before it is decoded.
            Ok(true) if packet.stream() == stream.index && packet.dts().is_some_and(|dts| dts > time) => {
                return Ok(false);
            }
            Ok(true) => {}
            Err(error) if error.kind == ErrorKind::InvalidData => {}
            Ok(false) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

fn finish_video(
    way: Pictures,
    stream: &Stream,
    mux: &mut Mux,
    damage: &mut Damage,
    warnings: &mut Vec<String>,
) -> Done<ExpectedVideo> {
    match way {
        Pictures::Copy(path) => Ok(path.finish(mux)?.pictures(stream, Vec::new(), warnings)),
        Pictures::Cut(path) => {
            let CutFacts { copy, joints_us } = path.finish(mux, damage)?;
            Ok(copy.pictures(stream, joints_us, warnings))
        }
        Pictures::Encode(path) => path.finish(mux, damage, warnings),
    }
}

fn finish_audio(way: Sound, film: &Film, probe: &Probe, mux: &mut Mux, damage: &mut Damage) -> Done<ExpectedAudio> {
    match way {
        Sound::Copy(path) => {
            let copied = copied_sound(path.finish(mux)?, film, probe);
            check_header(&copied, film, probe)?;
            Ok(copied)
        }
        Sound::Encode(path) => path.finish(mux, damage),
    }
}

/// FLAC says its length in a header that is copied, too.
fn check_header(copied: &ExpectedAudio, film: &Film, probe: &Probe) -> Done<()> {
    const TOLERANCE_US: u64 = 50_000;
    let Some(said_us) = probe.duration_us.filter(|_| film.format == Format::Flac) else { return Ok(()) };
    let copied_us = copied.samples * 1_000_000 / u64::from(copied.sample_rate.max(1));
    if said_us.abs_diff(copied_us) <= TOLERANCE_US {
        return Ok(());
    }
    Err(Fault::uncopyable("its header says another length"))
}

fn copied_sound(facts: CopyFacts, film: &Film, probe: &Probe) -> ExpectedAudio {
    let stream = &probe.streams[film.audio.as_ref().map_or(0, |track| track.stream)];
    // The first packet may begin earlier than the track: what only primes the decoder is left out inside of it.
    let begins = stream.start_us().map(|start| start - film.start_us);
    let start_us = begins.filter(|_| !film.part.from_start).map_or(facts.start_us, |begins| facts.start_us.max(begins));
    let duration_us = (facts.start_us.saturating_add_unsigned(facts.duration_us) - start_us).max(0).unsigned_abs();
    let duration_us = if has_times(film.format) { duration_us } else { facts.length_us };
    copy::sound(stream, start_us, duration_us)
}

/// What is said of a file that is what was meant.
pub fn facts(format: Format, expect: &Expectation) -> OutputFacts {
    let audio_us = expect.audio.as_ref().map(|audio| {
        let length = audio.samples * 1_000_000 / u64::from(audio.sample_rate.max(1));
        audio.start_us.max(0).unsigned_abs() + length
    });
    let video_us = expect.video.as_ref().map(|video| video.start_us.max(0).unsigned_abs() + video.duration_us);
    let codec = expect.video.as_ref().map(|video| &video.codec).or(expect.audio.as_ref().map(|audio| &audio.codec));
    OutputFacts {
        file_type: if expect.video.is_some() { FileType::Video } else { FileType::Audio },
        format,
        codec: codec.cloned().unwrap_or_default(),
        duration_us: audio_us.max(video_us),
        width: expect.video.as_ref().map(|video| video.width),
        height: expect.video.as_ref().map(|video| video.height),
    }
}
