//! Ranges of port numbers.

use std::fmt;

/// An inclusive range of port numbers, `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl PortRange {
    /// How many ports it is.
    pub fn count(self) -> usize {
        usize::from(self.last) - usize::from(self.first) + 1
    }

    /// Whether `port` is in it.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether a port is in both.
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The ports in both of two ranges that overlap.
    pub(super) fn common(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }
}

/// As it is written: `22` or `2201-2204`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => write!(f, "{}", self.first),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u16; 8] = [1, 2, 3, 1023, 1024, 65533, 65534, 65535];

    fn ranges() -> impl Iterator<Item = PortRange> {
        let pairs = EDGES.into_iter().flat_map(|first| EDGES.into_iter().map(move |last| (first, last)));
        pairs.filter(|(first, last)| first <= last).map(|(first, last)| PortRange { first, last })
    }

    #[test]
    fn counting_includes_both_ends() {
        for range in ranges() {
            assert_eq!(range.count(), (range.first..=range.last).count());
            assert!(range.contains(range.first) && range.contains(range.last));
            assert!(!range.contains(range.first - 1) && !range.contains(range.last.wrapping_add(1)));
        }
    }

    #[test]
    fn what_overlaps_has_ports_in_common() {
        for (a, b) in ranges().flat_map(|a| ranges().map(move |b| (a, b))) {
            let shared: Vec<u16> = (a.first..=a.last).filter(|port| b.contains(*port)).collect();
            assert_eq!(a.overlaps(b), !shared.is_empty(), "{a} and {b}");
            if let (Some(first), Some(last)) = (shared.first(), shared.last()) {
                assert_eq!(a.common(b), PortRange { first: *first, last: *last });
            }
        }
    }
}
