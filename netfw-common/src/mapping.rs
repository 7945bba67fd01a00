//! Mappings: which outside port an inside end has, whoever it talks to (`mapping = "endpoint-independent"`).

use crate::{
    family::{Addr4, Addr6, Address},
    shared::shared,
    tick::Tick,
    tuple::Tuple,
};

/// One half of a mapping. The half that is found by the inside end names the outside end and tells how long the mapping
/// lives; the half that is found by the outside end names the inside end. A half counts only with the other one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Mapping<A> {
    /// Address of the other end.
    pub address: A,
    /// Its port, host order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
    /// Inside half: the tick from which it is dead. Outside half: when it was made.
    pub expires: u32,
}

shared! {
    Mapping<Addr4> { address, port, reserved, expires }
    Mapping<Addr6> { address, port, reserved, expires }
}

impl<A: Address> Mapping<A> {
    /// Key of the half that is found by the inside end, of which there is one for each outside address.
    #[inline(always)]
    pub fn inside_key(inside: A, port: u16, outside: A, protocol: u32) -> Tuple<A> {
        Tuple { source: inside, destination: outside, source_port: port, destination_port: 0, protocol }
    }

    /// Key of the half that is found by the outside end.
    #[inline(always)]
    pub fn outside_key(outside: A, port: u16, protocol: u32) -> Tuple<A> {
        Tuple { source: outside, destination: A::default(), source_port: port, destination_port: 0, protocol }
    }

    /// Whether the other end is this one.
    #[inline(always)]
    pub fn names(&self, address: A, port: u16) -> bool {
        self.address == address && self.port == port
    }

    /// Whether this inside half still lives.
    #[inline(always)]
    pub fn lives(&self, now: Tick) -> bool {
        let left = self.expires.wrapping_sub(now.0);
        left != 0 && left <= u32::MAX / 2
    }
}
