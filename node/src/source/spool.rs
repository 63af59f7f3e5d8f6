//! Reads an origin that cannot serve ranges: everything goes into a file that has no name, once, and is readable as far
//! as it has come.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
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
    origin::{Answer, Extent, Origin, Version},
    tries::Tries,
};

/// Bytes written at a time.
const WRITE: usize = 256 << 10;

/// The room for spooled inputs, shared by all tasks of a node.
#[derive(Debug)]
pub struct Room {
    dir: PathBuf,
    limit: u64,
    used: AtomicU64,
}

impl Room {
    /// At most `limit` bytes in `dir`.
    pub fn new(dir: PathBuf, limit: u64) -> Self {
        Self { dir, limit, used: AtomicU64::new(0) }
    }

    fn take(&self, bytes: u64) -> Result<(), SourceFault> {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| SourceFault::NoRoom { limit: self.limit })
    }
}

/// Room taken by one file; given back when dropped.
struct Share {
    room: Arc<Room>,
    bytes: u64,
}

impl Share {
    fn grow(&mut self, bytes: u64) -> Result<(), SourceFault> {
        self.room.take(bytes)?;
        self.bytes += bytes;
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
        if length.is_some_and(|length| length > room.limit) {
            return Err(SourceFault::NoRoom { limit: room.limit });
        }
        let file = Arc::new(tempfile::tempfile_in(&room.dir).map_err(|_| SourceFault::Disk)?);
        let (sender, come) = watch::channel(Come::default());
        let share = Share { room: Arc::clone(room), bytes: 0 };
        let version = answer.version.clone();
        let transfer =
            Transfer { origin, version, length, limit, file: Arc::clone(&file), share, received, come: sender };
        let task = tokio::spawn(transfer.run(answer)).abort_handle();
        Ok(Self { file, length, come, task })
    }

    /// Length of the input in bytes, when the origin says it.
    pub fn size(&self) -> Option<u64> {
        self.length
    }

    /// The bytes of a range, fewer only at the end of the input.
    pub async fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, SourceFault> {
        let end = offset.saturating_add(length);
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
        let mut tries = Tries::default();
        loop {
            let before = self.bytes();
            let Err(fault) = self.whole(answer.take()).await else { return Ok(()) };
            let at = self.bytes();
            // Everything comes again from the start: what is new in it earns no new tries.
            sleep(tries.again(fault, (at - before).min(1), at, self.length)?).await;
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
            Extent::Whole { length } if length == self.length && answer.version.agrees(&self.version) => Ok(answer),
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
            return Err(SourceFault::TooLarge { limit: self.limit });
        }
        self.share.grow(buffer.len() as u64)?;
        let (file, bytes) = (Arc::clone(&self.file), std::mem::take(buffer));
        *buffer = blocking(move || file.write_all_at(&bytes, at).map(|()| bytes)).await?;
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
        Ok(Err(_)) | Err(_) => Err(SourceFault::Disk),
    }
}
