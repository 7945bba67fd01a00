//! Changes of the rules file and of what it includes. Directories are watched, because editors replace files.

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf};

use anyhow::{Context as _, Result};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Watches a set of files.
pub(super) struct Files {
    watcher: RecommendedWatcher,
    events: mpsc::UnboundedReceiver<Event>,
    files: Vec<PathBuf>,
    names: BTreeSet<OsString>,
    directories: BTreeSet<PathBuf>,
}

impl Files {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The kernel has no more watches.
    pub(super) fn new() -> Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // The other end is gone only when the daemon ends.
            let _ = event.map(|event| sender.send(event));
        })
        .context("cannot watch files")?;
        Ok(Self { watcher, events, files: Vec::new(), names: BTreeSet::new(), directories: BTreeSet::new() })
    }

    /// Watches these files beside the others.
    pub(super) fn watch_also(&mut self, files: &[PathBuf]) {
        self.watch(&[&self.files, files].concat());
    }

    /// Watches exactly these files from now on. One behind a symbolic link is watched in both places.
    pub(super) fn watch(&mut self, files: &[PathBuf]) {
        self.files = files.to_vec();
        let real = files.iter().filter_map(|file| file.canonicalize().ok());
        let files: Vec<PathBuf> = files.iter().cloned().chain(real).collect();
        self.names = files.iter().filter_map(|file| file.file_name().map(ToOwned::to_owned)).collect();
        // By their real names: two watches on one directory would be one for the kernel.
        let wanted: BTreeSet<PathBuf> =
            files.iter().filter_map(|file| file.parent()?.canonicalize().ok()).collect();
        for gone in self.directories.difference(&wanted) {
            let _ = self.watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.directories) {
            if let Err(error) = self.watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!("changes in {} go unnoticed: {error}", new.display());
            }
        }
        self.directories = wanted;
    }

    /// Waits for a change of one of them.
    pub(super) async fn changed(&mut self) {
        while let Some(event) = self.events.recv().await {
            let ours =
                event.paths.iter().filter_map(|path| path.file_name()).any(|name| self.names.contains(name));
            if ours && !matches!(event.kind, EventKind::Access(_)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Forgets what has come in so far.
    pub(super) fn drain(&mut self) {
        while self.events.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_is_noticed() -> Result<()> {
        let home = tempfile::tempdir()?;
        let (rules, draft) = (home.path().join("netfw.toml"), home.path().join("draft"));
        fs::write(&rules, "old")?;
        let mut files = Files::new()?;
        files.watch(std::slice::from_ref(&rules));
        fs::write(&draft, "new")?;
        fs::rename(&draft, &rules)?;
        tokio::time::timeout(Duration::from_secs(30), files.changed()).await.context("nothing was noticed")
    }
}
