//! The table at the end: medians, their spread, and how often that is the first row; and the targets.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    Common,
    chart::Chart,
    compare::{Case, Turn},
    summary::Summary,
    target::{self, Cell, Target},
};

/// All measurements: for each row and column, one a round.
pub(crate) struct Report {
    /// Of the measurement, on the command line.
    name: &'static str,
    title: String,
    left_out: Vec<(String, String)>,
    /// In the order of the table.
    rows: Vec<&'static str>,
    columns: Vec<String>,
    /// Packets per second, by row, column, round.
    rates: BTreeMap<(&'static str, String, u32), f64>,
}

impl Report {
    /// Without measurements yet.
    pub(crate) fn new(name: &'static str, title: &str) -> Self {
        let title = title.to_owned();
        Self {
            name,
            title,
            left_out: Vec::new(),
            rows: Vec::new(),
            columns: Vec::new(),
            rates: BTreeMap::new(),
        }
    }

    /// A row that is not measured, and why.
    pub(crate) fn leave_out(&mut self, row: &str, reason: String) {
        eprintln!("left out: {row}: {reason}");
        self.left_out.push((row.to_owned(), reason));
    }

    /// One measurement; of two of the same turn the later counts.
    pub(crate) fn set(&mut self, turn: Turn, case: &Case, rate: f64) {
        if !self.rows.contains(&case.row) {
            self.rows.push(case.row);
        }
        if !self.columns.contains(&case.column) {
            self.columns.push(case.column.clone());
        }
        self.rates.insert((case.row, case.column.clone(), turn.round), rate);
    }

    /// As a table with its targets, or as one JSON document; and as a chart, where one is asked for.
    ///
    /// # Errors
    /// A target that was measured does not hold.
    pub(crate) fn print(&self, common: &Common, targets: &[Target], noise: &str) -> Result<()> {
        if let Some(dir) = &common.svg {
            self.chart().write(dir, self.name)?;
        }
        if common.json {
            println!("{}", serde_json::to_string_pretty(&self.document(targets, noise))?);
        } else {
            println!("{}", self.text(targets, noise));
        }
        target::all_hold(targets.iter().filter_map(|target| target.holds(self)))
    }

    fn text(&self, targets: &[Target], noise: &str) -> String {
        let first = self.rows.first().unwrap_or(&"");
        let table = self.table();
        let left_out = self.left_out.iter().map(|(row, reason)| format!("Left out: {row}: {reason}"));
        let lines = left_out.chain(targets.iter().map(|target| target.line(self)));
        format!(
            "{}: one core, median (least–most) ×{first}\n\n{table}\nMachine: {noise}\n{}",
            self.title,
            lines.collect::<Vec<_>>().join("\n")
        )
    }

    /// Of one cell over another, round by round.
    pub(crate) fn ratio(&self, of: &Cell, over: &Cell) -> Option<Summary> {
        let over: BTreeMap<_, _> = self.rounds(over.0, &over.1).collect();
        Summary::of(self.rounds(of.0, &of.1).filter_map(|(round, rate)| Some(rate / over.get(&round)?)))
    }

    /// Rates of one cell, with their rounds.
    fn rounds(&self, row: &'static str, column: &str) -> impl Iterator<Item = (u32, f64)> {
        let cell = |round| (row, column.to_owned(), round);
        self.rates.range(cell(0)..=cell(u32::MAX)).map(|((_, _, round), rate)| (*round, *rate))
    }

    fn chart(&self) -> Chart<'_> {
        let places =
            (0..self.rows.len()).flat_map(|row| (0..self.columns.len()).map(move |column| (row, column)));
        let cells = places.filter_map(|(row, column)| {
            let rates = self.rounds(self.rows[row], &self.columns[column]).map(|(_, rate)| rate / 1e6);
            Some((row, column, Summary::of(rates)?))
        });
        Chart {
            title: &self.title,
            unit: "Mpps",
            rows: &self.rows,
            columns: &self.columns,
            cells: cells.collect(),
        }
    }

    fn document(&self, targets: &[Target], noise: &str) -> Value {
        let cells = self.rows.iter().flat_map(|row| self.columns.iter().map(move |column| (*row, column)));
        let cells = cells.filter_map(|(row, column)| {
            let Summary { median, least, most } =
                Summary::of(self.rounds(row, column).map(|(_, rate)| rate))?;
            let rounds: Vec<_> = self.rounds(row, column).map(|(_, rate)| rate.round()).collect();
            Some(json!({ "gateway": row, "case": column, "pps": median.round(),
                "least": least.round(), "most": most.round(), "rounds": rounds }))
        });
        let left_out = self.left_out.iter().map(|(row, reason)| json!({ "gateway": row, "reason": reason }));
        json!({
            "title": self.title,
            "machine": noise,
            "cells": cells.collect::<Vec<_>>(),
            "left_out": left_out.collect::<Vec<_>>(),
            "targets": targets.iter().map(|target| target.document(self)).collect::<Vec<_>>(),
        })
    }

    /// In Markdown.
    fn table(&self) -> String {
        let mut text =
            format!("| Mpps | {} |\n|---|{}\n", self.columns.join(" | "), "---|".repeat(self.columns.len()));
        for row in &self.rows {
            let cells = self.columns.iter().map(|column| self.cell(row, column).unwrap_or_default());
            text += &format!("| {row} | {} |\n", cells.collect::<Vec<_>>().join(" | "));
        }
        text
    }

    fn cell(&self, row: &'static str, column: &str) -> Option<String> {
        let rates = self.rounds(row, column).map(|(_, rate)| rate / 1e6);
        let Summary { median, least, most } = Summary::of(rates)?;
        let first = (*self.rows.first()?, column.to_owned());
        let times = self.ratio(&(row, column.to_owned()), &first).filter(|_| row != first.0);
        let times = times.map(|times| format!(" ×{:.2}", times.median)).unwrap_or_default();
        Some(format!("{median:.2} ({least:.2}–{most:.2}){times}"))
    }
}

/// Without what has been there before.
pub(crate) fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(Vec::new(), |mut found, item| {
        if !found.contains(&item) {
            found.push(item);
        }
        found
    })
}
