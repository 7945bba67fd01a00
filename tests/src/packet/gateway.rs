//! The gateway that stories send packets to, and what must hold for every one of them.

use std::net::{IpAddr, SocketAddr};

use netfw_common::{
    counters::{Count, Finisher},
    event::{Event, Watch},
};

use super::{
    body::Packet,
    counters::Counters,
    outcome::{Fate, Outcome},
    wire::ETHERNET,
    world::{self, MASTER_MACS, World},
};

/// A managed interface of the two-armed master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// `eth0`.
    Outside,
    /// `eth1`.
    Inside,
}

impl Side {
    /// The master's link address there.
    pub fn mac(self) -> [u8; 6] {
        MASTER_MACS[self as usize]
    }

    /// The kernel's name of the interface.
    pub fn interface(self) -> &'static str {
        ["eth0", "eth1"][self as usize]
    }

    /// Its slot in the datapath's table of interfaces.
    pub fn slot(self) -> u32 {
        self as u32 + 1
    }
}

/// Where the pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP.
    Xdp,
    /// TC ingress.
    Ingress,
    /// TC egress, of what the master sends itself.
    Egress,
    /// TC egress, of what came in at an interface that isn't managed.
    Routed,
    /// TC egress, of what came in at a managed interface.
    Handled,
}

/// Which hooks a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// XDP, and TC where XDP hands on.
    Xdp,
    /// TC alone.
    Tc,
}

/// What a hook tells the kernel to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on: to TC, to the stack, or out.
    Next,
    /// Send it out of an interface.
    Transmit,
    /// Throw it away.
    Shot,
    /// Have it put together with others.
    Hold,
}

/// What a hook did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it told the kernel.
    pub action: Action,
    /// Out of which interface, where that can be seen.
    pub out: Option<Side>,
    /// The frame as it left the hook.
    pub frame: Vec<u8>,
}

/// The datapath, wherever it runs.
pub trait Hooks {
    /// Puts rules in force: a text for the two-armed lab.
    fn apply(&mut self, rules: &str);
    /// The same, until they are confirmed or taken back.
    fn try_out(&mut self, rules: &str);
    /// The rules that were tried out hold for good.
    fn confirm(&mut self);
    /// The rules from before they were tried out hold again.
    fn roll_back(&mut self);
    /// Bans a host.
    fn ban(&mut self, host: IpAddr);
    /// Lifts its ban.
    fn unban(&mut self, host: IpAddr);
    /// Says how a target of a port-forward is ([`netfw_common::health`]).
    fn set_health(&mut self, forward: &str, target: SocketAddr, state: u32);
    /// From now on, for a second or two, too many connections are being opened from outside.
    fn press(&mut self);
    /// They no longer are.
    fn relieve(&mut self);
    /// Runs a hook on a frame that came in (or goes out) at `side`.
    fn run(&mut self, hook: Hook, side: Side, frame: &[u8]) -> Ran;
    /// All counters.
    fn counters(&self) -> Counters;
    /// Asks for events, for some seconds.
    fn watch(&mut self, wanted: &Watch);
    /// The events that the watcher was told since it was last asked, and those that the log was told.
    fn told(&mut self) -> [Vec<Event>; 2];
    /// All flows, in some form that shows every change.
    fn flows(&self) -> Vec<String>;
}

/// A master between outside and LAN, in one IP family.
pub struct Gateway {
    hooks: Box<dyn Hooks>,
    engine: Engine,
    /// The family's addresses.
    pub world: World,
}

impl Gateway {
    /// A gateway over `hooks`.
    pub fn new(hooks: Box<dyn Hooks>, engine: Engine, world: World) -> Self {
        Self { hooks, engine, world }
    }

    /// Puts rules in force; they know the names of [`crate::rules::two_armed`].
    pub fn apply(&mut self, rules: &str) {
        self.hooks.apply(&crate::rules::two_armed(rules));
    }

    /// Puts a whole rules file in force.
    pub fn apply_file(&mut self, text: &str) {
        self.hooks.apply(text);
    }

    /// Puts rules in force until they are confirmed or taken back.
    pub fn try_out(&mut self, rules: &str) {
        self.hooks.try_out(&crate::rules::two_armed(rules));
    }

    /// The rules that were tried out hold for good.
    pub fn confirm(&mut self) {
        self.hooks.confirm();
    }

    /// The rules from before they were tried out hold again.
    pub fn roll_back(&mut self) {
        self.hooks.roll_back();
    }

    /// Says how a checked target of a port-forward is ([`netfw_common::health`]).
    pub fn set_health(&mut self, forward: &str, target: SocketAddr, state: u32) {
        self.hooks.set_health(forward, target, state);
    }

    /// Puts a whole rules file in force.
    pub fn apply_whole(&mut self, rules: &str) {
        self.hooks.apply(rules);
    }

    /// Bans a host for good.
    pub fn ban(&mut self, host: IpAddr) {
        self.hooks.ban(host);
    }

    /// Lifts its ban.
    pub fn unban(&mut self, host: IpAddr) {
        self.hooks.unban(host);
    }

    /// From now on, for a second or two, too many connections are being opened from outside.
    pub fn press(&mut self) {
        self.hooks.press();
    }

    /// They no longer are.
    pub fn relieve(&mut self) {
        self.hooks.relieve();
    }

    /// A packet comes in from outside.
    #[track_caller]
    pub fn outside(&mut self, packet: &Packet) -> Outcome {
        self.receive(Side::Outside, &Self::framed(Side::Outside, packet))
    }

    /// A packet comes in from the LAN.
    #[track_caller]
    pub fn inside(&mut self, packet: &Packet) -> Outcome {
        self.receive(Side::Inside, &Self::framed(Side::Inside, packet))
    }

    /// The frame of a packet as it arrives at a side.
    pub fn framed(side: Side, packet: &Packet) -> Vec<u8> {
        let from = match side {
            Side::Outside => world::ROUTER_MAC,
            Side::Inside => world::next_mac(packet.source.ip()),
        };
        packet.frame(from, side.mac())
    }

    /// A frame comes in.
    #[track_caller]
    pub fn receive(&mut self, side: Side, frame: &[u8]) -> Outcome {
        let before = (self.hooks.counters(), self.hooks.flows());
        let mut at_xdp = None;
        if self.engine == Engine::Xdp {
            let ran = self.hooks.run(Hook::Xdp, side, frame);
            if ran.action == Action::Next {
                assert_eq!(ran.frame, frame, "XDP changed a frame that it hands on");
                assert_eq!(self.hooks.counters(), before.0, "XDP counted a frame that it hands on");
                self.check_trace(&before.1, "XDP changed flows for a frame that it hands on");
            } else {
                at_xdp = Some((ran, Finisher::Xdp));
            }
        }
        let (ran, finisher) = at_xdp.unwrap_or_else(|| {
            let ran = self.hooks.run(Hook::Ingress, side, frame);
            let finisher = if ran.action == Action::Next { Finisher::Stack } else { Finisher::Tc };
            (ran, finisher)
        });
        let moved = self.hooks.counters().since(&before.0);
        moved.check_shares(finisher);
        let outcome = Outcome::new(side, frame, ran, moved);
        outcome.check();
        match outcome.fate {
            Fate::Dropped("flow-cut" | "blocked" | "banned")
            | Fate::Answered("flow-cut" | "blocked" | "banned") => self.check_cut(&before.1),
            // It is dropped, having served its purpose.
            Fate::Dropped("challenge-met") => {}
            Fate::Dropped(_) | Fate::Answered(_) => {
                self.check_trace(&before.1, "a refused packet left a trace");
            }
            _ => {}
        }
        outcome
    }

    /// No flow is new or other than `before`. What is dead may have been cleared away.
    #[track_caller]
    fn check_trace(&self, before: &[String], what: &str) {
        let trace = self.hooks.flows().into_iter().find(|flow| !before.contains(flow));
        assert_eq!(trace, None, "{what}");
    }

    /// At most, one direction of a flow is gone and the other has learnt of it.
    #[track_caller]
    fn check_cut(&self, before: &[String]) {
        let after = self.hooks.flows();
        let changed = after.iter().filter(|flow| !before.contains(flow)).count();
        assert!(changed <= before.len() - after.len() && changed <= 1, "{before:?} became {after:?}");
    }

    /// The master's own stack sends a packet.
    #[track_caller]
    pub fn send(&mut self, packet: &Packet) -> Outcome {
        self.leave(Hook::Egress, packet)
    }

    /// A packet leaves, which came as `hook` says.
    #[track_caller]
    pub fn leave(&mut self, hook: Hook, packet: &Packet) -> Outcome {
        let side = world::side_of(packet.destination.ip());
        let frame = packet.frame(side.mac(), world::next_mac(packet.destination.ip()));
        let before = self.hooks.counters();
        let ran = self.hooks.run(hook, side, &frame);
        let moved = self.hooks.counters().since(&before);
        moved.check_shares(Finisher::Stack);
        assert_eq!(moved.interfaces.len(), 0, "a packet that leaves was counted as one that arrived");
        Outcome::new(side, &frame, ran, moved).of_the_master()
    }

    /// All counters.
    pub fn counters(&self) -> Counters {
        self.hooks.counters()
    }

    /// Asks for events.
    pub fn watch(&mut self, wanted: &Watch) {
        self.hooks.watch(wanted);
    }

    /// The events that the watcher was told since it was last asked, and those that the log was told.
    pub fn told(&mut self) -> [Vec<Event>; 2] {
        self.hooks.told()
    }

    /// How many halves of flows there are.
    pub fn flows(&self) -> usize {
        self.hooks.flows().len()
    }
}

/// What a frame must be counted as: one packet, with the bytes that its IP header announces.
pub(super) fn announced(frame: &[u8]) -> Count {
    let half = |at: usize| frame.get(at..at + 2).map(|two| usize::from(u16::from_be_bytes([two[0], two[1]])));
    let announced = match frame.get(12..14) {
        Some([0x08, 0x00]) => half(16),
        _ => half(18).map(|length| length + 40),
    };
    Count { packets: 1, bytes: announced.unwrap_or(0) as u64 }
}

/// What a frame is counted as whose IP header cannot be believed: with the bytes that have arrived.
pub(super) fn held(frame: &[u8]) -> Count {
    Count { packets: 1, bytes: frame.len().saturating_sub(ETHERNET) as u64 }
}
