//! The loaded programs by test run: a frame a call, time in the program as the kernel measures it.

use std::{path::Path, time::Duration};

use anyhow::Result;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use netfw::kernel::Hook;
use nix::net::if_::if_nametoindex;

use crate::testbed::INTERFACES;

const PINS: &str = "/sys/fs/bpf/netfw/nfwbench";

/// As they are pinned: no others are loaded. They are opened and run in the gateway's namespace, where its interfaces have their numbers.
pub(crate) struct Programs {
    xdp: Xdp,
    ingress: SchedClassifier,
    /// Where frames come in.
    outside: u32,
}

impl Programs {
    pub(crate) fn open() -> Result<Self> {
        let pins = Path::new(PINS);
        Ok(Self {
            xdp: Xdp::from_pin(pins.join("netfw_xdp"), XdpAttachType::Interface)?,
            ingress: SchedClassifier::from_pin(pins.join("netfw_ingress"))?,
            outside: if_nametoindex(INTERFACES.0)?,
        })
    }

    /// How long one frame takes that comes in from outside. Once a call, as the program rewrites it.
    pub(crate) fn once(&self, hook: Hook, frame: &[u8]) -> Result<Duration> {
        let context = hook.context(frame.len(), self.outside, 0);
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), repeat: 1, ..Default::default() };
        let run = match hook {
            Hook::Xdp => self.xdp.test_run(options),
            _ => self.ingress.test_run(options),
        };
        Ok(run?.duration)
    }
}
