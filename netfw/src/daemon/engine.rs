//! Which hook handles the packets of an interface.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::host::Link;
use crate::{kernel::Acceleration, policy::EngineMode};

/// The hook that handles an interface's packets. TC is always there; XDP before it finishes what it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Native XDP, in the driver.
    Xdp,
    /// XDP in the kernel's generic hook.
    XdpGeneric,
    /// TC alone.
    Tc,
}

impl Engine {
    /// The XDP that stands before TC.
    pub fn acceleration(self) -> Option<Acceleration> {
        match self {
            Self::Xdp => Some(Acceleration::Native),
            Self::XdpGeneric => Some(Acceleration::Generic),
            Self::Tc => None,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tc => "tc",
        })
    }
}

/// What is tried for an interface, and why not something faster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The hook.
    pub engine: Engine,
    /// Whether TC will do where the driver refuses.
    pub or_tc: bool,
    /// One sentence for `netfw status`.
    pub reason: String,
}

/// Chooses for `link` what `[engine] mode` asks for.
pub fn choose(mode: EngineMode, link: &Link) -> Choice {
    let choice = |engine, or_tc, reason: String| Choice { engine, or_tc, reason };
    match (mode, &link.kind) {
        (EngineMode::Tc, _) => choice(Engine::Tc, false, "the rules file asks for tc".into()),
        (EngineMode::Xdp, _) => choice(Engine::Xdp, false, "the rules file asks for xdp".into()),
        (EngineMode::XdpGeneric, _) => {
            choice(Engine::XdpGeneric, false, "the rules file asks for xdp-generic".into())
        }
        (EngineMode::Auto, Some(kind)) => {
            let reason = format!("{kind} interfaces carry large segments that XDP would have to cut up");
            choice(Engine::Tc, false, reason)
        }
        (EngineMode::Auto, None) => choice(Engine::Xdp, true, "the driver runs XDP itself".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: Option<&str>) -> Link {
        let kind = kind.map(str::to_owned);
        Link { name: "eth0".into(), index: 2, kind, mac: Some([0; 6]), ..Link::default() }
    }

    #[test]
    fn only_hardware_is_accelerated_by_itself() {
        assert_eq!(choose(EngineMode::Auto, &link(Some("veth"))).engine, Engine::Tc);
        let hardware = choose(EngineMode::Auto, &link(None));
        assert!(hardware.engine == Engine::Xdp && hardware.or_tc);
    }

    #[test]
    fn a_demand_is_not_replaced_by_something_else() {
        for mode in [EngineMode::Xdp, EngineMode::XdpGeneric, EngineMode::Tc] {
            assert!(!choose(mode, &link(None)).or_tc);
        }
        assert_eq!(choose(EngineMode::Xdp, &link(Some("veth"))).engine, Engine::Xdp);
    }
}
