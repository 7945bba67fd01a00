//! Tells of packets that were refused although the rules admit them: something has run out.

use anyhow::Result;
use netfw_common::reason::Reason;

use crate::kernel::Maps;

/// What can run out, and what to do then.
const KINDS: [(Reason, &str); 2] = [
    (Reason::NoPort, "widen \"ports\" or add addresses to \"to\" of the masquerade"),
    (Reason::TableFull, "raise [flows] capacity"),
];

/// Remembers what was told.
#[derive(Debug, Default)]
pub(super) struct Shortages {
    /// Packets refused so far, by kind; none before the first look.
    told: Option<[u64; KINDS.len()]>,
}

impl Shortages {
    /// Warns of what has been refused since the last look.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn look(&mut self, maps: &Maps) -> Result<()> {
        let counters = maps.counters()?;
        let mut now = [0; KINDS.len()];
        for (packets, (reason, _)) in now.iter_mut().zip(KINDS) {
            *packets = counters.drops(reason)?.packets;
        }
        for ((reason, help), more) in KINDS.into_iter().zip(self.since(now)) {
            if more > 0 {
                tracing::warn!(
                    "{more} packets dropped, {}: {} help: {help}",
                    reason.word(),
                    reason.sentence()
                );
            }
        }
        Ok(())
    }

    /// How many more there are than at the last look.
    fn since(&mut self, now: [u64; KINDS.len()]) -> [u64; KINDS.len()] {
        let before = self.told.replace(now).unwrap_or(now);
        std::array::from_fn(|kind| now[kind].saturating_sub(before[kind]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_packet_is_told_once_and_none_of_an_earlier_daemon() {
        let mut shortages = Shortages::default();
        assert_eq!(shortages.since([7, 0]), [0, 0]);
        assert_eq!(shortages.since([9, 1]), [2, 1]);
        assert_eq!(shortages.since([9, 1]), [0, 0]);
    }
}
