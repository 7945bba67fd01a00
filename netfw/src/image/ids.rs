//! Stable ids: a counter belongs to a name and goes on while rules come, go and change places.

use std::collections::BTreeMap;

use netfw_common::{counters::MAX_COUNTERS, health::MAX_HEALTH};
use serde::{Deserialize, Serialize};

use crate::policy::{Chain, Endpoint, PortForward, ValidPolicy};

/// Ids of all names that an instance has seen: kept as long as it is up.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ids {
    rules: Names,
    port_forwards: Names,
    #[serde(default)]
    targets: Names,
    /// Words of health of targets that were not checked before the last change.
    #[serde(skip)]
    begun: Vec<u16>,
}

/// Ids that the names of one policy have, in its order.
pub(super) struct Assigned {
    pub(super) rules: Vec<u16>,
    pub(super) port_forwards: Vec<u16>,
}

impl Ids {
    /// Id of a rule: index of its counter.
    pub fn rule(&self, chain: Chain, name: &str) -> Option<u16> {
        self.rules.id(&rule_key(chain, name))
    }

    /// Chain and name of the rule with an id, also of one that is no longer in the rules.
    pub fn rule_name(&self, id: u16) -> Option<(&str, &str)> {
        self.rules.name(id)?.split_once('/')
    }

    /// How many ids of rules were given away: they count from 0.
    pub fn rules(&self) -> u32 {
        self.rules.known.len() as u32
    }

    /// Id of a port-forward, as flows and counters carry it (its counter has index `id + 1`).
    pub fn port_forward(&self, name: &str) -> Option<u16> {
        self.port_forwards.id(name)
    }

    /// Name of the port-forward with an id, also of one that is no longer in the rules.
    pub fn port_forward_name(&self, id: u16) -> Option<&str> {
        self.port_forwards.name(id)
    }

    /// Names of all port-forwards by id, also of those that are no longer in the rules.
    pub fn port_forward_names(&self) -> impl Iterator<Item = (u16, &str)> {
        self.port_forwards.known.iter().map(|(name, entry)| (entry.id, name.as_str()))
    }

    /// Number of the word that holds the health of a target, if it is checked.
    pub fn target(&self, endpoint: &Endpoint<'_>) -> Option<u16> {
        self.target_by_label(&endpoint.forward.name, &endpoint.label())
    }

    /// As [`Ids::target`], by name of the port-forward and label of the target.
    pub fn target_by_label(&self, forward: &str, label: &str) -> Option<u16> {
        self.targets.id(&target_key(forward, label)).map(|id| id + 1)
    }

    /// Words of health of targets whose check began with the last change: nothing is known of them yet.
    pub fn take_begun_targets(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.begun)
    }

    /// Ids that went from a forgotten rule to a new one since the last call: their counters must start from 0.
    pub fn take_recycled_rules(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.rules.recycled)
    }

    /// As [`Ids::take_recycled_rules`], of port-forwards.
    pub fn take_recycled_port_forwards(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.port_forwards.recycled)
    }

    pub(super) fn assign(&mut self, policy: &ValidPolicy) -> Assigned {
        let endpoints = policy.port_forwards().iter().flat_map(PortForward::endpoints);
        let targets: Vec<String> =
            endpoints.filter(Endpoint::is_checked).map(|endpoint| key_of(&endpoint)).collect();
        let begun: Vec<&String> = targets.iter().filter(|name| !self.targets.is_used(name)).collect();
        // Word 0 says that nobody checks.
        let words = self.targets.assign(&targets, MAX_HEALTH as usize - 1);
        let words = targets.iter().zip(words).filter(|(name, _)| begun.contains(name));
        self.begun.extend(words.map(|(_, id)| id + 1));
        let rules: Vec<String> = policy.rules().iter().map(|rule| rule_key(rule.chain, &rule.name)).collect();
        let forwards: Vec<String> =
            policy.port_forwards().iter().map(|forward| forward.name.clone()).collect();
        // Translation counters have one entry more than there are ids: the masquerade's.
        Assigned {
            rules: self.rules.assign(&rules, MAX_COUNTERS as usize),
            port_forwards: self.port_forwards.assign(&forwards, MAX_COUNTERS as usize - 1),
        }
    }
}

fn key_of(endpoint: &Endpoint<'_>) -> String {
    target_key(&endpoint.forward.name, &endpoint.label())
}

fn target_key(forward: &str, label: &str) -> String {
    format!("{forward}/{label}")
}

fn rule_key(chain: Chain, name: &str) -> String {
    let chain = match chain {
        Chain::Input => "input",
        Chain::Forward => "forward",
        Chain::Output => "output",
    };
    format!("{chain}/{name}")
}

/// Names of one kind with their ids.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Names {
    /// Counts assignments, so that the name that was unused longest is known.
    round: u64,
    known: BTreeMap<String, Entry>,
    recycled: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    id: u16,
    last_used: u64,
}

impl Names {
    fn id(&self, name: &str) -> Option<u16> {
        self.known.get(name).map(|entry| entry.id)
    }

    fn name(&self, id: u16) -> Option<&str> {
        self.known.iter().find(|(_, entry)| entry.id == id).map(|(name, _)| name.as_str())
    }

    /// Whether the last assignment named it.
    fn is_used(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|entry| entry.last_used == self.round)
    }

    /// Ids of `names`, which are fewer than `capacity`.
    fn assign(&mut self, names: &[String], capacity: usize) -> Vec<u16> {
        self.round += 1;
        for name in names {
            if let Some(entry) = self.known.get_mut(name) {
                entry.last_used = self.round;
            }
        }
        names.iter().map(|name| self.id(name).unwrap_or_else(|| self.add(name, capacity))).collect()
    }

    fn add(&mut self, name: &str, capacity: usize) -> u16 {
        let id = if self.known.len() < capacity { self.known.len() as u16 } else { self.recycle() };
        self.known.insert(name.to_owned(), Entry { id, last_used: self.round });
        id
    }

    /// Takes the id from the name that was unused longest.
    fn recycle(&mut self) -> u16 {
        let oldest = self.known.iter().min_by_key(|(_, entry)| entry.last_used);
        let name = oldest.map(|(name, _)| name.clone()).unwrap_or_default();
        let id = self.known.remove(&name).map_or(0, |entry| entry.id);
        self.recycled.push(id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(names: &mut Names, wanted: &[&str]) -> Vec<u16> {
        let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        names.assign(&wanted, 4)
    }

    #[test]
    fn a_name_keeps_its_id_while_others_come_and_go() {
        let mut names = Names::default();
        assert_eq!(assign(&mut names, &["a", "b", "c"]), [0, 1, 2]);
        assert_eq!(assign(&mut names, &["d", "c"]), [3, 2]);
        assert_eq!(assign(&mut names, &["a"]), [0]);
        assert_eq!(names.id("b"), Some(1));
        assert!(names.recycled.is_empty());
    }

    #[test]
    fn the_name_unused_longest_gives_its_id_away() {
        let mut names = Names::default();
        assign(&mut names, &["a", "b", "c"]);
        assign(&mut names, &["a", "c", "d"]);
        assign(&mut names, &["c", "d"]);
        assert_eq!(assign(&mut names, &["c", "d", "e", "f"]), [2, 3, 1, 0]);
        assert_eq!(names.recycled, [1, 0]);
        assert_eq!(names.id("a"), None);
    }
}
