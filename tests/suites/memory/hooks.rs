//! The hooks over buffers: what the entry points do in the kernel, around the same pipeline.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use netfw_common::{
    event::{Event, Watch},
    family::{Family, Ipv4, Ipv6},
    flow::Flow,
    reason::Reason,
    tcp,
    tick::Tick,
    tuple::Tuple,
};
use netfw_ebpf::datapath::{
    Verdict,
    context::{ANSWER_HALVES, QUOTE},
    judge::Subject,
    kernel::{Table, Way},
    related::Quoted,
    run,
    stages::Direct,
    work::Work,
};
use netfw_tests::packet::{Action, Counters, Hook, Hooks, Ran, Side, world};

use super::{
    buffer::{Buffer, EGRESS, INGRESS, XDP},
    machine::{Machine, Stored, index},
};

/// Kernel index of an interface that isn't managed.
const UNMANAGED: u32 = 1;

/// A machine with its work spaces, which are used again for every packet.
pub(crate) struct Memory {
    /// Shared with the story, which may turn the clock.
    pub(crate) machine: Rc<RefCell<Machine>>,
    work4: Box<Work<Ipv4>>,
    work6: Box<Work<Ipv6>>,
}

impl Memory {
    pub(crate) fn new(machine: Rc<RefCell<Machine>>) -> Self {
        Self { machine, work4: Box::new(blank()), work6: Box::new(blank()) }
    }

    /// Runs the pipeline on a frame of `segments` wire packets.
    pub(crate) fn run_merged(
        &mut self,
        hook: Hook,
        side: Side,
        frame: &[u8],
        segments: u32,
    ) -> (Verdict, Ran) {
        match hook {
            Hook::Xdp => self.run_at::<XDP>(side, frame, segments, 0),
            Hook::Ingress => self.run_at::<INGRESS>(side, frame, segments, 0),
            Hook::Egress => self.run_at::<EGRESS>(side, frame, segments, 0),
            Hook::Routed => self.run_at::<EGRESS>(side, frame, segments, UNMANAGED),
            Hook::Handled => (Verdict::Pass, Ran { action: Action::Next, out: None, frame: frame.to_vec() }),
        }
    }

    fn run_at<const HOOK: u8>(
        &mut self,
        side: Side,
        frame: &[u8],
        segments: u32,
        arrived: u32,
    ) -> (Verdict, Ran) {
        let buffer = Buffer::<HOOK> { frame: frame.to_vec(), segments, arrived };
        enter(&self.machine.borrow(), (&mut self.work4, &mut self.work6), buffer, side)
    }

    /// Runs TC ingress on a frame as another core would, with work spaces of its own.
    pub(crate) fn on_another_core(machine: &Machine, side: Side, frame: &[u8]) -> Ran {
        let buffer = Buffer::<INGRESS> { frame: frame.to_vec(), segments: 1, arrived: 0 };
        enter(machine, (&mut blank(), &mut blank()), buffer, side).1
    }
}

/// The entry point: whose frame it is, and which family's.
fn enter<const HOOK: u8>(
    machine: &Machine,
    (work4, work6): (&mut Work<Ipv4>, &mut Work<Ipv6>),
    mut buffer: Buffer<HOOK>,
    side: Side,
) -> (Verdict, Ran) {
    let group = HOOK == INGRESS && buffer.frame.first().is_some_and(|first| first & 1 == 1);
    let for_us = HOOK == EGRESS || group || buffer.frame.get(..6) == Some(&side.mac());
    let ethertype = buffer.frame.get(12..14).filter(|_| for_us).map(<[u8]>::to_vec);
    let (verdict, action, out) = match ethertype.as_deref() {
        Some([0x08, 0x00]) => pipeline(machine, work4, &mut buffer, side),
        Some([0x86, 0xdd]) => pipeline(machine, work6, &mut buffer, side),
        _ => (Verdict::Pass, Action::Next, None),
    };
    (verdict, Ran { action, out, frame: buffer.frame })
}

fn pipeline<F: Stored, const HOOK: u8>(
    machine: &Machine,
    work: &mut Work<F>,
    buffer: &mut Buffer<HOOK>,
    side: Side,
) -> (Verdict, Action, Option<Side>) {
    let place = machine.comes_back.get();
    if HOOK == XDP && place != 0 {
        return (Verdict::Pass, Action::Next, None);
    }
    if let Err(verdict) = work.begin(machine, index(side), buffer.segments) {
        return (verdict, Action::Next, None);
    }
    work.group_frame = u32::from(HOOK == INGRESS && buffer.frame[0] & 1 == 1);
    work.reassembled = place;
    work.routed = buffer.arrived;
    let verdict = run(&mut Direct { ctx: buffer, kernel: machine }, work);
    let (action, out) = match verdict {
        Verdict::Pass | Verdict::Punt | Verdict::Accept => (Action::Next, None),
        Verdict::Drop => (Action::Shot, None),
        Verdict::Hold => (Action::Hold, None),
        Verdict::Answer => (Action::Transmit, Some(side)),
        Verdict::Forward => transmit(machine, work, buffer),
    };
    (verdict, action, out)
}

/// Sends the frame; resolves the neighbour where the kernel would.
fn transmit<F: Family, const HOOK: u8>(
    machine: &Machine,
    work: &Work<F>,
    buffer: &mut Buffer<HOOK>,
) -> (Action, Option<Side>) {
    let hop = work.hop();
    if hop.ifindex == 0 {
        return (Action::Next, None);
    }
    let out = [Side::Outside, Side::Inside].into_iter().find(|&out| index(out) == hop.ifindex);
    if work.resolve != 0 && HOOK != XDP {
        use netfw_common::family::Address;
        let out = out.expect("a managed interface");
        if work.knows_neighbour() {
            machine.note_probed(work.way.gateway.to_ip(), hop);
        }
        let next = world::next_mac(work.way.gateway.to_ip());
        buffer.frame[..12].copy_from_slice(&[next, out.mac()].concat());
    } else {
        let macs: Vec<u8> = hop.macs.iter().flat_map(|word| word.to_ne_bytes()).collect();
        buffer.frame[..12].copy_from_slice(&macs);
    }
    (Action::Transmit, out)
}

impl Hooks for Memory {
    fn apply(&mut self, rules: &str) {
        self.machine.borrow_mut().apply(rules);
    }

    fn try_out(&mut self, rules: &str) {
        self.machine.borrow_mut().try_out(rules);
    }

    fn confirm(&mut self) {
        self.machine.borrow_mut().confirm();
    }

    fn roll_back(&mut self) {
        self.machine.borrow_mut().roll_back();
    }

    fn ban(&mut self, host: IpAddr) {
        self.machine.borrow_mut().ban(host);
    }

    fn unban(&mut self, host: IpAddr) {
        self.machine.borrow_mut().unban(host);
    }

    fn set_health(&mut self, forward: &str, target: SocketAddr, state: u32) {
        let mut machine = self.machine.borrow_mut();
        let word = machine.ids.target_by_label(forward, &target.to_string()).expect("a checked target");
        machine.health.insert(word.into(), state);
    }

    fn press(&mut self) {
        self.machine.borrow().press();
    }

    fn relieve(&mut self) {
        self.machine.borrow().relieve();
    }

    fn run(&mut self, hook: Hook, side: Side, frame: &[u8]) -> Ran {
        self.run_merged(hook, side, frame, 1).1
    }

    fn counters(&self) -> Counters {
        let machine = self.machine.borrow();
        let counts = machine.counts.borrow();
        let side = |slot| if slot == Side::Outside.slot() { Side::Outside } else { Side::Inside };
        let word = |number: u32| {
            Reason::ALL.iter().find(|&&reason| reason as u32 == number).map_or("?", |reason| reason.word())
        };
        let rules: BTreeMap<u32, String> = machine
            .policy
            .rules()
            .iter()
            .filter_map(|rule| Some((machine.ids.rule(rule.chain, &rule.name)?.into(), rule.name.clone())))
            .collect();
        let names: BTreeMap<u16, &str> = machine.ids.port_forward_names().collect();
        let forward = |counter: u32| match counter {
            0 => String::new(),
            id => names.get(&(id as u16 - 1)).copied().unwrap_or("?").to_owned(),
        };
        let rule = |id: u32| rules.get(&id).cloned().unwrap_or_else(|| format!("rule {id}"));
        Counters {
            interfaces: counts.interfaces.iter().map(|(&slot, &count)| (side(slot), count)).collect(),
            drops: counts.drops.iter().map(|(&reason, &count)| (word(reason), count)).collect(),
            rules: counts.rules.iter().map(|(&id, &count)| (rule(id), count)).collect(),
            translations: counts.translations.iter().map(|(&id, &count)| (forward(id), count)).collect(),
        }
    }

    fn watch(&mut self, wanted: &Watch) {
        self.machine.borrow_mut().begin_watch(wanted);
    }

    fn told(&mut self) -> [Vec<Event>; 2] {
        let machine = self.machine.borrow();
        [machine.watched.take(), machine.logged.take()]
    }

    fn flows(&self) -> Vec<String> {
        self.machine.borrow().list()
    }
}

/// A work space full of what no packet has left there.
fn blank<F: Family>() -> Work<F> {
    Work {
        tuple: Tuple::default(),
        leaving: Tuple::default(),
        way: Way::default(),
        reply_key: Tuple::default(),
        rival: Tuple::default(),
        peer_key: Tuple::default(),
        rival_id: 0,
        original: Flow::default(),
        reply: Flow::default(),
        subject: Subject::default(),
        inner: Quoted::default(),
        slot: 0,
        now: Tick(0),
        ifindex: 0,
        interface: 0,
        interface_flags: 0,
        origin: 0,
        answers: 0,
        astray: 0,
        strangers: 0,
        unproved: 0,
        overtaken: 0,
        beside: 0,
        spares_closed: 0,
        group_frame: 0,
        routed: 0,
        transport: 0,
        length: 0,
        wire_length: 0,
        segments: 0,
        bytes: 0,
        kind: 0,
        detail: 0,
        tcp_flags: 0,
        sequence: 0,
        acknowledged: 0,
        data: 0,
        ttl: 0,
        tos: 0,
        ttl_half: 0,
        header_checksum: 0,
        fragment: 0,
        identification: 0,
        place: 0,
        reassembled: 0,
        keep_whole: 0,
        resolve: 0,
        too_big: 0,
        peer: tcp::Side::default(),
        options: 0,
        table: Table::Proven,
        generation: 0,
        asked_length: 0,
        blocks: 0,
        door: 0,
        fallback: 0,
        chain: 0,
        forward: 0,
        forward_id: 0,
        refused: 0,
        idle_timeout: 0,
        masquerade: 0,
        mapping: 0,
        drawn: 0,
        flags: 0,
        rule: 0,
        reason: Reason::Malformed,
        answer: 0,
        event: Event::default(),
        frame: [0; ANSWER_HALVES],
        quote: [0; QUOTE as usize / 4],
    }
}
