//! The job process's end of the socket.

use std::{cell::RefCell, io, os::unix::net::UnixStream, rc::Rc};

use xora_shared::{failure::Stage, media::Format, report::Strategy};

use crate::ipc::{Assignment, FromJob, ToJob, Up};

/// The socket to the supervisor, shared by the inputs, the outputs and the engine of one job: all on one thread, one
/// message at a time.
#[derive(Clone)]
pub struct Link(Rc<RefCell<UnixStream>>);

impl Link {
    /// Takes the socket over.
    pub fn new(stream: UnixStream) -> Self {
        Self(Rc::new(RefCell::new(stream)))
    }

    /// Waits for the work.
    pub fn assignment(&self) -> io::Result<Assignment> {
        match ToJob::read(&mut *self.0.borrow_mut())? {
            ToJob::Assignment(assignment) => Ok(*assignment),
            ToJob::Data(_) | ToJob::ReadFailed => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Asks for bytes of an input; none when the supervisor cannot have them.
    pub fn read(&self, input: u32, offset: u64, length: u32) -> io::Result<Option<Vec<u8>>> {
        let mut stream = self.0.borrow_mut();
        FromJob::Read { input, offset, length }.write(&mut *stream)?;
        match ToJob::read(&mut *stream)? {
            ToJob::Data(bytes) if bytes.len() <= length as usize => Ok(Some(bytes)),
            ToJob::ReadFailed => Ok(None),
            ToJob::Data(_) | ToJob::Assignment(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Hands over a finished part of output 0.
    pub fn part(&self, number: u32, bytes: Vec<u8>) -> io::Result<()> {
        FromJob::Part { output: 0, number, bytes }.write(&mut *self.0.borrow_mut())
    }

    /// Says anything else.
    pub fn say(&self, message: Up) -> io::Result<()> {
        FromJob::Message(message).write(&mut *self.0.borrow_mut())
    }

    /// Says that a stage begins. A supervisor that is gone is noticed by the next read or part.
    pub fn stage(&self, stage: Stage) {
        let _ = self.say(Up::Stage(stage));
    }

    /// Says what was decided.
    pub fn planned(&self, strategy: Strategy, format: Format, expected_bytes: u64, part_size: u64) -> io::Result<()> {
        self.say(Up::Planned { strategy, format, expected_bytes, part_size })
    }
}
