//! The job process: one piece of work on media, then the end.
//!
//! It has no network, no files and no credentials; it reads and writes through the supervisor, over its one socket.
//! `probe` says what the input is, `plan` decides (a pure function), `film`, `concat` and `still` make the output,
//! `parts` cuts it into equal parts, and in a second process `verify` reads it back. Only `lockdown` touches the process
//! itself, so tests call `serve` on a thread.

mod about;
mod audio;
mod concat;
mod copy;
mod cut;
mod damage;
mod decode;
pub mod encoders;
mod entries;
mod fault;
mod film;
mod first;
mod fragments;
mod h264;
mod link;
pub mod lockdown;
mod look;
mod mux;
mod parts;
mod places;
mod plan;
mod probe;
mod progress;
mod rate;
mod shape;
mod sounds;
mod source;
mod steady;
mod still;
mod streams;
mod timeline;
mod unlisted;
mod verify;
mod video;

#[cfg(test)]
mod about_test;
#[cfg(test)]
mod bomb_test;
#[cfg(test)]
mod concat_test;
#[cfg(test)]
mod copy_test;
#[cfg(test)]
mod damaged_test;
#[cfg(test)]
mod ends_test;
#[cfg(test)]
mod found_test;
#[cfg(test)]
mod fragments_test;
#[cfg(test)]
mod media_test;
#[cfg(test)]
mod parts_test;
#[cfg(test)]
mod pitfalls_test;
#[cfg(test)]
mod places_test;
#[cfg(test)]
mod plan_test;
#[cfg(test)]
mod recipe_test;
#[cfg(test)]
mod timing_test;
#[cfg(test)]
mod tracks_test;

use std::os::unix::net::UnixStream;

use xora_av::Input;

use xora_shared::{
    failure::Stage,
    media::{Format, Recipe, Wanted},
    report::{Coverage, Fate, RunReport, StreamFate, Unchanged, VerifyReport},
};

use crate::{
    ipc::{Assignment, Limits, Source, Up, Work},
    job::{
        about::About,
        fault::{Done, Fault},
        link::Link,
        lockdown::{Lacking, Sandbox},
        mux::Layout,
        plan::{Abilities, Film, Make, Plan, Still},
        probe::Probe,
    },
};

/// Says how far this process is locked down, takes one piece of work from the socket, and does it: none where it is not
/// locked down as it was to be. False when the supervisor could not be told how it ended.
pub fn serve(stream: UnixStream, locked: Result<Sandbox, Lacking>) -> bool {
    xora_av::keep_log();
    let link = Link::new(stream);
    let is_told = link.say(Up::Locked(locked)).is_ok();
    if locked.is_err() {
        return is_told;
    }
    let Ok(assignment) = link.assignment() else { return false };
    let last = match work(&link, assignment) {
        Ok(message) => Some(message),
        Err(fault) => fault.into_failure().map(Up::Failed),
    };
    for line in xora_av::take_log() {
        let _ = link.say(Up::Log(line));
    }
    last.is_some_and(|message| link.say(message).is_ok())
}

fn work(link: &Link, assignment: Assignment) -> Done<Up> {
    let Assignment { work, limits, threads, hardware } = assignment;
    xora_av::limit_blocks(xora_av::largest_block(limits.pixels));
    match work {
        Work::Run { inputs, wanted, index_bytes, uncopyable, has_address } => {
            let means = Means { link, limits: &limits, threads, hardware: &hardware };
            let tried = &Tried { has_address, index_bytes, uncopyable };
            if wanted.recipe == Recipe::Concat {
                let joined = concat::run(means, &inputs, wanted.format, tried);
                return joined.map(|report| Up::Produced(Box::new(report)));
            }
            let [input] = inputs.as_slice() else {
                return Err(Fault::unsupported("the recipe takes exactly one input"));
            };
            run_one(means, input, &wanted, tried)
        }
        Work::TryEncoders { names } => Ok(Up::Encoders(encoders::working(names))),
        Work::FindFilters { names } => {
            Ok(Up::NoFilters(names.into_iter().filter(|name| !xora_av::has_filter(name)).collect()))
        }
        Work::Verify { input, expect } => {
            link.stage(Stage::Verify);
            verify::verify(link, &input, &expect, &limits).map(|report| Up::Verified(Box::new(report)))
        }
    }
}

/// What any output is made with.
#[derive(Clone, Copy)]
struct Means<'a> {
    /// The supervisor.
    link: &'a Link,
    /// Caps to hold.
    limits: &'a Limits,
    /// Threads that decoder, filters and encoder may use, each.
    threads: u32,
    /// Hardware encoders that may be used.
    hardware: &'a [String],
}

/// What is known of the work beside the input itself, and what an earlier try has shown.
struct Tried {
    /// Whether the input can be the result as it stands.
    has_address: bool,
    /// How long the index is.
    index_bytes: Option<u64>,
    /// Why nothing can be copied.
    uncopyable: Option<String>,
}

impl Tried {
    /// What the earlier try has changed, in words.
    fn reasons(&self) -> impl Iterator<Item = String> {
        let encoded = self.uncopyable.as_ref().map(|why| format!("encoded, because copying did not work: {why}"));
        let again =
            self.index_bytes.map(|_| "made once more, because its index needed more room than was kept".to_owned());
        encoded.into_iter().chain(again)
    }
}

fn run_one(means: Means, source: &Source, wanted: &Wanted, tried: &Tried) -> Done<Up> {
    let Means { link, limits, .. } = means;
    link.stage(Stage::Probe);
    let (mut input, probe) = probe::open_part(link, source, limits, &wanted.recipe)?;
    link.stage(Stage::Plan);
    let Plan { mut strategy, mut fates, warnings, make } =
        plan::decide(&probe, wanted, abilities(tried.uncopyable.is_none(), tried.has_address))?;
    strategy.reasons.extend(tried.reasons());
    let mut report = match make {
        Make::Nothing(facts) => {
            let verified = seen(&probe);
            let warnings = [probe.warnings, warnings].concat();
            let unchanged = Unchanged { strategy, facts, streams: fates, warnings, verified };
            return Ok(Up::Unchanged(Box::new(unchanged)));
        }
        Make::Film(film) => {
            let about = About::of(&input, &probe, &film)?;
            if let Some(cover) = film.cover.filter(|_| !about.has_cover()) {
                fates[cover] = dropped(&fates[cover], "it is empty, or too large");
            }
            let expected_bytes = film.expected_bytes + about.bytes();
            let layout = Layout::of(film.format, expected_bytes, about.bytes(), tried.index_bytes);
            link.planned(strategy, film.format, expected_bytes, layout.part_size)?;
            link.stage(Stage::Transcode);
            make_film(means, (input, source), &probe, (*film, about), layout, fates)?
        }
        Make::Still(still) => {
            let expected = expected_picture(&still, &probe);
            let layout = Layout::of(still.format, expected, 0, None);
            link.planned(strategy, still.format, expected, layout.part_size)?;
            link.stage(Stage::Transcode);
            let (bytes, report) = still::make(means, (&mut input, source), &probe, &still, fates)?;
            // Whole, they would be larger than a part may be.
            let part_size = usize::try_from(layout.part_size).unwrap_or(usize::MAX);
            for (number, part) in (1..).zip(bytes.chunks(part_size)) {
                link.part(number, part.to_vec())?;
            }
            report
        }
    };
    report.warnings.extend(warnings);
    Ok(Up::Produced(Box::new(report)))
}

/// Makes a film, from the start of the input and without its sound where it has to be.
fn make_film(
    means: Means,
    (mut input, source): (Input, &Source),
    probe: &Probe,
    (mut film, about): (Film, About),
    layout: Layout,
    fates: Vec<StreamFate>,
) -> Done<RunReport> {
    let again = || probe::open(means.link, 0, source, means.limits).map(|(input, _)| input);
    let job = film::Job { means, probe, about: &about, seeks: !places::reads_from_start(&input) };
    let mut made = film::make(&job, &mut input, &film, layout, fates.clone());
    let job = film::Job { seeks: false, ..job };
    // A clock that starts again in mid-file leads seeks astray, and some files know no places to seek to.
    if film.part.from_start && matches!(made, Err(Fault::Nothing(_) | Fault::Silent)) {
        made = film::make(&job, &mut again()?, &film, layout, fates.clone());
    }
    // Some recorders make a sound track and put nothing into it, and some sound ends before the part begins.
    if let (Err(Fault::Silent), Some(_), Some(sound)) = (&made, &film.video, film.audio.take()) {
        let mut input = again()?;
        let is_whole = !film.part.from_start && film.part.end_us.is_none();
        let fates = without(fates, sound.stream, is_whole);
        let about = &About::of(&input, probe, &film)?;
        made = film::make(&film::Job { about, ..job }, &mut input, &film, layout, fates);
    }
    made
}

/// The fates when a sound track turned out to be empty, as a whole or in the part that is wanted.
fn without(mut fates: Vec<StreamFate>, stream: usize, is_whole: bool) -> Vec<StreamFate> {
    let empty =
        if is_whole { "nothing of its sound could be decoded" } else { "it has nothing in the part that is wanted" };
    fates[stream] = dropped(&fates[stream], empty);
    fates
}

fn dropped(fate: &StreamFate, why: &str) -> StreamFate {
    StreamFate { fate: Fate::Dropped, reason: Some(why.to_owned()), ..fate.clone() }
}

/// The receipt of an input that is the result: what opening it has shown.
fn seen(probe: &Probe) -> VerifyReport {
    let (video, audio) = (streams::pick_video(&probe.streams), streams::pick_audio(&probe.streams));
    let offset = || Some(audio?.start_us()? - video?.start_us()?);
    VerifyReport {
        problems: Vec::new(),
        coverage: Coverage::Edges,
        duration_us: probe.duration_us,
        frames: video.map(|stream| stream.frames).filter(|frames| *frames > 0),
        av_offset_us: offset(),
    }
}

fn abilities(copy: bool, pass_through: bool) -> Abilities {
    Abilities { tonemap: xora_av::has_filter("zscale") && xora_av::has_filter("tonemap"), copy, pass_through }
}

/// Bytes of one picture, about: PNG has a few bits for each component, the others a few for each pixel.
fn expected_picture(still: &Still, probe: &Probe) -> u64 {
    let stream = &probe.streams[still.stream];
    let pixels = u64::from(stream.width) * u64::from(stream.height);
    if still.format == Format::Png { pixels * 2 } else { pixels / 4 }
}
