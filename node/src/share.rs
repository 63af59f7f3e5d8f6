//! What share of the node a task has. Every task has a slot; one that encodes moving pictures also has one of the few
//! encodes, because each fills the cores that it is given.
//!
//! While an encode is free, a node asks for any work and keeps the encode for it until the request or the plan says that
//! none is needed. While none is free, it asks for work that may do without. Where the plan then says otherwise, the
//! task goes back to the edge, which from then on offers it to nodes with an encode to spare: waiting for one here would
//! fill the slots that cheap work needs.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use xora_shared::job::weight::Weight;

/// The share of one task. Dropping it gives all back.
pub struct Share {
    encodes: Arc<Semaphore>,
    encode: Mutex<Option<OwnedSemaphorePermit>>,
    /// Told when an encode becomes free.
    freed: Arc<Notify>,
    _slot: OwnedSemaphorePermit,
}

impl Share {
    /// A slot, and an encode if one is free.
    pub fn of(slot: OwnedSemaphorePermit, encodes: &Arc<Semaphore>, freed: &Arc<Notify>) -> Self {
        let encode = Arc::clone(encodes).try_acquire_owned().ok();
        Self { encodes: Arc::clone(encodes), encode: Mutex::new(encode), freed: Arc::clone(freed), _slot: slot }
    }

    /// Whether it holds an encode.
    pub fn can_encode(&self) -> bool {
        self.lock().is_some()
    }

    /// Takes or gives back what a task of this weight needs. False when it needs an encode and none is free.
    pub fn settle(&self, weight: Weight) -> bool {
        let mut encode = self.lock();
        match weight {
            Weight::Open => true,
            Weight::Light => {
                if encode.take().is_some() {
                    self.freed.notify_one();
                }
                true
            }
            Weight::Heavy => {
                *encode = encode.take().or_else(|| Arc::clone(&self.encodes).try_acquire_owned().ok());
                encode.is_some()
            }
        }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.encode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(encodes: &Arc<Semaphore>) -> Share {
        let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("free");
        Share::of(slot, encodes, &Arc::default())
    }

    #[test]
    fn a_second_encode_finds_no_room_and_cheap_work_needs_none() {
        let encodes = Arc::new(Semaphore::new(1));
        let (first, second) = (share(&encodes), share(&encodes));
        assert!(first.can_encode() && first.settle(Weight::Heavy));
        assert!(!second.can_encode());
        assert!(second.settle(Weight::Open) && second.settle(Weight::Light));
        assert!(!second.settle(Weight::Heavy));
        drop(first);
        assert!(second.settle(Weight::Heavy));
    }

    #[tokio::test]
    async fn a_plan_that_copies_gives_its_encode_to_whoever_waits() {
        let encodes = Arc::new(Semaphore::new(1));
        let first = share(&encodes);
        assert!(first.settle(Weight::Open.planned(xora_shared::report::StrategyKind::Remux)));
        first.freed.notified().await;
        assert!(share(&encodes).can_encode());
    }
}
