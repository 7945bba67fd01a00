//! `[masquerade]`, `[[port-forward]]` and `[[rule]]`.

use super::check;
use crate::{
    config::{
        model::{Failsafe, Masquerade, PortForward, Rule, Selection, TargetWord, Title},
        problems::Problems,
        reader::{Node, Table},
        schema::{self, Schema},
        source::{Span, Spanned},
        value::{self, Parsed},
    },
    policy::{Action, Chain, Dependence, Limit, LimitScope, SSH, SourceNat, Spread, SynProxy},
};

const CHAINS: [(&str, Chain); 3] =
    [("input", Chain::Input), ("forward", Chain::Forward), ("output", Chain::Output)];

pub(super) const ACTIONS: [(&str, Action); 3] =
    [("accept", Action::Accept), ("drop", Action::Drop), ("reject", Action::Reject)];

const BALANCES: [(&str, Spread); 3] =
    [("round-robin", Spread::RoundRobin), ("source-hash", Spread::SourceHash), ("random", Spread::Random)];

const DEPENDENCES: [(&str, Dependence); 2] = [
    ("endpoint-independent", Dependence::Independent),
    ("address-and-port-dependent", Dependence::AddressAndPort),
];

const SOURCE_NATS: [(&str, SourceNat); 3] =
    [("auto", SourceNat::Auto), ("always", SourceNat::Always), ("never", SourceNat::Never)];

const SYN_PROXIES: [(&str, SynProxy); 2] = [("off", SynProxy::Off), ("auto", SynProxy::Auto)];

const SCOPES: [(&str, LimitScope); 2] = [("rule", LimitScope::Rule), ("source", LimitScope::Source)];

/// Each table of an array of tables, read by `read`.
pub(super) fn tables<T>(
    node: Option<Node<'_>>,
    schema: &'static Schema,
    problems: &mut Problems,
    read: impl Fn(&Node<'_>, &mut Problems) -> Option<T>,
) -> Vec<T> {
    let Some(node) = node else { return Vec::new() };
    if node.is_table() {
        problems.error(
            &node.span,
            format!("{} stands in single brackets", schema.header),
            format!("write {}", schema.header),
        );
    }
    node.items().iter().filter_map(|node| read(node, problems)).collect()
}

pub(super) fn failsafe(file: &Table<'_>, problems: &mut Problems) -> Option<Failsafe> {
    let node = file.get("failsafe")?;
    problems
        .about("failsafe", |problems| {
            let table = node.table(&schema::FAILSAFE, problems)?;
            let port = table.get("ssh-port").and_then(|node| node.word_or_number(problems, value::port));
            let from = selection(&table.require("from", problems)?, problems);
            Some(Failsafe { head: node.span.clone(), port: port.map_or(SSH, |port| port.value), from })
        })
        .0
}

pub(super) fn block(file: &Table<'_>, problems: &mut Problems) -> Option<Selection> {
    let node = file.get("block")?;
    problems
        .about("block", |problems| {
            let table = node.table(&schema::BLOCK, problems)?;
            Some(selection(&table.require("from", problems)?, problems))
        })
        .0
}

pub(super) fn masquerades(file: &Table<'_>, problems: &mut Problems) -> Vec<Masquerade> {
    let nodes = file.get("masquerade").map(|node| node.items()).unwrap_or_default();
    nodes.iter().filter_map(|node| masquerade(node, problems)).collect()
}

fn masquerade(node: &Node<'_>, problems: &mut Problems) -> Option<Masquerade> {
    problems
        .about("masquerade", |problems| {
            let table = node.table(&schema::MASQUERADE, problems)?;
            let from = selection(&table.require("from", problems)?, problems);
            let ports = table.get("ports").and_then(|node| node.word_or_number(problems, value::ports));
            let to = words(table.get("to"), problems, value::host);
            let head = node.span.clone();
            let ports = ports.map(|ports| ports.value);
            let mapping = dependence(table.get("mapping"), &head, problems).value;
            let filtering = dependence(table.get("filtering"), &head, problems);
            Some(Masquerade { head, from, to, ports, mapping, filtering })
        })
        .0
}

fn dependence(node: Option<Node<'_>>, head: &Span, problems: &mut Problems) -> Spanned<Dependence> {
    let span = node.as_ref().map_or(head, |node| &node.span).clone();
    let value = node.and_then(|node| node.choice(problems, &DEPENDENCES)).unwrap_or_default();
    Spanned { value, span }
}

pub(super) fn port_forward(node: &Node<'_>, problems: &mut Problems) -> Option<PortForward> {
    let title = title(node, "port-forward", "port-forward");
    let label = title.label.clone();
    let (read, sound) = problems.about(label, |problems| {
        let table = node.table(&schema::PORT_FORWARD, problems)?;
        Some(port_forward_keys(&table, title, problems))
    });
    Some(PortForward { sound, ..read? })
}

fn port_forward_keys(table: &Table<'_>, title: Title, problems: &mut Problems) -> PortForward {
    let protocol = table.require("protocol", problems);
    let port = table.require("port", problems);
    let to = table.require("to", problems);
    let choice = table.get("source-nat").and_then(|node| node.choice(problems, &SOURCE_NATS));
    let timeout = table.get("idle-timeout");
    let syn_proxy = syn_proxy(table.get("syn-proxy"), &title.head, problems);
    check_title(table, problems);
    PortForward {
        title,
        sound: true,
        enabled: enabled(table, problems),
        protocols: words(protocol, problems, value::forwarded_protocol),
        ports: words(port, problems, value::ports),
        to: targets(to, problems),
        from: table.get("from").map(|node| selection(&node, problems)),
        one_to_one: table.get("spread").and_then(|node| {
            node.choice(problems, &[("one-to-one", ())])?;
            Some(node.span)
        }),
        balance: table
            .get("balance")
            .and_then(|node| Some(Spanned { value: node.choice(problems, &BALANCES)?, span: node.span })),
        addresses: words(table.get("address"), problems, value::host),
        source_nat: choice.unwrap_or_default(),
        idle_timeout: timeout.and_then(|node| node.word_or_number(problems, value::duration)),
        check: table.get("check").and_then(|node| check::check(&node, problems)),
        syn_proxy,
    }
}

fn syn_proxy(node: Option<Node<'_>>, head: &Span, problems: &mut Problems) -> Spanned<SynProxy> {
    let span = node.as_ref().map_or(head, |node| &node.span).clone();
    let value = node.and_then(|node| node.choice(problems, &SYN_PROXIES)).unwrap_or_default();
    Spanned { value, span }
}

pub(super) fn rule(node: &Node<'_>, problems: &mut Problems) -> Option<Rule> {
    let written = node.peek("chain").map(|word| word.value);
    let chain = written.filter(|word| CHAINS.iter().any(|(chain, _)| chain == word));
    let title = title(node, "rule", chain.unwrap_or("input"));
    let label = title.label.clone();
    let (read, sound) = problems.about(label, |problems| {
        let table = node.table(&schema::RULE, problems)?;
        Some(rule_keys(&table, title, problems))
    });
    Some(Rule { sound, ..read? })
}

fn rule_keys(table: &Table<'_>, title: Title, problems: &mut Problems) -> Rule {
    let chain = table.get("chain").and_then(|node| node.choice(problems, &CHAINS));
    let action = table.require("action", problems).and_then(|node| node.choice(problems, &ACTIONS));
    check_title(table, problems);
    Rule {
        title,
        sound: true,
        enabled: enabled(table, problems),
        chain: chain.unwrap_or(Chain::Input),
        action,
        protocols: words(table.get("protocol"), problems, value::protocol),
        from: table.get("from").map(|node| selection(&node, problems)),
        to: table.get("to").map(|node| selection(&node, problems)),
        ports: words(table.get("port"), problems, value::ports),
        from_ports: words(table.get("from-port"), problems, value::ports),
        icmp_types: words(table.get("icmp-type"), problems, value::icmp_type),
        interfaces: names(table.get("interface"), problems, value::interface),
        port_forwards: names(table.get("port-forward"), problems, value::title),
        log: table.get("log").and_then(|node| node.boolean(problems)).unwrap_or(false),
        limit: table.get("limit").and_then(|node| limit(&node, problems)),
    }
}

/// Flows that may come at once where the file does not say, as in nftables.
const BURST: u32 = 5;

fn limit(node: &Node<'_>, problems: &mut Problems) -> Option<Spanned<Limit>> {
    let table = node.table(&schema::LIMIT, problems)?;
    let rate = table.require("rate", problems).and_then(|node| node.word(problems, value::rate));
    let burst = table.get("burst").map(|node| node.number(problems, value::burst));
    let scope = table.get("per").and_then(|node| node.choice(problems, &SCOPES));
    let (flows, period) = rate?.value;
    let limit =
        Limit { flows, period, burst: burst.unwrap_or(Some(BURST))?, scope: scope.unwrap_or_default() };
    Some(Spanned { value: limit, span: node.span.clone() })
}

/// How the table at `node` is called, before it is known whether that is a good name.
fn title(node: &Node<'_>, kind: &str, prefix: &str) -> Title {
    let head = node.span.clone();
    let (name, span) = match node.peek("name") {
        Some(name) => (name.value.to_owned(), name.span),
        None => (format!("{prefix}#{}", head.place().line), head.clone()),
    };
    let label = format!("{kind} \"{}\"", name.escape_debug());
    Title { name, span, head, label }
}

fn check_title(table: &Table<'_>, problems: &mut Problems) {
    if let Some(name) = table.get("name") {
        name.word(problems, value::title);
    }
}

/// Whether it takes part. What is switched off stays in the file, and is looked at for mistakes.
fn enabled(table: &Table<'_>, problems: &mut Problems) -> bool {
    table.get("enabled").and_then(|node| node.boolean(problems)).unwrap_or(true)
}

fn selection(node: &Node<'_>, problems: &mut Problems) -> Selection {
    Selection { words: words(Some(node.clone()), problems, value::selector) }
}

fn targets(node: Option<Node<'_>>, problems: &mut Problems) -> Vec<Spanned<TargetWord>> {
    let nodes = node.map(|node| node.some_items(problems)).unwrap_or_default();
    nodes.iter().filter_map(|node| check::target(node, problems)).collect()
}

/// One name or a list of them; none if the key is not there.
fn names(
    node: Option<Node<'_>>,
    problems: &mut Problems,
    parse: impl Fn(&str) -> Parsed<String>,
) -> Vec<Spanned<String>> {
    let nodes = node.map(|node| node.some_items(problems)).unwrap_or_default();
    nodes.iter().filter_map(|node| node.word(problems, &parse)).collect()
}

/// As [`names`], where a word may also be a number.
fn words<T>(
    node: Option<Node<'_>>,
    problems: &mut Problems,
    parse: impl Fn(&str) -> Parsed<T>,
) -> Vec<Spanned<T>> {
    let nodes = node.map(|node| node.some_items(problems)).unwrap_or_default();
    nodes.iter().filter_map(|node| node.word_or_number(problems, &parse)).collect()
}
