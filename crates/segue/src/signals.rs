//! SIGINT and SIGTERM: the first one asks, the second one insists.

use crate::failure::{Exit, Failure, Outcome};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What the process was told by signals.
#[derive(Clone, Debug)]
pub struct Signals {
    heard: watch::Receiver<Vec<Exit>>,
}

impl Signals {
    /// Listens from now on. Must be called within a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> Outcome<Signals> {
        let refused =
            |error: std::io::Error| Failure::node(format!("cannot hear signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
        let (tell, heard) = watch::channel(Vec::new());
        tokio::spawn(async move {
            loop {
                let exit = tokio::select! {
                    Some(()) = interrupt.recv() => Exit::Interrupted,
                    Some(()) = terminate.recv() => Exit::Terminated,
                    () = tell.closed() => return,
                    else => return,
                };
                tell.send_modify(|heard| heard.push(exit));
            }
        });
        Ok(Signals { heard })
    }

    /// Waits for the first signal. Says each time anew which one it was.
    pub async fn first(&mut self) -> Exit {
        self.nth(1).await
    }

    /// Waits for the second signal.
    pub async fn second(&mut self) -> Exit {
        self.nth(2).await
    }

    async fn nth(&mut self, number: usize) -> Exit {
        match self.heard.wait_for(|heard| heard.len() >= number).await {
            Ok(heard) => heard.get(number - 1).copied().unwrap_or(Exit::Interrupted),
            // The listener ends only with the runtime.
            Err(_) => std::future::pending().await,
        }
    }
}
