//! The table at the end: medians, their spread, and how often that is nftables.

use std::fmt;

use crate::gateway::Gateway;

/// All measurements: for each gateway and number of flows, one a round.
pub(crate) struct Report {
    gateways: Vec<Gateway>,
    flows: Vec<u32>,
    rates: Vec<(Gateway, usize, f64)>,
}

impl Report {
    /// Without measurements yet.
    pub(crate) fn new(gateways: &[Gateway], flows: &[u32]) -> Self {
        Self { gateways: gateways.to_vec(), flows: flows.to_vec(), rates: Vec::new() }
    }

    /// One measurement, of the number of flows at `column`.
    pub(crate) fn add(&mut self, gateway: Gateway, column: usize, rate: f64) {
        self.rates.push((gateway, column, rate));
    }

    fn sorted(&self, gateway: Gateway, column: usize) -> Vec<f64> {
        let here = self.rates.iter().filter(|rate| (rate.0, rate.1) == (gateway, column));
        let mut rates: Vec<_> = here.map(|rate| rate.2).collect();
        rates.sort_by(f64::total_cmp);
        rates
    }

    /// Median, least and most.
    fn summary(&self, gateway: Gateway, column: usize) -> Option<(f64, f64, f64)> {
        let rates = self.sorted(gateway, column);
        Some((*rates.get(rates.len() / 2)?, *rates.first()?, *rates.last()?))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "64-byte UDP through a port-forward, one core, million packets per second:")?;
        writeln!(to, "median (least-most) × nftables")?;
        write!(to, "{:18}", "flows")?;
        self.flows.iter().try_for_each(|flows| write!(to, " {flows:>24}"))?;
        for &gateway in &self.gateways {
            write!(to, "\n{gateway:18}")?;
            for column in 0..self.flows.len() {
                let Some((median, least, most)) = self.summary(gateway, column) else { continue };
                let spread = format!("({:.2}-{:.2})", least / 1e6, most / 1e6);
                write!(to, " {:5.2} {spread:11}", median / 1e6)?;
                if let Some((nftables, _, _)) = self.summary(Gateway::Nftables, column) {
                    write!(to, " ×{:5.1}", median / nftables)?;
                }
            }
        }
        Ok(())
    }
}
