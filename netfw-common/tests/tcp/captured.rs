//! Sessions between two Linux 6.18 hosts, as an Ethernet between them has seen them (large segments uncut): who sent, flags,
//! sequence and acknowledgment number, length of the data.

use netfw_common::{
    tcp::{
        Segment,
        State::{self, Closed, Closing, Established, Opening},
    },
    wire::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};

use super::{Gateway, ORIGINATOR, RESPONDER, segment};

fn read(line: &str) -> (usize, Segment) {
    let words: Vec<&str> = line.split(' ').collect();
    let [from, flags, sequence, acknowledged, length] = words[..] else { panic!("five words: {line}") };
    let flag = |letter| match letter {
        'S' => TCP_SYN,
        'A' => TCP_ACK,
        'F' => TCP_FIN,
        'R' => TCP_RST,
        other => panic!("no flag: {other}"),
    };
    let number = |word: &str| word.parse().expect("a number");
    let sent = segment(
        flags.chars().map(flag).fold(0, |all, one| all | one),
        number(sequence),
        number(acknowledged),
        number(length),
    );
    (if from == ">" { ORIGINATOR } else { RESPONDER }, sent)
}

/// The states that a session went through, each with the number of the packet that led to it.
fn states(session: &str) -> Vec<(usize, State)> {
    let mut gateway = Gateway::default();
    let mut states: Vec<(usize, State)> = Vec::new();
    for (n, line) in session.lines().enumerate() {
        let (from, sent) = read(line);
        let state = gateway.passes(from, sent);
        if states.last().is_none_or(|(_, last)| *last != state) {
            states.push((n + 1, state));
        }
    }
    states
}

/// A request, 100 KB of answer, closed by both.
#[test]
fn a_transfer() {
    let expected = [(1, Opening), (3, Established), (19, Closing), (20, Closed)];
    assert_eq!(states(include_str!("captured/transfer.txt")), expected);
}

/// Nobody listens.
#[test]
fn a_refusal() {
    let expected = [(1, Opening), (2, Closed)];
    assert_eq!(states(include_str!("captured/refused.txt")), expected);
}

/// The client closes its half; the answer comes over a quarter of a second.
#[test]
fn a_half_close() {
    let expected = [(1, Opening), (3, Established), (6, Closing), (18, Closed)];
    assert_eq!(states(include_str!("captured/half-close.txt")), expected);
}

/// The client throws the connection away behind 40 KB.
#[test]
fn an_abort() {
    let expected = [(1, Opening), (3, Established), (14, Closed)];
    assert_eq!(states(include_str!("captured/abort.txt")), expected);
}

/// The server closes without having read the request.
#[test]
fn unread_data() {
    let expected = [(1, Opening), (3, Established), (6, Closed)];
    assert_eq!(states(include_str!("captured/unread.txt")), expected);
}

/// The client has closed altogether when the answer comes, and resets it.
#[test]
fn gone() {
    let expected = [(1, Opening), (3, Established), (6, Closing), (9, Closed)];
    assert_eq!(states(include_str!("captured/gone.txt")), expected);
}

/// Both connect to each other; later one of them closes with data unread.
#[test]
fn both_at_once() {
    let expected = [(1, Opening), (6, Established), (13, Closed)];
    assert_eq!(states(include_str!("captured/both-at-once.txt")), expected);
}
