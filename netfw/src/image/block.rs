//! Blocked prefixes as the datapath looks them up.

use std::net::IpAddr;

use ipnet::IpNet;
use netfw_common::{
    block::{self, Key},
    family::{Address, Ipv4, Ipv6, addr4, addr6},
};
use sha2::{Digest as _, Sha256};

/// The key of a prefix; those of its halves where it is everything.
pub fn block_keys(prefix: &IpNet) -> impl Iterator<Item = Key> + use<> {
    prefix.subnets(prefix.prefix_len().max(1)).into_iter().flatten().map(|part| key(&part))
}

fn key(prefix: &IpNet) -> Key {
    let length = prefix.prefix_len().into();
    match prefix.network() {
        IpAddr::V4(address) => block::key::<Ipv4>(addr4(address), length),
        IpAddr::V6(address) => block::key::<Ipv6>(addr6(address), length),
    }
}

/// The prefix of a key; `None` if no prefix has such a key.
pub(crate) fn blocked_prefix(key: &Key) -> Option<IpNet> {
    let (address, length, v6) = block::prefix(key);
    let address = if v6 { address.to_ip() } else { u32::narrow(address).to_ip() };
    IpNet::new(address, u8::try_from(length).ok()?).ok()
}

/// Whether an address lies in one of these prefixes, which are sorted and none of which lies in another one.
pub(crate) fn is_listed(prefixes: &[IpNet], address: IpAddr) -> bool {
    let after = prefixes.partition_point(|prefix| prefix.network() <= address);
    prefixes[..after].last().is_some_and(|prefix| prefix.contains(&address))
}

/// What tells this list from others.
pub(super) fn digest(prefixes: &[IpNet]) -> [u32; 8] {
    let (mut hash, mut bytes) = (Sha256::new(), Vec::new());
    for some in prefixes.chunks(DIGESTED) {
        bytes.clear();
        for prefix in some {
            let length = u64::from(prefix.prefix_len()) << 32;
            match prefix.network() {
                IpAddr::V4(address) => {
                    bytes.extend_from_slice(&(length | u64::from(address.to_bits())).to_be_bytes());
                }
                IpAddr::V6(address) => {
                    bytes.extend_from_slice(&(length | V6).to_be_bytes());
                    bytes.extend_from_slice(&address.octets());
                }
            }
        }
        hash.update(&bytes);
    }
    let digest: [u8; 32] = hash.finalize().into();
    zerocopy::transmute!(digest)
}

/// Beside the length of an IPv6 prefix, whose address follows.
const V6: u64 = 1 << 48;
/// Prefixes that are digested at once: what they take stays in the processor's cache.
const DIGESTED: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_back() {
        for text in ["192.0.2.7/32", "203.0.113.0/24", "2001:db8::/32", "2001:db8::1/128"] {
            let prefix: IpNet = text.parse().expect("a prefix");
            let keys: Vec<_> = block_keys(&prefix).collect();
            assert_eq!(keys.iter().map(blocked_prefix).collect::<Vec<_>>(), [Some(prefix)]);
        }
    }

    #[test]
    fn everything_is_two_halves() {
        let everything: IpNet = "0.0.0.0/0".parse().expect("a prefix");
        let halves: Vec<_> = block_keys(&everything).filter_map(|key| blocked_prefix(&key)).collect();
        assert_eq!(halves.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0/1", "128.0.0.0/1"]);
    }
}
