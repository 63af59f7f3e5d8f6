//! Reads an origin that serves ranges: what is missing is fetched, exactly as asked while reads hop about, and further
//! and further ahead once they go on in one direction.
//!
//! Every fetch is a task of its own (a *flight*) that brings its range into the cache piece by piece; a read waits
//! until its bytes are there, whoever fetches them. So a flight that is ahead of the reader costs no waiting, and a
//! thumbnail takes little more than what was asked for.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{
    cache::Cache,
    fault::{SourceFault, Trouble},
    join::joined,
    origin::{Agreement, Answer, Extent, Origin, Version},
    tries::{PATIENCE, Tries},
};

/// Bytes kept of one input.
const CACHE: usize = 16 << 20;
/// Bytes that arrive together before a reader hears of them.
const PIECE: usize = 64 << 10;
/// How many bytes must be read in one direction before anything is fetched ahead: an index is not yet a direction.
const AHEAD_AFTER: u64 = 1 << 20;
/// Bytes fetched ahead as soon as reading goes on, where it is known that it will go on to the end.
pub const AHEAD: u64 = 4 << 20;
/// Most bytes fetched ahead there; elsewhere [`AHEAD`], since all of it may be more than is read.
const AHEAD_MOST: u64 = 8 << 20;
/// Skips within one direction: a demuxer leaves streams out. Far away, as many bytes come in the time of one round
/// trip.
const SKIP: u64 = 512 << 10;
/// Places fetched at once where it is known what alone will be read: as many connections as a browser opens to a host.
const PLACES: usize = 6;
/// How long a request takes to be answered, as long as none has been watched.
const REQUEST: Duration = Duration::from_millis(20);
/// Directions remembered: a badly interleaved file is read at a few places in turn.
const CURSORS: usize = 4;

/// See the module. Dropping it ends its flights.
pub struct RangeReader {
    inner: Arc<Inner>,
}

struct Inner {
    origin: Origin,
    size: u64,
    /// Bytes received, for the receipt.
    received: Arc<AtomicU64>,
    state: Mutex<State>,
    /// Something came, or will not.
    moved: Notify,
}

struct State {
    /// As far as any answer said.
    version: Version,
    cache: Cache,
    flights: Vec<Flight>,
    cursors: Vec<Cursor>,
    next_flight: u64,
    /// Whether reading will go on to the end.
    through: bool,
    /// What alone will be read, where that is known.
    places: Vec<Range<u64>>,
    /// How soon a request was answered, at best.
    soonest: Option<Duration>,
}

struct Flight {
    number: u64,
    /// The next byte to come.
    at: u64,
    end: u64,
    /// Why nothing more will come. Kept until someone needs these bytes: who has waited for them is told, and for anyone
    /// else they are asked for again.
    fault: Option<SourceFault>,
    task: Option<AbortHandle>,
}

struct Cursor {
    next: u64,
    run: u64,
}

enum Look {
    Ready(Vec<u8>),
    /// For the flight of this number.
    Wait(u64),
    Fetch(Range<u64>),
    Failed(SourceFault),
}

impl RangeReader {
    /// Goes on from the first answer, which covers `first`.
    pub fn new(origin: Origin, answer: Answer, first: Range<u64>, size: u64, received: Arc<AtomicU64>) -> Self {
        let (cache, flights, cursors) = (Cache::new(CACHE), Vec::new(), Vec::new());
        let version = answer.version.clone();
        let (through, places, soonest) = (false, Vec::new(), None);
        let state = State { version, cache, flights, cursors, next_flight: 0, through, places, soonest };
        let inner = Inner { origin, size, received, state: Mutex::new(state), moved: Notify::new() };
        let reader = Self { inner: Arc::new(inner) };
        reader.fly(&mut reader.inner.lock(), first, Some(answer));
        reader
    }

    /// Length of the input in bytes.
    pub fn size(&self) -> u64 {
        self.inner.size
    }

    /// From here on reading will go on to the end: no need to wait for a direction.
    pub fn read_through(&self) {
        self.inner.lock().through = true;
    }

    /// From here on these places alone will be read: they are fetched ahead, several at once, and what lies between only
    /// where that is sooner than a request more.
    pub fn expect_only(&self, places: &[Range<u64>]) {
        let mut state = self.inner.lock();
        state.places = joined(places, state.soonest.unwrap_or(REQUEST), PLACES);
        let first = state.places.first().map_or(0, |place| place.start);
        self.keep_places_ahead(&mut state, first);
    }

    /// Whether places are all that will be read.
    pub fn is_read_in_places(&self) -> bool {
        !self.inner.lock().places.is_empty()
    }

    /// Drops what is held for later.
    pub fn forget(&self) {
        self.inner.lock().cache = Cache::new(CACHE);
    }

    /// The bytes of a range, fewer only at the end of the input. Who `leads` has more fetched ahead.
    pub async fn read(&self, offset: u64, length: u64, leads: bool) -> Result<Vec<u8>, SourceFault> {
        let end = offset.saturating_add(length).min(self.inner.size);
        if offset >= end {
            return Ok(Vec::new());
        }
        let range = offset..end;
        let ahead = if leads { self.inner.lock().follow(&range) } else { 0 };
        let begun = Instant::now();
        let mut awaited = None;
        loop {
            let moved = self.inner.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            // The lock must be gone before anything is awaited.
            let look = {
                let mut state = self.inner.lock();
                let look = state.look(&range, awaited, begun.elapsed() < PATIENCE / 2);
                match &look {
                    Look::Ready(_) | Look::Wait(_) if leads && state.is_in_places(offset) => {
                        self.keep_places_ahead(&mut state, offset);
                    }
                    Look::Ready(_) => self.keep_ahead(&mut state, end, ahead),
                    Look::Fetch(gap) => {
                        let to = if gap.end == end { end.saturating_add(ahead).min(self.inner.size) } else { gap.end };
                        awaited = Some(self.fly(&mut state, gap.start..to, None));
                    }
                    Look::Wait(_) | Look::Failed(_) => {}
                }
                // Whatever else was to be done about it.
                if let Look::Wait(number) = &look {
                    awaited = Some(*number);
                }
                look
            };
            match look {
                Look::Ready(bytes) => return Ok(bytes),
                Look::Failed(fault) => return Err(fault),
                Look::Wait(_) | Look::Fetch(_) => moved.await,
            }
        }
    }

    /// Fetches a range without waiting for it.
    pub fn expect(&self, range: Range<u64>) {
        let mut state = self.inner.lock();
        let start = state.reach(range.start);
        if start < range.end.min(self.inner.size) {
            self.fly(&mut state, start..range.end.min(self.inner.size), None);
        }
    }

    /// Sends the next flight off when less than half of `ahead` is left in front of the reader.
    fn keep_ahead(&self, state: &mut State, from: u64, ahead: u64) {
        let reach = state.reach(from);
        if ahead > 0 && reach < self.inner.size && reach - from < ahead / 2 {
            self.fly(state, reach..reach.saturating_add(ahead).min(self.inner.size), None);
        }
    }

    /// Sends off flights to the next places from `from` on, until enough of them are on their way.
    fn keep_places_ahead(&self, state: &mut State, from: u64) {
        // The places are what a job process says: any numbers.
        let mut ahead = 0_u64;
        let mut next = state.places.partition_point(|place| place.end <= from);
        while let Some(place) = state.places.get(next).cloned() {
            let begin = place.start.max(from);
            let start = state.reach(begin).min(place.end);
            ahead = ahead.saturating_add(start.saturating_sub(begin));
            if ahead >= AHEAD_MOST / 2 || state.flights.len() >= PLACES {
                return;
            }
            let end = place.end.min(start.saturating_add(AHEAD_MOST - ahead)).min(self.inner.size);
            if start < end {
                self.fly(state, start..end, None);
                ahead += end - start;
            }
            next += 1;
        }
    }

    /// Sends a flight off, and answers its number.
    fn fly(&self, state: &mut State, range: Range<u64>, answer: Option<Answer>) -> u64 {
        let number = state.next_flight;
        state.next_flight += 1;
        state.flights.push(Flight { number, at: range.start, end: range.end, fault: None, task: None });
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            let fault = inner.bring(number, range, answer).await.err();
            inner.land(number, fault);
        });
        if let Some(flight) = state.flights.last_mut() {
            flight.task = Some(task.abort_handle());
        }
        number
    }
}

impl Drop for RangeReader {
    fn drop(&mut self) {
        for flight in &self.inner.lock().flights {
            if let Some(task) = &flight.task {
                task.abort();
            }
        }
    }
}

impl State {
    /// Whether a place is one of those that alone will be read, or before them. Behind the last one nothing is known.
    fn is_in_places(&self, at: u64) -> bool {
        self.places.last().is_some_and(|last| at < last.end)
    }

    /// Notes a read, and says how far ahead of it to fetch.
    fn follow(&mut self, range: &Range<u64>) -> u64 {
        let known = self.cursors.iter().position(|cursor| cursor.next.abs_diff(range.start) <= SKIP);
        let mut cursor = match known {
            Some(index) => self.cursors.remove(index),
            None => Cursor { next: range.start, run: 0 },
        };
        cursor.run += range.end.saturating_sub(cursor.next);
        cursor.next = range.end.max(cursor.next);
        let is_in_places = self.is_in_places(range.start);
        let run = if is_in_places { 0 } else { cursor.run };
        self.cursors.push(cursor);
        if self.cursors.len() > CURSORS {
            self.cursors.remove(0);
        }
        let least = if self.through && !is_in_places && known.is_some() { AHEAD } else { 0 };
        let most = if self.through { AHEAD_MOST } else { AHEAD };
        if run > AHEAD_AFTER { run.clamp(least, most) } else { least }
    }

    /// What there is of a range. `awaited` is the flight that its reader has waited for; a reader that `waits_on` has the
    /// origin asked again where the trouble may pass.
    fn look(&mut self, range: &Range<u64>, awaited: Option<u64>, waits_on: bool) -> Look {
        loop {
            let Some(gap) = self.cache.gap(range.clone()) else { return Look::Ready(self.cache.copy(range.clone())) };
            let coming = self.flights.iter().position(|flight| flight.at <= gap.start && gap.start < flight.end);
            let Some(index) = coming else {
                let next = self.flights.iter().map(|flight| flight.at).filter(|at| gap.contains(at)).min();
                return Look::Fetch(gap.start..next.unwrap_or(gap.end));
            };
            let Flight { number, fault, .. } = &self.flights[index];
            let (number, Some(fault)) = (*number, fault.clone()) else { return Look::Wait(*number) };
            self.flights.remove(index);
            if awaited == Some(number) && !(waits_on && fault.trouble().is_some()) {
                return Look::Failed(fault);
            }
        }
    }

    /// How far the bytes from `from` on are there or on their way.
    fn reach(&self, from: u64) -> u64 {
        let mut end = from;
        loop {
            let mut next = self.cache.reach(end);
            for flight in &self.flights {
                if flight.at <= next && flight.fault.is_none() {
                    next = next.max(flight.end);
                }
            }
            if next == end {
                return end;
            }
            end = next;
        }
    }
}

impl Inner {
    /// Brings a range into the cache, asking again where the origin breaks off.
    async fn bring(&self, number: u64, range: Range<u64>, mut answer: Option<Answer>) -> Result<(), SourceFault> {
        let mut at = range.start;
        let mut tries = Tries::patient();
        while at < range.end {
            let before = at;
            if let Err(fault) = self.stretch(number, &mut at, range.end, answer.take()).await {
                sleep(tries.again(fault, at - before, at, Some(self.size))?).await;
            }
        }
        Ok(())
    }

    /// One request: from `at` on, as far as the answer goes.
    async fn stretch(&self, number: u64, at: &mut u64, end: u64, answer: Option<Answer>) -> Result<(), SourceFault> {
        let mut answer = match answer {
            Some(answer) => answer,
            None => self.ask(*at..end).await?,
        };
        let before = *at;
        let mut piece = BytesMut::new();
        while *at + (piece.len() as u64) < end {
            let chunk = match answer.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(fault) => {
                    self.deliver(number, at, &mut piece);
                    return Err(fault);
                }
            };
            self.received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            let wanted = end - *at - piece.len() as u64;
            piece.extend_from_slice(&chunk[..chunk.len().min(usize::try_from(wanted).unwrap_or(usize::MAX))]);
            if piece.len() >= PIECE {
                self.deliver(number, at, &mut piece);
            }
        }
        self.deliver(number, at, &mut piece);
        if *at > before { Ok(()) } else { Err(SourceFault::Unavailable(Trouble::Ended)) }
    }

    /// Asks for a range, and notes how soon the answer began.
    async fn ask(&self, range: Range<u64>) -> Result<Answer, SourceFault> {
        let (at, asked) = (range.start, Instant::now());
        let answer = self.origin.get(Some(range)).await?;
        let took = asked.elapsed();
        let mut state = self.lock();
        state.soonest = Some(state.soonest.map_or(took, |soonest| soonest.min(took)));
        drop(state);
        self.checked(answer, at)
    }

    /// Whether an answer belongs to the file that reading began with, and begins where it should.
    fn checked(&self, answer: Answer, at: u64) -> Result<Answer, SourceFault> {
        let mut state = self.lock();
        let agreement = answer.version.agrees(&state.version);
        state.version.learn(&answer.version);
        drop(state);
        match answer.extent {
            _ if agreement == Agreement::Different => Err(SourceFault::Changed),
            Extent::Part { total: Some(total), .. } if total != self.size => Err(SourceFault::Changed),
            Extent::Whole { length: Some(length) } if length != self.size => Err(SourceFault::Changed),
            Extent::Past { .. } => Err(SourceFault::Changed),
            _ if agreement == Agreement::Unknown => Err(SourceFault::Unsteady),
            Extent::Part { start, .. } if start == at => Ok(answer),
            Extent::Whole { .. } if at == 0 => Ok(answer),
            Extent::Part { .. } | Extent::Whole { .. } => Err(SourceFault::Unavailable(Trouble::Odd)),
        }
    }

    fn deliver(&self, number: u64, at: &mut u64, piece: &mut BytesMut) {
        if piece.is_empty() {
            return;
        }
        // As long as it is and not longer: what arrives grows by doubling, and the cache would keep twice as much.
        let bytes = Bytes::copy_from_slice(piece);
        piece.clear();
        let mut state = self.lock();
        state.cache.insert(*at, &bytes);
        *at += bytes.len() as u64;
        if let Some(flight) = state.flights.iter_mut().find(|flight| flight.number == number) {
            flight.at = *at;
        }
        drop(state);
        self.moved.notify_waiters();
    }

    fn land(&self, number: u64, fault: Option<SourceFault>) {
        let mut state = self.lock();
        match (state.flights.iter().position(|flight| flight.number == number), fault) {
            (Some(index), Some(fault)) => state.flights[index].fault = Some(fault),
            (Some(index), None) => drop(state.flights.remove(index)),
            (None, _) => {}
        }
        drop(state);
        self.moved.notify_waiters();
    }

    /// Nothing here panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
