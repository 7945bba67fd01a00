//! All counters of a gateway, and what moved between two looks at them.

use std::collections::BTreeMap;

use netfw_common::counters::{Count, Finisher, InterfaceCount, Shares, TranslationCount};

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

/// Of a port-forward or of the masquerade, whoever finished the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Flows opened.
    pub flows_opened: u64,
    /// Packets in the direction that opened the flow.
    pub forth: Count,
    /// Answers.
    pub back: Count,
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
    pub fn translation(&self, name: &str) -> Translated {
        let TranslationCount { flows_opened, forth, back } =
            self.translations.get(name).copied().unwrap_or_default();
        Translated { flows_opened, forth: forth.total(), back: back.total() }
    }

    /// Every translated packet is in the share of `finisher`.
    #[track_caller]
    pub(super) fn check_shares(&self, finisher: Finisher) {
        for (name, count) in &self.translations {
            let (mut forth, mut back) = (count.forth, count.back);
            let shares = (*forth.of(finisher), *back.of(finisher));
            assert_eq!(shares, (forth.total(), back.total()), "{name:?} is not finished by {finisher:?}");
        }
    }

    /// As XDP and TC must agree: what the one finishes, the other does in its place.
    pub fn by_either_engine(mut self) -> Self {
        for count in self.translations.values_mut() {
            for shares in [&mut count.forth, &mut count.back] {
                let xdp = std::mem::take(&mut shares.xdp);
                shares.tc.add(xdp.packets, xdp.bytes);
            }
        }
        self
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
        forth: shares(now.forth, before.forth),
        back: shares(now.back, before.back),
    }
}

fn shares(now: Shares, before: Shares) -> Shares {
    Shares {
        xdp: count(now.xdp, before.xdp),
        tc: count(now.tc, before.tc),
        stack: count(now.stack, before.stack),
    }
}
