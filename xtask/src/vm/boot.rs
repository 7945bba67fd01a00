//! One run of qemu.

use std::{path::Path, process::Command};

use anyhow::Result;
use xshell::{Shell, cmd};

use super::kernel::Kernel;
use crate::tally::{self, Tally};

/// Longest life of a virtual machine: a kernel that hangs must not hang whoever waits for it.
const LIMIT: &str = "45m";

/// Boots `kernel`, shows its console and counts the results on it.
pub(crate) fn run(shell: &Shell, kernel: &Kernel, initramfs: &Path) -> Result<Tally> {
    let vmlinuz = kernel.vmlinuz();
    let mut qemu: Command =
        cmd!(shell, "timeout --foreground {LIMIT} qemu-system-x86_64 -no-reboot -nodefaults -display none")
            .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "3G", "-serial", "stdio"])
            .args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"])
            .arg("-kernel")
            .arg(vmlinuz)
            .arg("-initrd")
            .arg(initramfs)
            .into();
    tally::watch_for(&mut qemu, "netfw-vm: status 0")
}
