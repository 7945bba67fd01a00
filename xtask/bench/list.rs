//! A block list of mixed lengths and both families, none of whose prefixes can be joined with another.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::ends::Sources;

/// Where the IPv4 part begins. Each prefix has a /24 of its own, whose upper half it leaves free.
const FIRST: Ipv4Addr = Ipv4Addr::new(16, 0, 0, 0);
/// Addresses from one to the next.
const STEP: u32 = 256;

/// Every fourth is of IPv6.
pub(crate) fn prefixes(count: u32) -> impl Iterator<Item = String> {
    let sixes = (0..count / 4).map(|number| {
        let place = 0x2001_0db8_u128 << 96 | u128::from(number) << 64;
        format!("{}/{}", Ipv6Addr::from_bits(place), 64 + number % 8 * 8)
    });
    fours(count).chain(sixes)
}

/// Those of IPv4.
pub(crate) fn fours(count: u32) -> impl Iterator<Item = String> {
    (0..listed(count).count)
        .map(|number| format!("{}/{}", Ipv4Addr::from_bits(FIRST.to_bits() + number * STEP), 25 + number % 8))
}

/// An address in each IPv4 prefix of a list of so many.
pub(crate) fn listed(count: u32) -> Sources {
    Sources { first: FIRST, count: count - count / 4, step: STEP }
}

/// As many right beside them.
pub(crate) fn beside(count: u32) -> Sources {
    Sources { first: Ipv4Addr::from_bits(FIRST.to_bits() + STEP / 2), ..listed(count) }
}

/// Addresses far from all of them.
pub(crate) fn elsewhere() -> Sources {
    Sources { first: Ipv4Addr::new(32, 0, 0, 0), count: 1 << 22, step: 373 }
}

/// Writes a list into `dir`.
pub(crate) fn write(dir: &Path, name: &str, prefixes: impl Iterator<Item = String>) -> Result<PathBuf> {
    let file = dir.join(name);
    fs::write(&file, prefixes.map(|prefix| prefix + "\n").collect::<String>())?;
    Ok(file)
}

/// The part of a rules file that blocks what is in `file`.
pub(crate) fn blocking(file: &Path) -> String {
    format!("[block]\nfrom = [\"bad\"]\n[sets]\nbad = {{ file = \"{}\" }}\n", file.display())
}
