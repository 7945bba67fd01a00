//! `netfw generations`.

use serde::Serialize;

use super::{table::table, timestamp};
use crate::daemon::{
    library::Kept,
    standing::{Standing, calendar},
};

/// The document.
#[derive(Debug, Serialize)]
pub struct Generations {
    generations: Vec<Generation>,
}

#[derive(Debug, Serialize)]
struct Generation {
    generation: u32,
    /// Since when; none: it waits for confirmation.
    applied_at: Option<String>,
    rules_file: Option<String>,
    in_force: bool,
    confirmed: bool,
    /// Until when it waits for confirmation.
    deadline: Option<String>,
}

impl Generations {
    /// Of an instance, at a [`netfw_common::image::boot_time`]; the newest first.
    pub fn new(kept: &[Kept], standing: &Standing, boot_now: u64) -> Self {
        let holds = standing.generation(boot_now);
        let pending = standing.pending(boot_now).map(|trial| Generation {
            generation: trial.held.generation,
            applied_at: None,
            rules_file: None,
            in_force: true,
            confirmed: false,
            deadline: Some(timestamp(calendar(trial.deadline, boot_now))),
        });
        let kept = kept.iter().rev().map(|kept| Generation {
            generation: kept.generation,
            applied_at: Some(timestamp(kept.at)),
            rules_file: Some(kept.file.display().to_string()),
            in_force: kept.generation == holds,
            confirmed: standing.fresh.is_none_or(|fresh| fresh.held.generation != kept.generation),
            deadline: None,
        });
        Self { generations: pending.into_iter().chain(kept).collect() }
    }

    /// For the terminal.
    pub fn render(&self) -> String {
        let rows = self.generations.iter().map(|one| {
            let state = match (&one.deadline, one.in_force) {
                (Some(deadline), _) => format!("waits for confirmation until {deadline}"),
                (None, true) => "in force".into(),
                (None, false) => String::new(),
            };
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
            vec![one.generation.to_string(), text(&one.applied_at), text(&one.rules_file), state]
        });
        table(&["generation ", "applied", "rules", ""], rows.collect())
    }
}
