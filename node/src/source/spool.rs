//! Reads an origin that cannot serve ranges: everything goes into a file that has no name, once, and is readable as far
//! as it has come.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    sync::watch,
    task::{AbortHandle, spawn_blocking},
    time::sleep,
};

use super::{
    fault::{SourceFault, Trouble},
    origin::{Agreement, Answer, Extent, Origin, Version},
    tries::Tries,
};

/// Bytes written at a time.
const WRITE: usize = 256 << 10;

/// The part of a disk that is left free: one of this many.
const RESERVE: u64 = 20;

/// The room for spooled inputs, shared by all tasks of a node.
#[derive(Debug)]
pub struct Room {
    dir: PathBuf,
    limit: u64,
    used: AtomicU64,
    disk: fn(&Path) -> Option<Disk>,
}

/// How full a file system is, in bytes.
#[derive(Clone, Copy, Debug)]
struct Disk {
    size: u64,
    free: u64,
}

impl Disk {
    /// None where the system does not say.
    fn of(dir: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self { size: bytes(found.f_blocks), free: bytes(found.f_bavail) })
    }
}

impl Room {
    /// At most `limit` bytes in `dir`, and no more than leaves a twentieth of its disk free.
    pub fn new(dir: PathBuf, limit: u64) -> Self {
        Self { dir, limit, used: AtomicU64::new(0), disk: Disk::of }
    }

    fn take(&self, bytes: u64) -> Result<(), SourceFault> {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| SourceFault::Full)
    }

    /// Whether the disk keeps its reserve when this many bytes more are written. May wait for the disk.
    fn leaves_reserve(&self, bytes: u64) -> bool {
        (self.disk)(&self.dir).is_none_or(|disk| disk.free.saturating_sub(bytes) >= disk.size / RESERVE)
    }
}

/// Room taken by one file; given back when dropped.
struct Share {
    room: Arc<Room>,
    bytes: u64,
}

impl Share {
    /// Makes it hold this many bytes at least. A file that is larger than all the room there is never fits; one that is not
    /// may fit later.
    fn reach(&mut self, bytes: u64) -> Result<(), SourceFault> {
        if bytes > self.room.limit {
            return Err(SourceFault::NoRoom { limit: self.room.limit });
        }
        let more = bytes.saturating_sub(self.bytes);
        self.room.take(more)?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// See the module. Dropping it ends the transfer.
pub struct Spool {
    file: Arc<File>,
    length: Option<u64>,
    come: watch::Receiver<Come>,
    /// How far readers have asked to read.
    wanted: watch::Sender<u64>,
    task: AbortHandle,
}

#[derive(Clone, Debug, Default)]
struct Come {
    /// Bytes in the file.
    bytes: u64,
    /// Set when nothing more will come.
    end: Option<Result<(), SourceFault>>,
}

/// The writing side.
struct Transfer {
    origin: Origin,
    version: Version,
    length: Option<u64>,
    /// Most bytes of one input.
    limit: u64,
    file: Arc<File>,
    share: Share,
    received: Arc<AtomicU64>,
    come: watch::Sender<Come>,
    wanted: watch::Receiver<u64>,
}

impl Spool {
    /// Goes on from the first answer, which is the whole file.
    pub fn new(
        origin: Origin,
        answer: Answer,
        length: Option<u64>,
        room: &Arc<Room>,
        limit: u64,
        received: Arc<AtomicU64>,
    ) -> Result<Self, SourceFault> {
        // All of it at once, so that another job cannot take the room while this one is at work.
        let mut share = Share { room: Arc::clone(room), bytes: 0 };
        share.reach(length.unwrap_or(0))?;
        if !room.leaves_reserve(length.unwrap_or(0)) {
            return Err(SourceFault::Full);
        }
        let file = Arc::new(tempfile::tempfile_in(&room.dir).map_err(|error| unwritten(&error))?);
        let (sender, come) = watch::channel(Come::default());
        let version = answer.version.clone();
        let (wanted, asked) = watch::channel(0);
        let (kept, come_to) = (Arc::clone(&file), sender);
        let transfer =
            Transfer { origin, version, length, limit, file: kept, share, received, come: come_to, wanted: asked };
        let task = tokio::spawn(transfer.run(answer)).abort_handle();
        Ok(Self { file, length, come, wanted, task })
    }

    /// Length of the input in bytes, when the origin says it.
    pub fn size(&self) -> Option<u64> {
        self.length
    }

    /// The bytes of a range, fewer only at the end of the input.
    pub async fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, SourceFault> {
        let end = offset.saturating_add(length);
        self.wanted.send_if_modified(|wanted| {
            let is_more = end > *wanted;
            *wanted = end.max(*wanted);
            is_more
        });
        let mut come = self.come.clone();
        let enough = |come: &Come| come.bytes >= end || come.end.is_some();
        let Come { bytes, end: ended } = come.wait_for(enough).await.map_err(|_| SourceFault::Disk)?.clone();
        let end = end.min(bytes);
        if let (true, Some(Err(fault))) = (end < offset.saturating_add(length), ended) {
            return Err(fault);
        }
        let Some(length) = end.checked_sub(offset).and_then(|length| usize::try_from(length).ok()) else {
            return Ok(Vec::new());
        };
        let file = Arc::clone(&self.file);
        let read = move || {
            let mut buffer = vec![0; length];
            file.read_exact_at(&mut buffer, offset).map(|()| buffer)
        };
        blocking(read).await
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Transfer {
    async fn run(mut self, answer: Answer) {
        let end = self.fill(answer).await;
        self.come.send_modify(|come| come.end = Some(end));
        // The room stays taken for as long as someone reads.
        self.come.closed().await;
    }

    async fn fill(&mut self, answer: Answer) -> Result<(), SourceFault> {
        let mut answer = Some(answer);
        let mut tries = Tries::patient();
        loop {
            let before = self.bytes();
            let Err(fault) = self.whole(answer.take()).await else { return Ok(()) };
            let at = self.bytes();
            // Everything comes again from the start: what is new in it earns no new tries.
            match tries.again(fault, (at - before).min(1), at, self.length) {
                Ok(wait) => sleep(wait).await,
                // Nobody waits for more yet: the origin is asked again when somebody does.
                Err(fault) if fault.trouble().is_some() && *self.wanted.borrow() <= at => {
                    self.wanted.wait_for(|wanted| *wanted > at).await.map_err(|_| fault)?;
                    tries = Tries::patient();
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// One request for everything; what is there already is skipped.
    async fn whole(&mut self, answer: Option<Answer>) -> Result<(), SourceFault> {
        let mut answer = match answer {
            Some(answer) => answer,
            None => self.checked(self.origin.get(None).await?)?,
        };
        let mut skip = self.bytes();
        let mut buffer = Vec::with_capacity(WRITE);
        loop {
            let next = answer.chunk().await;
            let Ok(Some(chunk)) = &next else {
                self.write(&mut buffer).await?;
                return next.and_then(|_| self.is_all());
            };
            self.received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            buffer.extend_from_slice(&chunk[usize::try_from(skipped).unwrap_or(chunk.len())..]);
            if buffer.len() >= WRITE {
                self.write(&mut buffer).await?;
            }
        }
    }

    fn checked(&self, answer: Answer) -> Result<Answer, SourceFault> {
        match answer.extent {
            Extent::Whole { length }
                if length == self.length && answer.version.agrees(&self.version) == Agreement::Same =>
            {
                Ok(answer)
            }
            Extent::Whole { .. } | Extent::Past { .. } => Err(SourceFault::Changed),
            Extent::Part { .. } => Err(SourceFault::Unavailable(Trouble::Odd)),
        }
    }

    fn is_all(&self) -> Result<(), SourceFault> {
        match self.length {
            Some(length) if self.bytes() < length => Err(SourceFault::Unavailable(Trouble::Ended)),
            Some(_) | None => Ok(()),
        }
    }

    async fn write(&mut self, buffer: &mut Vec<u8>) -> Result<(), SourceFault> {
        let at = self.bytes();
        let end = at + buffer.len() as u64;
        if end > self.limit {
            return Err(SourceFault::TooLarge { limit: self.limit, size: self.length });
        }
        self.share.reach(end)?;
        let (file, room, bytes) = (Arc::clone(&self.file), Arc::clone(&self.share.room), std::mem::take(buffer));
        let write = move || {
            if !room.leaves_reserve(bytes.len() as u64) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.write_all_at(&bytes, at).map(|()| bytes)
        };
        *buffer = blocking(write).await?;
        buffer.clear();
        self.come.send_modify(|come| come.bytes = end);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.come.borrow().bytes
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, SourceFault> {
    match spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(unwritten(&error)),
        Err(_) => Err(SourceFault::Disk),
    }
}

/// What an error of the file system means: that there is no room just now, or that this node is set up wrongly.
fn unwritten(error: &io::Error) -> SourceFault {
    use rustix::io::Errno;
    let passes = [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    let is_full = error.kind() == io::ErrorKind::StorageFull
        || error.raw_os_error().is_some_and(|code| passes.iter().any(|errno| errno.raw_os_error() == code));
    if is_full { SourceFault::Full } else { SourceFault::Disk }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(disk: fn(&Path) -> Option<Disk>) -> Arc<Room> {
        Arc::new(Room { disk, ..Room::new(std::env::temp_dir(), 100) })
    }

    #[test]
    fn a_file_that_never_fits_is_told_from_one_that_does_not_fit_beside_others() {
        let room = room(Disk::of);
        let share = || Share { room: Arc::clone(&room), bytes: 0 };
        let (mut one, mut other) = (share(), share());
        assert_eq!(one.reach(101), Err(SourceFault::NoRoom { limit: 100 }));
        assert_eq!(one.reach(60), Ok(()));
        assert_eq!(other.reach(50), Err(SourceFault::Full));
        assert_eq!(other.reach(40), Ok(()));
        assert_eq!(other.reach(30), Ok(()), "it has them");
        drop(one);
        assert_eq!(other.reach(100), Ok(()));
    }

    #[test]
    fn a_twentieth_of_the_disk_is_left_free() {
        let room = room(|_| Some(Disk { size: 1000, free: 80 }));
        assert!(room.leaves_reserve(30));
        assert!(!room.leaves_reserve(31));
        assert!(self::room(|_| None).leaves_reserve(u64::MAX), "where the system does not say");
    }

    #[test]
    fn a_full_disk_passes_and_a_directory_that_is_not_there_does_not() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opens");
        let error = full.write_all_at(b"x", 0).expect_err("is full");
        assert_eq!(unwritten(&error), SourceFault::Full);
        let error = tempfile::tempfile_in("/nowhere").expect_err("is not there");
        assert_eq!(unwritten(&error), SourceFault::Disk);
    }
}
