//! Stopping: the first signal drains, the second one gives everything back at once.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};
use tracing::info;

/// How far a stop has come. Only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Business as usual.
    Running,
    /// No new tasks; those that run may finish.
    Draining,
    /// Those that still run are given back.
    Now,
}

/// Tells everyone how far a stop has come.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Phase>);

impl Stop {
    /// Follows SIGTERM and SIGINT.
    pub fn on_signals(grace: Duration) -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(Phase::Running);
        tokio::spawn(async move {
            let mut asked = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
            asked().await;
            info!("stopping: no new tasks; running ones have {} s to finish", grace.as_secs());
            sender.send_replace(Phase::Draining);
            tokio::select! { () = asked() => {}, () = sleep(grace) => {} }
            sender.send_replace(Phase::Now);
            // Signals after this change nothing.
            sender.closed().await;
        });
        Ok(Self(receiver))
    }

    /// Follows whoever holds the other end.
    #[cfg(test)]
    pub const fn following(phase: watch::Receiver<Phase>) -> Self {
        Self(phase)
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until it has come this far.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|now| *now >= phase).await.is_err() {
            // The sender went without a word: nobody will ever stop us.
            std::future::pending::<()>().await;
        }
    }
}
