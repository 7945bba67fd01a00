//! What was measured in each round, the medians, and whether the targets hold.

use anyhow::Result;
use serde_json::{Value, json};

use crate::report::distinct;

/// What a measurement yields, and its unit.
pub(crate) type Quantity = (&'static str, &'static str);

/// The row that others are compared with.
const BASE: &str = "nftables";

/// All rounds of all rows.
pub(crate) struct Score {
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

/// Median, least, most.
#[derive(Clone, Copy)]
struct Summary([f64; 3]);

impl Score {
    pub(crate) fn new(title: &'static str, targets: Vec<Target>) -> Self {
        Self { title, cells: Vec::new(), targets }
    }

    /// One measurement of a round.
    pub(crate) fn add(&mut self, row: &str, quantity: Quantity, value: f64) {
        eprintln!("{row:24} {:34} {:>12} {}", quantity.0, figure(value), quantity.1);
        match self.cells.iter_mut().find(|cell| cell.row == row && cell.quantity == quantity) {
            Some(cell) => cell.rounds.push(value),
            None => self.cells.push(Cell { row: row.to_owned(), quantity, rounds: vec![value] }),
        }
    }

    /// As a table, or as one JSON document.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(&self.document())?);
        } else {
            println!("{}", self.table());
        }
        Ok(())
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
        let times = base.and_then(|base| cell.times(base)).filter(|times| times.0[0].is_finite());
        let times = times.map(|Summary([median, ..])| format!(" ×{}", figure(median)));
        let summary = summary(&cell.rounds).map(|summary| summary.to_string());
        summary.unwrap_or_default() + &times.unwrap_or_default()
    }

    fn verdict(&self, target: &Target) -> String {
        let Target { row, quantity: (what, unit), times, bound } = target;
        let of = times.as_ref().map_or_else(|| unit.to_string(), |other| format!("× {other}"));
        let Some(measured) = self.measured(target) else {
            return format!("{what}, {row}: asked {bound} {of} / not measured");
        };
        let holds = if bound.admits(measured.0[0]) { "holds" } else { "does not hold" };
        format!("{what}, {row}: asked {bound} {of} / measured {measured} / {holds}")
    }

    fn measured(&self, target: &Target) -> Option<Summary> {
        let own = self.cell(&target.row, target.quantity)?;
        match &target.times {
            Some(other) => own.times(self.cell(other, target.quantity)?),
            None => summary(&own.rounds),
        }
    }

    fn document(&self) -> Value {
        let cells = self.cells.iter().map(|cell| {
            let (quantity, unit) = cell.quantity;
            json!({ "gateway": cell.row, "quantity": quantity, "unit": unit, "rounds": cell.rounds,
                "median": summary(&cell.rounds).map(|summary| summary.0[0]) })
        });
        let targets = self.targets.iter().map(|target| {
            let measured = self.measured(target).map(|summary| summary.0);
            json!({ "gateway": target.row, "quantity": target.quantity.0, "times": target.times,
                "asked": target.bound.to_string(), "measured": measured,
                "holds": measured.map(|[median, ..]| target.bound.admits(median)) })
        });
        json!({ "title": self.title, "figures": cells.collect::<Vec<_>>(), "targets": targets.collect::<Vec<_>>() })
    }
}

impl Cell {
    /// How often another one, round by round.
    fn times(&self, other: &Self) -> Option<Summary> {
        let ratios: Vec<_> = self.rounds.iter().zip(&other.rounds).map(|(own, other)| own / other).collect();
        summary(&ratios)
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

impl std::fmt::Display for Summary {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [median, least, most] = self.0.map(figure);
        write!(to, "{median} ({least}-{most})")
    }
}

fn summary(values: &[f64]) -> Option<Summary> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    Some(Summary([*values.get(values.len() / 2)?, *values.first()?, *values.last()?]))
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
