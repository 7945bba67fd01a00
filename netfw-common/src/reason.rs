//! Why packets are dropped. Numbers are never reused; words are stable.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal, $sentence:literal;)+) => {
        /// Why a packet was dropped; the discriminant indexes the drop counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason { $(#[doc = $sentence] $name = $number,)+ }

        impl Reason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The stable kebab-case word.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// One sentence for reports and documentation.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence),+ }
            }
        }
    };
}

/// Size of the drop counter array: numbers stay below it.
pub const MAX_REASONS: u32 = 64;

reasons! {
    Malformed = 0, "malformed", "A header is truncated, or lies about a length or version.";
    BadChecksum = 1, "bad-checksum", "The IPv4 header checksum, or a checksum that must not be zero, is wrong.";
    Martian = 2, "martian", "The source can't be a sender (multicast, loopback, unspecified, or source equals destination).";
    Spoofed = 3, "spoofed", "The route back to the source doesn't use the interface the packet came in on.";
    BadTcpFlags = 4, "bad-tcp-flags", "The TCP flags contradict each other, as only scans do.";
    IpOptions = 5, "ip-options", "IPv4 options that a router would have to process are not forwarded.";
    FragmentBeforeFirst = 6, "fragment-before-first", "A fragment came before the first one, which holds the ports, and the packet could not be put together (parts missing or twice there, or Linux before 6.6).";
    TtlExceeded = 7, "ttl-exceeded", "TTL or hop limit ran out; the sender was told.";
    NoRoute = 8, "no-route", "There is no route to the destination.";
    TooBig = 9, "too-big", "The packet doesn't fit the way out and may not be fragmented; the sender was told.";
    Input = 10, "policy-input", "No rule admitted the flow to the master (chain input).";
    Forward = 11, "policy-forward", "No rule admitted the flow through the master (chain forward).";
    Output = 12, "policy-output", "No rule admitted the flow from the master (chain output).";
    Rule = 13, "rule", "A rule with action drop decided.";
    Rejected = 14, "rejected", "A rule or policy with action reject decided; the sender was told.";
    FlowCut = 15, "flow-cut", "The flow was admitted by earlier rules and is refused by the present ones.";
    NoPort = 16, "no-free-port", "No source port was free for the translation, or the only one that a protocol without ports has.";
    TableFull = 17, "flow-table-full", "The flow could not be entered into the table.";
    NoTarget = 18, "no-target", "The port-forward has no target in this address family.";
    NoAddress = 19, "no-address", "The interface has no address that could be put into the packet.";
    IcmpUnrelated = 20, "icmp-unrelated", "An ICMP error that quotes no flow of ours, or an echo reply that nobody asked for.";
    NotWritable = 21, "not-writable", "The packet could not be changed (too short, or out of memory).";
    Untranslatable = 22, "untranslatable", "The protocol's checksum or signature covers the addresses, and it is none that can be mended.";
    Blocked = 23, "blocked", "The remote address is one of those that `[block]` lists.";
    Banned = 24, "banned", "The remote address is banned (`netfw bans`).";
    Suspended = 30, "suspended", "The rules that wait for confirmation refuse the flow: it goes on if they are taken back, and is cut if they are confirmed.";
    NoTargetUp = 31, "no-target-up", "Every target of the port-forward is down or drains; the sender was told.";
    GroupFrame = 32, "group-frame", "A frame to all or many stations held a packet for the master alone, as only those send who want past a firewall.";
    AnswersUnknown = 33, "answers-unknown", "A port-forward's target speaks in a connection that is not known (any more), and there is no telling by which outside port its client had called: it goes on when the client speaks.";
    RateLimited = 40, "rate-limited", "A rule matched, but the flow is above its limit.";
    SynChallenged = 41, "syn-challenged", "Too many connections are being opened through a port-forward with `syn-proxy`: the sender was asked to prove that it is where it says, and may open this one as soon as it has.";
    ChallengeMet = 42, "challenge-met", "The reset with which a sender has proved just that.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kebab_case_and_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            let word = reason.word();
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{word}");
            assert!(Reason::ALL.iter().skip(index + 1).all(|other| other.word() != word), "{word} twice");
            assert!((*reason as u32) < MAX_REASONS);
        }
    }
}
