//! The state of a TCP connection: all short lives of two honest ends, forgeries into them, and captured sessions.

mod captured;
mod forged;
mod honest;

use netfw_common::{
    tcp::{Segment, Side, State, state},
    wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};

/// Which end: the one that spoke first, or the other one.
type End = usize;
const ORIGINATOR: End = 0;
const RESPONDER: End = 1;

/// What a gateway has recorded, fed as the datapath does it: the other side's record is known until the connection has
/// proved itself.
#[derive(Clone, Copy, Default)]
struct Gateway {
    sides: [Side; 2],
    proven: bool,
}

impl Gateway {
    fn passes(&mut self, from: End, segment: Segment) -> State {
        let peer = if self.proven { Side::default() } else { self.sides[1 - from] };
        self.sides[from] = self.sides[from].record(segment, peer);
        let state = self.state();
        self.proven |= from == ORIGINATOR && matches!(state, State::Established | State::Closing);
        state
    }

    fn state(&self) -> State {
        state(self.sides[ORIGINATOR], self.sides[RESPONDER])
    }
}

fn segment(flags: u8, sequence: u32, acknowledged: u32, length: u32) -> Segment {
    Segment { flags, sequence, acknowledged, length }
}

/// An established connection: what the gateway knows, and what each end sends and expects next.
fn established() -> (Gateway, [u32; 2]) {
    let mut gateway = Gateway::default();
    let [here, there] = [u32::MAX - 50, 7_000_000];
    gateway.passes(ORIGINATOR, segment(TCP_SYN, here, 0, 0));
    gateway.passes(RESPONDER, segment(TCP_SYN | TCP_ACK, there, here.wrapping_add(1), 0));
    let next = [here.wrapping_add(1), there + 1];
    assert_eq!(gateway.state(), State::Opening);
    assert_eq!(gateway.passes(ORIGINATOR, segment(TCP_ACK, next[0], next[1], 0)), State::Established);
    (gateway, next)
}

#[test]
fn a_connection_lives_and_ends() {
    let (mut gateway, [here, there]) = established();
    assert_eq!(gateway.passes(ORIGINATOR, segment(TCP_FIN | TCP_ACK, here, there, 0)), State::Closing);
    let finished = here.wrapping_add(1);
    assert_eq!(gateway.passes(RESPONDER, segment(TCP_ACK, there, finished, 1000)), State::Closing);
    assert_eq!(
        gateway.passes(RESPONDER, segment(TCP_FIN | TCP_ACK, there + 1000, finished, 0)),
        State::Closed
    );
    assert_eq!(gateway.passes(ORIGINATOR, segment(TCP_ACK, finished, there + 1001, 0)), State::Closed);
}

/// Whoever refuses a reset goes on.
#[test]
fn a_refused_reset_is_taken_back() {
    let (mut gateway, [here, there]) = established();
    assert_eq!(gateway.passes(ORIGINATOR, segment(TCP_RST, here, 0, 0)), State::Closed);
    assert_eq!(gateway.passes(ORIGINATOR, segment(TCP_ACK, here, there, 0)), State::Established);
}

/// The end of a transfer that is aborted has not been acknowledged yet when its reset comes.
#[test]
fn a_reset_overtakes_the_last_acknowledgments() {
    let (mut gateway, [here, there]) = established();
    gateway.passes(ORIGINATOR, segment(TCP_ACK, here, there, 60_000));
    let end = here.wrapping_add(60_000);
    assert_eq!(gateway.passes(ORIGINATOR, segment(TCP_RST | TCP_ACK, end, there, 0)), State::Established);
    let last = end.wrapping_sub(1460);
    assert_eq!(gateway.passes(RESPONDER, segment(TCP_ACK, there, last, 0)), State::Closed);
}

/// Nothing was seen of the beginning: an answer and an acknowledgment of it are enough. (Scenario 17.)
#[test]
fn picked_up_in_mid_stream() {
    let mut gateway = Gateway::default();
    assert_eq!(gateway.passes(ORIGINATOR, segment(TCP_ACK, 500, 900_000, 100)), State::Opening);
    assert_eq!(gateway.passes(RESPONDER, segment(TCP_ACK, 870_000, 4000, 1460)), State::Opening);
    assert_eq!(gateway.passes(ORIGINATOR, segment(TCP_ACK, 600, 871_460, 100)), State::Established);
    // Where nobody knows the connection, it is refused.
    let mut gateway = Gateway::default();
    gateway.passes(ORIGINATOR, segment(TCP_ACK, 500, 900_000, 0));
    assert_eq!(gateway.passes(RESPONDER, segment(TCP_RST, 900_000, 0, 0)), State::Closed);
}
