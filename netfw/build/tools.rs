//! Where the tools that build eBPF programs are: shared by the build script and by `cargo xtask setup`, so that the
//! one never misses what the other calls ready.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// The LLVM of the bpf-linker that `setup` installs: it cannot read the bitcode of a compiler with a newer one.
const LINKER_LLVM: u32 = 22;

/// Root of the compiler that builds eBPF (`bin/cargo`, `bin/rustc`, the source of `core`): the one that
/// `NETFW_BPF_TOOLCHAIN` names (a rustup toolchain or a directory), else the first that can.
pub(crate) fn bpf_toolchain() -> Option<PathBuf> {
    if let Ok(named) = env::var("NETFW_BPF_TOOLCHAIN") {
        return sysroot(&named).filter(|root| has_core_source(root));
    }
    let candidates = ["nightly", "stable", "/usr", "/usr/local"].into_iter().filter_map(sysroot);
    candidates
        .into_iter()
        .find(|root| has_core_source(root) && llvm_major(root).is_some_and(|llvm| llvm <= LINKER_LLVM))
}

/// The linker of eBPF objects: `NETFW_BPF_LINKER`, or `bpf-linker` from `PATH` or cargo's own directory.
pub(crate) fn bpf_linker() -> Option<PathBuf> {
    if let Some(named) = env::var_os("NETFW_BPF_LINKER") {
        return Some(PathBuf::from(named)).filter(|path| path.is_file());
    }
    on_path("bpf-linker").or_else(|| Some(cargo_home()?.join("bin/bpf-linker")).filter(|path| path.is_file()))
}

/// An executable of that name on `PATH`.
pub(crate) fn on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let name = Path::new(name.as_ref());
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")))
}

fn sysroot(toolchain: &str) -> Option<PathBuf> {
    if Path::new(toolchain).is_absolute() {
        return Some(PathBuf::from(toolchain));
    }
    let rustc = ["run", toolchain, "rustc", "--print", "sysroot"];
    stdout(Command::new("rustup").args(rustc).env_remove("RUSTUP_TOOLCHAIN"))
        .map(|out| PathBuf::from(out.trim()))
}

fn has_core_source(root: &Path) -> bool {
    root.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() && root.join("bin/cargo").is_file()
}

fn llvm_major(root: &Path) -> Option<u32> {
    let version = stdout(Command::new(root.join("bin/rustc")).arg("-vV"))?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

fn stdout(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
