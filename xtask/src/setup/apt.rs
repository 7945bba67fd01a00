//! Installation through apt, on Debian and Ubuntu.

use anyhow::{Context as _, Result, bail};
use xshell::{Shell, cmd};

use crate::{root, tools};

const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Waits for another apt (unattended upgrades) instead of failing at once; installs what was named and no more.
const OPTIONS: [&str; 6] = [
    "--yes",
    "--quiet",
    "--no-install-recommends",
    "-oDPkg::Lock::Timeout=600",
    "-oAPT::Color=0",
    "-oDpkg::Use-Pty=0",
];

/// Whether this system has apt.
pub(crate) fn is_here() -> bool {
    tools::on_path("apt-get").is_some() && tools::on_path("dpkg-query").is_some()
}

/// Installs `packages` (`a|b`: the first that this release has) and starts none of their services.
pub(crate) fn install(shell: &Shell, packages: &[&str]) -> Result<()> {
    eprintln!("setup: installing through apt: {}", packages.join(" "));
    root::command(shell, &["apt-get", "update", "--quiet", "-oDPkg::Lock::Timeout=600"])?.run()?;
    let packages = packages.iter().map(|names| choose(shell, names)).collect::<Result<Vec<_>>>()?;
    let ssh_server = packages.contains(&"openssh-server");
    let _quiet = NoServices::enforce(shell)?;
    root::command(shell, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install"])?
        .args(OPTIONS)
        .args(packages)
        .run()
        .context("apt-get install failed")?;
    if ssh_server { leave_ssh_server_off(shell) } else { Ok(()) }
}

fn choose<'a>(shell: &Shell, names: &'a str) -> Result<&'a str> {
    let found = names.split('|').find(|name| has_candidate(shell, name));
    found.with_context(|| {
        let instead = match names {
            "rustc-web" | "rust-web-src" | "cargo-web" => {
                ": `rustup toolchain install nightly --component rust-src` serves as well"
            }
            _ => "",
        };
        format!("this release has no package {names}{instead}")
    })
}

/// Whether apt could install `package`.
pub(crate) fn has_candidate(shell: &Shell, package: &str) -> bool {
    let policy =
        cmd!(shell, "apt-cache policy {package}").env("LC_ALL", "C").quiet().read().unwrap_or_default();
    policy
        .lines()
        .any(|line| line.trim().strip_prefix("Candidate: ").is_some_and(|version| version != "(none)"))
}

/// The tests start their own servers in their own namespaces; the machine's user asked for none.
fn leave_ssh_server_off(shell: &Shell) -> Result<()> {
    if tools::on_path("systemctl").is_some() {
        root::command(shell, &["systemctl", "disable", "--quiet", "ssh.service", "ssh.socket"])?
            .ignore_status()
            .run()?;
        eprintln!(
            "setup: openssh-server is installed for the tests; its service stays off (systemctl enable --now ssh)"
        );
    }
    Ok(())
}

/// While this lives, packages start no services. A policy that is there already is the administrator's and stays.
struct NoServices<'a>(Option<&'a Shell>);

impl<'a> NoServices<'a> {
    fn enforce(shell: &'a Shell) -> Result<Self> {
        if shell.path_exists(POLICY) {
            return Ok(Self(None));
        }
        let script = shell.create_temp_dir()?;
        let script = script.path().join("policy-rc.d");
        shell.write_file(&script, "#!/bin/sh\nexit 101\n")?;
        let Some(script) = script.to_str() else { bail!("the temporary directory's name is not text") };
        root::command(shell, &["install", "--mode=755", script, POLICY])?.run()?;
        Ok(Self(Some(shell)))
    }
}

impl Drop for NoServices<'_> {
    fn drop(&mut self) {
        let Some(shell) = self.0 else { return };
        let removed = root::command(shell, &["rm", "--force", POLICY]).and_then(|remove| Ok(remove.run()?));
        if let Err(error) = removed {
            eprintln!("setup: {POLICY} is left behind, please remove it: {error}");
        }
    }
}
