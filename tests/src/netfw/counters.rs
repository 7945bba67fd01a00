//! `netfw stats` as names and numbers, and the difference between two moments.

use std::{collections::BTreeMap, fmt};

use anyhow::{Result, ensure};
use serde_json::Value;

/// Packets and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of the IP packets.
    pub bytes: u64,
}

impl Count {
    /// `packets` packets of `size` bytes each.
    pub fn of(packets: u64, size: u64) -> Self {
        Self { packets, bytes: packets * size }
    }
}

/// Every number of `netfw --json stats` under its path, such as `interfaces.eth0.received.packets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Flattens the document; the items of its lists go by their `name` or `reason`.
    pub fn read(document: &Value) -> Self {
        let mut numbers = BTreeMap::new();
        collect(&mut numbers, "", document);
        Self(numbers)
    }

    /// What was counted after `before`.
    pub fn since(&self, before: &Self) -> Self {
        let grown = self.0.iter().map(|(path, now)| (path.clone(), now - before.number(path)));
        Self(grown.collect())
    }

    /// The number at `path`; what isn't listed never counted.
    pub fn number(&self, path: &str) -> u64 {
        self.0.get(path).copied().unwrap_or_default()
    }

    /// The packets and bytes at `path`.
    pub fn count(&self, path: &str) -> Count {
        let number = |unit| self.number(&format!("{path}.{unit}"));
        Count { packets: number("packets"), bytes: number("bytes") }
    }

    /// Fails unless `path` shows exactly `count`.
    pub fn expect(&self, path: &str, count: Count) -> Result<()> {
        ensure!(self.count(path) == count, "{path}: {:?} instead of {count:?} in {self}", self.count(path));
        Ok(())
    }

    /// Packets dropped for `reason`.
    pub fn drops(&self, reason: &str) -> u64 {
        self.number(&format!("drops.{reason}.packets"))
    }

    /// Fails if a reason counted that isn't `expected`.
    pub fn expect_no_drops_but(&self, expected: impl Fn(&str) -> bool) -> Result<()> {
        let unexpected = self.0.iter().any(|(path, number)| {
            let reason = path.strip_prefix("drops.").and_then(|rest| rest.strip_suffix(".packets"));
            *number > 0 && reason.is_some_and(|reason| !expected(reason))
        });
        ensure!(!unexpected, "unexpected drops: {self}");
        Ok(())
    }

    /// received = forwarded + accepted + dropped, on each interface, in packets and bytes.
    pub fn expect_each_packet_once(&self) -> Result<()> {
        for (path, received) in &self.0 {
            let Some((interface, unit)) = path.split_once(".received.") else { continue };
            let outcomes = ["forwarded", "accepted", "dropped"];
            let counted: u64 =
                outcomes.iter().map(|outcome| self.number(&format!("{interface}.{outcome}.{unit}"))).sum();
            ensure!(*received == counted, "{path} is {received}, its outcomes sum up to {counted}: {self}");
        }
        Ok(())
    }
}

impl fmt::Display for Counters {
    /// Only what isn't zero.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .filter(|(_, number)| **number > 0)
            .try_for_each(|(path, number)| write!(to, "\n  {path} {number}"))
    }
}

fn collect(numbers: &mut BTreeMap<String, u64>, path: &str, value: &Value) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Number(number) => {
            numbers.insert(path.to_owned(), number.as_u64().unwrap_or_default());
        }
        Value::Object(fields) => fields.iter().for_each(|(key, field)| collect(numbers, &join(key), field)),
        Value::Array(items) => {
            for item in items {
                let key = ["name", "reason"].iter().find_map(|key| item[key].as_str()).unwrap_or("?");
                collect(numbers, &join(key), item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Counters {
        let eth0 = json!({ "name": "eth0", "received": { "packets": 3, "bytes": 90 },
            "forwarded": { "packets": 2, "bytes": 60 }, "dropped": { "packets": 1, "bytes": 30 } });
        Counters::read(
            &json!({ "interfaces": [eth0], "drops": [{ "reason": "martian", "packets": 1, "bytes": 30 }] }),
        )
    }

    #[test]
    fn lists_go_by_name() {
        assert_eq!(sample().count("interfaces.eth0.forwarded"), Count::of(2, 30));
        assert_eq!(sample().drops("martian"), 1);
    }

    #[test]
    fn the_sum_is_checked() {
        assert!(sample().expect_each_packet_once().is_ok());
        let missing = json!({ "interfaces": [{ "name": "eth0", "received": { "packets": 1, "bytes": 1 } }] });
        assert!(Counters::read(&missing).expect_each_packet_once().is_err());
    }

    #[test]
    fn other_drops_fail() {
        assert!(sample().expect_no_drops_but(|reason| reason == "martian").is_ok());
        assert!(sample().expect_no_drops_but(|reason| reason == "spoofed").is_err());
    }
}
