//! Sockets of the host, as `/proc/net` lists them.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::OnceLock,
};

use netfw_common::wire::{TCP, UDP};

use crate::policy::facts::ListeningPort;

const ESTABLISHED: u8 = 1;
/// A UDP socket that is bound and connected to nobody has this state.
const UNCONNECTED: u8 = 7;
const LISTEN: u8 = 10;

/// A conversation that a local program is having.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Whether the other end opened it, as far as can be seen: a socket listens on our port.
    pub incoming: bool,
}

/// The sockets as they are when somebody asks for the first time. The kernel looks for them in a table that has room for all of
/// a large machine's, whoever asks: that takes it milliseconds. Without `/proc` none is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets(OnceLock<Vec<Entry>>);

impl Sockets {
    fn all(&self) -> &[Entry] {
        self.0.get_or_init(|| all().unwrap_or_default())
    }

    /// Ports that wait for others.
    pub(super) fn listening(&self) -> Vec<ListeningPort> {
        let port = |entry: &Entry| ListeningPort {
            protocol: entry.protocol,
            address: entry.local.ip(),
            port: entry.local.port(),
        };
        self.all().iter().filter(|entry| entry.waits()).map(port).collect()
    }

    /// Established TCP connections and connected UDP sockets.
    pub(super) fn connections(&self) -> Vec<Connection> {
        let listened = |entry: &Entry| {
            self.all().iter().any(|other| {
                other.waits() && other.protocol == entry.protocol && other.local.port() == entry.local.port()
            })
        };
        let talking = self.all().iter().filter(|entry| entry.state == ESTABLISHED);
        let connection = |entry: &Entry| Connection {
            protocol: entry.protocol,
            local: entry.local,
            remote: entry.remote,
            incoming: listened(entry),
        };
        talking.map(connection).collect()
    }
}

/// A line of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    protocol: u8,
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
}

impl Entry {
    fn waits(&self) -> bool {
        self.state == if self.protocol == TCP { LISTEN } else { UNCONNECTED }
    }
}

fn all() -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (file, protocol) in [("tcp", TCP), ("tcp6", TCP), ("udp", UDP), ("udp6", UDP)] {
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => entries.extend(text.lines().skip(1).filter_map(|line| entry(line, protocol))),
            // A kernel without IPv6 has no such files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}

fn entry(line: &str, protocol: u8) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (endpoint(words.next()?)?, endpoint(words.next()?)?);
    Some(Entry { protocol, local, remote, state: u8::from_str_radix(words.next()?, 16).ok()? })
}

/// `ADDRESS:PORT` in hexadecimal; the address as words of host order over bytes in network order.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for word in address.as_bytes().chunks(8) {
        let word = u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    // An IPv6 socket that talks IPv4.
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn lines_of_both_families_are_read() {
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let local = format!("{}:0016", word([192, 168, 80, 2]));
        let line = format!("   0: {local} {}:C001 01 00000000:00000000", word([203, 0, 113, 9]));
        let found = entry(&line, TCP).expect("a line as the kernel writes it");
        assert_eq!(found.local.to_string(), "192.168.80.2:22");
        assert_eq!(found.remote.to_string(), "203.0.113.9:49153");
        assert_eq!(found.state, ESTABLISHED);
        let mapped = [word([0; 4]), word([0; 4]), word([0, 0, 0xff, 0xff]), word([10, 0, 0, 1])].concat();
        assert_eq!(
            endpoint(&format!("{mapped}:0050")).map(|end| end.to_string()).as_deref(),
            Some("10.0.0.1:80")
        );
    }

    #[test]
    fn a_connection_is_seen_from_both_ends() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let client = TcpStream::connect(("127.0.0.1", port))?;
        let sockets = Sockets::default();
        let all = sockets.connections();
        let accepted = all.iter().find(|connection| connection.local.port() == port).expect("our end");
        assert!(accepted.incoming);
        let own = client.local_addr()?;
        let opened = all.iter().find(|connection| connection.local == own).expect("the client's end");
        assert!(!opened.incoming);
        assert!(sockets.listening().iter().any(|waiting| waiting.port == port && waiting.protocol == TCP));
        Ok(())
    }
}
