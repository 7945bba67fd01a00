//! What was measured in each round, the medians, and whether the targets hold.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{Common, chart::Chart, report::distinct, summary::Summary, target};

/// What a measurement yields, and its unit.
pub(crate) type Quantity = (&'static str, &'static str);

/// The row that others are compared with.
const BASE: &str = "nftables";

/// All rounds of all rows.
pub(crate) struct Score {
    /// Of the measurement, on the command line.
    name: &'static str,
    title: &'static str,
    cells: Vec<Cell>,
    targets: Vec<Target>,
}

struct Cell {
    row: String,
    quantity: Quantity,
    rounds: Vec<f64>,
}

/// A figure that is asked for.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) row: String,
    pub(crate) quantity: Quantity,
    /// Compared with this row, in the same round; nothing: as it is.
    pub(crate) times: Option<String>,
    pub(crate) bound: Bound,
}

/// Where a figure must lie.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Score {
    /// Without measurements yet.
    pub(crate) fn new(name: &'static str, title: &'static str, targets: Vec<Target>) -> Self {
        Self { name, title, cells: Vec::new(), targets }
    }

    /// One measurement of a round.
    pub(crate) fn add(&mut self, row: &str, quantity: Quantity, value: f64) {
        eprintln!("{row:24} {:34} {:>12} {}", quantity.0, figure(value), quantity.1);
        match self.cells.iter_mut().find(|cell| cell.row == row && cell.quantity == quantity) {
            Some(cell) => cell.rounds.push(value),
            None => self.cells.push(Cell { row: row.to_owned(), quantity, rounds: vec![value] }),
        }
    }

    /// As a table, or as one JSON document; and as a chart of what is asked for first.
    ///
    /// # Errors
    /// A target that was measured does not hold.
    pub(crate) fn print(&self, common: &Common) -> Result<()> {
        if let (Some(dir), Some(target)) = (&common.svg, self.targets.first()) {
            self.draw(target.quantity, dir)?;
        }
        if common.json {
            println!("{}", serde_json::to_string_pretty(&self.document())?);
        } else {
            println!("{}", self.table());
        }
        let holds = |target: &Target| Some(target.bound.admits(self.measured(target)?.median));
        target::all_hold(self.targets.iter().filter_map(holds))
    }

    fn draw(&self, (what, unit): Quantity, dir: &Path) -> Result<()> {
        let cells = self.cells.iter().filter(|cell| cell.quantity == (what, unit));
        let rows: Vec<_> = cells.clone().map(|cell| cell.row.as_str()).collect();
        let bars = cells.enumerate().filter_map(|(row, cell)| Some((row, 0, cell.summary()?)));
        let columns = [what.to_owned()];
        Chart { title: self.title, unit, rows: &rows, columns: &columns, cells: bars.collect() }
            .write(dir, self.name)
    }

    fn table(&self) -> String {
        let mut text =
            format!("{}: median (least-most), × nftables of the same round\n{:52}", self.title, "");
        let rows = distinct(self.cells.iter().map(|cell| cell.row.as_str()));
        rows.iter().for_each(|row| text += &format!(" {row:>36}"));
        for (what, unit) in distinct(self.cells.iter().map(|cell| cell.quantity)) {
            text += &format!(
                "\n{:52}",
                if unit.is_empty() { what.to_owned() } else { format!("{what}, {unit}") }
            );
            rows.iter().for_each(|row| text += &format!(" {:>36}", self.entry(row, (what, unit))));
        }
        for target in &self.targets {
            text += &format!("\ntarget: {}", self.verdict(target));
        }
        text
    }

    fn cell(&self, row: &str, quantity: Quantity) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.row == row && cell.quantity == quantity)
    }

    fn entry(&self, row: &str, quantity: Quantity) -> String {
        let Some(cell) = self.cell(row, quantity) else { return String::new() };
        let base = self.cell(BASE, quantity).filter(|base| base.row != cell.row);
        let times = base.and_then(|base| cell.times(base)).filter(|times| times.least.is_finite());
        let times = times.map(|times| format!(" ×{}", figure(times.median)));
        cell.summary().map(in_words).unwrap_or_default() + &times.unwrap_or_default()
    }

    fn verdict(&self, target: &Target) -> String {
        let Target { row, quantity: (what, unit), times, bound } = target;
        let of = times.as_ref().map_or_else(|| unit.to_string(), |other| format!("× {other}"));
        let Some(measured) = self.measured(target) else {
            return format!("{what}, {row}: asked {bound} {of} / not measured");
        };
        let holds = if bound.admits(measured.median) { "holds" } else { "does not hold" };
        let measured = in_words(measured);
        format!("{what}, {row}: asked {bound} {of} / measured {measured} / {holds}")
    }

    fn measured(&self, target: &Target) -> Option<Summary> {
        let own = self.cell(&target.row, target.quantity)?;
        match &target.times {
            Some(other) => own.times(self.cell(other, target.quantity)?),
            None => own.summary(),
        }
    }

    fn document(&self) -> Value {
        let cells = self.cells.iter().map(|cell| {
            let (quantity, unit) = cell.quantity;
            json!({ "gateway": cell.row, "quantity": quantity, "unit": unit, "rounds": cell.rounds,
                "median": cell.summary().map(|summary| summary.median) })
        });
        let targets = self.targets.iter().map(|target| {
            let measured = self.measured(target);
            json!({ "gateway": target.row, "quantity": target.quantity.0, "times": target.times,
                "asked": target.bound.to_string(), "measured": measured.map(|Summary { median, least, most }| [median, least, most]),
                "holds": measured.map(|summary| target.bound.admits(summary.median)) })
        });
        json!({ "title": self.title, "figures": cells.collect::<Vec<_>>(), "targets": targets.collect::<Vec<_>>() })
    }
}

impl Cell {
    /// How often another one, round by round.
    fn times(&self, other: &Self) -> Option<Summary> {
        Summary::of(self.rounds.iter().zip(&other.rounds).map(|(own, other)| own / other))
    }

    fn summary(&self) -> Option<Summary> {
        Summary::of(self.rounds.iter().copied())
    }
}

impl Bound {
    fn admits(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(to, "≥ {least}"),
            Self::AtMost(most) => write!(to, "≤ {most}"),
        }
    }
}

fn in_words(Summary { median, least, most }: Summary) -> String {
    format!("{} ({}-{})", figure(median), figure(least), figure(most))
}

/// With three digits that count.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}
