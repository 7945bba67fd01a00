//! Rules files as data, and how they are written.

use std::{
    fmt::{self, Display, Formatter},
    net::IpAddr,
};

use ipnet::IpNet;

/// Names and addresses of the hosts that every generated file has.
pub(crate) const HOSTS: [(&str, &[&str]); 5] = [
    ("four", &["192.168.80.3"]),
    ("both", &["192.168.80.4", "fd00:80::4"]),
    ("six", &["fd00:80::5"]),
    ("pair", &["192.168.80.6", "fd00:80::6"]),
    ("here", &["192.168.80.2", "fd00:80::2"]),
];

/// Addresses of a host.
pub(crate) fn host(number: usize) -> impl Iterator<Item = IpAddr> {
    HOSTS[number].1.iter().map(|address| address.parse().expect("an address"))
}

/// A word that selects addresses.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    Network(IpNet),
    Host(usize),
    Set(usize),
}

/// A `from` or `to`: each word may be excluded.
pub(crate) type Selection = Vec<(bool, Word)>;

#[derive(Clone, Debug)]
pub(crate) struct RulesFile {
    pub(crate) anti_spoof: &'static str,
    /// Whether flows that a change refuses may go on.
    pub(crate) keep: bool,
    /// Each names only networks, hosts and the sets before it.
    pub(crate) sets: Vec<Vec<Word>>,
    /// Of input, forward, output.
    pub(crate) default_actions: [&'static str; 3],
    pub(crate) forwards: Vec<Forward>,
    pub(crate) masquerades: Vec<Selection>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(crate) struct Forward {
    pub(crate) enabled: bool,
    pub(crate) protocols: Vec<u8>,
    pub(crate) ports: Vec<[u16; 2]>,
    pub(crate) from: Selection,
    pub(crate) addresses: Vec<IpAddr>,
    /// Hosts with their ports.
    pub(crate) targets: Vec<(usize, [u16; 2])>,
    pub(crate) one_to_one: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) enabled: bool,
    pub(crate) chain: usize,
    pub(crate) action: &'static str,
    pub(crate) protocols: Vec<u8>,
    pub(crate) from: Selection,
    pub(crate) to: Selection,
    pub(crate) ports: Vec<[u16; 2]>,
    pub(crate) from_ports: Vec<[u16; 2]>,
    pub(crate) icmp_types: Vec<u8>,
    /// `eth0` is in slot 1, `eth1` in slot 2.
    pub(crate) interfaces: Vec<usize>,
    pub(crate) port_forwards: Vec<usize>,
}

const CHAINS: [&str; 3] = ["input", "forward", "output"];

impl Display for Word {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                write!(f, "{}", network.addr())
            }
            Self::Network(network) => write!(f, "{network}"),
            Self::Host(number) => f.write_str(HOSTS[*number].0),
            Self::Set(number) => write!(f, "set{number}"),
        }
    }
}

/// A list of strings, as TOML has it.
fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(", "))
}

/// As [`list`]; a single word stands alone.
fn one_or_list(items: impl IntoIterator<Item = String>) -> String {
    match items.into_iter().collect::<Vec<_>>().as_slice() {
        [one] => format!("\"{one}\""),
        items => list(items),
    }
}

fn selection(words: &Selection) -> String {
    list(words.iter().map(|(excluded, word)| format!("{}{word}", if *excluded { "!" } else { "" })))
}

fn range([first, last]: &[u16; 2]) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn protocols(numbers: &[u8]) -> String {
    let name = |number: &u8| match number {
        1 => "\"icmp\"".to_owned(),
        6 => "\"tcp\"".to_owned(),
        17 => "\"udp\"".to_owned(),
        58 => "\"icmpv6\"".to_owned(),
        other => other.to_string(),
    };
    format!("[{}]", numbers.iter().map(name).collect::<Vec<_>>().join(", "))
}

/// Writes `key = value` unless `list` is empty.
fn key<T>(f: &mut Formatter<'_>, key: &str, list: &[T], value: impl Display) -> fmt::Result {
    if list.is_empty() { Ok(()) } else { writeln!(f, "{key} = {value}") }
}

fn switch(f: &mut Formatter<'_>, enabled: bool) -> fmt::Result {
    if enabled { Ok(()) } else { writeln!(f, "enabled = false") }
}

impl Display for RulesFile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "[interfaces]\nexternal = [\"eth0\"]\ninternal = [\"eth1\"]")?;
        writeln!(f, "anti-spoof = \"{}\"\n[hosts]", self.anti_spoof)?;
        for (name, addresses) in HOSTS {
            writeln!(f, "{name} = {}", list(addresses))?;
        }
        writeln!(f, "[sets]")?;
        for (number, words) in self.sets.iter().enumerate() {
            writeln!(f, "set{number} = {}", list(words))?;
        }
        writeln!(f, "[policy]")?;
        for (chain, action) in CHAINS.iter().zip(self.default_actions) {
            writeln!(f, "{chain} = \"{action}\"")?;
        }
        if self.keep {
            writeln!(f, "[flows]\non-change = \"keep\"")?;
        }
        for from in &self.masquerades {
            writeln!(f, "[[masquerade]]\nfrom = {}", selection(from))?;
        }
        self.forwards.iter().enumerate().try_for_each(|(number, forward)| forward.write(f, number))?;
        self.rules.iter().enumerate().try_for_each(|(number, rule)| rule.write(f, number))
    }
}

impl Forward {
    fn write(&self, f: &mut Formatter<'_>, number: usize) -> fmt::Result {
        writeln!(
            f,
            "[[port-forward]]\nname = \"forward{number}\"\nprotocol = {}",
            protocols(&self.protocols)
        )?;
        writeln!(f, "port = {}", list(self.ports.iter().map(range)))?;
        let target = |(host, ports): &(usize, [u16; 2])| format!("{}:{}", HOSTS[*host].0, range(ports));
        writeln!(f, "to = {}", list(self.targets.iter().map(target)))?;
        key(f, "from", &self.from, selection(&self.from))?;
        key(f, "address", &self.addresses, list(&self.addresses))?;
        if self.one_to_one {
            writeln!(f, "spread = \"one-to-one\"")?;
        }
        switch(f, self.enabled)
    }
}

impl Rule {
    fn write(&self, f: &mut Formatter<'_>, number: usize) -> fmt::Result {
        writeln!(f, "[[rule]]\nname = \"rule{number}\"")?;
        writeln!(f, "chain = \"{}\"\naction = \"{}\"", CHAINS[self.chain], self.action)?;
        key(f, "protocol", &self.protocols, protocols(&self.protocols))?;
        key(f, "from", &self.from, selection(&self.from))?;
        key(f, "to", &self.to, selection(&self.to))?;
        key(f, "port", &self.ports, list(self.ports.iter().map(range)))?;
        key(f, "from-port", &self.from_ports, list(self.from_ports.iter().map(range)))?;
        key(f, "icmp-type", &self.icmp_types, format!("{:?}", self.icmp_types))?;
        let interfaces = self.interfaces.iter().map(|slot| format!("eth{}", slot - 1));
        key(f, "interface", &self.interfaces, one_or_list(interfaces))?;
        let forwards = self.port_forwards.iter().map(|number| format!("forward{number}"));
        key(f, "port-forward", &self.port_forwards, one_or_list(forwards))?;
        switch(f, self.enabled)
    }
}
