//! Sessions between two Linux 6.18 hosts, as an Ethernet between them has seen them (large segments uncut): who sent, flags,
//! sequence and acknowledgment number, length of the data.

use netfw_common::{
    tcp::{Segment, State},
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

macro_rules! session {
    ($name:ident, $file:literal, $doc:literal, $($states:tt)*) => {
        #[doc = $doc]
        #[test]
        fn $name() {
            use State::*;
            assert_eq!(states(include_str!(concat!("captured/", $file))), [$($states)*]);
        }
    };
}

session!(
    a_transfer,
    "transfer.txt",
    "A request, 100 KB of answer, closed by both.",
    (1, Opening),
    (3, Established),
    (19, Closing),
    (20, Closed)
);
session!(a_refusal, "refused.txt", "Nobody listens.", (1, Opening), (2, Closed));
session!(
    a_half_close,
    "half-close.txt",
    "The client closes its half, the answer comes over a quarter of a second.",
    (1, Opening),
    (3, Established),
    (6, Closing),
    (18, Closed)
);
session!(
    an_abort,
    "abort.txt",
    "The client throws the connection away with 40 KB on their way.",
    (1, Opening),
    (3, Established),
    (14, Closed)
);
session!(
    unread_data,
    "unread.txt",
    "The server closes without having read the request.",
    (1, Opening),
    (3, Established),
    (6, Closed)
);
session!(
    gone,
    "gone.txt",
    "The client has closed altogether when the answer comes, and resets it.",
    (1, Opening),
    (3, Established),
    (6, Closing),
    (9, Closed)
);
session!(
    both_at_once,
    "both-at-once.txt",
    "Both connect to each other; later one of them closes with data unread.",
    (1, Opening),
    (6, Established),
    (13, Closed)
);
