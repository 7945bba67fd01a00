//! The programs that are looked for, and the Debian package of each.

use xshell::Shell;

/// What a program is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Compiling.
    Build,
    /// Network namespaces with real programs in them.
    Lab,
    /// The Spark cluster of the demo.
    Spark,
    /// Other kernels in qemu.
    Vm,
    /// What netfw is measured beside.
    Bench,
}

/// A program and the package that carries it.
pub(crate) struct Program {
    part: Part,
    /// Its name, or a whole command that succeeds where it is installed.
    pub(crate) name: &'static str,
    /// Debian's package; `a|b`: the first that this release has.
    pub(crate) package: &'static str,
}

const fn program(part: Part, name: &'static str, package: &'static str) -> Program {
    Program { part, name, package }
}

const PROGRAMS: [Program; 26] = [
    program(Part::Build, "cc", "gcc"),
    program(Part::Lab, "ip", "iproute2"),
    program(Part::Lab, "nft", "nftables"),
    program(Part::Lab, "sshd", "openssh-server"),
    program(Part::Lab, "ssh", "openssh-client"),
    program(Part::Lab, "ethtool", "ethtool"),
    program(Part::Lab, "tcpdump", "tcpdump"),
    program(Part::Lab, "iperf3", "iperf3"),
    program(Part::Lab, "curl", "curl"),
    program(Part::Lab, "socat", "socat"),
    program(Part::Lab, "ping", "iputils-ping"),
    program(Part::Lab, "traceroute", "traceroute"),
    program(Part::Lab, "tracepath", "iputils-tracepath"),
    program(Part::Lab, "nsenter", "util-linux"),
    program(Part::Lab, "sysctl", "procps"),
    program(Part::Lab, "bpftool", "bpftool"),
    program(Part::Lab, "systemctl", "systemd"),
    program(Part::Spark, "java", "openjdk-17-jre-headless|openjdk-21-jre-headless|default-jre-headless"),
    program(Part::Spark, "python3 -m ensurepip --version", "python3-venv"),
    program(Part::Vm, "qemu-system-x86_64", "qemu-system-x86"),
    program(Part::Vm, "busybox", "busybox-static"),
    program(Part::Vm, "cpio", "cpio"),
    program(Part::Vm, "depmod", "kmod"),
    program(Part::Vm, "xz", "xz-utils"),
    program(Part::Vm, "dpkg-deb", "dpkg"),
    program(Part::Bench, "iptables-nft", "iptables"),
];

/// Those of `parts` that this machine lacks.
pub(crate) fn missing(shell: &Shell, parts: &[Part]) -> impl Iterator<Item = &'static Program> {
    PROGRAMS.iter().filter(move |program| parts.contains(&program.part) && !is_here(shell, program.name))
}

fn is_here(shell: &Shell, name: &str) -> bool {
    match name.split_once(' ') {
        Some((program, arguments)) => {
            let command = shell.cmd(program).args(arguments.split(' '));
            command.quiet().ignore_stdout().ignore_stderr().run().is_ok()
        }
        // The system directories are not on every user's path.
        None => {
            crate::tools::on_path(name).is_some()
                || ["/usr/sbin", "/sbin"].iter().any(|dir| shell.path_exists(format!("{dir}/{name}")))
        }
    }
}
