//! How a list of blocked prefixes is laid out for the datapath to look addresses up in ([`netfw_common::block::Page`]).

mod patch;
mod v4;
mod v6;

use anyhow::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netfw_common::{
    block::{Layout, PAGE, Page, v4::ROOT_PAGES},
    image::SLOTS,
};

pub(super) use self::patch::patch;

/// A list in pages.
pub(super) struct Pages {
    pub(super) layout: Layout,
    pub(super) pages: Vec<Page>,
    /// Pages to leave room for behind them.
    pub(super) room: u32,
}

/// Prefixes from which on a list gets room to be changed in. A shorter one is laid out anew in less than a millisecond.
const LONG: usize = 1 << 12;
/// Which part of its length is room for changes.
const SHARE: u32 = 16;
/// Roots that lie in the room: with the first one, one for each slot.
const ROOTS: u32 = SLOTS - 1;

/// Word of the head: the first page that is free.
const NEXT: u32 = 0;
/// Word of the head: the newest version.
const VERSION: u32 = 1;
/// Word of the head: the first page for roots.
const SPARE: u32 = 2;

/// Lays a list out: sorted, and no prefix in another one.
///
/// # Errors
/// No hash spreads its IPv6 prefixes.
pub(super) fn lay_out(prefixes: &[IpNet]) -> Result<Pages> {
    let (fours, sixes) = families(prefixes);
    let mut pages = vec![[0; PAGE as usize]];
    let root = v4::lay_out(&fours, &mut pages);
    let v6 = v6::lay_out(&sixes, &mut pages)?;
    let roots = if root == 0 { 0 } else { ROOTS * ROOT_PAGES };
    let length = pages.len() as u32;
    let room = if prefixes.len() < LONG { 0 } else { roots + length / SHARE };
    for (at, word) in [(NEXT, length + roots), (VERSION, v6.version), (SPARE, length)] {
        pages[0][at as usize] = word;
    }
    Ok(Pages { layout: Layout { root, v6 }, pages, room })
}

fn families(prefixes: &[IpNet]) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let (mut fours, mut sixes): (Vec<Ipv4Net>, Vec<Ipv6Net>) = (Vec::new(), Vec::new());
    for prefix in prefixes {
        match prefix {
            IpNet::V4(prefix) => fours.push(*prefix),
            IpNet::V6(prefix) => sixes.push(*prefix),
        }
    }
    (fours, sixes)
}

/// Adds as many pages as so many words take; the number of the first one.
fn append(pages: &mut Vec<Page>, words: u32) -> u32 {
    let first = pages.len();
    pages.resize(first + words.div_ceil(PAGE) as usize, [0; PAGE as usize]);
    first as u32
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use netfw_common::{
        block::{self, v4, v6},
        family::{Ipv6, addr6},
    };
    use proptest::prelude::*;

    use super::*;

    /// A list as the datapath asks it.
    pub(super) struct List(pub(super) Layout, pub(super) Vec<Page>);

    impl List {
        fn of(prefixes: &[IpNet]) -> Self {
            let Pages { layout, pages, .. } = lay_out(&joined(prefixes)).expect("a list");
            Self(layout, pages)
        }

        fn lists(&self, address: IpAddr) -> bool {
            let Self(layout, pages) = self;
            let page = |number| pages.get(number as usize);
            match address {
                IpAddr::V4(address) => v4::lists(layout, address.to_bits(), page),
                IpAddr::V6(address) => {
                    let address = addr6(address);
                    let listed = |length| v6::has(&layout.v6, &block::key::<Ipv6>(address, length), page);
                    v6::lists(&layout.v6, &address, page, listed)
                }
            }
        }
    }

    /// As a policy has them.
    pub(super) fn joined(prefixes: &[IpNet]) -> Vec<IpNet> {
        let mut prefixes = IpNet::aggregate(&prefixes.to_vec());
        prefixes.sort();
        prefixes
    }

    fn prefixes(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    /// The ends of a prefix and what lies beside them.
    pub(super) fn edges(prefix: &IpNet) -> Vec<IpAddr> {
        let (first, last) = (prefix.network(), prefix.broadcast());
        match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let (first, last) = (first.to_bits(), last.to_bits());
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                    .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
                    .to_vec()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let (first, last) = (first.to_bits(), last.to_bits());
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                    .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
                    .to_vec()
            }
            _ => unreachable!("a prefix is of one family"),
        }
    }

    /// Whether the list says of an address what the prefixes say one by one.
    pub(super) fn check(list: &List, prefixes: &[IpNet], address: IpAddr) -> Result<(), TestCaseError> {
        let expected = prefixes.iter().any(|prefix| prefix.contains(&address));
        prop_assert_eq!(list.lists(address), expected, "{} in {:?}", address, prefixes);
        Ok(())
    }

    #[test]
    fn an_empty_list_lists_nothing() {
        let list = List::of(&[]);
        assert_eq!(list.1.len(), 1, "the head");
        for address in ["0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "2001:db8::1"] {
            assert!(!list.lists(address.parse().expect("an address")), "{address}");
        }
    }

    #[test]
    fn each_length_ends_where_it_should() -> Result<(), TestCaseError> {
        let addresses: [IpAddr; 4] = ["0.0.0.0", "203.0.113.205", "255.255.255.255", "100.127.255.0"]
            .map(|address| address.parse().expect("an address"));
        let sixes: [IpAddr; 3] =
            ["::", "2001:db8:1234:5678:9abc:def0:1234:5678", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
                .map(|address| address.parse().expect("an address"));
        for address in addresses.into_iter().chain(sixes) {
            for length in 0..=if address.is_ipv4() { 32 } else { 128 } {
                let prefix = IpNet::new(address, length).expect("a length").trunc();
                let list = List::of(&[prefix]);
                for edge in edges(&prefix) {
                    check(&list, &[prefix], edge)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_short_list_takes_few_pages() {
        let of = |texts: &[&str]| List::of(&prefixes(texts)).1.len();
        assert_eq!(
            of(&["192.0.2.1/32", "198.51.100.0/25", "203.0.113.7/32"]),
            66,
            "the head, the root's 64, a page of lines"
        );
        assert_eq!(of(&["0.0.0.0/0"]), 65, "what is listed as a whole takes none of its own");
        assert_eq!(of(&["2001:db8::/32"]), 4, "the head, a page of the sieve, of the index, of the keys");
    }

    /// Ranges of one address in a /16, near each other or far: up to as many as a line has room for, as lines behind an index
    /// have, and one more.
    #[test]
    fn networks_of_few_and_many_ranges() -> Result<(), TestCaseError> {
        let counts = [1, 15, 16, 30, 31, 495, 496, 497, 32_768];
        for step in [2, 64, 128, 2048] {
            for count in counts.into_iter().filter(|count| count * step <= 0x1_0000) {
                for first in [0, step - 1] {
                    one_in(step, first, count)?;
                }
            }
        }
        Ok(())
    }

    /// So many ranges of one address, of which each is so far from the next.
    fn one_in(step: u32, first: u32, count: u32) -> Result<(), TestCaseError> {
        let base = 0xc633_0000;
        let addresses = (0..count).map(|n| Ipv4Addr::from_bits(base + first + step * n));
        let listed: Vec<IpNet> = addresses.map(|address| IpAddr::V4(address).into()).collect();
        let list = List::of(&listed);
        for address in base - 1..=base + 0x1_0000 {
            let expected = address >= base + first && (address - base - first).is_multiple_of(step);
            let expected = expected && (address - base - first) / step < count;
            let address = Ipv4Addr::from_bits(address);
            prop_assert_eq!(
                list.lists(address.into()),
                expected,
                "{} of {} from {} by {}",
                address,
                count,
                first,
                step
            );
        }
        Ok(())
    }

    #[test]
    fn a_long_list_lists_its_prefixes_and_nothing_beside() -> Result<(), TestCaseError> {
        let four = |number: u32| {
            let address = Ipv4Addr::from_bits(0x0b00_0000 + number * 512);
            IpNet::new(address.into(), (23 + number % 10) as u8).expect("a length").trunc()
        };
        let six = |number: u32| {
            let address = Ipv6Addr::from_bits(0x2a00 << 112 | u128::from(number) << 64);
            IpNet::new(address.into(), (64 + number % 65) as u8).expect("a length").trunc()
        };
        let listed: Vec<_> = (0..50_000).step_by(2).flat_map(|number| [four(number), six(number)]).collect();
        let list = List::of(&listed);
        for prefix in &listed {
            for (edge, inside) in edges(prefix).into_iter().zip([false, true, true, false]) {
                prop_assert_eq!(list.lists(edge), inside, "{} beside {}", edge, prefix);
            }
        }
        Ok(())
    }

    /// A prefix in a few places, so that some lie in others; few are short, as they make the others moot.
    pub(super) fn some_prefix() -> impl Strategy<Value = IpNet> {
        let four = (any::<u32>(), any::<bool>(), prop_oneof![40 => 9..=32_u8, 1 => 0..=8_u8]);
        let six = (any::<u128>(), any::<bool>(), prop_oneof![40 => 9..=128_u8, 1 => 0..=8_u8]);
        let four = four.prop_map(|(bits, near, length)| {
            let bits = if near { 0xc000_0200 | bits & 0x1fff } else { bits };
            IpNet::new(Ipv4Addr::from_bits(bits).into(), length).expect("a length").trunc()
        });
        let six = six.prop_map(|(bits, near, length)| {
            let bits = if near { 0x2001_0db8 << 96 | bits & 7 << 60 | bits & 0xf } else { bits };
            IpNet::new(Ipv6Addr::from_bits(bits).into(), length).expect("a length").trunc()
        });
        prop_oneof![four, six]
    }

    proptest! {
        #[test]
        fn a_list_is_the_set_of_its_prefixes(
            listed in proptest::collection::vec(some_prefix(), 0..40),
            others in proptest::collection::vec(some_prefix(), 0..40),
        ) {
            let list = List::of(&listed);
            for address in listed.iter().chain(&others).flat_map(edges) {
                check(&list, &listed, address)?;
            }
        }
    }
}
