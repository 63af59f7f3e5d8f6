//! The language between the supervisor and a job process: length-prefixed frames on one stream socket.
//!
//! A frame is `length: u32 LE` (of kind and payload), `kind: u8`, payload. Bulk bytes travel as they are, everything
//! else as JSON. Inputs and outputs are indices, never names or paths; the supervisor checks every bound, because the
//! job process runs decoders on hostile bytes and may be anyone's.

use std::{
    io::{self, Read, Write},
    ops::Range,
};

use serde::{Deserialize, Serialize};
use xora_shared::{
    failure::{FailureKind, Stage},
    media::{Format, Wanted},
    report::{Expectation, RunReport, Unchanged, VerifyReport},
};

use crate::job::lockdown::{Lacking, Sandbox};

/// The longest read that a job process may ask for, in bytes.
pub const MAX_READ: u32 = 1 << 20;
/// The longest frame either side accepts, in bytes: one part and its header.
pub const MAX_FRAME: u32 = 128 << 20;
/// The longest JSON message either side accepts, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;

const READ: u8 = 1;
const PART: u8 = 2;
const UP: u8 = 3;
const DATA: u8 = 4;
const READ_FAILED: u8 = 5;
const DOWN: u8 = 6;

/// What a job process is told to do, once, as its first frame.
#[derive(Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The work.
    pub work: Work,
    /// Caps to hold.
    pub limits: Limits,
    /// Threads that decoder and encoder may use, each.
    pub threads: u32,
    /// Hardware encoders that may be used, by libav's names; the first that opens is.
    pub hardware: Vec<String>,
}

/// The work of one job process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    /// Probe the inputs, plan, produce the output.
    Run {
        /// The inputs, by index.
        inputs: Vec<Source>,
        /// What is wanted.
        wanted: Wanted,
        /// Bytes to reserve for the index of an MP4 or MOV, when an earlier try found its own estimate too small.
        index_bytes: Option<u64>,
        /// Why an earlier try could not copy packets, if one could not: everything is encoded then.
        uncopyable: Option<String>,
        /// Whether the input's own URL may be the result as it stands: what the lease says.
        has_address: bool,
    },
    /// Open encoders and encode a little with each.
    TryEncoders {
        /// libav's names.
        names: Vec<String>,
    },
    /// Say which filters libav lacks.
    FindFilters {
        /// libav's names.
        names: Vec<String>,
    },
    /// Read input 0 back and compare it with what was meant.
    Verify {
        /// The stored object.
        input: Source,
        /// What it must be.
        expect: Expectation,
    },
}

/// What the supervisor knows of an input before anything is read.
#[derive(Debug, Serialize, Deserialize)]
pub struct Source {
    /// Length in bytes, when the origin says it.
    pub size: Option<u64>,
}

/// Caps on one job. Over any of them: [`FailureKind::InputTooLarge`], with a message that names the limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest input, in seconds.
    pub duration_seconds: u64,
    /// Most pixels of one picture.
    pub pixels: u64,
    /// Most streams of one input.
    pub streams: u32,
    /// Most pictures of one input.
    pub pictures: u64,
    /// Most bytes of one output.
    pub output_bytes: u64,
}

/// What a job process says.
#[derive(Debug)]
pub enum FromJob {
    /// Wants bytes of an input. Answered by [`ToJob::Data`] or [`ToJob::ReadFailed`], in order; one at a time.
    Read {
        /// Index of the input.
        input: u32,
        /// First byte.
        offset: u64,
        /// How many, at most [`MAX_READ`].
        length: u32,
    },
    /// One finished part of an output. All but the last have exactly `part_size` bytes (see [`Up::Planned`]).
    Part {
        /// Index of the output.
        output: u32,
        /// Part number, from 1; the numbers may come in any order, each once.
        number: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Anything else.
    Message(Up),
}

/// Messages of a job process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Up {
    /// How far the process is locked down: its first word. Where it cannot be as it was to be, its last as well.
    Locked(Result<Sandbox, Lacking>),
    /// The work entered this stage.
    Stage(Stage),
    /// What was decided; before the first part.
    Planned {
        /// Why this way, for the caller.
        strategy: xora_shared::report::Strategy,
        /// The container that is written: not always the one that was asked for.
        format: Format,
        /// Estimated size of the output in bytes; only a hint.
        expected_bytes: u64,
        /// Size of every part but the last.
        part_size: u64,
    },
    /// Of an input, only these bytes will be read from now on, in this order: what can be fetched ahead.
    ExpectOnly {
        /// Index of the input.
        input: u32,
        /// The places, in bytes.
        places: Vec<Range<u64>>,
    },
    /// How far, by media time. Never goes back.
    Progress {
        /// Media time done, in microseconds.
        done_us: u64,
        /// Media time in all, in microseconds; 0 when unknown.
        total_us: u64,
    },
    /// Pictures go into this hardware encoder, by libav's name. What fails from here on may be its fault.
    InHardware(String),
    /// A line for the node's log.
    Log(String),
    /// A [`Work::Run`] ended well: every part has been sent.
    Produced(Box<RunReport>),
    /// A [`Work::Run`] ended well before anything was planned to be written: the input is the result.
    Unchanged(Box<Unchanged>),
    /// A [`Work::Verify`] ended: the receipt, good or bad.
    Verified(Box<VerifyReport>),
    /// A [`Work::TryEncoders`] ended: those that work.
    Encoders(Vec<String>),
    /// A [`Work::FindFilters`] ended: those that are missing.
    NoFilters(Vec<String>),
    /// The work failed. An input that could not be read is for the supervisor to judge: it knows why.
    Failed(JobFailure),
}

/// Why a job process gave up, as far as it can know.
#[derive(Debug, Serialize, Deserialize)]
pub enum JobFailure {
    /// A read was answered with [`ToJob::ReadFailed`].
    Unreadable,
    /// The index of an MP4 or MOV needs this many bytes: run again with that much reserved.
    IndexTooSmall {
        /// Bytes needed.
        needed: u64,
    },
    /// Packets could not be copied after all: run again without copying.
    Uncopyable {
        /// Why, for the caller.
        reason: String,
    },
    /// The hardware encoder had opened and then failed: run again without hardware.
    Hardware,
    /// Something it understands.
    Known {
        /// What.
        kind: FailureKind,
        /// For the caller: what happened and what to do.
        message: String,
    },
}

/// What the supervisor says.
#[derive(Debug)]
pub enum ToJob {
    /// The bytes asked for; fewer only at the end of the input, none past it.
    Data(Vec<u8>),
    /// The bytes cannot be had; the supervisor keeps the reason.
    ReadFailed,
    /// The work, once, first.
    Assignment(Box<Assignment>),
}

impl FromJob {
    /// Writes this as one frame.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Read { input, offset, length } => {
                let mut payload = [0; 16];
                payload[..4].copy_from_slice(&input.to_le_bytes());
                payload[4..12].copy_from_slice(&offset.to_le_bytes());
                payload[12..].copy_from_slice(&length.to_le_bytes());
                write_frame(to, READ, &[&payload])
            }
            Self::Part { output, number, bytes } => {
                write_frame(to, PART, &[&output.to_le_bytes(), &number.to_le_bytes(), bytes])
            }
            Self::Message(up) => write_frame(to, UP, &[&serde_json::to_vec(up)?]),
        }
    }

    /// Reads the payload of a frame that a job process sent.
    pub fn parse(kind: u8, mut payload: Vec<u8>) -> io::Result<Self> {
        match kind {
            READ => {
                let bytes: [u8; 16] = payload.try_into().map_err(|_| malformed("read"))?;
                let [i0, i1, i2, i3, offset @ .., l0, l1, l2, l3] = bytes;
                Ok(Self::Read {
                    input: u32::from_le_bytes([i0, i1, i2, i3]),
                    offset: u64::from_le_bytes(offset),
                    length: u32::from_le_bytes([l0, l1, l2, l3]),
                })
            }
            PART => {
                let (head, _) = payload.split_first_chunk::<8>().ok_or_else(|| malformed("part"))?;
                let [o0, o1, o2, o3, n0, n1, n2, n3] = *head;
                payload.drain(..8);
                Ok(Self::Part {
                    output: u32::from_le_bytes([o0, o1, o2, o3]),
                    number: u32::from_le_bytes([n0, n1, n2, n3]),
                    bytes: payload,
                })
            }
            UP if payload.len() <= MAX_MESSAGE => Ok(Self::Message(serde_json::from_slice(&payload)?)),
            _ => Err(malformed("kind")),
        }
    }
}

impl ToJob {
    /// This as the bytes of one frame.
    pub fn to_frame(&self) -> io::Result<Vec<u8>> {
        let mut frame = Vec::new();
        match self {
            Self::Data(bytes) => write_frame(&mut frame, DATA, &[bytes])?,
            Self::ReadFailed => write_frame(&mut frame, READ_FAILED, &[])?,
            Self::Assignment(assignment) => write_frame(&mut frame, DOWN, &[&serde_json::to_vec(assignment)?])?,
        }
        Ok(frame)
    }

    /// Reads one frame of the supervisor.
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 5];
        from.read_exact(&mut head)?;
        let (length, kind) = frame_head(head)?;
        let mut payload = vec![0; length];
        from.read_exact(&mut payload)?;
        match kind {
            DATA => Ok(Self::Data(payload)),
            READ_FAILED => Ok(Self::ReadFailed),
            DOWN => Ok(Self::Assignment(serde_json::from_slice(&payload)?)),
            _ => Err(malformed("kind")),
        }
    }
}

/// Takes the head of a frame apart: the payload's length in bytes, and the kind.
pub fn frame_head(head: [u8; 5]) -> io::Result<(usize, u8)> {
    let [l0, l1, l2, l3, kind] = head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length == 0 || length > MAX_FRAME {
        return Err(malformed("length"));
    }
    Ok((length as usize - 1, kind))
}

fn write_frame(to: &mut impl Write, kind: u8, payload: &[&[u8]]) -> io::Result<()> {
    let length = 1 + payload.iter().map(|piece| piece.len()).sum::<usize>();
    let length = u32::try_from(length).map_err(|_| malformed("length"))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&[kind])?;
    for piece in payload {
        to.write_all(piece)?;
    }
    Ok(())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed frame: {what}"))
}
