//! What GRO has merged counts as the packets it was made of. (TC only: XDP never sees such.)

use std::{cell::RefCell, rc::Rc};

use netfw_common::counters::Count;
use netfw_ebpf::datapath::Verdict;
use netfw_tests::packet::{
    ACK, Gateway, Hook, Hooks as _, Packet, Side,
    world::{V4, V6},
};

use crate::memory::{Machine, Memory};

/// Three segments in one, larger than the way out: forwarded whole, counted as three.
#[test]
fn a_merged_packet_counts_as_its_segments() {
    for world in [V4, V6] {
        let mut memory = Memory::new(Rc::new(RefCell::new(Machine::new(8, 8))));
        memory.apply(&netfw_tests::rules::two_armed(
            "[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 2201\nto = [\"worker1:22\"]\n",
        ));
        let header = if world.is_v6() { 60 } else { 40 };
        let data = Packet::tcp(world.at("client", 4000), world.at("master", 2201), ACK).sized(3 * 1400);
        for round in 1..=2 {
            let frame = Gateway::framed(Side::Outside, &data);
            let (verdict, _) = memory.run_merged(Hook::Ingress, Side::Outside, &frame, 3);
            assert_eq!(verdict, Verdict::Forward);
            let expected = Count { packets: 3 * round, bytes: 3 * round * (1400 + header) };
            let counters = memory.counters();
            assert_eq!(counters.interface(Side::Outside).forwarded, expected);
            assert_eq!(counters.translation("ssh").forth, expected);
        }
    }
}
