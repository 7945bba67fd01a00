//! SYN cookies, and whether the datapath asks for them now.

use std::sync::OnceLock;

use anyhow::Result;
use aya::{programs::ProgramType, sys::is_helper_supported};
use aya_obj::generated::bpf_func_id;
use netfw_common::pressure;

use super::{flows::now, maps::Maps};

/// Whether the kernel makes SYN cookies for programs (`CONFIG_SYN_COOKIES`); none: it does not say, to whoever may not load any.
pub fn makes_syn_cookies() -> Option<bool> {
    static KNOWN: OnceLock<Option<bool>> = OnceLock::new();
    let helper = bpf_func_id::BPF_FUNC_tcp_raw_gen_syncookie_ipv4;
    *KNOWN.get_or_init(|| is_helper_supported(ProgramType::Xdp, helper).ok())
}

impl Maps {
    /// In which families (IPv4, IPv6) too many connections are being opened from outside: port-forwards with `syn-proxy` challenge those
    /// who open more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pressed(&self) -> Result<[bool; 2]> {
        let pressed = |family| -> Result<bool> {
            Ok(pressure::holds(self.pressed_until.get(&family)?.unwrap_or(0), now()))
        };
        Ok([pressed(0)?, pressed(1)?])
    }
}
