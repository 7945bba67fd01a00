//! Which hook handles the packets of an interface.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::host::{Link, features::Drivers};
use crate::{kernel::Acceleration, policy::EngineMode};

/// The hook that handles an interface's packets. TC is always there; XDP before it finishes what it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Native XDP, in the driver.
    Xdp,
    /// XDP in the kernel's generic hook.
    XdpGeneric,
    /// TC alone.
    #[default]
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
    /// One sentence for `netfw status`.
    pub reason: String,
}

/// Chooses for `link` what `[engine] mode` asks for. `others`: where else its packets can leave, as far as it is there.
pub fn choose(mode: EngineMode, link: &Link, others: &[Option<&Link>], drivers: &Drivers) -> Choice {
    let choice = |engine, reason: String| Choice { engine, reason };
    match (mode, &link.kind) {
        (EngineMode::Tc, _) => choice(Engine::Tc, "the rules file asks for tc".into()),
        (EngineMode::Xdp, _) => choice(Engine::Xdp, "the rules file asks for xdp".into()),
        (EngineMode::XdpGeneric, _) => {
            choice(Engine::XdpGeneric, "the rules file asks for xdp-generic".into())
        }
        (EngineMode::Auto, Some(kind)) if !drivers.run(link.index) => {
            choice(Engine::Tc, format!("{kind} interfaces have no XDP of their own"))
        }
        (EngineMode::Auto, Some(kind)) => {
            let reason = format!("{kind} interfaces carry large segments that XDP would have to cut up");
            choice(Engine::Tc, reason)
        }
        (EngineMode::Auto, None) if !pays(others, drivers) => {
            let reason = "no other interface takes frames from XDP: it would only handle most packets twice";
            choice(Engine::Tc, reason.into())
        }
        (EngineMode::Auto, None) => choice(Engine::Xdp, "the driver runs XDP itself".into()),
    }
}

/// Whether XDP has somewhere to send frames: an interface that will run XDP too, or, where there is only one, that one. What is
/// not there is hoped for: XDP that is put on and taken off again interrupts the link of many cards.
fn pays(others: &[Option<&Link>], drivers: &Drivers) -> bool {
    let able = |other: &Link| other.kind.is_none() && drivers.run(other.index);
    others.is_empty() || others.iter().any(|other| other.is_none_or(able))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn link(index: u32, kind: Option<&str>) -> Link {
        let kind = kind.map(str::to_owned);
        Link { name: format!("eth{index}"), index, kind, mac: Some([0; 6]), ..Link::default() }
    }

    /// Devices 2 and 3 run XDP.
    fn drivers() -> Drivers {
        Drivers { features: Some(BTreeMap::from([(2, 1), (3, 1), (4, 0)])) }
    }

    fn automatic(link: &Link, others: &[Option<&Link>]) -> Choice {
        choose(EngineMode::Auto, link, others, &drivers())
    }

    #[test]
    fn only_hardware_is_accelerated_by_itself() {
        assert_eq!(automatic(&link(2, None), &[]).engine, Engine::Xdp);
        let veth = automatic(&link(2, Some("veth")), &[]);
        assert_eq!(veth.engine, Engine::Tc);
        assert!(veth.reason.contains("large segments"), "{}", veth.reason);
        let bridge = automatic(&link(4, Some("bridge")), &[]);
        assert_eq!(bridge.engine, Engine::Tc);
        assert!(bridge.reason.contains("no XDP"), "{}", bridge.reason);
    }

    #[test]
    fn xdp_needs_somewhere_to_send() {
        let (wan, lan, bridge) = (link(2, None), link(3, None), link(4, Some("bridge")));
        assert_eq!(automatic(&wan, &[Some(&bridge), Some(&lan)]).engine, Engine::Xdp);
        assert_eq!(automatic(&wan, &[Some(&link(3, Some("veth")))]).engine, Engine::Tc);
        assert_eq!(automatic(&wan, &[Some(&link(4, None))]).engine, Engine::Tc);
        let alone = automatic(&wan, &[Some(&bridge)]);
        assert_eq!(alone.engine, Engine::Tc);
        assert!(alone.reason.contains("no other interface"), "{}", alone.reason);
    }

    #[test]
    fn what_is_not_there_yet_is_hoped_for() {
        assert_eq!(automatic(&link(2, None), &[Some(&link(4, None)), None]).engine, Engine::Xdp);
    }

    #[test]
    fn old_kernels_tell_nothing() {
        let (wan, lan) = (link(2, None), link(3, None));
        let choice = choose(EngineMode::Auto, &wan, &[Some(&lan)], &Drivers::default());
        assert_eq!(choice.engine, Engine::Xdp);
    }

    #[test]
    fn a_demand_is_obeyed() {
        for (mode, engine) in [
            (EngineMode::Xdp, Engine::Xdp),
            (EngineMode::XdpGeneric, Engine::XdpGeneric),
            (EngineMode::Tc, Engine::Tc),
        ] {
            assert_eq!(choose(mode, &link(4, Some("veth")), &[], &drivers()).engine, engine);
        }
    }
}
