//! Live events of a job, for those who watch it. They are in memory only, and only the latest waits for each reader: a slow
//! reader skips what is over, and one that is gone is forgotten.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    rc::{Rc, Weak},
    task::{Poll, Waker},
    time::Duration,
};

use futures_util::{
    future::{Either, select},
    stream,
};
use serde::{Deserialize, Serialize};
use worker::{Delay, Env, Response, console_error};
use xora_shared::{
    id::Id,
    job::{version::version, view::JobView},
    time::UnixMs,
};

use super::JobShard;
use crate::{account, config, error::ApiError};

/// How long a reader hears nothing before it gets a comment, so that neither side takes the other for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often a stream asks whether its key still stands, in milliseconds. It ends within this and [`KEEP_ALIVE`] after the
/// key was revoked.
const ASK_AGAIN_MS: i64 = 10_000;

/// What a stream begins with: how long a reader waits before it connects again, in milliseconds.
const OPENING: &str = "retry: 1000\n\n";

/// A reader that wants the events of a job.
#[derive(Debug, Serialize, Deserialize)]
pub struct Watch {
    /// The job.
    pub job: Id,
    /// The version that the reader has already.
    pub seen: Option<u64>,
    /// What the reader's key is kept under, if it can be revoked.
    pub key: Option<String>,
}

/// Who watches which job.
#[derive(Default)]
pub(super) struct Watchers(RefCell<HashMap<Id, Vec<Weak<Reader>>>>);

struct Reader {
    /// What it gets next.
    latest: RefCell<Option<Event>>,
    /// The highest version that it was given.
    seen: Cell<Option<u64>>,
    waker: Cell<Option<Waker>>,
}

#[derive(Clone)]
struct Event {
    version: u64,
    text: String,
    /// Nothing follows the end of a job.
    last: bool,
}

impl JobShard {
    /// Tells those who watch a job how it stands. Costs nothing when nobody does.
    pub(super) fn tell(&self, job: Id) {
        let readers = self.memory.watchers.of(job);
        if readers.is_empty() {
            return;
        }
        match self.event(job) {
            Ok(event) => readers.iter().for_each(|reader| reader.give(&event)),
            Err(error) => console_error!("events of {job}: {error}"),
        }
    }

    /// A stream of a job's events, from the state that it is in unless the reader has that. Nothing at all (204, which
    /// stops an `EventSource`) when the reader has seen the end.
    pub(super) fn watch(&self, Watch { job, seen, key }: Watch) -> Result<Response, ApiError> {
        let event = self.event(job)?;
        if event.last && seen == Some(event.version) {
            return Ok(Response::empty()?.with_status(204));
        }
        let reader = Rc::new(Reader { latest: RefCell::default(), seen: Cell::new(seen), waker: Cell::default() });
        reader.give(&event);
        if !event.last {
            self.memory.watchers.add(job, &reader);
        }
        let stream = Stream { reader, env: self.env.clone(), key, asked: UnixMs(0) };
        Ok(Response::from_stream(stream::unfold(Next::Opening(stream), follow))?)
    }

    fn event(&self, id: Id) -> Result<Event, ApiError> {
        let job = self.job(id)?;
        let links = self.links(&job.record, &job.origin)?;
        let (turns, task) = (job.turns, self.task(id)?);
        let fence = task.as_ref().map_or(job.fence, |task| task.fence);
        let record = self.shown(job.record, task);
        let (version, last) = (version(turns, fence, &record), record.state.is_terminal());
        let view = serde_json::to_string(&JobView::of(record, |key| links.read_url(key)))?;
        Ok(Event { version, text: format!("id: {version}\ndata: {view}\n\n"), last })
    }
}

/// A reader's connection.
struct Stream {
    reader: Rc<Reader>,
    env: Env,
    /// What the reader's key is kept under, if it can be revoked.
    key: Option<String>,
    /// When that was last asked. First before the first event: the Worker that opened the stream may have remembered the key.
    asked: UnixMs,
}

/// What a stream says next.
enum Next {
    Opening(Stream),
    Following(Stream),
    Nothing,
}

async fn follow(next: Next) -> Option<(worker::Result<Vec<u8>>, Next)> {
    let (text, next) = match next {
        Next::Opening(stream) => (OPENING.to_owned(), Next::Following(stream)),
        Next::Following(mut stream) => {
            let event = match select(Box::pin(stream.reader.next()), Delay::from(KEEP_ALIVE)).await {
                Either::Left((event, _)) => Some(event),
                Either::Right(_) => None,
            };
            if stream.is_revoked().await {
                return None;
            }
            match event {
                Some(event) if event.last => (event.text, Next::Nothing),
                Some(event) => (event.text, Next::Following(stream)),
                None => (": still here\n\n".to_owned(), Next::Following(stream)),
            }
        }
        Next::Nothing => return None,
    };
    Some((Ok(text.into_bytes()), next))
}

impl Stream {
    /// Whether the reader's key was revoked, as far as it is time to ask and there is an answer.
    async fn is_revoked(&mut self) -> bool {
        let now = config::now();
        let Some(key) = self.key.as_ref().filter(|_| now.since(self.asked) >= ASK_AGAIN_MS) else { return false };
        self.asked = now;
        matches!(account::verify(&self.env, key).await, Ok(None))
    }
}

impl Reader {
    /// Replaces what waits for it, unless it has that version. After a restart of the shard a job may stand a little
    /// behind what was told before: the reader hears of it when it is ahead again. The end is told whatever was seen.
    fn give(&self, event: &Event) {
        if self.seen.get().is_some_and(|seen| event.version <= seen) && !event.last {
            return;
        }
        self.seen.set(Some(event.version));
        self.latest.replace(Some(event.clone()));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn next(&self) -> Event {
        poll_fn(|context| {
            self.waker.set(Some(context.waker().clone()));
            self.latest.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl Watchers {
    /// Who still watches a job.
    fn of(&self, job: Id) -> Vec<Rc<Reader>> {
        let mut all = self.0.borrow_mut();
        let readers: Vec<_> = all.get(&job).into_iter().flatten().filter_map(Weak::upgrade).collect();
        if readers.is_empty() {
            all.remove(&job);
        }
        readers
    }

    fn add(&self, job: Id, reader: &Rc<Reader>) {
        let mut all = self.0.borrow_mut();
        let readers = all.entry(job).or_default();
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Rc::downgrade(reader));
    }
}
