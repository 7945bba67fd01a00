//! Step 2: who gets in from outside, and who doesn't.

use anyhow::Result;

use super::{MASTER, Stage};

impl Stage<'_> {
    /// SSH into every machine by its port; everything else is shut, and the counters say why.
    pub(super) fn access(&self) -> Result<()> {
        self.narrator.step("2. From outside: SSH into every machine through the master");
        for number in 1..=4 {
            self.expect_name(2200 + number, &format!("worker{number}"))?;
        }
        self.expect_name(22, "master")?;
        self.narrator.say("\nEverything else is shut:");
        self.expect_shut("client", "192.168.80.3", 22, "policy-forward", "a worker's own address")?;
        self.expect_shut("client", MASTER, 2205, "policy-input", "another port")?;
        self.expect_shut("stranger", MASTER, 2201, "policy-input", "another network")?;
        self.expect_shut("stranger", MASTER, 22, "policy-input", "the master from another network")
    }

    fn ssh(&self, address: &str, port: u16, remote: &str) -> Vec<String> {
        let mut words = self.key.client(address, port);
        words.push(remote.to_owned());
        words
    }

    fn expect_name(&self, port: u16, name: &str) -> Result<()> {
        let seen = self.narrator.run(self.host("client"), &self.ssh(MASTER, port, "hostname"))?.success()?;
        self.narrator.claim(&format!("port {port} is {name}"), seen == name)
    }

    fn expect_shut(&self, from: &str, address: &str, port: u16, reason: &str, what: &str) -> Result<()> {
        let before = self.netfw.counters()?.drops(reason);
        let tried = self.narrator.run(self.host(from), &self.ssh(address, port, "hostname"))?;
        let dropped = self.netfw.counters()?.drops(reason) - before;
        let claim = format!("{what}: no answer; `netfw stats` counts {dropped} drops more for {reason}");
        self.narrator.claim(&claim, tried.code == 255 && dropped > 0)
    }
}
