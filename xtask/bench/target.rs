//! What netfw is to reach, as a ratio of two cells of one table.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{report::Report, summary::Summary};

/// A cell: row and column.
pub(crate) type Cell = (&'static str, String);

/// At least so many times as much as another.
pub(crate) struct Target {
    of: Cell,
    over: Cell,
    least: f64,
}

/// An error where a target that was measured does not hold: a measurement is a test of its targets.
pub(crate) fn all_hold(targets: impl Iterator<Item = bool>) -> Result<()> {
    let targets: Vec<_> = targets.collect();
    let missed = targets.iter().filter(|holds| !**holds).count();
    ensure!(missed == 0, "{missed} of {} targets do not hold", targets.len());
    Ok(())
}

impl Target {
    /// One gateway over another, with the same traffic.
    pub(crate) fn over(row: &'static str, other: &'static str, column: &str, least: f64) -> Self {
        Self { of: (row, column.to_owned()), over: (other, column.to_owned()), least }
    }

    /// One gateway, with one traffic over another.
    pub(crate) fn keeps(row: &'static str, column: &str, other: &str, least: f64) -> Self {
        Self { of: (row, column.to_owned()), over: (row, other.to_owned()), least }
    }

    fn what(&self) -> String {
        let ((row, column), (other, with)) = (&self.of, &self.over);
        if row == other {
            format!("{row}, {column} ÷ {with}")
        } else {
            format!("{row} ÷ {other}, {column}")
        }
    }

    /// Whether it does; `None`: not measured.
    pub(crate) fn holds(&self, report: &Report) -> Option<bool> {
        report.ratio(&self.of, &self.over).map(|ratio| ratio.median >= self.least)
    }

    /// One line: what, asked, measured, and whether it holds.
    pub(crate) fn line(&self, report: &Report) -> String {
        let (what, least) = (self.what(), self.least);
        let Some(Summary { median, least: low, most }) = report.ratio(&self.of, &self.over) else {
            return format!("{what:52} ≥ {least:<5} not measured");
        };
        let holds = if self.holds(report) == Some(true) { "holds" } else { "does not hold" };
        format!("{what:52} ≥ {least:<5} {median:.2} ({low:.2}–{most:.2}) {holds}")
    }

    /// The same for programs.
    pub(crate) fn document(&self, report: &Report) -> Value {
        let ratio = report.ratio(&self.of, &self.over);
        let numbers = ratio.as_ref().map(|ratio| json!([ratio.least, ratio.median, ratio.most]));
        json!({ "what": self.what(), "at_least": self.least, "least_median_most": numbers, "holds": self.holds(report) })
    }
}
