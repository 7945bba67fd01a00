//! What somebody sends who knows addresses and ports but not the numbers. (Scenario 15.)

use netfw_common::{
    tcp::{SLACK, Seen, Segment, State, flags_are_sane},
    wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{Gateway, ORIGINATOR, RESPONDER, established, segment};

/// Every segment with numbers that are not those of the connection; `next` is what each end sends next.
fn forgeries(next: [u32; 2], from: usize) -> Vec<Segment> {
    let far = [SLACK + 2000, 1 << 24, 1 << 31, u32::MAX - SLACK];
    let mut all = Vec::new();
    for flags in (0..=0x3f).filter(|&flags| flags_are_sane(flags)) {
        for sequence in far {
            for acknowledged in far {
                let (sequence, acknowledged) =
                    (next[from].wrapping_add(sequence), next[1 - from].wrapping_add(acknowledged));
                all.extend([0, 1000].map(|length| segment(flags, sequence, acknowledged, length)));
            }
        }
    }
    all
}

/// The ends go on, and finish.
fn goes_on(mut gateway: Gateway, [here, there]: [u32; 2]) {
    let honest = segment(TCP_ACK, here, there, 10);
    assert_eq!(gateway.passes(ORIGINATOR, honest), State::Established);
    let here = here.wrapping_add(10);
    assert_eq!(gateway.passes(RESPONDER, segment(TCP_ACK, there, here, 0)), State::Established);
    assert_eq!(gateway.passes(RESPONDER, segment(TCP_FIN | TCP_ACK, there, here, 0)), State::Closing);
    let finish = segment(TCP_FIN | TCP_ACK, here, there + 1, 0);
    assert_eq!(gateway.passes(ORIGINATOR, finish), State::Closed);
}

/// No two forged packets of one side end a session, shorten its life, or hinder its end.
#[test]
fn a_live_session_does_not_notice() {
    let (gateway, next) = established();
    for from in [ORIGINATOR, RESPONDER] {
        let all = forgeries(next, from);
        for &first in &all {
            let mut gateway = gateway;
            assert_eq!(gateway.passes(from, first), State::Established, "{first:?}");
            goes_on(gateway, next);
            for &second in all.iter().step_by(7) {
                let mut gateway = gateway;
                assert_eq!(gateway.passes(from, second), State::Established, "{first:?}, {second:?}");
            }
        }
    }
}

/// A half-closed session neither.
#[test]
fn a_half_closed_session_is_not_finished() {
    let (mut gateway, [here, there]) = established();
    gateway.passes(ORIGINATOR, segment(TCP_FIN | TCP_ACK, here, there, 0));
    gateway.passes(RESPONDER, segment(TCP_ACK, there, here.wrapping_add(1), 0));
    for forged in forgeries([here.wrapping_add(1), there], RESPONDER) {
        let mut gateway = gateway;
        let state = gateway.passes(RESPONDER, forged);
        assert!(matches!(state, State::Closing | State::Established), "{forged:?}: {state:?}");
        let data = segment(TCP_ACK, there, here.wrapping_add(1), 1000);
        assert_eq!(gateway.passes(RESPONDER, data), State::Closing);
    }
}

/// A handshake from a spoofed address is not complete without the numbers of the answer. (Scenario 29.)
#[test]
fn a_spoofed_handshake_proves_nothing() {
    let mut gateway = Gateway::default();
    gateway.passes(ORIGINATOR, segment(TCP_SYN, 100, 0, 0));
    gateway.passes(RESPONDER, segment(TCP_SYN | TCP_ACK, 7_000_000, 101, 0));
    for forged in forgeries([101, 7_000_001], ORIGINATOR) {
        let mut gateway = gateway;
        assert_eq!(gateway.passes(ORIGINATOR, forged), State::Opening, "{forged:?}");
        assert!(!gateway.proven);
    }
}

/// How much room a guess has.
#[test]
fn only_what_is_expected_counts() {
    for (ahead, state) in [
        (0, State::Closed),
        (SLACK, State::Closed),
        (SLACK + 1, State::Established),
        (u32::MAX, State::Established),
    ] {
        let (mut gateway, [here, there]) = established();
        gateway.passes(RESPONDER, segment(TCP_ACK, there, here, 0));
        let reset = segment(TCP_RST, here.wrapping_add(ahead), 0, 0);
        assert_eq!(gateway.passes(ORIGINATOR, reset), state, "{ahead} ahead");
    }
}

fn any_segment() -> impl Strategy<Value = (usize, Segment)> {
    let sane = (0..=0x3f).filter(|&flags| flags_are_sane(flags)).collect::<Vec<u8>>();
    (0..2usize, select(sane), any::<u32>(), any::<u32>(), 0..70_000u32).prop_map(
        |(from, flags, sequence, acknowledged, length)| {
            (from, segment(flags, sequence, acknowledged, length))
        },
    )
}

proptest! {
    /// Whatever is sent has a state, and an established connection never becomes one that opens.
    #[test]
    fn every_sequence_has_a_state(segments in vec(any_segment(), 1..40)) {
        let mut gateway = Gateway::default();
        let mut answered = false;
        for (from, segment) in segments {
            let state = gateway.passes(from, segment);
            answered |= gateway.sides.iter().all(|side| side.seen.has(Seen::ANSWER));
            prop_assert_eq!(state == State::Opening && answered, false);
        }
    }

    /// One honest packet of each side heals what any forged ones have written, unless they guessed.
    #[test]
    fn honest_packets_heal(segments in vec(any_segment(), 1..10)) {
        let (mut gateway, next) = established();
        for &(from, forged) in &segments {
            let guess = forged.end().wrapping_sub(next[from]) <= 2 * SLACK
                || forged.acknowledged.wrapping_sub(next[1 - from]).wrapping_add(SLACK) <= 2 * SLACK;
            prop_assume!(!guess);
            gateway.passes(from, forged);
        }
        goes_on(gateway, next);
    }
}
