//! The policy image: what the compiler makes of a rules file and the datapath reads.
//!
//! Rules are never walked. Each field of a packet selects a [`Vector`], the set of rules that accept this value
//! of this field; the lowest bit of their intersection is the first rule that matches (Lakshman & Stiliadis
//! 1998). [`Vector::summary`] has a bit for each word that is not empty, so that the intersection reads only
//! words that can matter (Baboescu & Varghese 2001). Port-forwards are found the same way, with vectors of
//! their own.
//!
//! Fields and where their vectors are named:
//!
//! | field | map | member |
//! |---|---|---|
//! | source, destination address | `ADDRESSES4`, `ADDRESSES6` (longest prefix) | [`AddressClass`] |
//! | protocol with destination port, ICMP type | `SERVICES` | [`Service::rules`], [`Service::forwards`] |
//! | source port | `SERVICES` | [`Service::source_rules`] |
//! | chain with interface | `POLICIES` | [`Policy::interface_rules`] |
//! | the port-forward that translates the packet | `FORWARDS`, `POLICIES` | [`Forward::rules`], [`Policy::untranslated_rules`] |
//! | source address and source port, as those of a target | `ADDRESSES4`, `ADDRESSES6`, `SERVICES` | [`AddressClass::targets`], [`Service::targets`] |
//!
//! There are [`SLOTS`] images at once; one u64 says which one holds ([`Active`]). Flat arrays hold slot `s` at
//! `s * size ..`; `ADDRESSES4/6` and `VECTORS` are maps of maps with one inner map a slot.

use crate::{
    block::Layout,
    family::Addr6,
    interface::MAX_INTERFACES,
    limit::Limit,
    shared::shared,
    timeout::TIMEOUTS,
    wire::{ICMP, ICMPV6, SCTP, TCP, UDP},
};

/// How many images there are room for: active, fallback, staging, what-if.
pub const SLOTS: u32 = 4;
/// Rules in an image (bits of a vector).
pub const MAX_RULES: u32 = 4096;
/// Port-forward entries in an image: each contiguous port range of each `[[port-forward]]` and family is one.
pub const MAX_FORWARDS: u32 = 4096;
/// Targets in an image.
pub const MAX_TARGETS: u32 = 16_384;
/// Targets that an entry may have through which the datapath looks for one: each of a balanced port-forward when it judges a live
/// flow again, each of any when a target speaks whose flow is lost.
pub const MAX_BALANCED: u32 = 128;
/// Distinct vectors in an image.
pub const MAX_VECTORS: u32 = 65_535;
/// `[[masquerade]]`s in an image.
pub const MAX_MASQUERADES: usize = u16::BITS as usize;
/// 64-bit words of a vector.
pub const WORDS: usize = MAX_RULES as usize / 64;

/// A set of rules (or of port-forwards). Vector 0 of every image is the empty one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vector {
    /// Bit `w` is set when `words[w]` is not zero.
    pub summary: u64,
    /// Bit `i` of word `w` stands for number `64 * w + i`.
    pub words: [u64; WORDS],
}

impl Default for Vector {
    fn default() -> Self {
        Self { summary: 0, words: [0; WORDS] }
    }
}

impl Vector {
    /// Adds number `index`, which must be below [`MAX_RULES`].
    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / 64) {
            *word |= 1 << (index % 64);
            self.summary |= 1 << (index / 64);
        }
    }

    /// Whether number `index` is in the set.
    pub fn contains(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

/// What the longest matching prefix of an address says: indexes of vectors.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct AddressClass {
    /// Rules that accept the address as source.
    pub source_rules: u16,
    /// Rules that accept it as destination.
    pub destination_rules: u16,
    /// Port-forwards that serve clients with this address.
    pub source_forwards: u16,
    /// Port-forwards that listen on this address, if it is a local one.
    pub destination_forwards: u16,
    /// First `[[masquerade]]` that applies to this source, plus 1; 0: none.
    pub masquerade: u16,
    /// Bit n: `[[masquerade]]` n lists the address as one of its own.
    pub outside: u16,
    /// [`FAILSAFE`].
    pub flags: u16,
    /// Port-forwards that lead to this address.
    pub targets: u16,
}

/// The address may use the fail-safe door.
pub const FAILSAFE: u16 = 1;

/// Entry of `SERVICES`, found by [`service_index`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Service {
    /// Rules that accept this protocol with this destination port (or this ICMP type).
    pub rules: u16,
    /// Port-forwards of this protocol and destination port; 0, the empty vector, for nearly all.
    pub forwards: u16,
    /// Rules that accept this port as source port (for what has no ports: rules that don't ask).
    pub source_rules: u16,
    /// TCP: port-forwards that lead to this port; 0, the empty vector, for nearly all.
    pub targets: u16,
}

/// Entries of `SERVICES` in a slot: three protocols with ports, two of ICMP types, and one a protocol.
pub const SERVICES: u32 = 3 * 65_536 + 3 * 256;

/// Where a protocol with `detail` (port, or ICMP type) stands in `SERVICES`.
pub const fn service_index(protocol: u32, detail: u16) -> u32 {
    const TCP_: u32 = TCP as u32;
    const UDP_: u32 = UDP as u32;
    const SCTP_: u32 = SCTP as u32;
    const ICMP_: u32 = ICMP as u32;
    const ICMPV6_: u32 = ICMPV6 as u32;
    match protocol {
        TCP_ => detail as u32,
        UDP_ => 65_536 + detail as u32,
        SCTP_ => 2 * 65_536 + detail as u32,
        ICMP_ => 3 * 65_536 + (detail as u32 & 0xff),
        ICMPV6_ => 3 * 65_536 + 256 + (detail as u32 & 0xff),
        _ => 3 * 65_536 + 512 + (protocol & 0xff),
    }
}

/// Chains, as indexes.
pub const INPUT: u32 = 0;
/// See [`INPUT`].
pub const FORWARD: u32 = 1;
/// See [`INPUT`].
pub const OUTPUT: u32 = 2;

/// Actions of rules and policies.
pub const DROP: u32 = 0;
/// See [`DROP`].
pub const ACCEPT: u32 = 1;
/// See [`DROP`].
pub const REJECT: u32 = 2;

/// Values of [`Policy::anti_spoof`].
pub const SPOOF_OFF: u32 = 0;
/// See [`SPOOF_OFF`].
pub const SPOOF_LOOSE: u32 = 1;
/// See [`SPOOF_OFF`].
pub const SPOOF_STRICT: u32 = 2;

/// What a `[[masquerade]]` puts in place of an inside source.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Masquerade {
    /// Lowest port that it may use; 0: `ports` isn't written.
    pub first: u16,
    /// Highest port.
    pub last: u16,
    /// [`MAPS_ENDPOINT_INDEPENDENTLY`], [`FILTERS_ENDPOINT_INDEPENDENTLY`].
    pub flags: u32,
    /// First of its addresses in `TARGETS`, counted within the slot: those of IPv4, and those of IPv6.
    pub first_address: [u32; 2],
    /// How many addresses; 0: that of the interface by which a packet leaves.
    pub addresses: [u32; 2],
}

/// Value in [`Masquerade::flags`]: an inside end has one outside port, whoever it talks to.
pub const MAPS_ENDPOINT_INDEPENDENTLY: u32 = 1;
/// Value in [`Masquerade::flags`]: whoever sends to that port reaches the inside end, if the rules let him.
pub const FILTERS_ENDPOINT_INDEPENDENTLY: u32 = 2;

/// What an image says apart from its lists.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Counts images; flows remember which one admitted them. Never 0.
    pub generation: u32,
    /// Action for a new flow that nothing decided, by chain.
    pub default_actions: [u32; 3],
    /// [`SPOOF_OFF`], [`SPOOF_LOOSE`] or [`SPOOF_STRICT`].
    pub anti_spoof: u32,
    /// [`KEEP_REFUSED`], [`MSS_CLAMP`], [`MAPPINGS`].
    pub flags: u32,
    /// TCP port of the fail-safe door; 0: there is none.
    pub failsafe_port: u32,
    /// How the list in `BLOCKS` is laid out; set when it is installed.
    pub block_layout: Layout,
    /// What tells it from others (SHA-256): slots with the same one share it. 0: nobody knows.
    pub block_digest: [u32; 8],
    /// Idle timeouts in ticks, by [`crate::timeout::Timeout`].
    pub timeouts: [u32; TIMEOUTS],
    /// Each `[[masquerade]]`.
    pub masquerades: [Masquerade; MAX_MASQUERADES],
    /// Vector of the rules that don't ask for a port-forward.
    pub untranslated_rules: u32,
    /// Vectors of the rules of a chain that accept an interface (by its slot; 0: one that isn't managed).
    pub interface_rules: [[u16; MAX_INTERFACES]; 3],
    /// Interfaces that the policy manages, a bit a slot: those of a candidate may be attached while it does not hold.
    pub managed: [u32; MAX_INTERFACES.div_ceil(32)],
}

impl Policy {
    /// Whether the policy is about the packets of an interface.
    #[inline(always)]
    pub fn manages(&self, slot: u32) -> bool {
        let [low, high] = self.managed;
        (u64::from(low) | u64::from(high) << 32) >> (slot & 63) & 1 == 1
    }

    /// Adds an interface.
    pub fn manage(&mut self, slot: u32) {
        if let Some(word) = self.managed.get_mut(slot as usize / 32) {
            *word |= 1 << (slot % 32);
        }
    }
}

/// `[flows] on-change = "keep"`: flows that are no longer admitted may end by themselves.
pub const KEEP_REFUSED: u32 = 1;
/// `[engine] mss-clamp`: announced TCP segment sizes must fit the narrower side.
pub const MSS_CLAMP: u32 = 2;

/// Some masquerade maps endpoint-independently.
pub const MAPPINGS: u32 = 4;

impl Default for Policy {
    fn default() -> Self {
        Self {
            generation: 0,
            default_actions: [DROP; 3],
            anti_spoof: SPOOF_STRICT,
            flags: 0,
            failsafe_port: 0,
            block_layout: Layout::default(),
            block_digest: [0; 8],
            timeouts: [0; TIMEOUTS],
            masquerades: [Masquerade::default(); MAX_MASQUERADES],
            untranslated_rules: 0,
            interface_rules: [[0; MAX_INTERFACES]; 3],
            managed: [0; MAX_INTERFACES.div_ceil(32)],
        }
    }
}

/// What a rule decides. Entry `slot * MAX_RULES + number` of `RULES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rule {
    /// [`DROP`], [`ACCEPT`] or [`REJECT`].
    pub action: u32,
    /// Stable id of the rule: index of its counter and of its bucket.
    pub counter: u32,
    /// [`LIMIT_PER_SOURCE`], [`LOG`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// How many flows it decides about as its action says; those above it are dropped.
    pub limit: Limit,
}

/// Each source address has a bucket of its own.
pub const LIMIT_PER_SOURCE: u32 = 1;
/// The log is told of every new flow that the rule decides about.
pub const LOG: u32 = 2;

/// A contiguous port range of a `[[port-forward]]` in one family. Entry `slot * MAX_FORWARDS + number` of `FORWARDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Forward {
    /// First of its entries in `TARGETS`, counted within the slot.
    pub first_target: u32,
    /// How many targets; never 0.
    pub targets: u32,
    /// How the target is chosen: [`ONE_TO_ONE`] and so on.
    pub spread: u32,
    /// [`SOURCE_NAT_AUTO`], [`SOURCE_NAT_ALWAYS`] or [`SOURCE_NAT_NEVER`].
    pub source_nat: u32,
    /// Lowest outside port of the range: the n-th port is `first_port + n`.
    pub first_port: u16,
    /// 1: the n-th outside port goes to the target's port plus n. 0: all go to the target's port.
    pub shift: u16,
    /// Stable id of the `[[port-forward]]`.
    pub id: u16,
    /// Vector of the rules that accept packets translated by it.
    pub rules: u16,
    /// Idle timeout of its flows in ticks; 0: that of the policy.
    pub idle_timeout: u32,
    /// How many outside ports.
    pub ports: u16,
    /// How many addresses it listens on; 0: on any address of the external interfaces.
    pub addresses: u16,
    /// First of these addresses in `TARGETS`, counted within the slot.
    pub first_address: u32,
    /// [`SYN_PROXY`].
    pub flags: u32,
}

/// Value in [`Forward::flags`]: while too many connections are being opened, only sources may that have proved to be there.
pub const SYN_PROXY: u32 = 1;

/// The n-th outside port of the entry goes to its n-th target.
pub const ONE_TO_ONE: u32 = 0;
/// In turn.
pub const ROUND_ROBIN: u32 = 1;
/// By a hash of the source address.
pub const SOURCE_HASH: u32 = 2;
/// By chance.
pub const RANDOM: u32 = 3;

/// Translate the source when the answer would otherwise bypass the master.
pub const SOURCE_NAT_AUTO: u32 = 0;
/// Always translate the source.
pub const SOURCE_NAT_ALWAYS: u32 = 1;
/// Never translate the source.
pub const SOURCE_NAT_NEVER: u32 = 2;

/// A target of a port-forward, or (with port 0) an address of a masquerade or port-forward. Entry `slot * MAX_TARGETS + number` of `TARGETS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Target {
    /// Address in memory order; IPv4 uses the first word.
    pub address: Addr6,
    /// Port, host order (of the first outside port where [`Forward::shift`] is set).
    pub port: u16,
    /// Number of its word of health, [`crate::health::UNCHECKED`] or [`crate::health::DRAINS`].
    pub health: u16,
}

shared! {
    Vector { summary, words }
    AddressClass {
        source_rules, destination_rules, source_forwards, destination_forwards, masquerade, outside, flags,
        targets
    }
    Service { rules, forwards, source_rules, targets }
    Masquerade { first, last, flags, first_address, addresses }
    Policy {
        generation, default_actions, anti_spoof, flags, failsafe_port, block_layout, block_digest, timeouts,
        masquerades, untranslated_rules, interface_rules, managed
    }
    Rule { action, counter, flags, reserved, limit }
    Forward {
        first_target, targets, spread, source_nat, first_port, shift, id, rules, idle_timeout, ports,
        addresses, first_address, flags
    }
    Target { address, port, health }
}

/// Which slot holds: the one u64 that a reload stores and each packet reads once.
///
/// Bits 0–7: the slot; 8–15: the slot that holds from the deadline on; 16–63: the deadline as a [`boot_time`], 0
/// for none (then the fallback means nothing).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Active(pub u64);

/// Unit of deadlines: nanoseconds of `CLOCK_BOOTTIME` (laptops suspend) in steps of about a millisecond, which a
/// shift can make.
pub const fn boot_time(nanos: u64) -> u64 {
    nanos >> 20
}

impl Active {
    /// This slot, for good.
    pub const fn confirmed(slot: u32) -> Self {
        Self(slot as u64 & 0xff)
    }

    /// This slot up to the deadline, a [`boot_time`], and `fallback` from then on.
    pub const fn until(deadline: u64, slot: u32, fallback: u32) -> Self {
        Self(slot as u64 & 0xff | (fallback as u64 & 0xff) << 8 | deadline << 16)
    }

    /// When the fallback takes over, if the slot holds only for a time.
    pub const fn deadline(self) -> Option<u64> {
        let deadline = self.0 >> 16;
        if deadline == 0 { None } else { Some(deadline) }
    }

    /// The slot that holds now, and the one it would fall back to while that is pending; `now` is only asked for
    /// while there is a deadline.
    pub fn slots(self, now: impl FnOnce() -> u64) -> (u32, Option<u32>) {
        let (slot, fallback) = (self.0 as u32 & (SLOTS - 1), (self.0 >> 8) as u32 & (SLOTS - 1));
        match self.deadline() {
            None => (slot, None),
            Some(deadline) if now() >= deadline => (fallback, None),
            Some(_) => (slot, Some(fallback)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_do_not_overlap() {
        assert_eq!(service_index(u32::from(TCP), 65_535) + 1, service_index(u32::from(UDP), 0));
        assert_eq!(service_index(u32::from(UDP), 65_535) + 1, service_index(u32::from(SCTP), 0));
        assert_eq!(service_index(u32::from(SCTP), 65_535) + 1, service_index(u32::from(ICMP), 0));
        assert_eq!(service_index(u32::from(ICMP), 255) + 1, service_index(u32::from(ICMPV6), 0));
        assert_eq!(service_index(255, 0) + 1, SERVICES);
    }

    #[test]
    fn a_policy_manages_what_was_added() {
        let mut policy = Policy::default();
        policy.manage(1);
        policy.manage(63);
        assert!([1, 63].iter().all(|&slot| policy.manages(slot)));
        assert!([0, 31, 32, 33].iter().all(|&slot| !policy.manages(slot)));
    }

    #[test]
    fn the_fallback_holds_from_the_deadline_on() {
        let pending = Active::until(100, 2, 1);
        assert_eq!(pending.slots(|| 99), (2, Some(1)));
        assert_eq!(pending.slots(|| 100), (1, None));
        assert_eq!(Active::confirmed(3).slots(|| u64::MAX), (3, None));
    }
}
