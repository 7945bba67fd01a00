//! Builds the eBPF programs and puts their objects into `OUT_DIR`, from where the crate includes them.
//!
//! They need another target, nightly features and their own linker, so this runs a second cargo with a second target
//! directory; the host crates know nothing of it. `NETFW_BPF_OBJ_DIR` names ready-made objects instead.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

#[path = "build/tools.rs"]
mod tools;

/// Binaries of the crate `netfw-ebpf`, by the features that they are built with.
const OBJECTS: [(&str, &[&str]); 2] =
    [("", &["netfw-ebpf", "netfw-bench", "netfw-flood"]), ("dry-run", &["netfw-explain"])];
const INPUTS: [&str; 4] = ["netfw-ebpf", "netfw-common", "Cargo.toml", "Cargo.lock"];
const VARIABLES: [&str; 4] =
    ["NETFW_BPF_TOOLCHAIN", "NETFW_BPF_LINKER", "NETFW_BPF_OBJ_DIR", "NETFW_BPF_DENY_WARNINGS"];

fn main() -> ExitCode {
    let workspace = cargo_variable("CARGO_MANIFEST_DIR").join("..");
    for input in INPUTS {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    for variable in VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    match objects(&workspace, &cargo_variable("OUT_DIR")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Missing(what)) => {
            println!("cargo::error={what}");
            ExitCode::SUCCESS // cargo fails the build and prints only that line
        }
        Err(Failure::Compiler) => ExitCode::FAILURE, // cargo prints what the compiler said
    }
}

enum Failure {
    Missing(String),
    Compiler,
}

fn objects(workspace: &Path, out: &Path) -> Result<(), Failure> {
    let built = match env::var_os("NETFW_BPF_OBJ_DIR") {
        Some(ready_made) => PathBuf::from(ready_made),
        None => build_all(workspace, &out.join("ebpf"))?,
    };
    for name in OBJECTS.iter().flat_map(|(_, names)| *names) {
        let (from, to) = (built.join(name), out.join(name));
        fs::copy(&from, &to).map_err(|error| {
            Failure::Missing(format!("the eBPF object {} cannot be read: {error}", from.display()))
        })?;
        strip_debug(&to);
    }
    Ok(())
}

fn build_all(workspace: &Path, target_dir: &Path) -> Result<PathBuf, Failure> {
    let mut built = PathBuf::new();
    for (features, names) in OBJECTS {
        built = build(workspace, target_dir, features, names)?;
    }
    Ok(built)
}

fn build(workspace: &Path, target_dir: &Path, features: &str, names: &[&str]) -> Result<PathBuf, Failure> {
    let toolchain =
        tools::bpf_toolchain().ok_or_else(|| missing("a Rust toolchain with the source of core"))?;
    let linker = tools::bpf_linker().ok_or_else(|| missing("bpf-linker"))?;
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let mut cargo = Command::new(toolchain.join("bin/cargo"));
    cargo.args([
        "build",
        "--package",
        "netfw-ebpf",
        "--release",
        "-Zbuild-std=core",
        "--target",
        target,
        "--features",
        features,
    ]);
    cargo.args(names.iter().flat_map(|name| ["--bin", name]));
    cargo.arg("--target-dir").arg(target_dir).current_dir(workspace);
    for inherited in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO"] {
        cargo.env_remove(inherited);
    }
    cargo.env("RUSTC", toolchain.join("bin/rustc")).env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags().join("\x1f"));
    cargo.env(format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_")), linker);
    match cargo.status() {
        Ok(status) if status.success() => Ok(target_dir.join(target).join("release")),
        Ok(_) => Err(Failure::Compiler),
        Err(error) => Err(Failure::Missing(format!("{} cannot be run: {error}", toolchain.display()))),
    }
}

fn flags() -> Vec<String> {
    let arch = cargo_variable("CARGO_CFG_TARGET_ARCH");
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{}\"", arch.display()),
        // The kernel needs BTF, and bpf-linker makes it from debug information.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // Else every memcpy that LLVM does not expand is a call to a loop over bytes.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
        // 32-bit registers and atomics that return a value; every supported kernel has them.
        "-Ctarget-cpu=v3".into(),
    ];
    if env::var_os("NETFW_BPF_DENY_WARNINGS").is_some() {
        flags.push("-Dwarnings".into());
    }
    flags
}

/// Debug information is nine tenths of an object and the kernel wants none of it. Nothing is lost without the tool.
fn strip_debug(object: &Path) {
    let names = ["llvm-objcopy", "llvm-objcopy-22"];
    if let Some(objcopy) = names.into_iter().find_map(tools::on_path) {
        let _ = Command::new(objcopy).arg("--strip-debug").arg(object).status();
    }
}

fn missing(what: &str) -> Failure {
    Failure::Missing(format!("building the eBPF programs needs {what}: run `cargo xtask setup`"))
}

fn cargo_variable(name: &str) -> PathBuf {
    env::var_os(name).expect("cargo sets it for build scripts").into()
}
