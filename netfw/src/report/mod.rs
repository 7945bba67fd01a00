//! What the commands print: documents for programs, tables for people.

pub mod bans;
pub mod challenging;
pub mod change;
pub mod difference;
pub mod events;
pub mod explain;
pub mod flows;
pub mod generations;
mod paths;
pub mod plan;
pub mod stats;
pub mod status;
mod table;
pub mod targets;

use std::time::SystemTime;

use netfw_common::wire::{ICMP, ICMPV6, SCTP, TCP, UDP};

/// A point in time as documents write it (RFC 3339).
pub fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Name of an IP protocol, or its number.
fn protocol_name(number: u32) -> String {
    match u8::try_from(number) {
        Ok(TCP) => "tcp".into(),
        Ok(UDP) => "udp".into(),
        Ok(ICMP) => "icmp".into(),
        Ok(ICMPV6) => "icmpv6".into(),
        Ok(SCTP) => "sctp".into(),
        _ => number.to_string(),
    }
}
