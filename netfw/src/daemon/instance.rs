//! An instance and the places where its things lie.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result};

use crate::kernel::Pins;

/// The rules file of a `netfw up` that names none.
pub const RULES_FILE: &str = "/etc/netfw/netfw.toml";
const RUN: &str = "/run/netfw";
const LIBRARY: &str = "/var/lib/netfw";

/// Name of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(String);

impl Instance {
    /// What exists only while it is up.
    pub fn run(&self) -> PathBuf {
        Path::new(RUN).join(&self.0)
    }

    /// Removes what exists only while it is up; nothing there is no error.
    ///
    /// # Errors
    /// What the file system says.
    pub fn forget(&self) -> Result<()> {
        match fs::remove_dir_all(self.run()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", self.run().display()));
            }
            _ => {}
        }
        // Another instance may be there.
        let _ = fs::remove_dir(RUN);
        Ok(())
    }

    /// What outlives a reboot.
    pub fn library(&self) -> PathBuf {
        Path::new(LIBRARY).join(&self.0)
    }

    /// Log of a daemon in the background.
    pub fn log(&self) -> PathBuf {
        self.run().join("log")
    }

    /// Its maps, programs and links.
    pub fn pins(&self) -> Pins {
        Pins::of(&self.0)
    }

    /// All that have something in the directory for running ones.
    pub fn all() -> Vec<Self> {
        let entries = fs::read_dir(RUN).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Instance {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
            return Err("use up to 32 letters, digits, `-` and `_`".to_owned());
        }
        Ok(Self(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_directories() {
        assert!("default".parse::<Instance>().is_ok());
        for name in ["", "..", "a/b", "a b", &"x".repeat(33)] {
            assert!(name.parse::<Instance>().is_err(), "{name}");
        }
    }
}
