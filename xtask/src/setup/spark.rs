//! Spark for the demo and the lab: `pyspark` from PyPI carries it whole, in a Python environment of its own.

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

/// Where the lab looks for it, under the workspace.
const ENVIRONMENT: &str = "target/spark";
/// The newest that runs on Java 17 and 21.
const PYSPARK: &str = "pyspark==4.0.1";

/// Installs Spark unless it is there.
pub(crate) fn install(shell: &Shell) -> Result<()> {
    let python = format!("{ENVIRONMENT}/bin/python");
    if shell.path_exists(&python)
        && cmd!(shell, "{python} -c 'import pyspark'").quiet().ignore_stderr().run().is_ok()
    {
        return Ok(());
    }
    eprintln!("setup: installing {PYSPARK} from PyPI into {ENVIRONMENT} (about 400 MB)");
    cmd!(shell, "python3 -m venv --clear {ENVIRONMENT}").run()?;
    cmd!(shell, "{python} -m pip install --quiet --disable-pip-version-check {PYSPARK}")
        .run()
        .context("pyspark could not be installed: is there a network? PyPI or a mirror of it is needed")
}
