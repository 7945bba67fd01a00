//! Makes both ends of a TCP connection that is cut notice at once, also when neither has anything to say.
//!
//! A SYN inside a live connection is answered with a challenge ACK that carries the right sequence numbers
//! (RFC 5961 §4). That ACK meets the datapath, which refuses it with a reset that the end believes. The SYN
//! leaves on the way that the flow's own packets took, past the hooks for leaving packets.

use std::{
    cell::OnceCell,
    io, mem,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use netfw_common::{
    checksum::{Sum, sum_bytes},
    family::{Addr6, Family, Ipv4, Ipv6},
    flow::{Hop, TURNED},
    tuple::Tuple,
    wire::{TCP, TCP_SYN},
};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::flows::Pair;

/// Sends frames.
#[derive(Default)]
pub struct Nudger {
    /// Opened for the first frame: to close it takes the kernel a grace period, and most changes cut nothing.
    socket: OnceCell<OwnedFd>,
}

impl Nudger {
    fn socket(&self) -> Result<&OwnedFd> {
        if let Some(socket) = self.socket.get() {
            return Ok(socket);
        }
        let flags = SockFlag::SOCK_CLOEXEC;
        // Without a protocol it receives nothing.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None::<SockProtocol>)
            .context("cannot open a packet socket")?;
        bypass_queues(&socket)?;
        Ok(self.socket.get_or_init(|| socket))
    }

    /// Whether there are ends that can be made to speak.
    pub fn applies_to(&self, pair: &Pair) -> bool {
        pair.key.protocol == u32::from(TCP)
    }

    /// Makes both ends of a TCP flow speak. An end to which no way is known is left alone.
    ///
    /// `lives` tells whether the direction that starts with a tuple still has its entry. An end that sent a packet
    /// since has got its reset and has no connection left: a server would take the SYN for a new one.
    ///
    /// # Errors
    /// Not permitted.
    pub fn nudge(&self, pair: &Pair, lives: impl Fn(&Tuple<Addr6>) -> bool) -> Result<()> {
        let socket = self.socket()?;
        for (hop, tuple) in ways(pair) {
            if hop.ifindex != 0
                && lives(&tuple.reversed())
                && let Err(error) = send(socket, hop.ifindex, &frame(pair, &hop, &tuple))
            {
                tracing::debug!("cannot tell the end of a cut connection: {error}");
            }
        }
        Ok(())
    }
}

fn send(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: a plain C structure for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex as i32;
    let (pointer, size) = (&raw const address, size_of::<libc::sockaddr_ll>() as libc::socklen_t);
    // SAFETY: frame and address are as long as said, and the kernel only reads them.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, pointer.cast(), size)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn bypass_queues(socket: &OwnedFd) -> Result<()> {
    let on: libc::c_int = 1;
    let (value, size) = (&raw const on, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the option's value is an int, read by the kernel during the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, value.cast(), size)
    };
    if result < 0 {
        return Err(io::Error::last_os_error()).context("cannot set up a packet socket");
    }
    Ok(())
}

/// The ways to the ends of a flow, each with the tuple of packets that take it.
fn ways(pair: &Pair) -> impl Iterator<Item = (Hop, Tuple<Addr6>)> {
    let reply = pair.reply.map(|reply| (pair.original.peer_key(), reply));
    [(pair.key, pair.original)].into_iter().chain(reply).map(|(key, half)| {
        let back = half.flags & TURNED != 0;
        (half.hop, if back { key.reversed() } else { half.leaving })
    })
}

/// A bare SYN with this tuple, with the Ethernet header for this way.
fn frame(pair: &Pair, hop: &Hop, tuple: &Tuple<Addr6>) -> Vec<u8> {
    let macs: Vec<u8> = hop.macs.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let (ethertype, header) = if pair.v6 {
        (Ipv6::ETHERTYPE, header6(pair, tuple))
    } else {
        (Ipv4::ETHERTYPE, header4(pair, tuple))
    };
    [macs, ethertype.to_be_bytes().to_vec(), header, syn(pair, tuple)].concat()
}

const TTL: u8 = 64;
const TCP_HEADER: u16 = 20;

fn header4(pair: &Pair, tuple: &Tuple<Addr6>) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, TCP, 0, 0];
    header[2..4].copy_from_slice(&(20 + TCP_HEADER).to_be_bytes());
    header.extend(addresses(pair, tuple));
    let checksum = sum_bytes(&header).finish();
    header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    header
}

fn header6(pair: &Pair, tuple: &Tuple<Addr6>) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, 0, TCP, TTL];
    header[4..6].copy_from_slice(&TCP_HEADER.to_be_bytes());
    header.extend(addresses(pair, tuple));
    header
}

fn syn(pair: &Pair, tuple: &Tuple<Addr6>) -> Vec<u8> {
    let mut segment = vec![0; usize::from(TCP_HEADER)];
    segment[0..2].copy_from_slice(&tuple.source_port.to_be_bytes());
    segment[2..4].copy_from_slice(&tuple.destination_port.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = TCP_SYN;
    let pseudo = sum_bytes(&addresses(pair, tuple)) + Sum::of_value(TCP.into()) + Sum::of_value(TCP_HEADER);
    let checksum = (pseudo + sum_bytes(&segment)).finish();
    segment[16..18].copy_from_slice(&checksum.to_ne_bytes());
    segment
}

fn addresses(pair: &Pair, tuple: &Tuple<Addr6>) -> Vec<u8> {
    let bytes = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    pair.ends(tuple).iter().flat_map(|end| bytes(end.ip())).collect()
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketHeaders, TransportHeader};
    use netfw_common::{
        family::{Address, addr4, addr6},
        flow::Flow,
    };

    use super::*;

    fn pair(v6: bool) -> Pair {
        let (source, destination) = if v6 {
            (addr6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()), addr6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into()))
        } else {
            (addr4([203, 0, 113, 9].into()).widen(), addr4([192, 168, 80, 3].into()).widen())
        };
        let leaving =
            Tuple { source, destination, source_port: 4000, destination_port: 22, protocol: TCP.into() };
        let hop = Hop { ifindex: 2, macs: [0x0403_0201, 0x0c0b_0605, 0x100f_0e0d], ..Hop::default() };
        Pair::for_test(v6, leaving, Flow { leaving, hop, ..Flow::default() })
    }

    #[test]
    fn who_is_left_is_told_by_the_way_that_the_other_direction_took() {
        let mut pair = pair(false);
        pair.key.destination_port = 2201;
        pair.original.flags = TURNED;
        let [(hop, tuple)] = ways(&pair).collect::<Vec<_>>()[..] else { panic!("one end is left") };
        assert_eq!((hop, tuple), (pair.original.hop, pair.key.reversed()));
    }

    #[test]
    fn a_syn_leaves_as_the_flows_own_packets_do() {
        for v6 in [false, true] {
            let pair = pair(v6);
            let frame = frame(&pair, &pair.original.hop, &pair.original.leaving);
            assert_eq!(frame[..4], [1, 2, 3, 4]);
            let headers = PacketHeaders::from_ethernet_slice(&frame).expect("a well-formed frame");
            let Some(TransportHeader::Tcp(tcp)) = headers.transport else { panic!("no TCP") };
            assert_eq!((tcp.source_port, tcp.destination_port, tcp.syn, tcp.ack), (4000, 22, true, false));
            let net = headers.net.expect("an IP header");
            let expected = match &net {
                etherparse::NetHeaders::Ipv4(ip, _) => {
                    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    tcp.calc_checksum_ipv4(ip, &[])
                }
                etherparse::NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(ip, &[]),
                etherparse::NetHeaders::Arp(_) => panic!("no IP"),
            };
            assert_eq!(expected.ok(), Some(tcp.checksum));
        }
    }
}
