//! How the targets of a port-forward are tested: `check`, and the `drain` of a single one.

use std::time::Duration;

use super::settings::ON_CHANGES;
use crate::{
    config::{
        model::{Check, TargetWord},
        problems::Problems,
        reader::{Node, Table},
        schema,
        source::Spanned,
        value::{self, Parsed, Wrong},
    },
    policy::{self, Probe},
};

const INTERVAL: Duration = Duration::from_secs(2);
const RISE: u32 = 2;
const FALL: u32 = 3;
const MOST_TESTS: u32 = 255;

/// One word of `to`, or a table that says more about it.
pub(super) fn target(node: &Node<'_>, problems: &mut Problems) -> Option<Spanned<TargetWord>> {
    if !node.is_table() {
        return node.word(problems, value::target);
    }
    let table = node.table(&schema::TARGET, problems)?;
    let word = table.require("target", problems);
    let drain = table.get("drain").and_then(|node| node.boolean(problems));
    let mut target = word?.word(problems, value::target)?;
    target.value.drains = drain.unwrap_or(false);
    Some(target)
}

/// The table `check`.
pub(super) fn check(node: &Node<'_>, problems: &mut Problems) -> Option<Check> {
    let table = node.table(&schema::CHECK, problems)?;
    let number = |key, default, problems: &mut Problems| match table.get(key) {
        Some(node) => node.number(problems, tests),
        None => Some(default),
    };
    let (rise, fall) = (number("rise", RISE, problems), number("fall", FALL, problems));
    let interval = match table.get("interval") {
        Some(node) => node.word_or_number(problems, value::interval).map(|interval| interval.value),
        None => Some(INTERVAL),
    };
    let port = table.get("port").map(|node| node.word_or_number(problems, value::port));
    let on_down = table.get("on-down").and_then(|node| node.choice(problems, &ON_CHANGES));
    let probe = probe(&table, problems);
    let check = policy::Check {
        probe: probe?,
        port: port.map_or(Some(None), |port| port.map(|port| Some(port.value)))?,
        interval: interval?,
        rise: rise?,
        fall: fall?,
        on_down: on_down.unwrap_or_default(),
    };
    Some(Check { check, span: node.span.clone() })
}

/// Exactly one kind of test.
fn probe(table: &Table<'_>, problems: &mut Problems) -> Option<Probe> {
    let [tcp, http, banner] = ["tcp", "http", "banner"].map(|key| table.get(key));
    let kinds: Vec<&Node<'_>> = [&tcp, &http, &banner].into_iter().flatten().collect();
    match kinds[..] {
        [_] => {}
        [] => {
            let help = r#"write tcp = true, http = "/" or banner = "SSH-" in it"#;
            problems.error(table.span(), "the check says not what to test", help);
            return None;
        }
        [_, second, ..] => {
            let message =
                "a check makes one kind of test: \"tcp\", \"http\" and \"banner\" exclude each other";
            problems.error(&second.span, message, "keep one of them");
            return None;
        }
    }
    if let Some(node) = tcp {
        return node.boolean(problems).and_then(|wanted| connects(wanted, &node, problems));
    }
    let path = http.map(|node| node.word(problems, path).map(|path| Probe::Http(path.value)));
    path.or_else(|| banner.map(|node| node.word(problems, words).map(|text| Probe::Banner(text.value))))?
}

fn connects(wanted: bool, node: &Node<'_>, problems: &mut Problems) -> Option<Probe> {
    if !wanted {
        problems.error(&node.span, "tcp = false tests nothing", "write tcp = true, or take \"check\" out");
    }
    wanted.then_some(Probe::Tcp)
}

fn tests(number: i128) -> Parsed<u32> {
    let tests = u32::try_from(number).ok().filter(|tests| (1..=MOST_TESTS).contains(tests));
    tests.ok_or_else(|| {
        let message = format!("{number} is no number of tests in a row");
        Wrong::new(message, format!("write a number from 1 to {MOST_TESTS}"))
    })
}

fn path(text: &str) -> Parsed<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !text.starts_with('/') || !plain {
        return Err(Wrong::new(
            format!("\"{}\" is not the path of a page", text.escape_debug()),
            "write what stands behind the host in an address, such as \"/\" or \"/health?full=1\"",
        ));
    }
    Ok(text.to_owned())
}

fn words(text: &str) -> Parsed<String> {
    if text.is_empty() || text.len() > 255 {
        return Err(Wrong::new(
            "a banner has 1 to 255 bytes",
            "write how the server's first words begin, such as \"SSH-\"",
        ));
    }
    Ok(text.to_owned())
}
