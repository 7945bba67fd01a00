//! What differs between two rules files, in the words in which they are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Serialize;
use toml::{Table, Value};

use crate::daemon::state::Rules;

/// A thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Part of the file: `rule`, `port-forward`, `sets`, `policy` and so on.
    pub part: String,
    /// What is meant in it.
    pub name: String,
    /// How it differs.
    pub change: Change,
    /// In which words.
    pub details: Vec<String>,
}

/// How something differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is there, but says something else.
    Changed,
    /// It says the same, but stands before or after others.
    Moved,
}

/// Addresses of a set that are named one by one.
const SHOWN: usize = 5;

/// Everything that differs.
pub fn differences(old: &Rules, new: &Rules) -> Vec<Difference> {
    let (before, after) = (parse(old), parse(new));
    let parts: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let part = |part: &String| match (before.get(part), after.get(part)) {
        (old_value, new_value) if is_list(old_value) || is_list(new_value) => {
            of_lists(part, old_value, new_value)
        }
        (old_value, new_value) => {
            let words = |value: Option<&Value>, rules| table(value, part == "sets", rules);
            of_tables(part, &words(old_value, old), &words(new_value, new))
        }
    };
    parts.into_iter().flat_map(part).collect()
}

/// Rules that hold, or would, can be read.
fn parse(rules: &Rules) -> Table {
    rules.main().and_then(|(_, text)| text.parse().ok()).unwrap_or_default()
}

fn is_list(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_array)
}

/// The words of each key. A set that is read from a file has the words of that file.
fn table(value: Option<&Value>, sets: bool, rules: &Rules) -> BTreeMap<String, Vec<String>> {
    let table = value.and_then(Value::as_table).into_iter().flatten();
    let entry = |(key, value): (&String, &Value)| {
        let file = value.get("file").and_then(Value::as_str).filter(|_| sets);
        (key.clone(), file.map_or_else(|| words(value), |file| included(file, rules)))
    };
    table.map(entry).collect()
}

fn included(file: &str, rules: &Rules) -> Vec<String> {
    let text = rules.texts.iter().find(|(path, _)| path.ends_with(Path::new(file)));
    let lines = text.into_iter().flat_map(|(_, text)| text.lines());
    let words = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(words).collect(),
        other => vec![other.to_string()],
    }
}

fn of_tables(
    part: &str,
    before: &BTreeMap<String, Vec<String>>,
    after: &BTreeMap<String, Vec<String>>,
) -> Vec<Difference> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let difference = |key: &String| {
        let (old, new) = (before.get(key), after.get(key));
        let details = if part == "sets" { vec![members(old, new)] } else { vec![replaced(old, new)] };
        Difference { part: part.to_owned(), name: key.clone(), change: change(old, new), details }
    };
    differing.map(difference).collect()
}

fn change<T>(old: Option<T>, new: Option<T>) -> Change {
    match (old, new) {
        (None, _) => Change::Added,
        (_, None) => Change::Removed,
        _ => Change::Changed,
    }
}

fn replaced(old: Option<&Vec<String>>, new: Option<&Vec<String>>) -> String {
    let text = |words: Option<&Vec<String>>| words.map_or("(default)".into(), |words| words.join(", "));
    format!("{} → {}", text(old), text(new))
}

fn members(old: Option<&Vec<String>>, new: Option<&Vec<String>>) -> String {
    let set =
        |words: Option<&Vec<String>>| -> BTreeSet<String> { words.into_iter().flatten().cloned().collect() };
    let (old, new) = (set(old), set(new));
    let side = |sign: char, words: Vec<&String>| {
        let shown: Vec<String> = words.iter().take(SHOWN).map(|word| format!("{sign}{word}")).collect();
        let more = words.len().saturating_sub(SHOWN);
        let more = if more == 0 { String::new() } else { format!(" and {sign}{more} more") };
        shown.join(" ") + &more
    };
    let sides = [side('+', new.difference(&old).collect()), side('-', old.difference(&new).collect())];
    sides.into_iter().filter(|side| !side.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Tables in an order, such as `[[rule]]`. One without a name is known by all that it says.
fn of_lists(part: &str, before: Option<&Value>, after: Option<&Value>) -> Vec<Difference> {
    let (before, after) = (items(before), items(after));
    let known = |list: &[(String, &Table)], name: &str| list.iter().any(|(other, _)| other == name);
    let made = |name: &str, change, details| Difference {
        part: part.to_owned(),
        name: name.to_owned(),
        change,
        details,
    };
    let removed = before.iter().filter(|(name, _)| !known(&after, name));
    let mut all: Vec<Difference> =
        removed.map(|(name, item)| made(name, Change::Removed, says(item))).collect();
    let still = |list: &[(String, &Table)], other: &[(String, &Table)]| -> Vec<String> {
        list.iter().map(|(name, _)| name.clone()).filter(|name| known(other, name)).collect()
    };
    let moved =
        if part == "rule" { moved(&still(&before, &after), &still(&after, &before)) } else { Vec::new() };
    for (name, item) in &after {
        let Some((_, old)) = before.iter().find(|(other, _)| other == name) else {
            all.push(made(name, Change::Added, says(item)));
            continue;
        };
        let details = keys(old, item);
        if !details.is_empty() {
            all.push(made(name, Change::Changed, details));
        } else if moved.contains(name) {
            all.push(made(name, Change::Moved, Vec::new()));
        }
    }
    all
}

fn items(list: Option<&Value>) -> Vec<(String, &Table)> {
    let tables: Vec<&Table> = match list {
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_table).collect(),
        Some(Value::Table(table)) => vec![table],
        _ => Vec::new(),
    };
    // What is switched off is as good as gone.
    let enabled = |item: &&Table| item.get("enabled").and_then(Value::as_bool) != Some(false);
    let name = |item: &Table| match item.get("name") {
        Some(name) => words(name).concat(),
        None => says(item).join(", "),
    };
    tables.into_iter().filter(enabled).map(|item| (name(item), item)).collect()
}

/// All that a table says, apart from its name and that it takes part.
fn says(item: &Table) -> Vec<String> {
    let keys = item.iter().filter(|(key, _)| !["name", "enabled"].contains(&key.as_str()));
    keys.map(|(key, value)| format!("{key} = {}", words(value).join(", "))).collect()
}

fn keys(old: &Table, new: &Table) -> Vec<String> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).filter(|key| *key != "enabled").collect();
    // By its words: one of them says the same alone and in a list.
    let words = |key: &String| [old.get(key).map(words), new.get(key).map(words)];
    let differing = keys.into_iter().map(|key| (key, words(key))).filter(|(_, [old, new])| old != new);
    differing.map(|(key, [old, new])| format!("{key}: {}", replaced(old.as_ref(), new.as_ref()))).collect()
}

/// Names that left their place: all but those of a longest row that kept its order.
fn moved(before: &[String], after: &[String]) -> Vec<String> {
    let place = |name: &String| before.iter().position(|other| other == name).unwrap_or(0);
    let places: Vec<usize> = after.iter().map(place).collect();
    // Longest row that ends at each place, and what comes before it there.
    let mut rows: Vec<(usize, Option<usize>)> = Vec::new();
    for (index, here) in places.iter().enumerate() {
        let longest =
            (0..index).filter(|&earlier| places[earlier] < *here).max_by_key(|&earlier| rows[earlier].0);
        rows.push((longest.map_or(1, |earlier| rows[earlier].0 + 1), longest));
    }
    let mut kept = BTreeSet::new();
    let mut end = (0..rows.len()).max_by_key(|&index| rows[index].0);
    while let Some(index) = end {
        kept.insert(index);
        end = rows[index].1;
    }
    after
        .iter()
        .enumerate()
        .filter(|(index, _)| !kept.contains(index))
        .map(|(_, name)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        Rules {
            texts: vec![
                ("/etc/netfw/netfw.toml".into(), text.into()),
                ("/etc/netfw/bad.txt".into(), "203.0.113.7 # him\n\n".into()),
            ],
        }
    }

    fn told(old: &str, new: &str) -> Vec<String> {
        let told = |one: &Difference| format!("{} {} {:?} {:?}", one.part, one.name, one.change, one.details);
        differences(&rules(old), &rules(new)).iter().map(told).collect()
    }

    #[test]
    fn the_same_is_no_difference() {
        let text = "[policy]\ninput = \"drop\"\n[[rule]]\naction = \"accept\"\nport = 22\n";
        assert!(told(text, text).is_empty());
        let rule = |value: &str| format!("[[rule]]\nname = \"r\"\ninterface = {value}\n");
        assert!(told(&rule("\"eth0\""), &rule("[\"eth0\"]")).is_empty());
        let more = told(&rule("\"eth0\""), &rule("[\"eth0\", \"eth1\"]"));
        assert_eq!(more, [r#"rule r Changed ["interface: eth0 → eth0, eth1"]"#]);
    }

    #[test]
    fn rules_are_added_removed_changed_and_moved() {
        let rule = |name: &str, port: u16| format!("[[rule]]\nname = \"{name}\"\nport = {port}\n");
        let old = [rule("a", 1), rule("b", 2), rule("c", 3), rule("d", 4)].concat();
        let new = [rule("c", 3), rule("a", 1), rule("b", 5), rule("e", 6)].concat();
        assert_eq!(
            told(&old, &new),
            [
                r#"rule d Removed ["port = 4"]"#,
                "rule c Moved []",
                r#"rule b Changed ["port: 2 → 5"]"#,
                r#"rule e Added ["port = 6"]"#,
            ]
        );
    }

    #[test]
    fn what_is_switched_off_is_gone() {
        let rule = |enabled: &str| format!("[[rule]]\nname = \"a\"\nport = 1\n{enabled}");
        let [on, off] = ["enabled = true\n", "enabled = false\n"].map(rule);
        assert!(told(&rule(""), &on).is_empty() && told("", &off).is_empty());
        assert_eq!(told(&on, &off), [r#"rule a Removed ["port = 1"]"#]);
        assert_eq!(told(&off, &on), [r#"rule a Added ["port = 1"]"#]);
    }

    #[test]
    fn sets_and_settings_are_told_by_their_words() {
        let old = "[policy]\ninput = \"drop\"\n[sets]\noffice = [\"192.0.2.0/24\", \"b\"]\nbad = [\"203.0.113.7\"]\n";
        let new = "[policy]\ninput = \"accept\"\noutput = \"drop\"\n[sets]\noffice = [\"b\", \"c\"]\nbad = { file = \"bad.txt\" }\n";
        assert_eq!(
            told(old, new),
            [
                r#"policy input Changed ["drop → accept"]"#,
                r#"policy output Added ["(default) → drop"]"#,
                r#"sets office Changed ["+c -192.0.2.0/24"]"#,
            ]
        );
    }

    #[test]
    fn a_masquerade_has_no_name() {
        let old = "[masquerade]\nfrom = [\"a\"]\n";
        assert_eq!(told(old, "[[masquerade]]\nfrom = [\"a\"]\n"), Vec::<String>::new());
        let two = "[[masquerade]]\nfrom = [\"a\"]\n[[masquerade]]\nfrom = [\"b\"]\n";
        assert_eq!(told(old, two), [r#"masquerade from = b Added ["from = b"]"#]);
    }
}
