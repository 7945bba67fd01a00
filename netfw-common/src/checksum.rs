//! The Internet checksum by delta (RFC 1071, RFC 1624).
//!
//! Words are summed in memory order: RFC 1071 §2(B) shows that the result, stored in memory order, is the
//! same on either endianness.

use core::ops::{Add, Sub};

/// A one's complement sum that still has its carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Sum of the two 16-bit halves of a word in memory order.
    pub const fn of_word(word: u32) -> Self {
        // 2^16 is 1 modulo 2^16 - 1: the halves may be added up later.
        Self(word as u64)
    }

    /// Sum of one 16-bit value in host order.
    pub const fn of_value(value: u16) -> Self {
        Self(value.to_be() as u64)
    }

    /// Sum of a 16-bit word in memory order.
    pub const fn of_half(half: u16) -> Self {
        Self(half as u64)
    }

    /// Folded to 16 bits, memory order, not complemented.
    pub const fn fold(self) -> u16 {
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let twice = (once & 0xffff) + (once >> 16 & 0xffff) + (once >> 32);
        let thrice = (twice & 0xffff) + (twice >> 16);
        ((thrice & 0xffff) + (thrice >> 16)) as u16
    }

    /// The checksum field after this difference was added to what it covers (RFC 1624, equation 3).
    pub const fn update(self, field: u16) -> u16 {
        !Self(self.0 + (!field) as u64).fold()
    }

    /// The checksum of data that has this sum.
    pub const fn finish(self) -> u16 {
        !self.fold()
    }

    /// [`update`](Self::update) for UDP: 0 means "no checksum" and stays (RFC 768, IPv4 only; in IPv6 such a
    /// packet is refused before), a computed 0 is sent as its other form.
    pub const fn update_udp(self, field: u16) -> u16 {
        if field == 0 {
            return 0;
        }
        match self.update(field) {
            0 => 0xffff,
            sum => sum,
        }
    }

    /// As the kernel's `__wsum`, the form that `bpf_l4_csum_replace` takes.
    pub const fn to_wsum(self) -> u32 {
        self.fold() as u32
    }
}

impl Add for Sum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Sum {
    type Output = Self;

    /// Adds the complement: what must be added to get from `other` to `self`.
    fn sub(self, other: Self) -> Self {
        let folded = (other.0 & 0xffff_ffff) + (other.0 >> 32);
        Self(self.0 + (0xffff_ffff - (folded & 0xffff_ffff)) + (0xffff_ffff - (folded >> 32)))
    }
}

/// Sum of a byte slice, an odd last byte padded with zero (for tests and for packets that netfw builds).
pub fn sum_bytes(bytes: &[u8]) -> Sum {
    bytes.chunks(2).fold(Sum::default(), |sum, pair| {
        let low = pair.first().copied().unwrap_or(0);
        let high = pair.get(1).copied().unwrap_or(0);
        sum + Sum::of_half(u16::from_ne_bytes([low, high]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc1071_example() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum_bytes(&data).fold().to_ne_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn delta_equals_a_full_computation() {
        let mut data = [0x45, 0, 0, 0x54, 0xa6, 0xf2, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 192, 168, 80, 3];
        let before = sum_bytes(&data).finish();
        let old = u32::from_ne_bytes([10, 0, 0, 1]);
        for new in [0, 1, 0xffff_ffff, 0x1234_5678, old] {
            data[12..16].copy_from_slice(&u32::to_ne_bytes(new));
            let delta = Sum::of_word(new) - Sum::of_word(old);
            assert_eq!(delta.update(before), sum_bytes(&data).finish(), "{new:#x}");
        }
    }

    #[test]
    fn udp_zero_means_none_and_stays() {
        let delta = Sum::of_value(5) - Sum::of_value(9);
        assert_eq!(delta.update_udp(0), 0);
        assert_eq!(Sum::of_half(0x1234).update(0x1234), 0);
        assert_eq!(Sum::of_half(0x1234).update_udp(0x1234), 0xffff);
    }
}
