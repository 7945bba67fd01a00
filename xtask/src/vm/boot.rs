//! One run of qemu.

use std::{path::Path, process::Command};

use anyhow::Result;
use xshell::{Shell, cmd};

use super::kernel::Kernel;
use crate::tally::{self, Tally};

/// Longest life of a virtual machine: a kernel that hangs must not hang whoever waits for it.
const LIMIT: &str = "45m";

/// What moves the clock of a virtual machine.
#[derive(Clone, Copy)]
pub(crate) enum Clock {
    /// Time.
    Host,
    /// Each instruction of its processors, by a nanosecond, and none that a processor with flaws would need besides.
    Instructions,
}

impl Clock {
    /// Options of qemu, and of the kernel.
    fn options(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Host => (&[], ""),
            Self::Instructions => (&["-icount", "shift=0,sleep=off"], "mitigations=off"),
        }
    }
}

/// Boots `kernel`, shows its console and counts the results on it.
pub(crate) fn run(shell: &Shell, kernel: &Kernel, initramfs: &Path, clock: Clock) -> Result<Tally> {
    let vmlinuz = kernel.vmlinuz();
    let (qemu_options, kernel_options) = clock.options();
    let mut qemu: Command =
        cmd!(shell, "timeout --foreground {LIMIT} qemu-system-x86_64 -no-reboot -nodefaults -display none")
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "3G", "-serial", "stdio"])
            .args(qemu_options)
            .arg("-append")
            .arg(format!("console=ttyS0 quiet panic=-1 rdinit=/init {kernel_options}"))
            .arg("-kernel")
            .arg(vmlinuz)
            .arg("-initrd")
            .arg(initramfs)
            .into();
    tally::watch_for(&mut qemu, "netfw-vm: status 0")
}
