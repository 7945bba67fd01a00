//! Names for the numbers in events.

use anyhow::Result;
use netfw_common::event::Event;

use super::{instance::Instance, state::State};

/// What an instance remembers, read again when events show that it has changed.
pub struct Names {
    instance: Instance,
    state: State,
}

impl Names {
    /// Of an instance that is up.
    ///
    /// # Errors
    /// It remembers nothing.
    pub fn of(instance: &Instance) -> Result<Self> {
        Ok(Self { instance: instance.clone(), state: State::load(instance)? })
    }

    /// The memory that has the names of an event.
    pub fn state(&mut self, event: &Event) -> &State {
        if self.state.generation != event.generation
            && let Ok(state) = State::load(&self.instance)
        {
            self.state = state;
        }
        &self.state
    }

    /// The name of a rule.
    pub fn rule(&self, id: u32) -> String {
        let name = u16::try_from(id).ok().and_then(|id| self.state.ids.rule_name(id));
        name.map_or_else(|| format!("number {id}"), |(_, name)| name.to_owned())
    }

    /// How many rules have had a name.
    pub fn rules(&self) -> u32 {
        self.state.ids.rules()
    }
}
