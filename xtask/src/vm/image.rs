//! The file system of the virtual machine: an initramfs of busybox, the programs the lab is made of, the kernel's
//! network modules and the tests or measurements.

use std::{
    collections::BTreeSet,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use super::kernel::Kernel;
use crate::tools;

const INIT: &str = include_str!("init.sh");
/// Beside busybox, whose commands these come before.
const PROGRAMS: [&str; 22] = [
    "bash",
    "chrt",
    "timeout",
    "mount",
    "ip",
    "tc",
    "nft",
    "ss",
    "ping",
    "traceroute",
    "tracepath",
    "nsenter",
    "unshare",
    "sysctl",
    "bpftool",
    "ethtool",
    "tcpdump",
    "socat",
    "curl",
    "ssh",
    "sshd",
    "ssh-keygen",
];
/// Modules that a network namespace may ask for; a cloud kernel has the rest built in.
const MODULES: [&str; 4] = ["kernel/net", "kernel/lib", "kernel/crypto", "kernel/drivers/net"];

/// Makes the archive for `kernel`, with `programs` and the `script` that runs them in `/tests`.
pub(crate) fn build(
    shell: &Shell,
    kernel: &Kernel,
    programs: &[(&str, &Path)],
    script: &str,
) -> Result<PathBuf> {
    let root = beside(kernel, "root");
    shell.remove_path(&root)?;
    skeleton(shell, &root)?;
    for program in PROGRAMS {
        let path = tools::on_path(program).with_context(|| format!("{program} is missing"))?;
        copy_with_libraries(shell, &root, &path)?;
    }
    copy_with_libraries(shell, &root, &tools::on_path("busybox").context("busybox is missing")?)?;
    for (name, path) in programs {
        copy_test_program(shell, &root, name, path)?;
    }
    copy_modules(shell, &root, kernel)?;
    shell.write_file(root.join("tests/run"), script)?;
    archive(shell, &root, &beside(kernel, "cpio"))
}

fn beside(kernel: &Kernel, what: &str) -> PathBuf {
    kernel.root.with_file_name(format!("{}.{what}", kernel.release))
}

fn skeleton(shell: &Shell, root: &Path) -> Result<()> {
    for dir in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "var/lib",
        "root",
        "tests",
    ] {
        shell.create_dir(root.join(dir))?;
    }
    for dir in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), root.join(dir))?;
    }
    symlink("/run", root.join("var/run"))?;
    // Not busybox: its shell takes its own `ip` before anybody else's.
    symlink("bash", root.join("usr/bin/sh"))?;
    shell.write_file(
        root.join("etc/passwd"),
        "root:*:0:0::/root:/bin/bash\nsshd:*:100:65534::/run/sshd:/bin/false\n",
    )?;
    shell.write_file(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    shell.write_file(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    shell.write_file(root.join("init"), INIT)?;
    let init = root.join("init");
    cmd!(shell, "chmod 755 {init}").quiet().run()?;
    Ok(())
}

fn copy_test_program(shell: &Shell, root: &Path, name: &str, program: &Path) -> Result<()> {
    let copy = root.join("tests").join(name);
    cmd!(shell, "strip --strip-debug -o {copy} {program}").quiet().run()?;
    copy_libraries(shell, root, program)
}

fn copy_with_libraries(shell: &Shell, root: &Path, program: &Path) -> Result<()> {
    copy(shell, root, program)?;
    copy_libraries(shell, root, program)
}

fn copy_libraries(shell: &Shell, root: &Path, program: &Path) -> Result<()> {
    let listed = cmd!(shell, "ldd {program}").quiet().ignore_stderr().ignore_status().read()?;
    let libraries: BTreeSet<_> = listed.split_whitespace().filter(|word| word.starts_with('/')).collect();
    libraries.into_iter().try_for_each(|library| copy(shell, root, Path::new(library)))
}

/// To the same place below `root`, through links: there they would lead out of it.
fn copy(shell: &Shell, root: &Path, file: &Path) -> Result<()> {
    let place = root.join(file.strip_prefix("/").unwrap_or(file));
    if !shell.path_exists(&place) {
        shell.create_dir(place.parent().context("a file has a directory")?)?;
        shell.copy_file(file, &place)?;
    }
    Ok(())
}

fn copy_modules(shell: &Shell, root: &Path, kernel: &Kernel) -> Result<()> {
    let (from, release) = (kernel.modules(), &kernel.release);
    let to = root.join("usr/lib/modules").join(release);
    for part in MODULES.map(|part| from.join(part)).iter().filter(|part| part.exists()) {
        let parent = to.join(part.strip_prefix(&from)?.parent().context("a module directory has a parent")?);
        shell.create_dir(&parent)?;
        cmd!(shell, "cp --recursive {part} {parent}").quiet().run()?;
    }
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        shell.copy_file(from.join(list), &to)?;
    }
    // Busybox cannot read compressed modules.
    cmd!(shell, "find {to} -name *.ko.xz -exec xz --decompress").args(["{}", "+"]).quiet().run()?;
    cmd!(shell, "depmod --basedir {root} {release}").quiet().run()?;
    Ok(())
}

/// Uncompressed: an emulated processor takes longer to unpack than to read.
fn archive(shell: &Shell, root: &Path, initramfs: &Path) -> Result<PathBuf> {
    let _inside = shell.push_dir(root);
    let script = "find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet > \"$0\"";
    cmd!(shell, "sh -c {script} {initramfs}").quiet().run()?;
    Ok(initramfs.to_owned())
}
