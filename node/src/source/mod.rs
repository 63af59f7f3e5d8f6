//! Reading inputs: ranges where the origin serves them, the whole into a spool where it does not.

mod cache;
pub mod client;
mod fault;
mod index;
mod join;
mod origin;
mod reader;
mod spool;
mod tries;

#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::sleep;

pub use fault::{SourceFault, Trouble};
pub use origin::Origin;
pub use reader::AHEAD;
pub use spool::Room;

use origin::{Answer, Extent};
use reader::RangeReader;
use spool::Spool;
use tries::Tries;

/// Bytes asked for first, as a rule: the headers of most formats, and as many as a job process reads first.
pub const HEAD: u64 = 64 << 10;

/// An input that has answered.
pub struct Source {
    way: Way,
    received: Arc<AtomicU64>,
    /// Where the job process last read to.
    followed: AtomicU64,
}

enum Way {
    Ranges(RangeReader),
    Spooled(Spool),
    Empty,
}

impl Source {
    /// Asks the origin for the `head` first bytes, [`HEAD`] or more, and finds out how it can be read.
    pub async fn open(origin: Origin, room: &Arc<Room>, limit: u64, head: u64) -> Result<Self, SourceFault> {
        let received = Arc::new(AtomicU64::new(0));
        let first = ask_first(&origin, head).await?;
        let size = match first.extent {
            Extent::Part { start: 0, total: Some(total) } => Some(total),
            Extent::Whole { length } => length,
            Extent::Past { total: Some(0) } => Some(0),
            // A range that begins at 0 is past the end of nothing only; some servers say so without saying the length.
            // And without a length, ranges are of no use.
            Extent::Past { .. } | Extent::Part { .. } => None,
        };
        if size.is_some_and(|size| size > limit) {
            return Err(SourceFault::TooLarge { limit, size });
        }
        let way = match (first.extent, size) {
            (_, Some(0)) => Way::Empty,
            (Extent::Part { .. }, Some(size)) => {
                Way::Ranges(RangeReader::new(origin, first, 0..head.min(size), size, Arc::clone(&received)))
            }
            (Extent::Whole { .. }, length) => {
                Way::Spooled(Spool::new(origin, first, length, room, limit, Arc::clone(&received))?)
            }
            (Extent::Part { .. } | Extent::Past { .. }, _) => Self::spool_anew(origin, room, limit, &received).await?,
        };
        let source = Self { way, received, followed: AtomicU64::new(0) };
        source.fetch_index().await?;
        Ok(source)
    }

    /// Fetches all of it with one request, from an origin whose answers to several do not agree.
    pub async fn open_whole(origin: Origin, room: &Arc<Room>, limit: u64) -> Result<Self, SourceFault> {
        let received = Arc::new(AtomicU64::new(0));
        let way = Self::spool_anew(origin, room, limit, &received).await?;
        Ok(Self { way, received, followed: AtomicU64::new(0) })
    }

    /// Length in bytes, when the origin says it.
    pub fn size(&self) -> Option<u64> {
        match &self.way {
            Way::Ranges(reader) => Some(reader.size()),
            Way::Spooled(spool) => spool.size(),
            Way::Empty => Some(0),
        }
    }

    /// Says that it will be read from its beginning to its end, so that it is fetched ahead at once.
    pub fn read_through(&self) {
        match &self.way {
            Way::Ranges(reader) => reader.read_through(),
            Way::Spooled(_) | Way::Empty => {}
        }
    }

    /// Says that of all that follows these bytes alone will be read, in this order.
    pub fn expect_only(&self, places: &[Range<u64>]) {
        match &self.way {
            Way::Ranges(reader) => reader.expect_only(places),
            Way::Spooled(_) | Way::Empty => {}
        }
    }

    /// Whether only places of it will be read, as far as that was said.
    pub fn is_read_in_places(&self) -> bool {
        matches!(&self.way, Way::Ranges(reader) if reader.is_read_in_places())
    }

    /// Fetches the last bytes without waiting for them.
    pub fn expect_end(&self, length: u64) {
        match &self.way {
            Way::Ranges(reader) => reader.expect(reader.size().saturating_sub(length)..reader.size()),
            Way::Spooled(_) | Way::Empty => {}
        }
    }

    /// Drops what is held in memory for later.
    pub fn forget(&self) {
        match &self.way {
            Way::Ranges(reader) => reader.forget(),
            Way::Spooled(_) | Way::Empty => {}
        }
    }

    /// The bytes of a range, fewer only at the end of the input.
    pub async fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, SourceFault> {
        match &self.way {
            Way::Ranges(reader) => reader.read(offset, length, true).await,
            Way::Spooled(spool) => spool.read(offset, length).await,
            Way::Empty => Ok(Vec::new()),
        }
    }

    /// The same, for who comes after another reader: nothing is fetched ahead for it.
    pub async fn read_after(&self, offset: u64, length: u64) -> Result<Vec<u8>, SourceFault> {
        match &self.way {
            Way::Ranges(reader) => reader.read(offset, length, false).await,
            Way::Spooled(_) | Way::Empty => self.read(offset, length).await,
        }
    }

    /// Notes where the job process has read to; [`u64::MAX`] when it will read no more.
    pub fn follow(&self, end: u64) {
        self.followed.store(end, Ordering::Relaxed);
    }

    /// Where the job process last read to.
    pub fn followed(&self) -> u64 {
        self.followed.load(Ordering::Relaxed)
    }

    /// Bytes received from the origin so far, those of other tasks' reads of the same input not counted.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    async fn spool_anew(
        origin: Origin,
        room: &Arc<Room>,
        limit: u64,
        received: &Arc<AtomicU64>,
    ) -> Result<Way, SourceFault> {
        let answer = ask(&origin, None).await?;
        let Extent::Whole { length } = answer.extent else {
            return Err(SourceFault::Unavailable(Trouble::Odd));
        };
        if length.is_some_and(|length| length > limit) {
            return Err(SourceFault::TooLarge { limit, size: length });
        }
        Ok(Way::Spooled(Spool::new(origin, answer, length, room, limit, Arc::clone(received))?))
    }

    /// Waits for the first bytes, and sends for the index that they tell of.
    async fn fetch_index(&self) -> Result<(), SourceFault> {
        let Way::Ranges(reader) = &self.way else { return Ok(()) };
        let head = reader.read(0, HEAD, true).await?;
        if let Some(place) = index::of_mp4(&head, reader.size()) {
            reader.expect(place);
        }
        Ok(())
    }
}

/// Asks for the first bytes. An origin that refuses a range, rather than to ignore it, is asked for all of the file.
async fn ask_first(origin: &Origin, head: u64) -> Result<Answer, SourceFault> {
    let range = Some(0..head);
    let refused = match origin.get(range.clone()).await {
        Ok(answer) => return Ok(answer),
        Err(fault) => fault,
    };
    let may_be_the_range = match &refused {
        SourceFault::Status(status) | SourceFault::Unavailable(Trouble::Status(status)) => {
            [400, 403, 405, 406, 501].contains(status)
        }
        SourceFault::Unavailable(trouble) => *trouble == Trouble::Odd,
        SourceFault::Refused(_)
        | SourceFault::Redirects
        | SourceFault::Encoded
        | SourceFault::Changed
        | SourceFault::Unsteady
        | SourceFault::Truncated { .. }
        | SourceFault::TooLarge { .. }
        | SourceFault::NoRoom { .. }
        | SourceFault::Full
        | SourceFault::Disk => false,
    };
    let whole = if may_be_the_range { origin.get(None).await.ok() } else { None };
    match whole.filter(|answer| matches!(answer.extent, Extent::Whole { .. })) {
        Some(whole) => Ok(whole),
        None if refused.trouble().is_some() => ask(origin, range).await,
        None => Err(refused),
    }
}

/// Asks until there is an answer or no hope.
async fn ask(origin: &Origin, range: Option<Range<u64>>) -> Result<Answer, SourceFault> {
    let mut tries = Tries::default();
    loop {
        match origin.get(range.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(fault) => sleep(tries.again(fault, 0, 0, None)?).await,
        }
    }
}
