//! Where an instance lives in the BPF file system.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{object::ABI, sys};

const BPFFS: &str = "/sys/fs/bpf";
/// Tools such as `ip netns exec` run commands with a `/sys` of their own, without what was mounted below it.
const BPFFS_OF_INIT: &str = "/proc/1/root/sys/fs/bpf";

/// Directory of the pins of an instance.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// Pins of `instance`, wherever a BPF file system is; nothing is made.
    pub fn of(instance: &str) -> Self {
        let root = if !is_bpffs(BPFFS) && is_bpffs(BPFFS_OF_INIT) { BPFFS_OF_INIT } else { BPFFS };
        Self { directory: Path::new(root).join("netfw").join(instance) }
    }

    /// Makes the directory, mounting the file system where it is missing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create(&self) -> Result<()> {
        if !is_bpffs(BPFFS) && self.directory.starts_with(BPFFS) {
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
                .with_context(|| format!("cannot mount the BPF file system on {BPFFS}"))?;
        }
        fs::create_dir_all(self.directory.join("links"))
            .with_context(|| format!("cannot make {}", self.directory.display()))
    }

    /// Whether the instance has a datapath.
    pub fn exist(&self) -> bool {
        self.map(ABI).exists()
    }

    /// Pin of a map.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Pin of a program.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Pin of a link of an interface; the index survives a renaming. `hook` is a word.
    pub(super) fn link(&self, ifindex: u32, hook: &str) -> PathBuf {
        self.directory.join("links").join(format!("{ifindex}-{hook}"))
    }

    /// Pin of what keeps the reassembly of an IP family.
    pub(super) fn reassembly(&self, version: u8) -> PathBuf {
        self.directory.join("links").join(format!("reassembly{version}"))
    }

    /// Removes the pins of the reassembly, and with them the network namespace in which it works.
    ///
    /// # Errors
    /// What the file system says; nothing there is no error.
    pub fn remove_reassembly(&self) -> Result<()> {
        for path in [4, 6].map(|version| self.reassembly(version)) {
            remove_link(&path)?;
        }
        Ok(())
    }

    /// Removes them all: links go first, so that no packet meets a datapath without its maps' names.
    ///
    /// # Errors
    /// What the file system says; nothing there is no error.
    pub fn remove(&self) -> Result<()> {
        remove_directory(&self.directory.join("links"), remove_link)?;
        remove_directory(&self.directory, remove_if_there)?;
        if let Some(parent) = self.directory.parent() {
            // Another instance may live there.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

/// Removes a file, such as a pin.
///
/// # Errors
/// What the file system says; nothing there is no error.
pub fn remove_if_there(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Takes what a link attaches off and removes its pin. A link that only loses its last pin detaches
/// later, from a work queue (`bpf_link_put`): `down` would return, and another program be refused, while it still holds.
pub(super) fn remove_link(pin: &Path) -> Result<()> {
    if let Ok(link) = sys::open_pinned(pin) {
        // A kind that cannot be detached by command goes with its pin.
        let _ = sys::detach_link(&link);
    }
    remove_if_there(pin)
}

fn remove_directory(directory: &Path, remove: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let what = || format!("cannot remove {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(what)?,
    };
    for entry in entries {
        remove(&entry.with_context(what)?.path())?;
    }
    fs::remove_dir(directory).with_context(what)
}

fn is_bpffs(path: &str) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}
