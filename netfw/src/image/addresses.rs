//! What an address says: a longest-prefix table in which each prefix names the sets of rules that accept it.
//!
//! An address whose longest prefix in the table is P lies in another prefix Q of the table exactly if Q contains
//! P. So the table holds all prefixes that the policy names, and each inherits what those around it say.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ptr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netfw_common::image::{AddressClass, FAILSAFE, Vector};

use super::{
    error::CompileError,
    forwards::Entry,
    vectors::{SetOperations, Vectors},
};
use crate::policy::{AddressMatch, ValidPolicy};

/// What is asked of an address; each question has sets of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Field {
    SourceRules,
    DestinationRules,
    SourceForwards,
    DestinationForwards,
    Masquerades,
    Failsafe,
    Outside,
    Targets,
}

const FIELDS: usize = 8;

/// Who names a prefix in one field, and how.
struct Mention {
    field: Field,
    /// Index of the group of those who do.
    group: usize,
    excluded: bool,
}

/// Every prefix of the policy with who mentions it.
pub(super) struct Addresses {
    /// Sets of those that select the same addresses: a large set named by many rules is walked once.
    groups: Vec<Vector>,
    prefixes: BTreeMap<IpNet, Vec<Mention>>,
}

impl Default for Addresses {
    fn default() -> Self {
        let everything = [any(false), any(true)].map(|prefix| (prefix, Vec::new()));
        Self { groups: Vec::new(), prefixes: everything.into() }
    }
}

/// All addresses of a family.
fn any(v6: bool) -> IpNet {
    if v6 { Ipv6Net::default().into() } else { Ipv4Net::default().into() }
}

impl Addresses {
    /// Takes in everything that asks for addresses.
    pub(super) fn add_policy(&mut self, policy: &ValidPolicy, entries: &[Entry<'_>]) {
        // By identity: a large set that many rules name is not looked through for each of them.
        let mut groups: HashMap<(Field, *const AddressMatch), (Vector, &AddressMatch)> = HashMap::new();
        let mut add = |field, number, selected| {
            let group = groups.entry((field, ptr::from_ref(selected)));
            group.or_insert_with(|| (Vector::default(), selected)).0.insert(number);
        };
        for (number, rule) in policy.rules().iter().enumerate() {
            add(Field::SourceRules, number, &rule.from);
            add(Field::DestinationRules, number, &rule.to);
        }
        for (number, masquerade) in policy.masquerades().iter().enumerate() {
            add(Field::Masquerades, number, &masquerade.from);
        }
        if let Some(failsafe) = policy.failsafe() {
            add(Field::Failsafe, 0, &failsafe.from);
        }
        for (number, masquerade) in policy.masquerades().iter().enumerate() {
            let own: Vec<IpNet> = masquerade.to.iter().copied().map(IpNet::from).collect();
            self.mention(Field::Outside, Vector::of([number]), &own, &[]);
        }
        for (number, entry) in entries.iter().enumerate() {
            add(Field::SourceForwards, number, &entry.forward.from);
            self.listen(number, entry);
        }
        self.lead(entries);
        for ((field, _), (members, selected)) in groups {
            self.select(field, members, selected);
        }
    }

    /// Whose `members` select the same addresses.
    fn select(&mut self, field: Field, members: Vector, selected: &AddressMatch) {
        let everything = [any(false), any(true)];
        let included = if selected.restricted { selected.include.as_slice() } else { &everything };
        self.mention(field, members, included, &selected.exclude);
    }

    /// Only here the family of an entry counts: a packet's addresses are of one family.
    fn listen(&mut self, number: usize, entry: &Entry<'_>) {
        let own = entry.forward.addresses.iter().filter(|address| address.is_ipv6() == entry.v6);
        let mut included: Vec<IpNet> = own.copied().map(IpNet::from).collect();
        if entry.forward.addresses.is_empty() {
            included.push(any(entry.v6));
        }
        self.mention(Field::DestinationForwards, Vector::of([number]), &included, &[]);
    }

    /// Which addresses the entries lead to.
    fn lead(&mut self, entries: &[Entry<'_>]) {
        let mut leading: BTreeMap<IpAddr, Vector> = BTreeMap::new();
        for (number, entry) in entries.iter().enumerate() {
            entry.target_addresses().for_each(|target| leading.entry(target).or_default().insert(number));
        }
        for (target, members) in leading {
            self.mention(Field::Targets, members, &[target.into()], &[]);
        }
    }

    fn mention(&mut self, field: Field, members: Vector, included: &[IpNet], excluded: &[IpNet]) {
        let group = self.groups.len();
        self.groups.push(members);
        for (list, excluded) in [(included, false), (excluded, true)] {
            for prefix in list {
                self.prefixes.entry(prefix.trunc()).or_default().push(Mention { field, group, excluded });
            }
        }
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
            let mut level =
                Level { prefix, fields: around.last().map(|wider| wider.fields.clone()).unwrap_or_default() };
            level.take_in(mentions, &self.groups, vectors)?;
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
    /// Whether `result` is out of date.
    changed: bool,
    /// The set that results: its index, for masquerades and the fail-safe door its lowest number plus 1, for outside
    /// addresses its bits.
    result: u16,
}

/// A prefix on the way down the tree.
struct Level {
    prefix: IpNet,
    fields: [Sets; FIELDS],
}

impl Level {
    /// What is said of the prefix itself.
    fn take_in(
        &mut self,
        mentions: &[Mention],
        groups: &[Vector],
        vectors: &mut Vectors,
    ) -> Result<(), CompileError> {
        for &Mention { field, group, excluded } in mentions {
            let sets = &mut self.fields[field as usize];
            let set = if excluded { &mut sets.excluded } else { &mut sets.included };
            set.add(&groups[group]);
            sets.changed = true;
        }
        for (field, sets) in self.fields.iter_mut().enumerate().filter(|(_, sets)| sets.changed) {
            let accepting = sets.included.without(&sets.excluded);
            sets.changed = false;
            const MASQUERADES: usize = Field::Masquerades as usize;
            const OUTSIDE: usize = Field::Outside as usize;
            const FAILSAFE_DOOR: usize = Field::Failsafe as usize;
            sets.result = match field {
                MASQUERADES | FAILSAFE_DOOR => accepting.first().map_or(0, |number| number as u16 + 1),
                OUTSIDE => accepting.words[0] as u16,
                _ => vectors.index(&accepting)?,
            };
        }
        Ok(())
    }

    fn class(&self) -> AddressClass {
        let result = |field: Field| self.fields[field as usize].result;
        AddressClass {
            source_rules: result(Field::SourceRules),
            destination_rules: result(Field::DestinationRules),
            source_forwards: result(Field::SourceForwards),
            destination_forwards: result(Field::DestinationForwards),
            masquerade: result(Field::Masquerades),
            outside: result(Field::Outside),
            flags: if result(Field::Failsafe) != 0 { FAILSAFE } else { 0 },
            targets: result(Field::Targets),
        }
    }
}
