//! What became of a packet.

use netfw_common::counters::{Count, InterfaceCount};

use super::{
    body::Packet,
    counters::Counters,
    gateway::{Action, Ran, Side, announced, held},
    read::read,
    wire::ETHERNET,
    world,
};

/// Its end on the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Untouched and uncounted.
    Passed,
    /// To the master's own stack (or, of the master's own, out).
    Accepted,
    /// Out of another interface.
    Forwarded,
    /// Translated, and left to the stack to cut into fragments.
    Routed,
    /// With the kernel's reassembly, not counted yet.
    Held,
    /// Dropped for a reason.
    Dropped(&'static str),
    /// Dropped for a reason, and the sender is told.
    Answered(&'static str),
}

/// What became of a packet, with the frame that it became and the counters that moved.
#[derive(Clone, Debug)]
#[must_use]
pub struct Outcome {
    /// Its end.
    pub fate: Fate,
    /// What moved.
    pub moved: Counters,
    side: Side,
    arrived: Vec<u8>,
    ran: Ran,
}

impl Outcome {
    pub(super) fn new(side: Side, arrived: &[u8], ran: Ran, moved: Counters) -> Self {
        let forwarded = moved.interface(side).forwarded.packets != 0;
        let reason = moved.drops.keys().next().copied();
        let fate = match (ran.action, reason) {
            (Action::Next, _) if forwarded => Fate::Routed,
            (Action::Next, _) if moved.interfaces.is_empty() => Fate::Passed,
            (Action::Next, _) => Fate::Accepted,
            (Action::Transmit, Some(reason)) => Fate::Answered(reason),
            (Action::Transmit, None) => Fate::Forwarded,
            (Action::Hold, _) => Fate::Held,
            (Action::Shot, reason) => Fate::Dropped(reason.unwrap_or("nothing that was counted")),
        };
        Self { fate, moved, side, arrived: arrived.to_vec(), ran }
    }

    /// A packet that the master sent is not counted at the interface.
    pub(super) fn of_the_master(mut self) -> Self {
        if self.fate == Fate::Passed {
            self.fate = Fate::Accepted;
        }
        self
    }

    /// What must hold for every packet that arrived.
    #[track_caller]
    pub(super) fn check(&self) {
        self.check_counters();
        if let Fate::Forwarded | Fate::Answered(_) = self.fate {
            self.check_macs();
        }
        if let Fate::Passed | Fate::Held | Fate::Dropped(_) = self.fate {
            assert_eq!(self.ran.frame, self.arrived, "a frame was changed in vain");
        }
    }

    #[track_caller]
    fn check_counters(&self) {
        let broken = matches!(self.fate, Fate::Dropped("malformed" | "bad-checksum"));
        let arrived = if broken { held(&self.arrived) } else { announced(&self.arrived) };
        let drops: Vec<Count> = self.moved.drops.values().copied().collect();
        let interface = self.moved.interface(self.side);
        let one =
            if broken && interface.dropped == announced(&self.arrived) { interface.dropped } else { arrived };
        let (expected, dropped) = match self.fate {
            Fate::Passed | Fate::Held => (InterfaceCount::default(), vec![]),
            Fate::Accepted => (InterfaceCount { accepted: one, ..Default::default() }, vec![]),
            Fate::Forwarded | Fate::Routed => {
                (InterfaceCount { forwarded: one, ..Default::default() }, vec![])
            }
            Fate::Dropped(_) | Fate::Answered(_) => {
                (InterfaceCount { dropped: one, ..Default::default() }, vec![one])
            }
        };
        assert_eq!(interface, expected, "not counted once, or with other bytes: {:?}", self.fate);
        assert_eq!(drops, dropped, "dropped packets and reasons differ: {:?}", self.moved);
        let others = self.moved.interfaces.keys().filter(|&&side| side != self.side).count();
        assert_eq!(others, 0, "another interface counted it");
    }

    /// A frame that leaves goes to who is next on the way. (TC lets the kernel resolve the neighbour of a first packet:
    /// then the frame still has the link addresses it came with.)
    #[track_caller]
    fn check_macs(&self) {
        let (to, from) = (&self.ran.frame[..6], &self.ran.frame[6..12]);
        if self.ran.frame[..12] == self.arrived[..12] {
            return;
        }
        if let Fate::Answered(_) = self.fate {
            assert_eq!((to, from), (&self.arrived[6..12], &self.arrived[..6]), "an answer to somebody else");
            return;
        }
        let destination = destination(&self.ran.frame);
        let out = world::side_of(destination);
        assert_eq!((to, from), (&world::next_mac(destination)[..], &out.mac()[..]), "towards {destination}");
    }

    /// The frame that it became.
    pub fn frame(&self) -> &[u8] {
        &self.ran.frame
    }

    /// The packet that it became, which must be right in every length and checksum.
    #[track_caller]
    pub fn packet(&self) -> Packet {
        read(&self.ran.frame).unwrap_or_else(|error| panic!("{error}: {:02x?}", self.ran.frame))
    }

    /// It left by `side` as `expected`.
    #[track_caller]
    pub fn forwarded(&self, side: Side, expected: &Packet) -> &Self {
        assert_eq!(self.fate, Fate::Forwarded, "{:?}", self.moved);
        assert!(self.ran.out.is_none_or(|out| out == side), "out of the wrong interface");
        assert_eq!(self.packet(), *expected);
        self
    }

    /// It left; as what, the story looks at itself.
    #[track_caller]
    pub fn forwarded_somehow(&self) -> Packet {
        assert_eq!(self.fate, Fate::Forwarded, "{:?}", self.moved);
        self.packet()
    }

    /// The master's stack (or, of the master's own, the wire) gets it as `expected`.
    #[track_caller]
    pub fn accepted(&self, expected: &Packet) -> &Self {
        assert_eq!(self.fate, Fate::Accepted, "{:?}", self.moved);
        assert_eq!(self.packet(), *expected);
        self
    }

    /// It was dropped.
    #[track_caller]
    pub fn dropped(&self, reason: &str) -> &Self {
        match self.fate {
            Fate::Dropped(word) if word == reason => self,
            ref other => panic!("expected a drop for {reason}, but: {other:?}"),
        }
    }

    /// It was dropped and the sender told so with the packet that is returned.
    #[track_caller]
    pub fn answered(&self, reason: &str) -> Packet {
        match self.fate {
            Fate::Answered(word) if word == reason => self.packet(),
            ref other => panic!("expected an answer for {reason}, but: {other:?}"),
        }
    }
}

fn destination(frame: &[u8]) -> std::net::IpAddr {
    if frame[12] == 0x86 {
        let octets: [u8; 16] = frame[ETHERNET + 24..ETHERNET + 40].try_into().expect("16 bytes");
        octets.into()
    } else {
        let octets: [u8; 4] = frame[ETHERNET + 16..ETHERNET + 20].try_into().expect("4 bytes");
        octets.into()
    }
}
