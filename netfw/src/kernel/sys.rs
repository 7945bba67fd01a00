//! System calls that no library wraps.

use std::{
    io, mem,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// A `bpf_attr` in which nothing is set.
pub(super) fn attributes() -> bpf_attr {
    // SAFETY: a union of plain integers, for which zero is a value; the kernel wants unused fields to be
    // zero.
    unsafe { mem::zeroed() }
}

/// `bpf(2)`.
///
/// # Safety
/// Pointers in `attributes` must be valid for what `command` reads and writes through them.
pub(super) unsafe fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<()> {
    // SAFETY: the caller answers for it.
    unsafe { call(command, attributes) }.map(drop)
}

/// `bpf(2)` with a command that makes a program, a map or a link.
///
/// # Safety
/// As [`bpf`], and the command must be one of those.
pub(super) unsafe fn bpf_descriptor(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller answers for it; the descriptor is new and nobody else's.
    unsafe { call(command, attributes).map(|descriptor| OwnedFd::from_raw_fd(descriptor as RawFd)) }
}

unsafe fn call(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<libc::c_long> {
    let attributes: *mut bpf_attr = attributes;
    // SAFETY: the attribute is as large as said; the caller answers for the pointers in it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, attributes, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Waits until every packet that is being handled now has been handled: an RCU grace period.
///
/// # Errors
/// `EINVAL` on kernels with tickless cores (`nohz_full`), which refuse it.
pub(super) fn wait_for_readers() -> io::Result<()> {
    // SAFETY: membarrier touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
