//! Which addresses a `from` or `to` selects.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// Addresses that a `from` or `to` selects: in some `include` (or `include` is empty: any) and in no `exclude`.
///
/// Both lists are sorted and without overlaps, so that equal selections are equal values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct AddressMatch {
    /// Prefixes that match; empty means any address of either family (unless `restricted`).
    pub include: Vec<IpNet>,
    /// Prefixes that don't match after all.
    pub exclude: Vec<IpNet>,
    /// The key was written with at least one positive word: an empty `include` (an empty set) then matches nothing.
    pub restricted: bool,
}

impl AddressMatch {
    /// A selection of what is in `include`, if that was written, and not in `exclude`.
    pub(super) fn new(include: Vec<IpNet>, exclude: Vec<IpNet>, restricted: bool) -> Self {
        Self { include: fewest(include), exclude: fewest(exclude), restricted }
    }

    /// Whether every address matches, as when the key is left out.
    pub fn is_any(&self) -> bool {
        !self.restricted && self.exclude.is_empty()
    }

    /// Whether IPv4 and IPv6 addresses match.
    pub(super) fn families(&self) -> (bool, bool) {
        if self.restricted && self.exclude.is_empty() {
            // Sorted: IPv4 comes first.
            let is = |network: Option<&IpNet>, v6: bool| {
                network.is_some_and(|network| network.addr().is_ipv6() == v6)
            };
            return (is(self.include.first(), false), is(self.include.last(), true));
        }
        AddressRanges::of(self).families()
    }

    /// The fewest networks that hold what matches, sorted.
    pub(super) fn into_networks(self) -> Vec<IpNet> {
        // A million of them are not taken apart for nothing.
        if self.restricted && self.exclude.is_empty() {
            return self.include;
        }
        AddressRanges::of(&self).0.iter().flat_map(networks).collect()
    }

    /// Whether `address` matches.
    pub fn matches(&self, address: IpAddr) -> bool {
        let within = |list: &[IpNet]| list.iter().any(|network| network.contains(&address));
        (!self.restricted || within(&self.include)) && !within(&self.exclude)
    }
}

/// The fewest networks that hold the same addresses, sorted. In place, and a quick pass if they are that already: most often a
/// list of a million is.
fn fewest(mut networks: Vec<IpNet>) -> Vec<IpNet> {
    if networks.array_windows().all(|[one, other]| is_apart(one, other)) {
        return networks;
    }
    networks.sort();
    let mut kept = 0;
    for place in 0..networks.len() {
        let network = networks[place];
        // In this order a network comes before those that lie in it.
        if networks[..kept].last().is_some_and(|last| last.contains(&network)) {
            continue;
        }
        networks[kept] = network;
        kept += 1;
        while let [.., one, other] = networks[..kept]
            && let Some(whole) = halved(&one, &other)
        {
            kept -= 1;
            networks[kept - 1] = whole;
        }
    }
    networks.truncate(kept);
    networks
}

/// Whether the one ends before the other begins, and they are not the halves of a network.
fn is_apart(one: &IpNet, other: &IpNet) -> bool {
    let length = one.prefix_len();
    let alike = length == other.prefix_len();
    match (one, other) {
        (IpNet::V4(one), IpNet::V4(other)) => {
            let [begin, end, next] = [one.network(), one.broadcast(), other.network()].map(Ipv4Addr::to_bits);
            end < next && !(alike && begin ^ next == 1 << (32 - length))
        }
        (IpNet::V6(one), IpNet::V6(other)) => {
            let [begin, end, next] = [one.network(), one.broadcast(), other.network()].map(Ipv6Addr::to_bits);
            end < next && !(alike && begin ^ next == 1 << (128 - length))
        }
        (one, other) => one < other,
    }
}

/// The network whose halves these are.
fn halved(one: &IpNet, other: &IpNet) -> Option<IpNet> {
    if one.prefix_len() != other.prefix_len() {
        return None;
    }
    one.supernet().filter(|whole| other.supernet() == Some(*whole))
}

/// An address of either family on one line of numbers; IPv4 comes first.
type Point = (bool, u128);

fn point(address: IpAddr) -> Point {
    match address {
        IpAddr::V4(v4) => (false, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (true, v6.to_bits()),
    }
}

/// The addresses of an [`AddressMatch`] as sorted ranges without overlaps, to compare two of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AddressRanges(Vec<RangeInclusive<Point>>);

impl AddressRanges {
    pub(super) fn of(selection: &AddressMatch) -> Self {
        let everything = [(false, 0)..=(false, u128::from(u32::MAX)), (true, 0)..=(true, u128::MAX)];
        let ranges = match selection.restricted {
            true => joined(&selection.include),
            false => everything.to_vec(),
        };
        Self(without(&ranges, &joined(&selection.exclude)))
    }

    /// Without the addresses of a family that is not wanted.
    pub(super) fn of_families(mut self, v4: bool, v6: bool) -> Self {
        self.0.retain(|range| if range.start().0 { v6 } else { v4 });
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether IPv4 and IPv6 addresses are among them.
    pub(super) fn families(&self) -> (bool, bool) {
        (self.0.iter().any(|range| !range.start().0), self.0.iter().any(|range| range.start().0))
    }

    /// How many IPv4 addresses there are.
    pub(super) fn count_v4(&self) -> u128 {
        let v4 = self.0.iter().filter(|range| !range.start().0);
        v4.map(|range| range.end().1 - range.start().1 + 1).sum()
    }

    /// Whether some address is in both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            if a.end() < b.start() {
                left.next();
            } else if b.end() < a.start() {
                right.next();
            } else {
                return true;
            }
        }
        false
    }

    /// How many ranges they are: what comparing them costs.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether every address of `other` is among these.
    pub(super) fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|inner| {
            let next = self.0.partition_point(|outer| outer.end() < inner.start());
            self.0.get(next).is_some_and(|outer| outer.start() <= inner.start() && inner.end() <= outer.end())
        })
    }
}

fn networks(range: &RangeInclusive<Point>) -> Vec<IpNet> {
    let (&(v6, first), &(_, last)) = (range.start(), range.end());
    if v6 {
        return Ipv6Subnets::new(first.into(), last.into(), 0).map(IpNet::V6).collect();
    }
    let [first, last] = [first, last].map(|bits| Ipv4Addr::from_bits(bits as u32));
    Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
}

/// Networks as ranges, neighbours joined.
fn joined(networks: &[IpNet]) -> Vec<RangeInclusive<Point>> {
    let range = |network: &IpNet| point(network.network())..=point(network.broadcast());
    let mut ranges: Vec<_> = networks.iter().map(range).collect();
    ranges.sort_by_key(|range| *range.start());
    let mut joined: Vec<RangeInclusive<Point>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut().filter(|last| touches(last, &range)) {
            Some(last) => *last = *last.start()..=*last.end().max(range.end()),
            None => joined.push(range),
        }
    }
    joined
}

fn touches(left: &RangeInclusive<Point>, right: &RangeInclusive<Point>) -> bool {
    let (family, last) = *left.end();
    *right.start() <= (family, last.saturating_add(1))
}

/// What is left of `ranges` beside `holes`; both are sorted and without overlaps.
fn without(ranges: &[RangeInclusive<Point>], holes: &[RangeInclusive<Point>]) -> Vec<RangeInclusive<Point>> {
    let mut rest = Vec::with_capacity(ranges.len());
    let mut holes = holes;
    for range in ranges {
        let mut start = Some(*range.start());
        holes = &holes[holes.partition_point(|hole| hole.end() < range.start())..];
        for hole in holes.iter().take_while(|hole| hole.start() <= range.end()) {
            if let Some(start) = start.filter(|start| start < hole.start()) {
                rest.push(start..=(hole.start().0, hole.start().1 - 1));
            }
            start = (hole.end() < range.end()).then(|| (hole.end().0, hole.end().1 + 1));
        }
        rest.extend(start.map(|start| start..=*range.end()));
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    fn selection(include: &[&str], exclude: &[&str]) -> AddressMatch {
        AddressMatch::new(networks(include), networks(exclude), !include.is_empty())
    }

    fn matches(selection: &AddressMatch, address: &str) -> bool {
        selection.matches(address.parse().expect("an address"))
    }

    #[test]
    fn nothing_written_is_everyone() {
        let any = AddressMatch::default();
        assert!(any.is_any() && matches(&any, "192.0.2.1") && matches(&any, "2001:db8::1"));
    }

    #[test]
    fn an_empty_set_is_nobody() {
        let nobody = AddressMatch::new(Vec::new(), Vec::new(), true);
        assert!(!nobody.is_any() && !matches(&nobody, "192.0.2.1") && !matches(&nobody, "2001:db8::1"));
        assert!(AddressRanges::of(&nobody).is_empty());
    }

    #[test]
    fn only_exclusions_are_everyone_else() {
        let others = selection(&[], &["192.0.2.0/24"]);
        assert!(
            !matches(&others, "192.0.2.1") && matches(&others, "192.0.3.1") && matches(&others, "fd00::1")
        );
    }

    #[test]
    fn an_exclusion_wins_whatever_the_order() {
        let some = selection(&["192.0.2.1/32", "192.0.2.0/24"], &["192.0.2.1/32"]);
        assert!(!matches(&some, "192.0.2.1") && matches(&some, "192.0.2.2") && !matches(&some, "fd00::1"));
    }

    #[test]
    fn the_families_do_not_touch() {
        let v6 = AddressRanges::of(&selection(&["::/0"], &[]));
        let v4 = AddressRanges::of(&selection(&["0.0.0.0/0"], &[]));
        assert!(!v6.overlaps(&v4) && !v6.contains(&v4));
        assert_eq!(v6.families(), (false, true));
        for one in
            [selection(&["::/0"], &[]), selection(&["192.0.2.1/32", "::/0"], &[]), AddressMatch::default()]
        {
            assert_eq!(one.families(), AddressRanges::of(&one).families());
        }
        let both = AddressRanges::of(&AddressMatch::default());
        assert!(both.contains(&v4) && both.contains(&v6) && !v4.contains(&both));
    }

    #[test]
    fn order_and_overlaps_do_not_matter_for_equality() {
        let split = selection(&["192.0.2.128/25", "192.0.2.0/25", "192.0.2.7/32"], &[]);
        assert_eq!(split, selection(&["192.0.2.0/24"], &[]));
    }

    /// A few networks inside 10.0.0.0/28, so that sixteen addresses decide everything.
    fn small_networks() -> impl Strategy<Value = Vec<IpNet>> {
        let network = (0_u8..16, 28_u8..=32).prop_map(|(host, length)| {
            let address = IpAddr::from([10, 0, 0, host]);
            IpNet::new(address, length).expect("a length up to 32").trunc()
        });
        prop::collection::vec(network, 0..4)
    }

    fn small_selection() -> impl Strategy<Value = AddressMatch> {
        (small_networks(), small_networks())
            .prop_map(|(include, exclude)| AddressMatch::new(include, exclude, true))
    }

    proptest! {
        #[test]
        fn the_fewest_are_those_of_the_aggregate(some in small_networks()) {
            let mut aggregate = IpNet::aggregate(&some);
            aggregate.sort();
            prop_assert_eq!(fewest(some), aggregate);
        }

        #[test]
        fn ranges_agree_with_matching(left in small_selection(), right in small_selection()) {
            let all = || (0_u8..16).map(|host| IpAddr::from([10, 0, 0, host]));
            let (a, b) = (AddressRanges::of(&left), AddressRanges::of(&right));
            let both = all().any(|address| left.matches(address) && right.matches(address));
            let inside = all().all(|address| left.matches(address) || !right.matches(address));
            prop_assert_eq!(a.overlaps(&b), both);
            prop_assert_eq!(a.contains(&b), inside);
            prop_assert_eq!(left.families(), a.families());
            let included = AddressMatch { exclude: Vec::new(), ..left };
            let apart: Vec<_> = AddressRanges::of(&included).0.iter().flat_map(super::networks).collect();
            prop_assert_eq!(included.into_networks(), apart);
        }
    }
}
