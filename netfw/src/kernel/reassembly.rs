//! Reassembly by the kernel. A netfilter program that lets everything through may ask the kernel to put fragments
//! together before it (Linux 6.6); that is all it is for here.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya_obj::generated::{
    BPF_F_NETFILTER_IP_DEFRAG, bpf_attach_type::BPF_NETFILTER, bpf_cmd,
    bpf_prog_type::BPF_PROG_TYPE_NETFILTER,
};

use super::{maps::Maps, pins::Pins, sys, table::ANY};

/// `r0 = NF_ACCEPT; exit`.
const ACCEPT: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
const LICENSE: &std::ffi::CStr = c"Dual MIT/GPL";
/// Before it, at the reassembly's own priority of -400, fragments become packets.
const PRIORITY: i32 = -200;

/// Makes the kernel reassemble what arrives in the network namespace of this thread. The namespace and what
/// is in it live as long as the pins.
///
/// # Errors
/// The kernel is older, or was built without netfilter.
pub fn reassemble_here(pins: &Pins) -> Result<()> {
    let program = load().context("it cannot reassemble fragments for others before Linux 6.6")?;
    let families = [(libc::NFPROTO_IPV4, 4), (libc::NFPROTO_IPV6, 6)];
    for (family, version) in families {
        let link = match attach(&program, family as u32) {
            // A kernel without IPv6.
            Err(error) if family == libc::NFPROTO_IPV6 => {
                tracing::info!("IPv6 fragments are not reassembled: {error}");
                continue;
            }
            link => link.context("it refuses to reassemble fragments")?,
        };
        sys::pin(&link, &pins.reassembly(version)).context("cannot pin the reassembly")?;
    }
    Ok(())
}

fn load() -> io::Result<OwnedFd> {
    let mut attributes = sys::attributes();
    // SAFETY: writing a union's fields; all of them are plain integers.
    unsafe {
        let program = &mut attributes.__bindgen_anon_3;
        program.prog_type = BPF_PROG_TYPE_NETFILTER as u32;
        program.expected_attach_type = BPF_NETFILTER as u32;
        program.insns = ACCEPT.as_ptr() as u64;
        program.insn_cnt = ACCEPT.len() as u32;
        program.license = LICENSE.as_ptr() as u64;
    }
    // SAFETY: instructions and license live until the call returns.
    unsafe { sys::bpf_descriptor(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }
}

fn attach(program: &OwnedFd, family: u32) -> io::Result<OwnedFd> {
    let mut attributes = sys::attributes();
    // SAFETY: writing a union's fields; all of them are plain integers.
    unsafe {
        let link = &mut attributes.link_create;
        link.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
        link.attach_type = BPF_NETFILTER as u32;
        let netfilter = &mut link.__bindgen_anon_3.netfilter;
        netfilter.pf = family;
        netfilter.hooknum = libc::NF_INET_PRE_ROUTING as u32;
        netfilter.priority = PRIORITY;
        netfilter.flags = BPF_F_NETFILTER_IP_DEFRAG;
    }
    // SAFETY: no pointers.
    unsafe { sys::bpf_descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }
}

impl Maps {
    /// Tells the datapath behind which interface the kernel reassembles; 0: nowhere.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_reassembler(&self, index: u32) -> Result<()> {
        Ok(self.reassembler.set(&0, index, ANY)?)
    }
}
