//! Who may change an instance: one at a time. And who is its daemon.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::instance::Instance;

/// The right to change an instance, until it is dropped.
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits for it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn acquire(instance: &Instance) -> Result<Self> {
        let directory = instance.run();
        let path = directory.join("lock");
        loop {
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
            let Some(file) = open(&path)? else { continue };
            let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
            // `netfw down` removes the file: then the lock is on a file that nobody else will find.
            if is_at(&file, &path) {
                return Ok(Self { _file: file });
            }
        }
    }
}

/// Being the daemon of an instance, until it is dropped.
pub struct Daemon {
    _file: Flock<File>,
}

impl Daemon {
    /// Becomes the daemon; another one is told to end first.
    ///
    /// # Errors
    /// The other one does not end.
    pub async fn become_it(instance: &Instance) -> Result<Self> {
        loop {
            stop_daemon(instance).await?;
            let path = instance.run().join("daemon");
            fs::create_dir_all(instance.run())?;
            let Some(file) = open(&path)? else { continue };
            // Somebody else was quicker: tell that one to end.
            let Ok(mut file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            if is_at(&file, &path) {
                return Ok(Self { _file: file });
            }
        }
    }
}

/// Being the one to whom the datapath tells events, until it is dropped: a ring has one reader.
pub struct Watcher {
    _file: Flock<File>,
}

impl Watcher {
    /// Becomes the watcher.
    ///
    /// # Errors
    /// Somebody else is.
    pub fn become_it(instance: &Instance) -> Result<Self> {
        let file = open(&instance.run().join("watch"))?.context("the instance is going down")?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => {
                let who = process_in(file).map_or_else(String::new, |pid| format!(" (process {pid})"));
                bail!("another `netfw watch` is running{who}\nhelp: end that one first");
            }
            Err((_, error)) => return Err(error.into()),
        };
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

/// The process that is the daemon, if one is.
pub fn daemon(instance: &Instance) -> Option<Pid> {
    let path = instance.run().join("daemon");
    let file = OpenOptions::new().read(true).open(path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((file, Errno::EWOULDBLOCK)) => process_in(file),
        _ => None,
    }
}

fn process_in(mut file: File) -> Option<Pid> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok().map(Pid::from_raw)
}

/// Ends the daemon, if there is one; the datapath stays.
///
/// # Errors
/// It does not end within half a minute: a start of its own takes some seconds.
pub async fn stop_daemon(instance: &Instance) -> Result<()> {
    let mut told = None;
    for _ in 0..1500 {
        let Some(pid) = daemon(instance) else { return Ok(()) };
        if told != Some(pid) {
            told = Some(pid);
            match kill(pid, Signal::SIGTERM) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot stop the daemon (process {pid})"));
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("the daemon of instance {instance} does not end: kill it, the datapath goes on without it")
}

/// Opens or makes a file; none when its directory has just been removed.
fn open(path: &Path) -> Result<Option<File>> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_on_a_removed_file_is_noticed() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("lock");
        let file = open(&path)?.context("the directory is there")?;
        assert!(is_at(&file, &path));
        fs::remove_file(&path)?;
        assert!(!is_at(&file, &path));
        let other = open(&path)?.context("the directory is there")?;
        assert!(!is_at(&file, &path));
        assert!(is_at(&other, &path));
        Ok(())
    }
}
