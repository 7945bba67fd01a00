//! A thread inside a host's network that serves until its guard goes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;

/// How often a service looks whether it should stop.
pub(super) const GLANCE: Duration = Duration::from_millis(50);

/// The guard of a serving thread.
#[derive(Debug)]
pub(super) struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Runs `serve` again and again; it must return at least every [`GLANCE`].
    pub(super) fn start(mut serve: impl FnMut() + Send + 'static) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::Builder::new().spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                serve();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed already, and the conversation it served has failed.
            let _ = thread.join();
        }
    }
}
