//! What is told about targets beside the state that the datapath holds: since when, and what was wrong.

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::daemon::{instance::Instance, state};

/// Entries by name of the port-forward and label of the target.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Book(BTreeMap<String, BTreeMap<String, Entry>>);

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When its state changed last.
    pub since: SystemTime,
    /// Why the last bad test was bad.
    pub error: Option<String>,
}

impl Book {
    /// The book of an instance; an empty one where there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(instance: &Instance) -> Result<Self> {
        Ok(state::read(&path(instance))?.unwrap_or_default())
    }

    pub(super) fn save(&self, instance: &Instance) -> Result<()> {
        state::write(&path(instance), self)
    }

    /// The entry of a target.
    pub fn entry(&self, forward: &str, label: &str) -> Option<&Entry> {
        self.0.get(forward)?.get(label)
    }

    pub(super) fn note(&mut self, forward: &str, label: &str, error: Option<String>) {
        let entry = Entry { since: SystemTime::now(), error };
        self.0.entry(forward.to_owned()).or_default().insert(label.to_owned(), entry);
    }

    /// Forgets targets that are not checked any more; says whether there were any.
    pub(super) fn keep(&mut self, checked: impl Fn(&str, &str) -> bool) -> bool {
        let before: usize = self.0.values().map(BTreeMap::len).sum();
        for (forward, targets) in &mut self.0 {
            targets.retain(|label, _| checked(forward, label));
        }
        self.0.retain(|_, targets| !targets.is_empty());
        before != self.0.values().map(BTreeMap::len).sum::<usize>()
    }
}

fn path(instance: &Instance) -> std::path::PathBuf {
    instance.run().join("health.json")
}
