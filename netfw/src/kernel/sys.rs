//! System calls that no library wraps.

use std::{
    cell::UnsafeCell,
    ffi::CString,
    fs::File,
    io::{self, Read as _},
    mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU32, AtomicU64},
};

use aya_obj::generated::{bpf_attr, bpf_cmd};
use netfw_common::shared::Shared;

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

/// Pins a program, a map or a link.
///
/// # Errors
/// What the kernel says.
pub(super) fn pin(object: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = attributes();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attributes.__bindgen_anon_4.bpf_fd = object.as_raw_fd() as u32;
    // SAFETY: the path lives until the call returns.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes) }
}

/// Bytes that nobody can guess.
///
/// # Errors
/// There is no `/dev/urandom`.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// What is pinned at `path`.
///
/// # Errors
/// Nothing is; what the kernel says.
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = attributes();
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    // SAFETY: the path lives until the call returns.
    unsafe { bpf_descriptor(bpf_cmd::BPF_OBJ_GET, &mut attributes) }
}

/// Takes what a link attaches off its hook, whoever else holds the link.
///
/// # Errors
/// `EOPNOTSUPP` for kinds of links that only go with their last holder.
pub(super) fn detach_link(link: &OwnedFd) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.link_detach.link_fd = link.as_raw_fd() as u32;
    // SAFETY: no pointers.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attributes) }
}

/// Memory of an array's that user space shares with the kernel.
pub(super) struct Mapped {
    start: NonNull<libc::c_void>,
    length: usize,
}

impl Mapped {
    /// The first `length` bytes of an array that was made with `BPF_F_MMAPABLE`, rounded up to whole pages.
    ///
    /// # Errors
    /// It was not, or is not as long.
    pub(super) fn map(array: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: at an address that the kernel chooses nothing of ours is replaced.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, array.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, length })
    }

    /// Writes values from byte `at` on. Programs that read them meanwhile may see a part.
    pub(super) fn write<V: Shared>(&mut self, at: usize, values: &[V]) {
        let length = size_of_val(values);
        assert!(at <= self.length && length <= self.length - at, "behind the array's end");
        // SAFETY: inside of what was mapped, of which there is no reference; so `values` lie elsewhere. Their bytes are all set:
        // `Shared` has no padding.
        unsafe { self.start.cast::<u8>().add(at).copy_from(NonNull::from(values).cast(), length) };
    }

    /// What is there, as words; programs read them at any time.
    pub(super) fn words(&self) -> &[AtomicU32] {
        // SAFETY: any bits are such a word.
        unsafe { self.all() }
    }

    /// The same as words of 64 bits; programs may change them at any time.
    pub(super) fn long_words(&self) -> &[AtomicU64] {
        // SAFETY: any bits are such a word.
        unsafe { self.all() }
    }

    /// The same as values of an array, of which programs may change each at any time.
    pub(super) fn cells<V: Shared>(&self) -> &[UnsafeCell<V>] {
        // SAFETY: any bits are such a value, and nobody has a reference to one: a cell gives but a pointer.
        unsafe { self.all() }
    }

    /// # Safety
    /// `W` is an atomic or a cell, of which all bits are values.
    unsafe fn all<W>(&self) -> &[W] {
        // SAFETY: mapped as long as `self` is, from the start of a page on, and only changed atomically: there is one process that
        // holds the lock of the instance, and programs only read lists.
        unsafe { slice::from_raw_parts(self.start.cast().as_ptr(), self.length / size_of::<W>()) }
    }
}

// SAFETY: memory of the process, whoever's thread looks at it; through a shared reference it is only changed as other processes and the
// kernel change it, too: atomically, or in cells that promise nothing.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
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
