//! The netfw datapath.
//!
//! [`datapath`] is pure: it decides what becomes of a packet, generic over where the packet lies
//! ([`datapath::context::Context`]), over the IP family and over the tables and services around it
//! ([`datapath::kernel::Kernel`]). It compiles for the host as well, where the tests run it on byte buffers.
//! `kernel` is what surrounds it in the kernel: contexts of XDP and TC, maps, helpers; the only `unsafe` code.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(all(target_arch = "bpf", not(feature = "dry-run")), feature(core_intrinsics))]
#![cfg_attr(
    all(target_arch = "bpf", not(feature = "dry-run")),
    expect(internal_features, reason = "atomics with a result, on this target only")
)]

pub mod datapath;

#[cfg(target_arch = "bpf")]
pub mod kernel;
