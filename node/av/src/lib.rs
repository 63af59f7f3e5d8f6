//! libav, safe to call.
//!
//! Everything that is `unsafe` about demuxing, decoding, filtering, encoding and muxing is in this crate, each use
//! with its reason; its callers cannot misuse memory. It knows no jobs, HTTP or async runtime.
//!
//! - Bytes come from a [`ReadAt`] and go to a [`WriteAt`]; libav itself can open nothing ([`Input`] refuses by
//!   allow-lists and by its `io_open`).
//! - Media time is an integer in a [`Rational`] time base, never a float of seconds.
//! - A failed read of the source is [`ErrorKind::Source`], whatever libav made of it: never an end of file.
//! - One object belongs to one thread. Nothing here is `Send`.
//!
//! The wrappers go over `ffmpeg_next::ffi` instead of the safe half of that crate where the latter hides errors (its
//! packet iterator), copies pixels (`clone`), or lets a filter outlive its graph.
#![allow(unsafe_code, reason = "this is the one crate that may: it wraps a C library")]

mod allow;
mod decoder;
mod encoder;
mod error;
mod filter;
mod frame;
mod input;
mod io;
mod log;
mod memory;
mod names;
mod options;
mod orientation;
mod output;
mod packet;
mod stream;
mod tags;
mod time;

pub use crate::{
    decoder::Decoder,
    encoder::{AudioEncoding, Encoder, VideoEncoding},
    error::{Error, ErrorKind, Poll, Result},
    filter::{AudioShape, Graph, PictureShape},
    frame::{Color, FieldOrder, Frame},
    input::{Input, OpenLimits},
    io::{ReadAt, WriteAt},
    log::{silence as keep_log, take as take_log},
    memory::{largest_block, limit_blocks},
    names::{has_encoder, has_filter},
    orientation::Orientation,
    output::Output,
    packet::Packet,
    stream::{Index, Kind, Stream},
    tags::Chapter,
    time::{MICROSECONDS, Rational, rescale},
};
