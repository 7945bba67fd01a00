//! Debian's cloud kernels, fetched as packages and unpacked, not installed.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::root;

/// An unpacked kernel package.
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// Where `boot/` and `lib/modules/` are.
    pub(crate) root: PathBuf,
}

impl Kernel {
    /// The file to boot.
    pub(crate) fn vmlinuz(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Its modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }
}

/// The newest kernel of `series` that apt knows, below `target/vm`.
pub(crate) fn fetch(shell: &Shell, series: &str) -> Result<Kernel> {
    let release = match newest(shell, series)? {
        Some(release) => release,
        None => {
            root::command(shell, &["apt-get", "update", "--quiet"])?.run()?;
            let advice =
                "this system's apt sources have no cloud kernel of that series: Debian 12 has 6.1 and 6.12";
            newest(shell, series)?.with_context(|| format!("kernel {series}: {advice}"))?
        }
    };
    let downloads = shell.create_dir("target/vm")?;
    let kernel = Kernel { root: shell.current_dir().join(&downloads).join(&release), release };
    if !shell.path_exists(kernel.vmlinuz()) {
        unpack(shell, &kernel, &package(&kernel.release))?;
    }
    Ok(kernel)
}

fn unpack(shell: &Shell, kernel: &Kernel, package: &str) -> Result<()> {
    let here = shell.create_temp_dir()?;
    let _inside = shell.push_dir(here.path());
    cmd!(shell, "apt-get download -oAPT::Sandbox::User=root {package}").run()?;
    let root = &kernel.root;
    let archive = shell.read_dir(".")?.pop().context("apt-get downloaded nothing")?;
    cmd!(shell, "dpkg-deb --extract {archive} {root}").run()?;
    Ok(())
}

fn package(release: &str) -> String {
    format!("linux-image-{release}")
}

/// Release of the newest signed cloud kernel of `series` with something to download.
fn newest(shell: &Shell, series: &str) -> Result<Option<String>> {
    let pattern = format!("^linux-image-{}\\.[0-9].*-cloud-amd64$", series.replace('.', "\\."));
    let found = cmd!(shell, "apt-cache search --names-only {pattern}").quiet().read()?;
    let names = found.lines().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join("\n");
    let sorted = cmd!(shell, "sort --version-sort --reverse").stdin(names).quiet().read()?;
    let releases = sorted.lines().filter_map(|name| name.strip_prefix("linux-image-"));
    Ok(releases.map(str::to_owned).find(|release| crate::setup::has_candidate(shell, &package(release))))
}
