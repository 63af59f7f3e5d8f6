//! Removing from storage what nothing refers to any more. The alarm only finds what is due and moves it on to its next try.
//! The work is done in a request that the shard sends to itself, so that a bucket that does not answer keeps nothing else of
//! the shard waiting.

use std::{pin::pin, time::Duration};

use futures_util::{
    StreamExt,
    future::{Either, select},
    stream,
};
use serde::{Deserialize, Serialize};
use worker::{Delay, console_error};
use xora_shared::{id::Id, removal::Removal};

use super::{
    JobShard, Op, alarm, rpc,
    store::{ReceivedRow, UploadRow},
    uploads::Upload,
};
use crate::{
    config,
    error::{ApiError, Code},
};

/// Most objects of each kind that one pass removes.
const ROWS: i64 = 12;

/// How many calls are made at a time. An invocation has six connections, and others want some too.
const AT_ONCE: usize = 4;

/// How long the removal of one object may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a pass takes at most, in milliseconds: all rows, [`AT_ONCE`] at a time. Only one runs at a time.
const PASS_MS: i64 = 2 * 3 * 20_000;

/// When a caller's file is deleted once more after that failed, in milliseconds.
const AGAIN_MS: i64 = 60_000;

/// How long an object after its removal is removed once more that one request writes, in milliseconds: the request may have
/// been late.
const LATE_MS: i64 = 300_000;

/// What a pass removes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Removals {
    /// Keys of objects and uploads of ours.
    keys: Vec<String>,
    /// Callers' files.
    received: Vec<Id>,
}

impl JobShard {
    /// Moves what is due on to its next try, and has it removed beside the alarm.
    pub(super) fn begin_removals(&self) -> Result<(), ApiError> {
        let now = config::now();
        if self.memory.removing_ms.get() > now.0 {
            return Ok(());
        }
        let mut keys = Vec::new();
        for row in self.due_uploads(now.0, ROWS)? {
            keys.extend(self.begin_removal(row)?);
        }
        let mut received = Vec::new();
        for row in self.due_received(now.0, ROWS)? {
            received.push(row.id);
            self.put_received(&ReceivedRow { drop_at: now.plus(AGAIN_MS).0, ..row })?;
        }
        if keys.is_empty() && received.is_empty() {
            return Ok(());
        }
        let shards = self.env.durable_object("JOB_SHARDS")?;
        let stub = shards.id_from_string(&self.state.id().to_string())?.get_stub()?;
        let body = serde_json::to_string(&Removals { keys, received })?;
        self.memory.removing_ms.set(now.plus(PASS_MS).0);
        self.state.wait_until(async move {
            if let Err(error) = rpc::ask(&stub, Op::Remove.name(), None, body).await {
                console_error!("removals: {error}");
            }
        });
        Ok(())
    }

    /// Moves a row on to its next try. Gives the key of the object that is to be removed now; none if that is given up.
    fn begin_removal(&self, row: UploadRow) -> Result<Option<String>, ApiError> {
        let Some((removal, next)) = row.removal.begin(config::now()) else {
            console_error!("remove {}: given up after a week; delete it by hand", row.key);
            return self.delete_upload(&row.key).map(|()| None);
        };
        let key = row.key.clone();
        self.put_upload(&UploadRow { removal, drop_at: Some(next.0), ..row })?;
        Ok(Some(key))
    }

    /// One pass: removes what the alarm found due. What cannot be removed now is due again by its row.
    pub(super) async fn pass(&self, removals: Removals) {
        self.remove_all(removals).await;
        self.memory.removing_ms.set(0);
        alarm::report(self.arm().await);
    }

    async fn remove_all(&self, Removals { keys, received }: Removals) {
        let kept = keys.into_iter().map(|key| Either::Left(async move { self.remove_key(&key).await }));
        let brought = received.into_iter().map(|id| Either::Right(async move { self.remove_received(id).await }));
        let mut done = stream::iter(kept.chain(brought)).buffer_unordered(AT_ONCE);
        while let Some(removed) = done.next().await {
            alarm::report(removed);
        }
    }

    /// Removes what is due of these at once, as far as storage answers soon. The rest is due again by its rows.
    pub(super) async fn remove_now(&self, rows: Vec<UploadRow>) -> Result<(), ApiError> {
        const SOON: Duration = Duration::from_secs(5);
        let now = config::now().0;
        let due = rows.into_iter().filter(|row| row.drop_at.is_some_and(|at| at <= now));
        let keys = due.map(|row| self.begin_removal(row)).collect::<Result<Vec<_>, _>>()?;
        self.arm().await?;
        let removals = Removals { keys: keys.into_iter().flatten().collect(), received: vec![] };
        let _ = select(pin!(self.remove_all(removals)), pin!(Delay::from(SOON))).await;
        Ok(())
    }

    async fn remove_received(&self, id: Id) -> Result<(), ApiError> {
        let Some(row) = self.any_received(id)? else { return Ok(()) };
        in_time(self.look_at_received(row)).await
    }

    async fn remove_key(&self, key: &str) -> Result<(), ApiError> {
        let Some(row) = self.upload(key)?.filter(|row| row.drop_at.is_some()) else { return Ok(()) };
        let removed = match self.storage(row.provider) {
            Ok(storage) => in_time(storage.remove(&Upload::of(row.clone()))).await,
            // Nothing opens that bucket any more.
            Err(gone) if row.provider.is_some() => {
                console_error!("leave {}: {}", row.key, gone);
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            console_error!("remove {}: {error}", row.key);
            return Ok(());
        }
        // A later upload of the same key may have taken the row over in the meantime.
        let same =
            |now: &UploadRow| (&now.upload_id, now.fence) == (&row.upload_id, row.fence) && now.drop_at.is_some();
        if !self.upload(&row.key)?.is_some_and(|now| same(&now)) {
            return Ok(());
        }
        if row.is_single() && row.fence > 0 {
            let drop_at = Some(config::now().plus(LATE_MS).0);
            return self.put_upload(&UploadRow { fence: 0, drop_at, removal: Removal::default(), ..row });
        }
        self.delete_upload(&row.key)
    }
}

async fn in_time(removal: impl Future<Output = Result<(), ApiError>>) -> Result<(), ApiError> {
    match select(pin!(removal), pin!(Delay::from(PATIENCE))).await {
        Either::Left((removed, _)) => removed,
        Either::Right(((), _)) => Err(ApiError::new(Code::Unavailable, "storage does not answer")),
    }
}
