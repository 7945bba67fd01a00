//! SSH sessions that end on this host: those that a change should not cut unasked.

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
};

use netfw_common::{
    family::{Address as _, Family, Ipv4, Ipv6, addr4, addr6},
    flow::{Flow, LOCAL, judged_by},
    image::INPUT,
    tuple::Tuple,
    wire::TCP,
};

use super::host::Host;
use crate::{
    image::Image,
    policy::{SSH, ValidPolicy},
};

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who opened it.
    pub client: SocketAddr,
    /// Our end.
    pub server: SocketAddr,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the SSH session from {} to {}", self.client, self.server)
    }
}

/// A policy with its image, and the slots by which that knows the interfaces.
#[derive(Clone, Copy)]
pub struct Judge<'a> {
    /// What is asked.
    pub policy: &'a ValidPolicy,
    /// Compiled.
    pub image: &'a Image,
    /// Slot of an interface; none: not managed.
    pub slot: &'a dyn Fn(&str) -> Option<u32>,
}

impl Session {
    /// The session in which this command was typed, perhaps with another host: one that a container or a network namespace is in.
    pub fn claimed() -> Option<Self> {
        Self::parse(&ssh_connection()?)
    }

    /// The session with this host in which this command was typed.
    pub fn of_the_terminal(host: &Host) -> Option<Self> {
        let session = Self::claimed()?;
        host.addresses().any(|own| own == session.server.ip()).then_some(session)
    }

    /// `CLIENT PORT SERVER PORT`, as OpenSSH writes it.
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [client, client_port, server, server_port] = words[..] else { return None };
        let end = |address: &str, port: &str| {
            let ip: IpAddr = address.split('%').next()?.parse().ok()?;
            Some(SocketAddr::new(ip.to_canonical(), port.parse().ok()?))
        };
        Some(Self { client: end(client, client_port)?, server: end(server, server_port)? })
    }

    /// Those that are open now, to the usual port or to one of `ports`.
    pub fn open(host: &Host, ports: &[u16]) -> Vec<Self> {
        let connections = host.connections().into_iter();
        let ssh = connections.filter(|connection| {
            let port = connection.local.port();
            connection.incoming && connection.protocol == TCP && (port == SSH || ports.contains(&port))
        });
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let sessions =
            ssh.map(|found| Self { client: canonical(found.remote), server: canonical(found.local) });
        sessions.filter(|session| !session.client.ip().is_loopback()).collect()
    }

    /// Whether it goes on, and could be opened again, under a policy.
    pub fn is_admitted_by(&self, judge: Judge<'_>, host: &Host) -> bool {
        let owns =
            |link: &&super::host::Link| link.addresses.iter().any(|address| address.ip == self.server.ip());
        let name = host.links.iter().find(owns).map(|link| link.name.as_str());
        let managed = name.filter(|name| judge.policy.interfaces().iter().any(|known| known.name == *name));
        let Some(slot) = managed.and_then(judge.slot) else { return true };
        let door = judge.policy.failsafe();
        if door.is_some_and(|door| door.port == self.server.port() && door.from.matches(self.client.ip())) {
            return true;
        }
        if judge.image.blocks(self.client.ip()) {
            return false;
        }
        match self.server {
            SocketAddr::V4(_) => self.passes::<Ipv4>(judge.image, slot),
            SocketAddr::V6(_) => self.passes::<Ipv6>(judge.image, slot),
        }
    }

    fn passes<F: Family>(&self, image: &Image, slot: u32) -> bool {
        let address = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => F::Addr::narrow(addr4(ip).widen()),
            IpAddr::V6(ip) => F::Addr::narrow(addr6(ip)),
        };
        let key = Tuple {
            source: address(self.client.ip()),
            destination: address(self.server.ip()),
            source_port: self.client.port(),
            destination_port: self.server.port(),
            protocol: TCP.into(),
        };
        let flags = LOCAL | judged_by(INPUT);
        let flow = Flow { leaving: key, flags, interface: slot as u8, ..Flow::default() };
        !image.forwards::<F>(&key) && image.still_admits::<F>(&key, &flow)
    }
}

/// What OpenSSH tells the programs of a session. `sudo` keeps it to itself: then the shell that called it tells.
pub fn ssh_connection() -> Option<String> {
    let mut pid = std::process::id();
    while pid > 1 {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        if let Some(value) = variables.find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION=")) {
            return String::from_utf8(value.to_owned()).ok();
        }
        pid = parent(pid)?;
    }
    None
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_openssh_are_understood() {
        let session = Session::parse("203.0.113.10 4000 192.0.2.1 22").expect("a session");
        assert_eq!(session.client, "203.0.113.10:4000".parse().expect("an end"));
        assert_eq!(session.server.port(), 22);
        let near = Session::parse("fe80::1%eth0 4000 fe80::2%eth0 22").expect("a session");
        assert_eq!(near.client.ip().to_string(), "fe80::1");
        assert_eq!(Session::parse("UNKNOWN"), None);
    }

    #[test]
    fn a_process_has_a_parent() {
        assert_eq!(parent(std::process::id()), Some(std::os::unix::process::parent_id()));
    }
}
