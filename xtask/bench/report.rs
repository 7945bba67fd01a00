//! The table at the end: medians, their spread, how often that is the first row, and what part of the first column.

use anyhow::Result;
use serde_json::json;

use crate::compare::Case;

/// All measurements: for each row and column, one a round.
pub(crate) struct Report {
    title: String,
    rates: Vec<(&'static str, String, f64)>,
}

/// Packets per second.
struct Summary {
    median: f64,
    least: f64,
    most: f64,
}

impl Report {
    /// Without measurements yet.
    pub(crate) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), rates: Vec::new() }
    }

    /// One measurement.
    pub(crate) fn add(&mut self, case: &Case, rate: f64) {
        self.rates.push((case.row, case.column.clone(), rate));
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

    fn rows(&self) -> Vec<&str> {
        distinct(self.rates.iter().map(|rate| rate.0))
    }

    fn columns(&self) -> Vec<&str> {
        distinct(self.rates.iter().map(|rate| rate.1.as_str()))
    }

    fn summary(&self, row: &str, column: &str) -> Option<Summary> {
        let here = self.rates.iter().filter(|rate| rate.0 == row && rate.1 == column);
        let mut rates: Vec<_> = here.map(|rate| rate.2).collect();
        rates.sort_by(f64::total_cmp);
        Some(Summary { median: *rates.get(rates.len() / 2)?, least: *rates.first()?, most: *rates.last()? })
    }

    fn document(&self) -> serde_json::Value {
        let rates = self.rates.iter();
        let rates =
            rates.map(|(row, column, rate)| json!({ "gateway": row, "case": column, "pps": rate.round() }));
        json!({ "title": self.title, "rates": rates.collect::<Vec<_>>() })
    }

    fn table(&self) -> String {
        let (rows, columns) = (self.rows(), self.columns());
        let mut text = format!(
            "{}: million packets per second of one core,\nmedian (least-most) ×first row ÷first column\n{:22}",
            self.title, ""
        );
        columns.iter().for_each(|column| text += &format!(" {column:>32}"));
        for row in &rows {
            text += &format!("\n{row:22}");
            for column in &columns {
                text +=
                    &format!(" {:>32}", self.cell(row, column, (rows[0], columns[0])).unwrap_or_default());
            }
        }
        text
    }

    fn cell(&self, row: &str, column: &str, first: (&str, &str)) -> Option<String> {
        let Summary { median, least, most } = self.summary(row, column)?;
        let times = |other: Option<Summary>| other.map_or(f64::NAN, |other| median / other.median);
        let (above, left) = (times(self.summary(first.0, column)), times(self.summary(row, first.1)));
        let [median, least, most] = [median, least, most].map(|rate| rate / 1e6);
        Some(format!("{median:.3} ({least:.3}-{most:.3}) ×{above:.2} ÷{left:.2}"))
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}
