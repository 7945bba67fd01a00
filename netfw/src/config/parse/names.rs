//! `[interfaces]`, `[hosts]` and `[sets]`.

use std::sync::Arc;

use super::include::Includes;
use crate::{
    config::{
        model::{Host, Interface, Members, Set},
        problems::Problems,
        reader::{Node, Table},
        schema,
        source::Spanned,
        value,
    },
    policy::{AntiSpoof, Role},
};

const ANTI_SPOOF: [(&str, AntiSpoof); 3] =
    [("strict", AntiSpoof::Strict), ("loose", AntiSpoof::Loose), ("off", AntiSpoof::Off)];

pub(super) fn interfaces(file: &Table<'_>, problems: &mut Problems) -> (Vec<Interface>, AntiSpoof) {
    let Some(node) = file.get("interfaces") else {
        let help = "write [interfaces] and below it external = [\"eth0\"], the interface towards the outside";
        problems.error(file.span(), "no interface is named", help);
        return (Vec::new(), AntiSpoof::default());
    };
    let Some(table) = node.table(&schema::INTERFACES, problems) else {
        return (Vec::new(), AntiSpoof::default());
    };
    let external = table.require("external", problems).map(|node| node.some_items(problems));
    let internal = table.get("internal").map(|node| node.items());
    let mut interfaces = Vec::new();
    for (role, nodes) in [(Role::External, external), (Role::Internal, internal)] {
        for node in nodes.unwrap_or_default() {
            let name = node.word(problems, value::interface);
            interfaces.extend(name.map(|name| Interface { name, role }));
        }
    }
    let anti_spoof = table.get("anti-spoof").and_then(|node| node.choice(problems, &ANTI_SPOOF));
    (interfaces, anti_spoof.unwrap_or_default())
}

pub(super) fn hosts(file: &Table<'_>, problems: &mut Problems) -> Vec<Host> {
    let Some(node) = file.get("hosts") else { return Vec::new() };
    let example = r#""192.168.80.3", or ["192.168.80.3", "fd00:80::3"]"#;
    let entries = node.names(example, problems);
    entries.into_iter().map(|(name, node)| host(&name, &node, problems)).collect()
}

fn host(name: &Spanned<&str>, node: &Node<'_>, problems: &mut Problems) -> Host {
    let label = format!("host \"{}\"", name.value.escape_debug());
    let (addresses, sound) = problems.about(label, |problems| {
        check_name(name, problems);
        let addresses = node.some_items(problems).into_iter();
        addresses.filter_map(|node| Some(node.word(problems, value::address)?.value)).collect()
    });
    Host { name: owned(name), addresses, sound }
}

pub(super) fn sets(file: &Table<'_>, includes: &mut Includes<'_>, problems: &mut Problems) -> Vec<Set> {
    let Some(node) = file.get("sets") else { return Vec::new() };
    let example = r#"["203.0.113.0/24", "worker1"], or { file = "addresses.txt" }"#;
    let entries = node.names(example, problems);
    entries.into_iter().map(|(name, node)| set(&name, &node, includes, problems)).collect()
}

fn set(name: &Spanned<&str>, node: &Node<'_>, includes: &mut Includes<'_>, problems: &mut Problems) -> Set {
    let label = format!("set \"{}\"", name.value.escape_debug());
    let (members, _) = problems.about(label, |problems| {
        check_name(name, problems);
        members(node, includes, problems)
    });
    Set { name: owned(name), members }
}

fn members(node: &Node<'_>, includes: &mut Includes<'_>, problems: &mut Problems) -> Members {
    if !node.is_table() {
        let words = node.items().into_iter();
        return Members::Written(words.filter_map(|node| node.word(problems, value::member)).collect());
    }
    let file = node.table(&schema::INCLUDE, problems).and_then(|table| table.require("file", problems));
    let path = file.and_then(|file| file.word(problems, |path| Ok(path.to_owned())));
    Members::Included(path.map_or_else(Arc::default, |path| includes.members(&path, problems)))
}

fn check_name(name: &Spanned<&str>, problems: &mut Problems) {
    if let Err(wrong) = value::name(name.value) {
        problems.error(&name.span, wrong.message, wrong.help);
    }
}

fn owned(name: &Spanned<&str>) -> Spanned<String> {
    Spanned { value: name.value.to_owned(), span: name.span.clone() }
}
