//! The process that a node forks its job processes from, without the node: for measuring.

use std::{
    io::{IoSlice, Read, pipe},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::{
    cmsg_space,
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
        socketpair,
    },
};

use crate::node;

/// A zygote of the release build. Dropping it ends it.
#[derive(Debug)]
pub struct Zygote {
    process: Child,
    orders: Option<OwnedFd>,
}

impl Zygote {
    /// Starts it as a node does.
    pub fn start() -> Result<Self> {
        let (orders, theirs) = seqpacket()?;
        let mut command = Command::new(node::binary(true));
        command.arg("zygote").env_clear().env("LD_BIND_NOW", "1").stdin(theirs).stdout(Stdio::null());
        Ok(Self { process: command.spawn()?, orders: Some(orders) })
    }

    /// How long a job process takes from the order to its first word, which it says locked down.
    pub fn ready(&self) -> Result<Duration> {
        let begun = Instant::now();
        let (mut ours, socket) = UnixStream::pair()?;
        let ((_words, their_words), (_errors, their_errors)) = (seqpacket()?, pipe()?);
        let ends = [socket.as_fd(), their_words.as_fd(), their_errors.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&ends));
        let orders = self.orders.as_ref().expect("only dropped at the end");
        sendmsg(orders, &[IoSlice::new(b"job")], &mut ancillary, SendFlags::NOSIGNAL)?;
        ours.read_exact(&mut [0])?;
        Ok(begun.elapsed())
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.process.wait();
    }
}

fn seqpacket() -> Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}
