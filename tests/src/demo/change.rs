//! Step 4: a port leaves the rules file while people work.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{MASTER, Stage};
use crate::{lab::Background, wait};

/// What leaves the sample rules: the last of four ports, and its target.
const REMOVED: [(&str, &str); 2] = [("\"2201-2204\"", "\"2201-2203\""), (", \"worker4:22\"]", "]")];

/// "At once", on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);

impl Stage<'_> {
    /// The session through the removed port closes, the other goes on.
    pub(super) fn change(&self, rules: &str) -> Result<()> {
        self.narrator.step("4. A port leaves the rules file while sessions run");
        let mut stays = self.session(2201)?;
        let mut closes = self.session(2204)?;
        let fewer = without_last_port(rules)?;
        self.narrator.say(
            "\nin netfw.toml: port = \"2201-2203\" instead of \"2201-2204\", worker4 gone from its `to`",
        );
        fs::write(self.netfw.rules(), fewer)?;
        wait::within(AT_ONCE, "the session through 2204 to close", || (!closes.is_running()).then_some(()))?;
        self.narrator.claim("the session through 2204 is closed", true)?;
        self.narrator.print(closes.output().lines().last().unwrap_or_default());
        expect_ticking(&mut stays)?;
        self.narrator.claim("the session through 2201 did not notice", true)?;
        fs::write(self.netfw.rules(), rules)?;
        Ok(())
    }

    fn session(&self, port: u16) -> Result<Background> {
        let session = self.key.session(self.host("client"), MASTER, port)?;
        let mut words = self.key.client(MASTER, port);
        words.push("'hostname; while echo tick; do sleep 0.2; done'".to_owned());
        self.narrator.typed("client", &words);
        self.narrator.print(session.output().lines().next().unwrap_or_default());
        Ok(session)
    }
}

fn without_last_port(rules: &str) -> Result<String> {
    REMOVED.iter().try_fold(rules.to_owned(), |text, (old, new)| {
        ensure!(text.contains(old), "the sample rules have no {old} any more");
        Ok(text.replacen(old, new, 1))
    })
}

/// Fails unless the session prints on.
pub(super) fn expect_ticking(session: &mut Background) -> Result<()> {
    let before = session.output().len();
    wait::until("a tick from the session", || (session.output().len() > before).then_some(()))?;
    session.is_running().then_some(()).context("the session ended")
}
