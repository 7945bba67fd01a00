//! Every life of a connection between two honest ends, up to some length, with packets lost behind the gateway.

use netfw_common::{
    tcp::{Segment, State},
    wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};

use super::{Gateway, ORIGINATOR, RESPONDER, segment};

/// Packets a life.
const LENGTH: u32 = 7;

/// An end as RFC 9293 has it, as far as it sends what the model needs.
#[derive(Clone, Copy)]
struct Honest {
    /// Next number it sends.
    next: u32,
    /// Next number it expects, once it has received a SYN.
    expects: Option<u32>,
    opened: bool,
    finished: bool,
    /// It has sent a RST, or believed one.
    dead: bool,
    /// It has acknowledged something.
    answered: bool,
    /// The last thing it sent was a RST.
    reset: bool,
}

/// What an end may do.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Open,
    Acknowledge,
    Send,
    Finish,
    Reset,
}

impl Honest {
    fn new(next: u32) -> Self {
        let (expects, opened, finished, dead, answered, reset) = (None, false, false, false, false, false);
        Self { next, expects, opened, finished, dead, answered, reset }
    }

    fn may(&self, act: Act) -> bool {
        match act {
            _ if self.dead => false,
            Act::Open => !self.answered,
            Act::Acknowledge => self.opened && self.expects.is_some(),
            Act::Send | Act::Finish => self.opened && self.expects.is_some() && !self.finished,
            Act::Reset => self.opened,
        }
    }

    fn does(&mut self, act: Act) -> Segment {
        if act == Act::Open && self.opened {
            self.next = self.next.wrapping_sub(1);
        }
        let control = match act {
            Act::Open => TCP_SYN,
            Act::Finish => TCP_FIN,
            Act::Reset => TCP_RST,
            Act::Acknowledge | Act::Send => 0,
        };
        let ack = if self.expects.is_some() { TCP_ACK } else { 0 };
        let length = if act == Act::Send { 700 } else { 0 };
        let sent = segment(control | ack, self.next, self.expects.unwrap_or(0), length);
        self.next = sent.end();
        self.opened |= act == Act::Open;
        self.finished |= act == Act::Finish;
        self.answered |= ack != 0 && act != Act::Reset;
        self.reset = act == Act::Reset;
        self.dead |= self.reset;
        sent
    }

    fn receives(&mut self, sent: Segment) {
        let in_order = self.expects.is_none_or(|expected| expected == sent.sequence);
        if self.dead {
            return;
        }
        if sent.flags & TCP_RST != 0 {
            self.dead |= in_order;
        } else if in_order && (self.expects.is_some() || sent.flags & TCP_SYN != 0) {
            self.expects = Some(sent.end());
        }
    }
}

/// What the state must be, from what the ends know of themselves.
fn truth(ends: &[Honest; 2]) -> State {
    let [originator, responder] = ends;
    let reset = |one: &Honest, other: &Honest| one.reset && (other.answered || one.expects.is_some());
    if reset(originator, responder) || reset(responder, originator) {
        return State::Closed;
    }
    match (originator.finished && responder.answered, responder.finished && originator.answered) {
        (true, true) => State::Closed,
        _ if !(originator.answered && responder.answered) => State::Opening,
        (false, false) => State::Established,
        _ => State::Closing,
    }
}

fn explore(gateway: Gateway, ends: [Honest; 2], left: u32, lives: &mut u64) {
    *lives += 1;
    if left == 0 {
        return;
    }
    for from in [ORIGINATOR, RESPONDER] {
        for act in [Act::Open, Act::Acknowledge, Act::Send, Act::Finish, Act::Reset] {
            if !ends[from].may(act) {
                continue;
            }
            let (mut gateway, mut ends) = (gateway, ends);
            let sent = ends[from].does(act);
            let state = gateway.passes(from, sent);
            assert_eq!(state, truth(&ends), "after {sent:?} from {from}: {:?}", gateway.sides);
            explore(gateway, ends, left - 1, lives);
            ends[1 - from].receives(sent);
            explore(gateway, ends, left - 1, lives);
        }
    }
}

/// Simultaneous open and close, half-close, repeated SYNs, refusals, aborts, lost packets: all of it in every order.
/// (Scenario 15.)
#[test]
fn every_short_life() {
    let mut originator = Honest::new(u32::MAX - 3);
    let sent = originator.does(Act::Open);
    let mut gateway = Gateway::default();
    gateway.passes(ORIGINATOR, sent);
    let mut responder = Honest::new(5000);
    let mut lives = 0;
    explore(gateway, [originator, responder], LENGTH - 1, &mut lives);
    responder.receives(sent);
    explore(gateway, [originator, responder], LENGTH - 1, &mut lives);
    println!("{lives} lives");
    assert!(lives > 100_000);
}
