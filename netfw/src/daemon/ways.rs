//! Tells the datapath when ways out may have changed: while it is told, it need not look each up again every second.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::time::{interval, sleep};

use super::host::ways::Ways;
use crate::kernel::Maps;

/// How often the datapath hears that somebody listens. Also the rest after a failure: meanwhile it looks for itself.
const BEAT: Duration = Duration::from_secs(1);

/// Listens for ever.
pub(super) async fn watch(maps: Arc<Maps>) {
    loop {
        if let Err(error) = listen(&maps).await {
            tracing::debug!("ways out are looked up again every second: {error:#}");
        }
        sleep(BEAT).await;
    }
}

/// Until a change may have been missed.
async fn listen(maps: &Maps) -> Result<()> {
    let mut ways = Ways::listen().await?;
    // Nobody knows what has changed before.
    maps.note_change()?;
    let mut beat = interval(BEAT);
    loop {
        tokio::select! {
            // Whoever says that he listens must have noted all that he has heard.
            biased;
            changed = ways.next() => if changed? {
                maps.note_change()?;
            },
            _ = beat.tick() => maps.keep_listening()?,
        }
    }
}
