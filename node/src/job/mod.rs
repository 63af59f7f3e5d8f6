//! The job process: one piece of work on media, then the end.
//!
//! It has no network, no files and no credentials; it reads and writes through the supervisor, over the socket that is
//! its standard input. `probe` says what the input is, `plan` decides (a pure function), `film` and `still` make the
//! output, `parts` cuts it into equal parts, and in a second process `verify` reads it back. Only `run` touches the
//! process itself, so tests call [`serve`] on a thread.

mod audio;
mod damage;
mod decode;
mod fault;
mod film;
mod link;
mod lockdown;
mod look;
mod mux;
mod parts;
mod plan;
mod probe;
mod progress;
mod shape;
mod source;
mod still;
mod streams;
mod timeline;
mod verify;
mod video;

#[cfg(test)]
mod media_test;
#[cfg(test)]
mod plan_test;

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
};

use xora_shared::{
    failure::Stage,
    media::{Format, Wanted},
    report::RunReport,
};

use crate::{
    ipc::{Assignment, Limits, Source, Up, Work},
    job::{
        fault::{Done, Fault},
        link::Link,
        mux::Layout,
        plan::{Abilities, Make, Plan, Still},
    },
};

/// The whole of `xora-node job`: locks the process down, takes its work from standard input (a stream socket) and does
/// it. The exit code is 0 whenever the supervisor was told how it ended, well or badly.
pub fn run() -> ExitCode {
    let stream = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    match stream.and_then(|stream| lockdown::enter().map(|()| stream)) {
        Ok(stream) => ExitCode::from(u8::from(!serve(stream))),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Takes one piece of work from a socket and does it. False when the supervisor could not be told how it ended.
pub fn serve(stream: UnixStream) -> bool {
    xora_av::keep_log();
    let link = Link::new(stream);
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
    let Assignment { work, limits, threads } = assignment;
    match work {
        Work::Run { inputs, wanted, index_bytes } => {
            let [input] = inputs.as_slice() else {
                return Err(Fault::unsupported("the recipe takes exactly one input"));
            };
            run_one(link, input, &wanted, index_bytes, &limits, threads).map(|report| Up::Produced(Box::new(report)))
        }
        Work::Verify { input, expect } => {
            link.stage(Stage::Verify);
            verify::verify(link, &input, &expect, &limits).map(|report| Up::Verified(Box::new(report)))
        }
    }
}

fn run_one(
    link: &Link,
    source: &Source,
    wanted: &Wanted,
    index_bytes: Option<u64>,
    limits: &Limits,
    threads: u32,
) -> Done<RunReport> {
    link.stage(Stage::Probe);
    let (mut input, probe) = probe::open(link, 0, source, limits)?;
    link.stage(Stage::Plan);
    let Plan { strategy, fates, make } = plan::decide(&probe, wanted, abilities())?;
    match make {
        Make::Film(film) => {
            let layout = Layout::of(film.format, film.expected_bytes, film.packets, index_bytes);
            link.planned(strategy, film.expected_bytes, layout.part_size)?;
            link.stage(Stage::Transcode);
            let job = film::Job { link, probe: &probe, limits, threads };
            film::make(&job, &mut input, &film, layout, fates)
        }
        Make::Still(still) => {
            let expected = expected_picture(&still, &probe);
            link.planned(strategy, expected, Layout::of(still.format, expected, 0, None).part_size)?;
            link.stage(Stage::Transcode);
            still::make(link, &mut input, &probe, &still, fates, limits)
        }
    }
}

fn abilities() -> Abilities {
    Abilities { tonemap: xora_av::has_filter("zscale") && xora_av::has_filter("tonemap") }
}

/// Bytes of one picture, about: PNG has a few bits for each component, the others a few for each pixel.
fn expected_picture(still: &Still, probe: &probe::Probe) -> u64 {
    let stream = &probe.streams[still.stream];
    let pixels = u64::from(stream.width) * u64::from(stream.height);
    if still.format == Format::Png { pixels * 2 } else { pixels / 4 }
}
