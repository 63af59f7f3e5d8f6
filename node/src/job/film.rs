//! Making a file of pictures and sound.
//!
//! One thread pumps packets through decoder, filters, encoder and muxer; the codecs bring their own threads. For an
//! input of upright, progressive 8-bit 4:2:0 pictures with square pixels, `compress` to MP4 makes the same pictures as
//! [`COMMAND`].

use xora_av::{ErrorKind, Input, MICROSECONDS, Packet, rescale};
use xora_shared::{
    media::{FileType, Format},
    report::{Expectation, ExpectedAudio, ExpectedVideo, OutputFacts, RunReport, StreamFate},
};

use crate::{
    ipc::Limits,
    job::{
        audio::{AudioFacts, AudioPath},
        damage::Damage,
        fault::{Done, Fault},
        link::Link,
        mux::{Layout, Mux},
        plan::Film,
        probe::Probe,
        progress::Progress,
        timeline::Timeline,
        video::{Setup, VideoFacts, VideoPath},
    },
};

/// The command that `compress` to MP4 at constant quality 28 with two threads equals, picture for picture.
#[cfg_attr(not(test), expect(dead_code, reason = "documentation that a test runs"))]
pub const COMMAND: &str = "ffmpeg -threads 2 -i INPUT -map 0:v:0 -map 0:a:0? -dn -sn \
     -c:v libx264 -preset veryfast -profile:v high -pix_fmt yuv420p -crf 28 -threads:v 2 \
     -fps_mode passthrough -enc_time_base:v -1 -c:a aac -b:a 128k -ac 2 -ar 48000 OUTPUT.mp4";

/// What the work of one film needs beside its plan.
pub struct Job<'a> {
    /// The supervisor.
    pub link: &'a Link,
    /// What the input is.
    pub probe: &'a Probe,
    /// Caps to hold.
    pub limits: &'a Limits,
    /// Threads that decoder and encoder may use, each.
    pub threads: u32,
}

/// Makes it.
pub fn make(job: &Job, input: &mut Input, film: &Film, layout: Layout, fates: Vec<StreamFate>) -> Done<RunReport> {
    let tracks = usize::from(film.video.is_some()) + usize::from(film.audio.is_some());
    let mut mux = Mux::create(job.link, film.format, tracks, layout, job.limits.output_bytes)?;
    let mut pump = Pump::open(job, input, film)?;
    pump.run(input, &mut mux)?;
    pump.check_complete(input)?;
    let Pump { video, audio, mut damage, timeline, mut progress, .. } = pump;
    let video = video.map(|path| path.finish(&mut mux, &mut damage)).transpose()?;
    let audio = audio.map(|path| path.finish(&mut mux, &mut damage)).transpose()?;
    damage.check()?;
    let bytes = mux.finish()?;
    progress.finish()?;
    let mut warnings = job.probe.warnings.clone();
    warnings.extend(damage.warning());
    warnings
        .extend((timeline.jumps() > 0).then(|| format!("{} jumps of the input's clock were closed", timeline.jumps())));
    Ok(report(film, bytes, video, audio, fates, warnings))
}

struct Pump<'a> {
    video: Option<VideoPath<'a>>,
    audio: Option<AudioPath<'a>>,
    film: &'a Film,
    probe: &'a Probe,
    limits: &'a Limits,
    damage: Damage,
    timeline: Timeline,
    progress: Progress,
    /// How far the input's packets went, in microseconds.
    read_us: i64,
}

impl<'a> Pump<'a> {
    fn open(job: &Job<'a>, input: &mut Input, film: &'a Film) -> Done<Self> {
        let video = film.video.as_ref().map(|track| {
            let frame_rate = job.probe.streams[track.stream].frame_rate;
            let (threads, max_pixels) = (job.threads, job.limits.pixels);
            VideoPath::open(input, Setup { track, index: 0, threads, max_pixels, frame_rate })
        });
        let video = video.transpose()?;
        let index = usize::from(video.is_some());
        let audio = film.audio.as_ref().map(|track| AudioPath::open(input, track, index)).transpose()?;
        for stream in 0..job.probe.streams.len() {
            input.want(stream, film.uses(stream));
        }
        Ok(Self {
            video,
            audio,
            film,
            probe: job.probe,
            limits: job.limits,
            damage: Damage::default(),
            timeline: Timeline::new(film.start_us, input.may_jump(), job.probe.streams.len()),
            progress: Progress::new(job.link.clone(), film.duration_us.unwrap_or(0)),
            read_us: 0,
        })
    }

    fn run(&mut self, input: &mut Input, mux: &mut Mux) -> Done<()> {
        let mut packet = Packet::new()?;
        loop {
            match input.read(&mut packet) {
                Ok(true) => self.take(&mut packet, mux)?,
                Ok(false) => return Ok(()),
                // The demuxer may find its way behind it.
                Err(error) if error.kind == ErrorKind::InvalidData => self.damage.unreadable()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, packet: &mut Packet, mux: &mut Mux) -> Done<()> {
        let stream = packet.stream();
        let Some(known) = self.probe.streams.get(stream).filter(|_| self.film.uses(stream)) else { return Ok(()) };
        self.damage.packet();
        if let Some(end) = self.timeline.place(packet, known.time_base) {
            self.read_us = self.read_us.max(end);
            self.check_length()?;
        }
        let reached = match (&mut self.video, &mut self.audio) {
            (Some(video), _) if self.film.video.as_ref().is_some_and(|track| track.stream == stream) => {
                video.take(Some(packet), mux, &mut self.damage)?
            }
            (_, Some(audio)) => {
                let reached = audio.take(Some(packet), mux, &mut self.damage)?;
                // Pictures are the slower half, and what is left when sound ends early.
                if self.film.video.is_some() { 0 } else { reached }
            }
            (_, None) => 0,
        };
        self.progress.reach(reached)
    }

    /// The container may have been silent about its length, or wrong.
    fn check_length(&self) -> Done<()> {
        let limit = self.limits.duration_seconds;
        if self.read_us / 1_000_000 <= i64::try_from(limit).unwrap_or(i64::MAX) {
            return Ok(());
        }
        Err(Fault::too_large(format!("the input is longer than the limit of {limit} seconds")))
    }

    /// Refuses an input that is much shorter than its container says.
    fn check_complete(&self, input: &Input) -> Done<()> {
        let declared = self.declared_us(input);
        let missing = declared.saturating_sub(self.read_us);
        if missing <= 1_000_000 || missing <= declared / 50 {
            return Ok(());
        }
        let (declared, read) = (declared / 1000, self.read_us / 1000);
        Err(Fault::truncated(format!(
            "the input says that it is {declared} ms long, but ends after {read} ms: it was cut; upload the whole file"
        )))
    }

    /// What the container says of the tracks that are used; 0 where it says nothing reliable.
    fn declared_us(&self, input: &Input) -> i64 {
        if !input.declares_duration() {
            return 0;
        }
        let used = self.probe.streams.iter().filter(|stream| self.film.uses(stream.index));
        let own = used.clone().map(|stream| {
            let length = stream.duration?;
            Some(rescale(length, stream.time_base, MICROSECONDS))
        });
        // Where tracks have no length of their own, the file's counts only if no other track can be the longest.
        let whole = self.probe.duration_us.filter(|_| used.count() == self.probe.streams.len());
        own.max().flatten().or(whole.and_then(|us| us.try_into().ok())).unwrap_or(0)
    }
}

impl Film {
    fn uses(&self, stream: usize) -> bool {
        self.video.as_ref().is_some_and(|track| track.stream == stream)
            || self.audio.as_ref().is_some_and(|track| track.stream == stream)
    }
}

fn report(
    film: &Film,
    bytes: u64,
    video: Option<VideoFacts>,
    audio: Option<AudioFacts>,
    streams: Vec<StreamFate>,
    mut warnings: Vec<String>,
) -> RunReport {
    warnings.extend(video.iter().flat_map(|video| video.warnings.clone()));
    let expect = Expectation {
        format: film.format,
        bytes,
        video: video.map(|facts| ExpectedVideo {
            codec: codec_name(film.video.as_ref().map_or("", |track| track.encoder)).to_owned(),
            width: facts.width,
            height: facts.height,
            frames: facts.frames,
            start_us: facts.start_us,
            duration_us: facts.duration_us,
        }),
        audio: audio.map(|facts| ExpectedAudio {
            codec: codec_name(film.audio.as_ref().map_or("", |track| track.encoder)).to_owned(),
            sample_rate: facts.sample_rate,
            channels: facts.channels,
            samples: facts.samples,
            start_us: facts.start_us,
        }),
    };
    RunReport { facts: facts(film.format, &expect), expect, streams, warnings }
}

fn facts(format: Format, expect: &Expectation) -> OutputFacts {
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

/// libav's name of what an encoder makes.
fn codec_name(encoder: &'static str) -> &'static str {
    match encoder {
        "libx264" => "h264",
        "libx265" => "hevc",
        "libvpx-vp9" => "vp9",
        "libopus" => "opus",
        other => other,
    }
}
