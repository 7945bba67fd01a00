//! The words inside quotes: ports, durations, protocols, addresses. Each function says what to write instead.

use std::{net::IpAddr, time::Duration};

use ipnet::{IpNet, Ipv4Net};
use netfw_common::limit::{MAX_BURST, MAX_RATE};

use super::{
    model::{HostWord, IcmpType, Selector, TargetWord},
    suggest,
};
use crate::policy::PortRange;

/// Why a word is wrong, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// A word that was understood, or why it was not.
pub(super) type Parsed<T> = Result<T, Wrong>;

const PORT_HELP: &str = r#"write a port from 1 to 65535 such as 22, or a range such as "2201-2204""#;

/// `22` or `2201-2204`.
pub(super) fn ports(text: &str) -> Parsed<PortRange> {
    if text.contains(',') {
        return Err(Wrong::new(format!("\"{text}\" is not one port or range"), "write a list: [80, 443]"));
    }
    let Some((first, last)) = text.split_once('-').filter(|(first, _)| !first.is_empty()) else {
        let port = port(text)?;
        return Ok(PortRange { first: port, last: port });
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        let help = format!("write the lower port first: \"{last}-{first}\"");
        return Err(Wrong::new(format!("the range {text} runs backwards"), help));
    }
    Ok(PortRange { first, last })
}

/// `22`.
pub(super) fn port(text: &str) -> Parsed<u16> {
    let number = text.trim();
    if !number.bytes().all(|byte| byte.is_ascii_digit()) || number.is_empty() {
        return Err(Wrong::new(format!("\"{number}\" is not a port"), PORT_HELP));
    }
    match number.parse::<u16>() {
        Ok(0) => Err(Wrong::new("port 0 does not exist", PORT_HELP)),
        Ok(port) => Ok(port),
        Err(_) => Err(Wrong::new(format!("port {number} is above 65535"), PORT_HELP)),
    }
}

const DURATION_HELP: &str = r#"write a time such as "300s", "2h4m" or "1d", or a number of seconds"#;
/// Longer than any flow is idle; keeps all arithmetic on times far from its limits.
const LONGEST: u64 = 365 * 86_400;

/// `2h4m`, `300s`, `1d`, or a plain number of seconds.
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let seconds =
        seconds(text).ok_or_else(|| Wrong::new(format!("\"{text}\" is not a time"), DURATION_HELP))?;
    match seconds {
        0 => Err(Wrong::new("a time of 0 would forget every flow at once", DURATION_HELP)),
        1..=LONGEST => Ok(Duration::from_secs(seconds)),
        _ => Err(Wrong::new(format!("{text} is longer than a year"), r#"write at most "365d""#)),
    }
}

/// A time in which a person can confirm a change.
pub(super) fn time_to_confirm(text: &str) -> Parsed<Duration> {
    const HELP: &str = r#"write a time from "1s" to "1d", such as "60s""#;
    match seconds(text) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(Wrong::new(format!("\"{text}\" is no time in which a person can confirm a change"), HELP)),
    }
}

const INTERVAL_HELP: &str = r#"write a time from "1s" to "1h", such as "2s""#;
const LONGEST_INTERVAL: u64 = 3600;

/// A time from one test to the next.
pub(super) fn interval(text: &str) -> Parsed<Duration> {
    let wrong = |what: &str| Err(Wrong::new(format!("an interval of {text} is too {what}"), INTERVAL_HELP));
    match seconds(text) {
        Some(0) => wrong("short"),
        Some(seconds @ 1..=LONGEST_INTERVAL) => Ok(Duration::from_secs(seconds)),
        Some(_) => wrong("long"),
        None if text.strip_suffix("ms").is_some_and(|number| number.parse::<u32>().is_ok()) => wrong("short"),
        None => Err(Wrong::new(format!("\"{}\" is not a time", text.escape_debug()), INTERVAL_HELP)),
    }
}

fn seconds(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let mut rest = text;
    let mut total = 0_u64;
    for (unit, size) in [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)] {
        if let Some((number, after)) = rest.split_once(unit) {
            total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(size)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(total)
}

const RATE_HELP: &str = r#"write a rate such as "10/minute"; the units are second, minute, hour and day"#;

/// `10/minute`: how many, and in what time.
pub(super) fn rate(text: &str) -> Parsed<(u32, Duration)> {
    let wrong = || Wrong::new(format!("\"{}\" is not a rate", text.escape_debug()), RATE_HELP);
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let units = [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400)];
    let (_, seconds) = units.into_iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
    let number = number.trim();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    match number.parse() {
        Ok(0) => {
            Err(Wrong::new("a rate of 0 admits nothing", "write action = \"drop\" instead of the limit"))
        }
        Ok(flows @ 1..=MAX_RATE) => Ok((flows, Duration::from_secs(seconds))),
        _ => Err(Wrong::new(
            format!("{text} is too fast"),
            format!("write at most \"{MAX_RATE}/{}\"", unit.trim()),
        )),
    }
}

/// How many may come at once.
pub(super) fn burst(number: i128) -> Parsed<u32> {
    let burst = u32::try_from(number).ok().filter(|burst| (1..=MAX_BURST).contains(burst));
    let help = format!("write a number from 1 to {MAX_BURST}");
    burst.ok_or_else(|| Wrong::new(format!("a burst of {number} is out of bounds"), help))
}

/// Protocols that have a name here, with their IANA numbers.
pub(crate) const PROTOCOLS: [(&str, u8); 10] = [
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("sctp", 132),
    ("igmp", 2),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ospf", 89),
];

/// A protocol by name or number.
pub(super) fn protocol(text: &str) -> Parsed<u8> {
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == text) {
        return Ok(*number);
    }
    text.parse().map_err(|_| {
        let names = PROTOCOLS.map(|(name, _)| name);
        let help = match suggest::nearest(text, names) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("write {}, or a number from 0 to 255", suggest::one_of(&names)),
        };
        Wrong::new(format!("\"{text}\" is not a protocol"), help)
    })
}

/// A protocol that a port-forward can carry.
pub(super) fn forwarded_protocol(text: &str) -> Parsed<u8> {
    match protocol(text)? {
        number @ (6 | 17) => Ok(number),
        _ => Err(Wrong::new(
            format!("a port-forward cannot carry \"{text}\""),
            r#"write "tcp", "udp" or ["tcp", "udp"]"#,
        )),
    }
}

/// An ICMP type by number, or a word that is looked up once the protocol is known.
pub(super) fn icmp_type(text: &str) -> Parsed<IcmpType> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(IcmpType::Name(text.to_owned()));
    }
    let number = text.parse().map(IcmpType::Number);
    number.map_err(|_| Wrong::new(format!("\"{text}\" is not an ICMP type"), "write a number from 0 to 255"))
}

const ADDRESS_HELP: &str = r#"write an address such as "192.168.80.3" or "fd00:80::3""#;

/// One IPv4 or IPv6 address.
pub(super) fn address(text: &str) -> Parsed<IpAddr> {
    let address = text.parse::<IpAddr>();
    let address = address.map_err(|_| Wrong::new(format!("\"{text}\" is not an address"), ADDRESS_HELP))?;
    Ok(address.to_canonical())
}

/// An address, or a network whose host bits are zero.
pub(super) fn network(text: &str) -> Parsed<IpNet> {
    if !text.contains('/') {
        return address(text).map(IpNet::from);
    }
    let network = text.parse::<IpNet>().map_err(|_| {
        let help = r#"write a network such as "192.168.80.0/24" or "fd00:80::/64""#;
        Wrong::new(format!("\"{text}\" is not an address or network"), help)
    })?;
    if network.trunc() != network {
        let help =
            format!("write \"{}\" for the network, \"{}\" for the one host", network.trunc(), network.addr());
        return Err(Wrong::new(format!("{text} is an address inside a network"), help));
    }
    Ok(unmapped(network))
}

/// IPv4 written as IPv6 (`::ffff:192.0.2.0/120`) is IPv4.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

/// Whether a word is meant as an address, so that it is never taken for a name.
fn looks_like_address(text: &str) -> bool {
    let starts_with_digit = text.starts_with(|first: char| first.is_ascii_digit());
    text.contains([':', '/'])
        || (starts_with_digit && (text.contains('.') || text.bytes().all(|b| b.is_ascii_digit())))
}

/// The name of a host or set where it is defined.
pub(super) fn name(text: &str) -> Parsed<String> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || !text.chars().all(allowed) || looks_like_address(text) {
        let help = "write a word of letters, digits, \"-\", \"_\" and \".\" that is not an address";
        return Err(Wrong::new(format!("\"{}\" cannot be a name", text.escape_debug()), help));
    }
    Ok(text.to_owned())
}

/// The name of a rule or port-forward: free text on one line.
pub(super) fn title(text: &str) -> Parsed<String> {
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err(Wrong::new(
            "a name is at least one letter and stays on one line",
            r#"write name = "ssh""#,
        ));
    }
    Ok(text.to_owned())
}

/// An interface as the kernel names it.
pub(super) fn interface(text: &str) -> Parsed<String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    if text.is_empty() || text.len() > 15 || text.contains(bad) || matches!(text, "." | "..") {
        let help = "write the name that `ip link` shows, such as \"eth0\"";
        return Err(Wrong::new(format!("\"{}\" cannot be an interface", text.escape_debug()), help));
    }
    if text == "lo" {
        return Err(Wrong::new(
            "lo cannot be managed: it leads nowhere",
            "take it out; it is never filtered",
        ));
    }
    Ok(text.to_owned())
}

/// One word of a set: an address, a network, a host or another set.
pub(super) fn member(text: &str) -> Parsed<Selector> {
    if text.starts_with('!') {
        let help = "write the \"!\" where the set is used: from = [\"!the-set\"]";
        return Err(Wrong::new("a set cannot exclude", help));
    }
    if looks_like_address(text) {
        return network(text).map(Selector::Network);
    }
    name(text).map(Selector::Name)
}

/// One word of a `from` or `to`: whether it excludes, and what.
pub(super) fn selector(text: &str) -> Parsed<(bool, Selector)> {
    match text.strip_prefix('!') {
        Some(rest) if rest.starts_with('!') => {
            Err(Wrong::new(format!("\"{text}\" excludes twice"), "write one \"!\" or none"))
        }
        Some(rest) => member(rest).map(|selector| (true, selector)),
        None => member(text).map(|selector| (false, selector)),
    }
}

/// One address, or the host that has it.
pub(super) fn host(text: &str) -> Parsed<HostWord> {
    if !looks_like_address(text) {
        return name(text).map(HostWord::Name);
    }
    let address = address(text)?;
    let unusable = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    if unusable || text == "255.255.255.255" {
        return Err(Wrong::new(format!("{address} is not the address of one host"), ADDRESS_HELP));
    }
    Ok(HostWord::Address(address))
}

const TARGET_HELP: &str = r#"write "worker1:22", "192.168.80.3:22" or "[fd00:80::3]:22""#;

/// `worker1:22`, `192.168.80.3:4040-4049`, `[fd00::3]:22`; without a port the outside ports are kept.
pub(super) fn target(text: &str) -> Parsed<TargetWord> {
    let (host_text, ports_text) = split_target(text)?;
    let ports = ports_text.map(ports).transpose()?;
    if host_text.is_empty() || host_text.contains('/') {
        return Err(Wrong::new(format!("\"{text}\" is not one target"), TARGET_HELP));
    }
    Ok(TargetWord { host: host(host_text)?, ports, drains: false })
}

fn split_target(text: &str) -> Parsed<(&str, Option<&str>)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        return match bracketed.split_once(']') {
            Some((host, "")) => Ok((host, None)),
            Some((host, rest)) if rest.starts_with(':') => Ok((host, Some(&rest[1..]))),
            _ => Err(Wrong::new(format!("\"{text}\" is not a target"), TARGET_HELP)),
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((host, port)) if !port.contains(':') => Ok((host, Some(port))),
        Some(_) => {
            let help = "put the IPv6 address in brackets: \"[fd00:80::3]:22\"";
            Err(Wrong::new(
                format!("\"{text}\": where the address ends and the port begins is not clear"),
                help,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn ports_are_numbers_or_ranges() {
        assert_eq!(ports("1"), Ok(range(1, 1)));
        assert_eq!(ports("65535"), Ok(range(65535, 65535)));
        assert_eq!(ports("2201-2204"), Ok(range(2201, 2204)));
        for wrong in
            ["0", "65536", "99999999999", "-1", "22-", "-22", "2204-2201", "0-5", "ssh", "", "80,443", "+5"]
        {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_units_or_are_seconds() {
        let seconds = |text: &str| duration(text).map(|time| time.as_secs()).ok();
        assert_eq!(seconds("2h4m"), Some(7440));
        assert_eq!(seconds("24h"), Some(86_400));
        assert_eq!(seconds("300s"), Some(300));
        assert_eq!(seconds("1d1h1m1s"), Some(90_061));
        assert_eq!(seconds("60"), Some(60));
        for wrong in ["", "0", "0s", "4m2h", "h", "2h4", "2w", "-1s", "1.5h", "400d", "99999999999999999999d"]
        {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rates_are_so_many_in_a_unit_of_time() {
        let read = |text: &str| rate(text).ok().map(|(flows, period)| (flows, period.as_secs()));
        assert_eq!(read("10/minute"), Some((10, 60)));
        assert_eq!(read("1000000 / second"), Some((1_000_000, 1)));
        assert_eq!((read("1/hour"), read("1/day")), (Some((1, 3600)), Some((1, 86_400))));
        for wrong in [
            "",
            "10",
            "/minute",
            "10/",
            "0/second",
            "-1/second",
            "+1/second",
            "10/week",
            "1000001/day",
            "1.5/hour",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert!(burst(0).is_err() && burst(100_001).is_err() && burst(100_000).is_ok());
    }

    #[test]
    fn protocols_have_names_and_numbers() {
        assert_eq!(protocol("icmpv6"), Ok(58));
        assert_eq!(protocol("47"), Ok(47));
        assert!(protocol("256").is_err());
        assert_eq!(protocol("tpc").map_err(|wrong| wrong.help), Err("did you mean \"tcp\"?".into()));
        assert!(forwarded_protocol("icmp").is_err());
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(address("::ffff:192.0.2.1"), Ok("192.0.2.1".parse().expect("an address")));
        assert_eq!(network("::ffff:192.0.2.0/120"), Ok("192.0.2.0/24".parse().expect("a network")));
        assert_eq!(network("::ffff:0:0/96"), Ok("0.0.0.0/0".parse().expect("a network")));
        assert_eq!(network("::/0"), Ok("::/0".parse().expect("a network")));
    }

    #[test]
    fn host_bits_are_refused_with_the_network() {
        let wrong = network("192.168.80.3/24").expect_err("host bits");
        assert!(wrong.help.contains("\"192.168.80.0/24\""), "{}", wrong.help);
        assert!(network("192.0.2.0/33").is_err());
        assert!(network("192.0.2.256").is_err());
    }

    #[test]
    fn targets_name_a_host_and_perhaps_ports() {
        let named = |ports| TargetWord { host: HostWord::Name("worker1".into()), ports, drains: false };
        assert_eq!(target("worker1:22"), Ok(named(Some(range(22, 22)))));
        assert_eq!(target("worker1:4040-4049"), Ok(named(Some(range(4040, 4049)))));
        assert_eq!(target("worker1"), Ok(named(None)));
        let v6 = HostWord::Address("fd00::3".parse().expect("an address"));
        assert_eq!(
            target("[fd00::3]:22"),
            Ok(TargetWord { host: v6, ports: Some(range(22, 22)), drains: false })
        );
        for wrong in [
            "fd00::3:22",
            "worker1:0",
            ":22",
            "[fd00::3]22",
            "[fd00::3",
            "10.0.0.0/8:22",
            "0.0.0.0:22",
            "224.0.0.1:5",
        ] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn selectors_may_exclude_once() {
        assert_eq!(selector("!office"), Ok((true, Selector::Name("office".into()))));
        assert!(selector("!!office").is_err());
        assert!(member("!office").is_err());
        assert!(selector("192.168.80").is_err(), "half an address is not a name");
    }
}
