//! Measures case after case, in rounds, and again where the machine was not itself.

use anyhow::{Context as _, Result};

use crate::{
    Common,
    ends::Traffic,
    gateway::Gateway,
    measure::{Rate, measure},
    noise::Noise,
    report::{Report, distinct},
    target::Target,
    testbed::Testbed,
};

/// One cell of the table.
pub(crate) struct Case {
    pub(crate) row: &'static str,
    pub(crate) column: String,
    pub(crate) traffic: Traffic,
    pub(crate) gateway: Gateway,
    /// This kernel may lack what it takes: then it is left out, and why is printed.
    pub(crate) optional: bool,
}

/// All gateways of one column, one after the other: what is compared is measured within seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Turn {
    pub(crate) round: u32,
    /// By place in the table.
    pub(crate) column: usize,
}

/// Measures all cases, `rounds` times in turn, and prints the table and whether the targets are met. `what`: the measurement on
/// the command line, and in words.
pub(crate) fn compare(
    what: (&'static str, &str),
    common: &Common,
    cases: &[Case],
    targets: &[Target],
) -> Result<()> {
    let wanted =
        |case: &&Case| common.only.is_empty() || common.only.iter().any(|word| case.row.contains(word));
    let mut cases: Vec<_> = cases.iter().filter(wanted).collect();
    let mut report = Report::new(what.0, what.1);
    for (row, reason) in missing(common, &cases)? {
        cases.retain(|case| case.row != row);
        report.leave_out(row, reason);
    }
    let columns = distinct(cases.iter().map(|case| case.column.as_str()));
    let mut run = Run { common, cases: &cases, columns: &columns, report, noise: Noise::new() };
    for round in 1..=common.rounds() {
        (0..columns.len()).try_for_each(|column| run.turn(Turn { round, column }))?;
    }
    if !common.quick {
        run.repeat_noisy()?;
    }
    run.report.print(common, targets, &run.noise.verdict(common.noisy || common.quick)?)
}

/// Optional gateways that this machine does not have, with the reason.
fn missing<'a>(common: &Common, cases: &[&'a Case]) -> Result<Vec<(&'a str, String)>> {
    let mut missing = Vec::new();
    for row in distinct(cases.iter().filter(|case| case.optional).map(|case| case.row)) {
        let Some(case) = cases.iter().find(|case| case.row == row) else { continue };
        if let Err(error) = case.gateway.stand_up(&Testbed::new()?, common, case.traffic) {
            let whole = format!("{error:#}");
            let cause = whole.lines().find(|line| line.contains("Error")).unwrap_or(&whole);
            missing.push((row, cause.to_owned()));
        }
    }
    Ok(missing)
}

struct Run<'a> {
    common: &'a Common,
    cases: &'a [&'a Case],
    columns: &'a [&'a str],
    report: Report,
    noise: Noise,
}

impl Run<'_> {
    /// Takes a turn, for the first time or instead of the last time.
    fn turn(&mut self, turn: Turn) -> Result<()> {
        let column = self.columns[turn.column];
        self.noise.begin(turn)?;
        for case in self.cases.iter().filter(|case| case.column == column) {
            let rate = measure(case, self.common).with_context(|| format!("{}, {column}", case.row))?;
            let machine = self.noise.look(turn)?;
            let Rate { pps, busy, flows } = rate;
            let flows = flows.map(|flows| format!(", {flows} flows")).unwrap_or_default();
            let (round, row, mpps) = (turn.round, case.row, pps / 1e6);
            eprintln!(
                "round {round}: {row:24} {column:16} {mpps:7.3} Mpps, busy {busy:.2}{flows}, machine {machine}"
            );
            self.report.set(turn, case, pps);
        }
        Ok(())
    }

    fn repeat_noisy(&mut self) -> Result<()> {
        for _ in 0..self.common.repeats {
            for turn in self.noise.noisy_turns() {
                eprintln!("round {}, {}: too noisy, once more", turn.round, self.columns[turn.column]);
                self.turn(turn)?;
            }
        }
        Ok(())
    }
}
