//! What drivers do with XDP: the `netdev` family of generic netlink (Linux 6.3).

use std::{collections::BTreeMap, io};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// Family that knows the others by name.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Command and attributes of the family `netdev`.
const GET_DEVICE: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`.
const RUNS: u64 = 1;
/// `NETDEV_XDP_ACT_NDO_XMIT`.
const TRANSMITS: u64 = 4;

const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Of a message: 16 bytes, and 4 of generic netlink.
const HEADER: usize = 16;
const GENERIC: usize = 4;

/// What the drivers announce. Where the kernel does not tell, they are believed to do everything: an attempt will show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drivers {
    /// `NETDEV_XDP_ACT_*`, by the index of the device.
    pub(in crate::daemon) features: Option<BTreeMap<u32, u64>>,
}

impl Drivers {
    /// As they are now.
    pub fn ask() -> Self {
        Self { features: features() }
    }

    /// Whether a device runs XDP in its driver.
    pub fn run(&self, index: u32) -> bool {
        self.announce(index, RUNS)
    }

    /// Whether a device sends the frames that XDP redirects to it. Many do so only while they run a program themselves.
    pub fn transmit(&self, index: u32) -> bool {
        self.announce(index, TRANSMITS)
    }

    fn announce(&self, index: u32, feature: u64) -> bool {
        let announced = |features: &BTreeMap<u32, u64>| features.get(&index).copied().unwrap_or_default();
        self.features.as_ref().is_none_or(|features| announced(features) & feature != 0)
    }
}

fn features() -> Option<BTreeMap<u32, u64>> {
    let mut socket = Socket::new(NETLINK_GENERIC).ok()?;
    socket.bind_auto().ok()?;
    socket.connect(&SocketAddr::new(0, 0)).ok()?;
    let name = attribute(FAMILY_NAME, b"netdev\0");
    let family = ask(&socket, CONTROL, REQUEST, GET_FAMILY, &name).ok()?;
    let id = family.iter().find_map(|message| number::<2>(message, FAMILY_ID).map(u16::from_ne_bytes))?;
    let devices = ask(&socket, id, REQUEST | DUMP, GET_DEVICE, &[]).ok()?;
    let device = |message: &Vec<u8>| {
        let index = u32::from_ne_bytes(number(message, IFINDEX)?);
        Some((index, u64::from_ne_bytes(number(message, XDP_FEATURES)?)))
    };
    Some(devices.iter().filter_map(device).collect())
}

/// Sends a request; the attributes of each answer.
fn ask(socket: &Socket, kind: u16, flags: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let length = (HEADER + GENERIC + attributes.len()) as u32;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([command, 1, 0, 0]);
    request.extend(attributes);
    socket.send(&request, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            match kind {
                DONE => return Ok(answers),
                ERROR => return Err(io::ErrorKind::Unsupported.into()),
                _ => answers.push(body.get(GENERIC..).unwrap_or_default().to_vec()),
            }
        }
        if flags & DUMP == 0 {
            return Ok(answers);
        }
    }
}

/// Types and bodies of the messages in a datagram.
fn messages(mut datagram: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some((header, _)) = datagram.split_first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(body) = datagram.get(HEADER..length) else { break };
        found.push((u16::from_ne_bytes([header[4], header[5]]), body));
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of an attribute, if it has this size.
fn number<const N: usize>(mut attributes: &[u8], wanted: u16) -> Option<[u8; N]> {
    while let Some((header, _)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) == wanted {
            return value.try_into().ok();
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others() {
        let attributes = [attribute(7, b"x"), attribute(IFINDEX, &9_u32.to_ne_bytes())].concat();
        assert_eq!(number(&attributes, IFINDEX).map(u32::from_ne_bytes), Some(9));
        assert_eq!(number::<8>(&attributes, IFINDEX), None);
        assert_eq!(number::<4>(&attributes, XDP_FEATURES), None);
    }

    #[test]
    fn who_does_not_tell_is_believed() {
        let drivers = Drivers { features: Some(BTreeMap::from([(2, RUNS)])) };
        assert!(drivers.run(2) && !drivers.transmit(2) && !drivers.run(3));
        assert!(Drivers::default().transmit(3));
    }

    #[test]
    fn a_cut_off_message_is_no_message() {
        let mut datagram = 20_u32.to_ne_bytes().to_vec();
        datagram.extend([DONE as u8, 0]);
        datagram.resize(20, 0);
        assert_eq!(messages(&datagram).len(), 1);
        assert!(messages(&datagram[..18]).is_empty());
    }
}
