//! Which hook the datapath runs in.

use std::fmt;

use anyhow::{Result, bail};

/// Environment variable that chooses the engines of a test run: `tc` (the default), `xdp` or `both`.
const VARIABLE: &str = "NETFW_ENGINE";

/// A value of `[engine] mode` that a lab can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The complete datapath, at the traffic control hook.
    Tc,
    /// With native XDP in front.
    Xdp,
}

impl Engine {
    /// What this test run is for.
    pub fn chosen() -> Result<&'static [Self]> {
        match std::env::var(VARIABLE).as_deref() {
            Err(_) | Ok("" | "tc") => Ok(&[Self::Tc]),
            Ok("xdp") => Ok(&[Self::Xdp]),
            Ok("both") => Ok(&[Self::Tc, Self::Xdp]),
            Ok(other) => bail!("{VARIABLE}={other}: write tc, xdp or both"),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        })
    }
}
