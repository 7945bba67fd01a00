//! `[policy]`, `[timeouts]`, `[flows]`, `[engine]` and `[reload]`.

use std::time::Duration;

use super::filters::ACTIONS;
use crate::{
    config::{
        model::{DefaultActions, Engine, Flows, Reload},
        problems::Problems,
        reader::{Node, Table},
        schema::{self, Schema},
        value::{self, Parsed, Wrong},
    },
    policy::{Action, EngineMode, OnChange, Timeouts},
};

const DEFAULT_CAPACITY: u32 = 262_144;
const LEAST_CAPACITY: u32 = 1_024;
const MOST_CAPACITY: u32 = 16_777_216;

pub(super) const ON_CHANGES: [(&str, OnChange); 2] = [("cut", OnChange::Cut), ("keep", OnChange::Keep)];

const MODES: [(&str, EngineMode); 4] = [
    ("auto", EngineMode::Auto),
    ("xdp", EngineMode::Xdp),
    ("xdp-generic", EngineMode::XdpGeneric),
    ("tc", EngineMode::Tc),
];

fn section<'t>(
    file: &Table<'t>,
    key: &'static str,
    schema: &'static Schema,
    problems: &mut Problems,
) -> Option<Table<'t>> {
    file.get(key)?.table(schema, problems)
}

pub(super) fn default_actions(file: &Table<'_>, problems: &mut Problems) -> DefaultActions {
    let table = section(file, "policy", &schema::POLICY, problems);
    let mut action = |key, default| {
        let node = table.as_ref().and_then(|table| table.get(key));
        node.and_then(|node| node.choice(problems, &ACTIONS)).unwrap_or(default)
    };
    DefaultActions {
        input: action("input", Action::Drop),
        forward: action("forward", Action::Drop),
        output: action("output", Action::Accept),
        span: table.as_ref().map_or_else(|| file.span().clone(), |table| table.span().clone()),
    }
}

pub(super) fn timeouts(file: &Table<'_>, problems: &mut Problems) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let Some(table) = section(file, "timeouts", &schema::TIMEOUTS, problems) else { return timeouts };
    let mut read = |key, least, rfc, value: &mut Duration| {
        let Some(node) = table.get(key) else { return };
        *value = node.word_or_number(problems, value::duration).map_or(*value, |time| time.value);
        warn_if_short(&node, *value, least, rfc, problems);
    };
    read("tcp-established", 7440, "RFC 5382 REQ-5", &mut timeouts.tcp_established);
    read("tcp-transitory", 240, "RFC 5382 REQ-5", &mut timeouts.tcp_opening);
    timeouts.tcp_closed = timeouts.tcp_opening;
    read("tcp-opening", 240, "RFC 5382 REQ-5", &mut timeouts.tcp_opening);
    read("tcp-closed", 240, "RFC 7857 section 2.2", &mut timeouts.tcp_closed);
    read("udp", 120, "RFC 4787 REQ-5", &mut timeouts.udp);
    read("udp-unanswered", 0, "", &mut timeouts.udp_unanswered);
    read("icmp", 60, "RFC 5508 REQ-2", &mut timeouts.icmp);
    read("other", 0, "", &mut timeouts.other);
    warn_if_contradictory(&table, &timeouts, problems);
    timeouts
}

fn warn_if_short(node: &Node<'_>, time: Duration, least: u64, rfc: &str, problems: &mut Problems) {
    if time.as_secs() < least {
        let message =
            format!("{}s is less than the {least}s of {rfc}: idle connections will break", time.as_secs());
        problems.warning(&node.span, message, format!("write \"{least}s\" or more"));
    }
}

fn warn_if_contradictory(table: &Table<'_>, timeouts: &Timeouts, problems: &mut Problems) {
    let written = |own, other| if table.get(own).is_some() { own } else { other };
    let (opening, closed) =
        (written("tcp-opening", "tcp-transitory"), written("tcp-closed", "tcp-transitory"));
    let established = ("tcp-established", timeouts.tcp_established);
    let pairs = [
        ((opening, timeouts.tcp_opening), established, "the flows nobody answers live longest"),
        ((closed, timeouts.tcp_closed), established, "connections that are over live longest"),
        (
            ("udp-unanswered", timeouts.udp_unanswered),
            ("udp", timeouts.udp),
            "the flows nobody answers live longest",
        ),
    ];
    for ((lesser, short), (greater, long), so) in
        pairs.into_iter().filter(|(short, long, _)| short.1 > long.1)
    {
        let node = table.get(lesser).or_else(|| table.get(greater));
        let span = node.map_or_else(|| table.span().clone(), |node| node.span);
        let message = format!("\"{lesser}\" ({}s) is longer than \"{greater}\": {so}", short.as_secs());
        problems.warning(&span, message, format!("write at most \"{}s\" for \"{lesser}\"", long.as_secs()));
    }
}

pub(super) fn flows(file: &Table<'_>, problems: &mut Problems) -> Flows {
    let table = section(file, "flows", &schema::FLOWS, problems);
    let table = table.as_ref();
    let capacity = table.and_then(|table| table.get("capacity"));
    let on_change = table.and_then(|table| table.get("on-change"));
    Flows {
        capacity: capacity
            .and_then(|node| node.number(problems, capacity_in_bounds))
            .unwrap_or(DEFAULT_CAPACITY),
        on_change: on_change.and_then(|node| node.choice(problems, &ON_CHANGES)).unwrap_or_default(),
    }
}

fn capacity_in_bounds(number: i128) -> Parsed<u32> {
    let capacity = u32::try_from(number).ok().filter(|n| (LEAST_CAPACITY..=MOST_CAPACITY).contains(n));
    capacity.ok_or_else(|| {
        let help = format!("write a number of flows from {LEAST_CAPACITY} to {MOST_CAPACITY}");
        Wrong::new(format!("a capacity of {number} is out of bounds"), help)
    })
}

pub(super) fn engine(file: &Table<'_>, problems: &mut Problems) -> Engine {
    let table = section(file, "engine", &schema::ENGINE, problems);
    let table = table.as_ref();
    let mode = table.and_then(|table| table.get("mode")).and_then(|node| mode(&node, problems));
    let mss_clamp = table.and_then(|table| table.get("mss-clamp"));
    Engine {
        mode: mode.unwrap_or_default(),
        mss_clamp: mss_clamp.and_then(|node| node.boolean(problems)).unwrap_or(true),
    }
}

fn mode(node: &Node<'_>, problems: &mut Problems) -> Option<EngineMode> {
    if node.is("xdp-offload") {
        let message = "\"xdp-offload\" is not yet supported: no program of netfw runs inside a network card";
        problems.error(&node.span, message, "write \"auto\", or \"xdp\" for the driver's own XDP");
        return None;
    }
    node.choice(problems, &MODES)
}

pub(super) fn reload(file: &Table<'_>, problems: &mut Problems) -> Reload {
    let table = section(file, "reload", &schema::RELOAD, problems);
    let table = table.as_ref();
    let watch = table.and_then(|table| table.get("watch"));
    let confirm = table.and_then(|table| table.get("confirm"));
    Reload {
        watch: watch.and_then(|node| node.boolean(problems)).unwrap_or(true),
        confirm: confirm
            .and_then(|node| node.word_or_number(problems, value::time_to_confirm))
            .map(|time| time.value),
    }
}
