//! What a broken rules file still tells beyond doubt: which interfaces to shut, and whom to let in all the same.

use std::{io, path::Path, sync::Arc};

use super::{HostFacts, Loaded, load_text};

/// The tables that are taken over; where they are not valid together, fewer.
const TAKEN: [&[&str]; 4] = [
    &["interfaces", "engine", "hosts", "sets", "failsafe"],
    &["interfaces", "hosts", "sets", "failsafe"],
    &["interfaces", "failsafe"],
    &["interfaces"],
];

/// Rules that shut everything but the fail-safe door, made of those tables of `text` that are valid by themselves. `None`
/// where it does not even tell the interfaces.
///
/// Each table is taken as it is written or not at all: what is left of a list with a mistake could mean something else.
pub fn shut(
    path: &Path,
    text: &str,
    read: &dyn Fn(&Path) -> io::Result<Arc<str>>,
    facts: &HostFacts,
) -> Option<Loaded> {
    TAKEN.iter().find_map(|taken| {
        let tables = tables(text).filter(|(name, _)| taken.contains(name));
        let rules: String = tables.map(|(_, table)| table).collect();
        let loaded = load_text(path, &rules, read, facts).ok()?;
        (!loaded.policy.interfaces().is_empty()).then_some(loaded)
    })
}

/// The tables of a rules file with their names, each from its head to the next one, that are TOML by themselves.
fn tables(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let heads = text.match_indices("\n[").map(|(newline, _)| newline + 1);
    let first = text.starts_with('[').then_some(0);
    let starts: Vec<usize> = first.into_iter().chain(heads).collect();
    let ends: Vec<usize> = starts.iter().copied().skip(1).chain([text.len()]).collect();
    starts.into_iter().zip(ends).filter_map(|(start, end)| {
        let table = text.get(start..end)?;
        let (name, _) = table.strip_prefix('[')?.split_once(']')?;
        toml::from_str::<toml::Table>(table).is_ok().then_some((name.trim(), table))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERFACES: &str = "[interfaces]\nexternal = [\"eth0\"]\n";
    const DOOR: &str = "[failsafe]\nssh-port = 22\nfrom = [\"office\"]\n";
    const OFFICE: &str = "[sets]\noffice = [\"203.0.113.0/24\"]\n";

    fn taken(text: &str) -> Option<(usize, bool)> {
        let none = |_: &Path| Err(io::ErrorKind::NotFound.into());
        let loaded = shut(Path::new("netfw.toml"), text, &none, &HostFacts::default())?;
        let policy = loaded.policy;
        assert!(policy.rules().is_empty() && policy.port_forwards().is_empty(), "more than the door is open");
        Some((policy.interfaces().len(), policy.failsafe().is_some()))
    }

    #[test]
    fn a_mistake_elsewhere_leaves_the_door() {
        let rule = "[[rule]]\nname = \"r\"\nchain = \"inptu\"\naction = \"accept\"\n";
        for broken in
            [rule, "[colour]\n", "[[port-forward]\n", "[policy]\ninput = accept\n", "[policy]\n= [\n"]
        {
            let text = format!("{INTERFACES}{OFFICE}{DOOR}{broken}");
            assert_eq!(taken(&text), Some((1, true)), "{broken}");
        }
    }

    #[test]
    fn a_door_with_a_mistake_stays_shut() {
        for sets in ["[sets]\noffice = [\"203.0.113.0/33\"]\n", "[sets]\noffice = [\"203.0.113.0/24\"\n", ""]
        {
            assert_eq!(taken(&format!("{INTERFACES}{sets}{DOOR}")), Some((1, false)), "{sets}");
        }
        let own = DOOR.replace("office", "203.0.113.0/24");
        assert_eq!(taken(&format!("{INTERFACES}[sets]\noffice = 7\n{own}")), Some((1, true)));
    }

    #[test]
    fn without_interfaces_nothing_is_told() {
        for text in ["", "\0\n[", "[interfaces]\nexternal = [\"eth0\"\n", OFFICE] {
            assert_eq!(taken(text), None, "{text}");
        }
        assert_eq!(taken(&format!("{INTERFACES}{INTERFACES}")), None, "named twice");
    }
}
