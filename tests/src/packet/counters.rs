//! All counters of a gateway, and what moved between two looks at them.

use std::collections::BTreeMap;

use netfw_common::counters::{Count, InterfaceCount, TranslationCount};

use super::gateway::Side;

/// Counters at a moment, or their difference. What is 0 is left out of the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Interfaces.
    pub interfaces: BTreeMap<Side, InterfaceCount>,
    /// Drops, by the reason's word.
    pub drops: BTreeMap<&'static str, Count>,
    /// Rules, by name.
    pub rules: BTreeMap<String, Count>,
    /// Port-forwards, by name; the masquerade has the empty name.
    pub translations: BTreeMap<String, TranslationCount>,
}

impl Counters {
    /// What moved since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            interfaces: difference(&self.interfaces, &before.interfaces, interface),
            drops: difference(&self.drops, &before.drops, count),
            rules: difference(&self.rules, &before.rules, count),
            translations: difference(&self.translations, &before.translations, translation),
        }
    }

    /// What moved at an interface.
    pub fn interface(&self, side: Side) -> InterfaceCount {
        self.interfaces.get(&side).copied().unwrap_or_default()
    }

    /// What moved at a port-forward.
    pub fn translation(&self, name: &str) -> TranslationCount {
        self.translations.get(name).copied().unwrap_or_default()
    }
}

fn difference<K: Ord + Clone, V: Copy + Default + PartialEq>(
    now: &BTreeMap<K, V>,
    before: &BTreeMap<K, V>,
    subtract: impl Fn(V, V) -> V,
) -> BTreeMap<K, V> {
    let moved = now
        .iter()
        .map(|(key, &value)| (key.clone(), subtract(value, before.get(key).copied().unwrap_or_default())));
    moved.filter(|(_, value)| *value != V::default()).collect()
}

fn count(now: Count, before: Count) -> Count {
    Count { packets: now.packets - before.packets, bytes: now.bytes - before.bytes }
}

fn interface(now: InterfaceCount, before: InterfaceCount) -> InterfaceCount {
    InterfaceCount {
        forwarded: count(now.forwarded, before.forwarded),
        accepted: count(now.accepted, before.accepted),
        dropped: count(now.dropped, before.dropped),
    }
}

fn translation(now: TranslationCount, before: TranslationCount) -> TranslationCount {
    TranslationCount {
        flows_opened: now.flows_opened - before.flows_opened,
        forth: count(now.forth, before.forth),
        back: count(now.back, before.back),
    }
}
