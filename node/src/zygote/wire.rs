//! What supervisor and zygote say to each other, one message of a `SOCK_SEQPACKET` socket each.
//!
//! Orders go over the one socket of the zygote. What becomes of a job process goes over a socket of its own, which came
//! with the order: first [`Word::Started`] or [`Word::NotStarted`], at last [`Word::Ended`]. If that socket ends
//! without a last word, the zygote died, and the job process with it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use serde::{Deserialize, Serialize};

/// One job process is wanted. These are its ends of what connects it.
#[derive(Debug)]
pub struct Order {
    /// Its socket: see [`crate::ipc`].
    pub socket: OwnedFd,
    /// Where its [`Word`]s are sent.
    pub words: OwnedFd,
    /// Its error output.
    pub errors: OwnedFd,
}

/// What the zygote says of one job process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// It runs. With this message comes its pidfd.
    Started {
        /// Its number.
        pid: i32,
    },
    /// It could not be started.
    NotStarted {
        /// The kernel's reason.
        errno: i32,
    },
    /// It is gone and reaped.
    Ended {
        /// The signal that killed it, if one did.
        signal: Option<i32>,
        /// User and system time of all its threads, in microseconds.
        cpu_us: u64,
        /// Highest resident memory, in bytes.
        peak_memory: u64,
    },
}

/// Descriptors that come with one message at most.
const MOST: usize = 3;
/// The one order that there is.
const ORDER: &[u8] = b"job";
/// Longest message, in bytes.
const LONGEST: usize = 512;

/// Two ends for orders, or for words.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Orders a job process with these ends: its socket, that for its [`Word`]s, its error output. Never waits: a zygote so
/// far behind is as good as gone.
pub fn send_order(orders: impl AsFd, ends: [BorrowedFd; 3]) -> io::Result<()> {
    send(orders.as_fd(), ORDER, &ends)
}

impl Order {
    /// Takes the next order. None when the supervisor is gone.
    pub fn receive(orders: impl AsFd) -> io::Result<Option<Self>> {
        let (bytes, descriptors) = receive(orders.as_fd())?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let [socket, words, errors] = <[OwnedFd; MOST]>::try_from(descriptors).map_err(|_| malformed())?;
        Ok(Some(Self { socket, words, errors }))
    }
}

impl Word {
    /// Says it. Never waits.
    pub fn send(&self, words: impl AsFd, pidfd: Option<BorrowedFd>) -> io::Result<()> {
        send(words.as_fd(), &serde_json::to_vec(self)?, pidfd.as_slice())
    }

    /// Hears the next word, and the pidfd that came with it. None when the zygote is gone.
    pub fn receive(words: impl AsFd) -> io::Result<Option<(Self, Option<OwnedFd>)>> {
        let (bytes, mut descriptors) = receive(words.as_fd())?;
        if bytes.is_empty() {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes)?, descriptors.pop())))
    }
}

fn send(to: BorrowedFd, bytes: &[u8], descriptors: &[BorrowedFd]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(malformed());
    }
    sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// One message, which must be there already; empty when the other end is gone.
fn receive(from: BorrowedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    bytes.truncate(received.bytes);
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok((bytes, descriptors))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed message between supervisor and zygote")
}
