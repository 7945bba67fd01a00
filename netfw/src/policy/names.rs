//! Hosts and sets: from names to addresses.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::AddressMatch;
use crate::config::{
    model::{Host, HostWord, Members, Model, Selection, Selector, Set},
    problems::Problems,
    source::{Span, Spanned},
    suggest,
};

/// Everything that `[hosts]` and `[sets]` define.
pub(super) struct Names<'m> {
    hosts: BTreeMap<&'m str, &'m Host>,
    sets: BTreeMap<&'m str, &'m Set>,
    /// Members of the sets looked up so far.
    expanded: BTreeMap<&'m str, Cow<'m, [IpNet]>>,
    /// Selections by their words: a large set that many rules name is put in order, kept and compared once.
    selected: RefCell<HashMap<Words<'m>, Arc<AddressMatch>>>,
}

/// The words of a selection: what each excludes or not.
type Words<'m> = Vec<&'m (bool, Selector)>;

impl<'m> Names<'m> {
    /// Looks up every set, used or not.
    pub(super) fn new(model: &'m Model, problems: &mut Problems) -> Self {
        let mut names = Self {
            hosts: model.hosts.iter().map(|host| (host.name.value.as_str(), host)).collect(),
            sets: model.sets.iter().map(|set| (set.name.value.as_str(), set)).collect(),
            expanded: BTreeMap::new(),
            selected: RefCell::default(),
        };
        for set in &model.sets {
            names.expand(set, &mut Vec::new(), problems);
            if names.hosts.contains_key(set.name.value.as_str()) {
                let message = format!("\"{}\" is the name of a host and of a set", set.name.value);
                problems.error(&set.name.span, message, "rename one of them");
            }
        }
        names
    }

    /// Looks up the members of `set`; `path` holds the sets that are being looked up around it.
    fn expand(&mut self, set: &'m Set, path: &mut Vec<&'m str>, problems: &mut Problems) {
        let name = set.name.value.as_str();
        if self.expanded.contains_key(name) {
            return;
        }
        path.push(name);
        let (members, _) = problems.about(format!("set \"{name}\""), |problems| {
            let words = match &set.members {
                // A million are put in order once: when they are selected.
                Members::Included(networks) => return Cow::Borrowed(&**networks),
                Members::Written(words) => words,
            };
            let mut members = Vec::new();
            for word in words {
                self.expand_member(word, path, &mut members, problems);
            }
            Cow::Owned(IpNet::aggregate(&members))
        });
        path.pop();
        self.expanded.insert(name, members);
    }

    fn expand_member(
        &mut self,
        word: &'m Spanned<Selector>,
        path: &mut Vec<&'m str>,
        members: &mut Vec<IpNet>,
        problems: &mut Problems,
    ) {
        if let Selector::Name(name) = &word.value
            && let Some(inner) = self.sets.get(name.as_str()).copied()
        {
            if let Some(start) = path.iter().position(|outer| outer == name) {
                return report_cycle(&path[start..], name, &word.span, problems);
            }
            self.expand(inner, path, problems);
        }
        self.add_networks(&word.value, &word.span, members, problems);
    }

    /// Adds the networks that one word stands for.
    fn add_networks(
        &self,
        selector: &Selector,
        span: &Span,
        networks: &mut Vec<IpNet>,
        problems: &mut Problems,
    ) {
        let name = match selector {
            Selector::Network(network) => return networks.push(*network),
            Selector::Name(name) => name.as_str(),
        };
        if let Some(members) = self.expanded.get(name) {
            networks.extend_from_slice(members);
        } else if let Some(host) = self.hosts.get(name) {
            networks.extend(host.addresses.iter().copied().map(IpNet::from));
        } else if !self.sets.contains_key(name) {
            self.report_unknown(name, span, problems);
        }
    }

    /// The addresses that a `from` or `to` selects; all if it is not written.
    pub(super) fn select(
        &self,
        selection: Option<&'m Selection>,
        problems: &mut Problems,
    ) -> Arc<AddressMatch> {
        let words: Words<'m> =
            selection.iter().flat_map(|selection| &selection.words).map(|word| &word.value).collect();
        if let Some(known) = self.selected.borrow().get(&words) {
            return Arc::clone(known);
        }
        let before = problems.error_count();
        let selected =
            Arc::new(selection.map_or_else(AddressMatch::default, |one| self.select_once(one, problems)));
        // What is wrong with it is said wherever it is written.
        if problems.error_count() == before {
            self.selected.borrow_mut().insert(words, Arc::clone(&selected));
        }
        selected
    }

    /// As [`select`](Self::select), and nothing is kept of it.
    pub(super) fn select_once(&self, selection: &Selection, problems: &mut Problems) -> AddressMatch {
        let (mut include, mut exclude, mut restricted) = (Vec::new(), Vec::new(), false);
        for Spanned { value: (excludes, selector), span } in &selection.words {
            let list = if *excludes { &mut exclude } else { &mut include };
            self.add_networks(selector, span, list, problems);
            restricted |= !excludes;
        }
        AddressMatch::new(include, exclude, restricted)
    }

    /// The addresses of one host: at most one a family. `None` if that was, or is now, reported.
    pub(super) fn host(&self, word: &HostWord, span: &Span, problems: &mut Problems) -> Option<Vec<IpAddr>> {
        let name = match word {
            HostWord::Address(address) => return Some(vec![*address]),
            HostWord::Name(name) => name.as_str(),
        };
        let Some(host) = self.hosts.get(name) else {
            self.report_no_host(name, span, problems);
            return None;
        };
        if host.addresses.len() > 2 || same_family(&host.addresses) {
            let message = format!("host \"{name}\" has several addresses of one family");
            problems.error(
                span,
                message,
                "give each address a host of its own, and name the one that is meant",
            );
            return None;
        }
        host.sound.then(|| host.addresses.clone())
    }

    fn report_no_host(&self, name: &str, span: &Span, problems: &mut Problems) {
        if self.sets.contains_key(name) {
            let help = "write its hosts one by one, as a list";
            problems.error(span, format!("\"{name}\" is a set where one host is needed"), help);
        } else {
            self.report_unknown(name, span, problems);
        }
    }

    fn report_unknown(&self, name: &str, span: &Span, problems: &mut Problems) {
        let known = self.hosts.keys().chain(self.sets.keys()).copied();
        let help = match suggest::nearest(name, known) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => format!("define it: {name} = \"192.0.2.1\" below [hosts], or a list below [sets]"),
        };
        problems.error(span, format!("no host or set is called \"{name}\""), help);
    }
}

fn same_family(addresses: &[IpAddr]) -> bool {
    matches!(addresses, [first, second] if first.is_ipv4() == second.is_ipv4())
}

fn report_cycle(path: &[&str], back_to: &str, span: &Span, problems: &mut Problems) {
    let circle = path.iter().copied().chain([back_to]).collect::<Vec<_>>().join(" → ");
    let help = format!("take \"{back_to}\" out of \"{}\"", path.last().unwrap_or(&back_to));
    problems.error(span, format!("sets contain each other in a circle: {circle}"), help);
}
