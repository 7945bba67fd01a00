//! The network namespace this process works in.

use std::{fs, io, os::unix::fs::MetadataExt as _};

/// Its inode: what tells namespaces apart.
///
/// # Errors
/// `/proc` is missing.
pub fn inode() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}
