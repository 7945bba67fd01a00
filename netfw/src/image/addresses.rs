//! What an address says: a longest-prefix table in which each prefix names the sets of rules that accept it.
//!
//! An address whose longest prefix in the table is P lies in another prefix Q of the table exactly if Q contains
//! P. So the table holds all prefixes that the policy names, and each inherits what those around it say.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netfw_common::image::{AddressClass, Vector};

use super::{
    error::CompileError,
    forwards::Entry,
    vectors::{SetOperations, Vectors},
};
use crate::policy::{AddressMatch, ValidPolicy};

/// What is asked of an address; each question has sets of its own.
#[derive(Clone, Copy)]
enum Field {
    SourceRules,
    DestinationRules,
    SourceForwards,
    DestinationForwards,
    Masquerades,
}

const FIELDS: usize = 5;

/// Numbers that a prefix is written for, in one field.
#[derive(Default)]
struct Mentions {
    included: Vec<usize>,
    excluded: Vec<usize>,
}

/// Every prefix of the policy with who mentions it.
pub(super) struct Addresses {
    prefixes: BTreeMap<IpNet, [Mentions; FIELDS]>,
}

impl Default for Addresses {
    fn default() -> Self {
        let everything = [any(false), any(true)];
        Self { prefixes: everything.map(|prefix| (prefix, Default::default())).into() }
    }
}

/// All addresses of a family.
fn any(v6: bool) -> IpNet {
    if v6 { Ipv6Net::default().into() } else { Ipv4Net::default().into() }
}

impl Addresses {
    /// Takes in everything that asks for addresses.
    pub(super) fn add_policy(&mut self, policy: &ValidPolicy, entries: &[Entry<'_>]) {
        for (number, rule) in policy.rules().iter().enumerate() {
            self.add(Field::SourceRules, number, &rule.from);
            self.add(Field::DestinationRules, number, &rule.to);
        }
        for (number, masquerade) in policy.masquerades().iter().enumerate() {
            self.add(Field::Masquerades, number, &masquerade.from);
        }
        for (number, entry) in entries.iter().enumerate() {
            self.add(Field::SourceForwards, number, &entry.forward.from);
            self.listen(number, entry);
        }
    }

    fn add(&mut self, field: Field, number: usize, selected: &AddressMatch) {
        if !selected.restricted {
            self.include(field, number, any(false));
            self.include(field, number, any(true));
        }
        for &prefix in &selected.include {
            self.include(field, number, prefix);
        }
        for prefix in &selected.exclude {
            self.mentions(field, prefix.trunc()).excluded.push(number);
        }
    }

    /// Only here the family of an entry counts: a packet's addresses are of one family.
    fn listen(&mut self, number: usize, entry: &Entry<'_>) {
        let addresses = &entry.forward.addresses;
        if addresses.is_empty() {
            self.include(Field::DestinationForwards, number, any(entry.v6));
        }
        for &address in addresses.iter().filter(|address| address.is_ipv6() == entry.v6) {
            self.include(Field::DestinationForwards, number, IpNet::from(address));
        }
    }

    fn include(&mut self, field: Field, number: usize, prefix: IpNet) {
        self.mentions(field, prefix.trunc()).included.push(number);
    }

    fn mentions(&mut self, field: Field, prefix: IpNet) -> &mut Mentions {
        &mut self.prefixes.entry(prefix).or_default()[field as usize]
    }

    /// The table of each family. Prefixes that say the same as the next wider one are left out.
    pub(super) fn classes(&self, vectors: &mut Vectors) -> Result<Tables, CompileError> {
        let mut tables = Tables::default();
        let mut around: Vec<Level> = Vec::new();
        // In this order each prefix comes after those that contain it: a walk through the prefix tree.
        for (&prefix, mentions) in &self.prefixes {
            while around.last().is_some_and(|level| !level.prefix.contains(&prefix)) {
                around.pop();
            }
            let level = Level::inside(around.last(), prefix, mentions, vectors)?;
            if around.last().is_none_or(|wider| wider.class() != level.class()) {
                tables.push(prefix, level.class());
            }
            around.push(level);
        }
        Ok(tables)
    }
}

/// Longest-prefix tables, sorted.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) v4: Vec<(Ipv4Net, AddressClass)>,
    pub(super) v6: Vec<(Ipv6Net, AddressClass)>,
}

impl Tables {
    fn push(&mut self, prefix: IpNet, class: AddressClass) {
        match prefix {
            IpNet::V4(prefix) => self.v4.push((prefix, class)),
            IpNet::V6(prefix) => self.v6.push((prefix, class)),
        }
    }
}

/// What holds for the addresses of a prefix, one field.
#[derive(Clone, Default)]
struct Sets {
    included: Vector,
    excluded: Vector,
    /// The set that results; for masquerades its lowest number plus 1.
    result: u16,
}

/// A prefix on the way down the tree.
struct Level {
    prefix: IpNet,
    fields: [Sets; FIELDS],
}

impl Level {
    fn inside(
        wider: Option<&Self>,
        prefix: IpNet,
        mentions: &[Mentions; FIELDS],
        vectors: &mut Vectors,
    ) -> Result<Self, CompileError> {
        let mut fields = wider.map(|level| level.fields.clone()).unwrap_or_default();
        for (index, (sets, mentions)) in fields.iter_mut().zip(mentions).enumerate() {
            if mentions.included.is_empty() && mentions.excluded.is_empty() {
                continue;
            }
            mentions.included.iter().for_each(|&number| sets.included.insert(number));
            mentions.excluded.iter().for_each(|&number| sets.excluded.insert(number));
            let accepting = sets.included.without(&sets.excluded);
            sets.result = if index == Field::Masquerades as usize {
                accepting.first().map_or(0, |number| number as u16 + 1)
            } else {
                vectors.index(&accepting)?
            };
        }
        Ok(Self { prefix, fields })
    }

    fn class(&self) -> AddressClass {
        let result = |field: Field| self.fields[field as usize].result;
        AddressClass {
            source_rules: result(Field::SourceRules),
            destination_rules: result(Field::DestinationRules),
            source_forwards: result(Field::SourceForwards),
            destination_forwards: result(Field::DestinationForwards),
            masquerade: result(Field::Masquerades),
            reserved: 0,
        }
    }
}
