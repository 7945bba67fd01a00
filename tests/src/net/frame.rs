//! Frames made by hand and read back, on top of etherparse.

use std::net::IpAddr;

use anyhow::{Result, bail};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

/// Link addresses of a frame: from, to.
pub type Macs = ([u8; 6], [u8; 6]);

/// Starts a packet between two addresses of one family, with the given TTL or hop limit.
pub fn packet(macs: Macs, from: IpAddr, to: IpAddr, ttl: u8) -> Result<PacketBuilderStep<IpHeaders>> {
    let ethernet = PacketBuilder::ethernet2(macs.0, macs.1);
    Ok(match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), ttl),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), ttl),
        _ => bail!("{from} and {to} are of two families"),
    })
}

/// A UDP datagram with correct checksums.
pub fn udp(macs: Macs, addresses: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    packet(macs, addresses.0, addresses.1, 64)?.udp(ports.0, ports.1).write(&mut frame, payload)?;
    Ok(frame)
}
