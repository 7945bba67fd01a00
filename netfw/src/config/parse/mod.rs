//! Text → [`Model`]: every word is understood, or reported with its place.

mod check;
mod filters;
mod include;
mod lists;
mod names;
mod settings;
mod syntax;

use std::{io, path::Path, sync::Arc};

use toml::de::DeTable;

pub(super) use self::syntax::Damage;
use self::{filters::tables, include::Includes};
use super::{model::Model, problems::Problems, reader::Table, schema, source::Source};

/// How included files are read.
pub(super) type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Arc<str>>;

/// Reads the rules file `source`. The second value tells which parts of the text could not be read as TOML.
pub(super) fn parse(source: &Arc<Source>, read: Read<'_>, problems: &mut Problems) -> (Model, Damage) {
    let (tree, errors) = DeTable::parse_recoverable(source.text());
    let damage = Damage::assess(source, &errors);
    let file = Table::root(tree.get_ref(), &schema::FILE, source, problems);
    (model(&file, source, read, problems), damage)
}

fn model(file: &Table<'_>, source: &Arc<Source>, read: Read<'_>, problems: &mut Problems) -> Model {
    let mut includes = Includes::new(source, read);
    let (interfaces, anti_spoof) = names::interfaces(file, problems);
    Model {
        interfaces,
        anti_spoof,
        hosts: names::hosts(file, problems),
        sets: names::sets(file, &mut includes, problems),
        default_actions: settings::default_actions(file, problems),
        failsafe: filters::failsafe(file, problems),
        block: filters::block(file, problems),
        masquerades: filters::masquerades(file, problems),
        port_forwards: tables(
            file.get("port-forward"),
            &schema::PORT_FORWARD,
            problems,
            filters::port_forward,
        ),
        rules: tables(file.get("rule"), &schema::RULE, problems, filters::rule),
        timeouts: settings::timeouts(file, problems),
        flows: settings::flows(file, problems),
        engine: settings::engine(file, problems),
        reload: settings::reload(file, problems),
        sources: includes.into_sources(),
    }
}
