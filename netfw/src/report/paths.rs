//! Of `netfw status`: who takes packets from one interface to another.

use std::collections::BTreeSet;

use serde::Serialize;

use super::table::table;
use crate::daemon::{
    engine::Engine,
    state::{Managed, State},
};

/// The way from one interface to another, or back out of the same.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Path {
    from: String,
    to: String,
    engine: Engine,
    reason: String,
}

/// All ways between the interfaces that are there. `transmitters`: those out of which XDP sends frames.
pub(super) fn paths(state: &State, transmitters: &BTreeSet<u32>) -> Vec<Path> {
    let present = || state.interfaces.iter().filter(|(_, managed)| managed.index != 0);
    let pairs = present().flat_map(|from| present().map(move |to| (from, to)));
    pairs.map(|(from, to)| path(from, to, transmitters)).collect()
}

fn path(
    (from, arriving): (&String, &Managed),
    (to, leaving): (&String, &Managed),
    transmitters: &BTreeSet<u32>,
) -> Path {
    let (engine, reason) = if arriving.engine == Engine::Tc {
        (Engine::Tc, format!("{from} runs no XDP"))
    } else if transmitters.contains(&leaving.index) {
        (arriving.engine, "frames are handed over directly".to_owned())
    } else {
        (Engine::Tc, format!("{to} does not transmit XDP frames"))
    };
    Path { from: from.clone(), to: to.clone(), engine, reason }
}

/// For the terminal: a line for all that is alike.
pub(super) fn render(paths: &[Path]) -> String {
    let alike = |one: &Path, other: &Path| {
        (&one.from, one.engine, &one.reason) == (&other.from, other.engine, &other.reason)
    };
    let mut rows: Vec<(&Path, Vec<&str>)> = Vec::new();
    for path in paths {
        match rows.iter_mut().find(|(first, _)| alike(first, path)) {
            Some((_, outputs)) => outputs.push(&path.to),
            None => rows.push((path, vec![&path.to])),
        }
    }
    let row = |(path, outputs): (&Path, Vec<&str>)| {
        vec![path.from.clone(), outputs.join(", "), path.engine.to_string(), path.reason.clone()]
    };
    table(&["from", "to", "engine", "why"], rows.into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn managed(index: u32, engine: Engine) -> Managed {
        let (reason, turned) = (String::new(), Vec::new());
        Managed { index, external: true, engine, wanted: engine, reason, turned, clsact: false }
    }

    fn way(from: (&str, &Managed), to: (&str, &Managed)) -> (Engine, String) {
        let path = path((&from.0.into(), from.1), (&to.0.into(), to.1), &BTreeSet::from([2, 3]));
        (path.engine, path.reason)
    }

    #[test]
    fn both_ends_decide() {
        let (wan, lan, bridge) =
            (managed(2, Engine::Xdp), managed(3, Engine::XdpGeneric), managed(4, Engine::Tc));
        assert_eq!(way(("wan", &wan), ("lan", &lan)).0, Engine::Xdp);
        assert_eq!(way(("lan", &lan), ("lan", &lan)).0, Engine::XdpGeneric);
        let out = way(("wan", &wan), ("br0", &bridge));
        assert_eq!(out, (Engine::Tc, "br0 does not transmit XDP frames".into()));
        assert_eq!(way(("br0", &bridge), ("wan", &wan)), (Engine::Tc, "br0 runs no XDP".into()));
    }

    #[test]
    fn what_is_alike_is_one_line() {
        let path = |from: &str, to: &str, engine, reason: &str| Path {
            from: from.into(),
            to: to.into(),
            engine,
            reason: reason.into(),
        };
        let paths = [
            path("wan", "br0", Engine::Tc, "br0 does not"),
            path("wan", "lan", Engine::Xdp, "directly"),
            path("wan", "wan", Engine::Xdp, "directly"),
            path("lan", "wan", Engine::Xdp, "directly"),
        ];
        let text = render(&paths);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("lan, wan"), "{text}");
    }
}
