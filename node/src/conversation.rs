//! One job process's side of the story: its frames are read and checked here, and its reads answered.
//!
//! Reads are answered by a task of their own. The loop that takes parts waits for storage at times; were it to answer
//! reads too, both sides could wait for each other for ever.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::AbortHandle,
};
use xora_shared::{
    failure::Stage,
    report::{RunReport, Strategy, VerifyReport},
};

use crate::{
    board::Held,
    ipc::{Assignment, FromJob, JobFailure, MAX_FRAME, MAX_MESSAGE, MAX_READ, ToJob, Up, frame_head},
    source::{Source, SourceFault},
};

/// A conversation with one job process. Dropping it ends it; the process is someone else's.
pub struct Conversation {
    from: OwnedReadHalf,
    reads: mpsc::Sender<Wanted>,
    inputs: u32,
    /// The longest frame that is taken now, in bytes.
    longest: usize,
    fault: Arc<OnceLock<SourceFault>>,
    answering: AbortHandle,
}

/// What a job process says, reads left out.
#[derive(Debug)]
pub enum Heard {
    /// See [`Up::Stage`].
    Stage(Stage),
    /// See [`Up::Planned`].
    Planned {
        /// Why this way.
        strategy: Strategy,
        /// Size of every part but the last, in bytes.
        part_size: u64,
    },
    /// See [`Up::Progress`].
    Progress {
        /// Media time done, in microseconds.
        done_us: u64,
        /// Media time in all, in microseconds; 0 when unknown.
        total_us: u64,
    },
    /// See [`Up::Log`].
    Log(String),
    /// See [`FromJob::Part`].
    Part {
        /// Part number, from 1.
        number: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// See [`Up::Produced`].
    Produced(Box<RunReport>),
    /// See [`Up::Verified`].
    Verified(Box<VerifyReport>),
    /// See [`Up::Failed`].
    Failed(JobFailure),
}

/// Why a conversation broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The process is gone, without a last word.
    Died,
    /// It broke the rules.
    Breach(Breach),
    /// It has more memory than allowed.
    Overgrown,
}

/// Which rule a job process broke. None of these comes from a sound one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// A frame that is too long or not understood.
    Frame,
    /// A read of an input that there is not, too long, or before the one before it was answered.
    Read,
    /// A part of an output that there is not, unplanned, out of size, or sent twice; or one is missing at the end.
    Part,
    /// A message that does not belong here.
    Message,
}

struct Wanted {
    input: usize,
    offset: u64,
    length: u32,
}

impl Conversation {
    /// Gives the work to a job process and begins to answer its reads.
    pub async fn begin(
        stream: UnixStream,
        assignment: Assignment,
        sources: Arc<Vec<Source>>,
        held: Arc<Held>,
    ) -> io::Result<Self> {
        let (from, mut to) = stream.into_split();
        to.write_all(&ToJob::Assignment(Box::new(assignment)).to_frame()?).await?;
        let inputs = u32::try_from(sources.len()).unwrap_or(u32::MAX);
        // One read at a time: a second one while the first waits is a breach.
        let (reads, wanted) = mpsc::channel(1);
        let fault = Arc::new(OnceLock::new());
        let answering = tokio::spawn(answer(wanted, to, sources, held, Arc::clone(&fault))).abort_handle();
        Ok(Self { from, reads, inputs, longest: MAX_MESSAGE, fault, answering })
    }

    /// The next thing said.
    pub async fn next(&mut self) -> Result<Heard, Broken> {
        loop {
            match self.frame().await? {
                FromJob::Read { input, offset, length } => self.read(input, offset, length)?,
                FromJob::Part { output: 0, number, bytes } => return Ok(Heard::Part { number, bytes }),
                FromJob::Part { .. } => return Err(Broken::Breach(Breach::Part)),
                FromJob::Message(up) => return Ok(self.heard(up)),
            }
        }
    }

    /// Why a read failed, if one did.
    pub fn fault(&self) -> Option<SourceFault> {
        self.fault.get().cloned()
    }

    async fn frame(&mut self) -> Result<FromJob, Broken> {
        const BREACH: Broken = Broken::Breach(Breach::Frame);
        let mut head = [0; 5];
        self.from.read_exact(&mut head).await.map_err(|_| Broken::Died)?;
        let (length, kind) = frame_head(head).map_err(|_| BREACH)?;
        if length > self.longest {
            return Err(BREACH);
        }
        // Grows as bytes come: a length is only a claim.
        let mut payload = Vec::with_capacity(length.min(1 << 20));
        let read = (&mut self.from).take(length as u64).read_to_end(&mut payload).await.map_err(|_| Broken::Died)?;
        if read < length {
            return Err(Broken::Died);
        }
        FromJob::parse(kind, payload).map_err(|_| BREACH)
    }

    fn read(&self, input: u32, offset: u64, length: u32) -> Result<(), Broken> {
        if input >= self.inputs || length > MAX_READ {
            return Err(Broken::Breach(Breach::Read));
        }
        match self.reads.try_send(Wanted { input: input as usize, offset, length }) {
            // When the answering task is gone, so is the process, and the next frame says so.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Broken::Breach(Breach::Read)),
        }
    }

    fn heard(&mut self, up: Up) -> Heard {
        match up {
            Up::Stage(stage) => Heard::Stage(stage),
            Up::Planned { strategy, expected_bytes: _, part_size } => {
                // From here on a part may come: its bytes, and 8 that say which.
                let part = usize::try_from(part_size.saturating_add(8)).unwrap_or(usize::MAX);
                self.longest = part.clamp(MAX_MESSAGE, MAX_FRAME as usize);
                Heard::Planned { strategy, part_size }
            }
            Up::Progress { done_us, total_us } => Heard::Progress { done_us, total_us },
            Up::Log(line) => Heard::Log(line),
            Up::Produced(report) => Heard::Produced(report),
            Up::Verified(report) => Heard::Verified(report),
            Up::Failed(failure) => Heard::Failed(failure),
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// Answers reads, one after the other, until the process or the conversation ends.
async fn answer(
    mut wanted: mpsc::Receiver<Wanted>,
    mut to: OwnedWriteHalf,
    sources: Arc<Vec<Source>>,
    held: Arc<Held>,
    fault: Arc<OnceLock<SourceFault>>,
) {
    while let Some(Wanted { input, offset, length }) = wanted.recv().await {
        let Some(source) = sources.get(input) else { return };
        held.reading(true);
        let answer = match source.read(offset, length.into()).await {
            Ok(bytes) => ToJob::Data(bytes),
            Err(why) => {
                let _ = fault.set(why);
                ToJob::ReadFailed
            }
        };
        held.reading(false);
        let Ok(frame) = answer.to_frame() else { return };
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}
