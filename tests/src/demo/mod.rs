//! The job on real software: SSH and Spark on the workers, from outside, through the master; everything else shut.

mod access;
mod change;
mod cluster;
mod narrator;

use std::{fs, path::Path};

use anyhow::{Context, Result};

use self::narrator::Narrator;
use crate::{
    lab::{self, Background, Engine, Host, Lab, command},
    netfw::{Netfw, forget, program},
    ssh::{self, Key},
};

/// The lab's name, and that of the netfw instance.
const NAME: &str = "netfw-demo";

/// The sample rules file that the project ships.
const SAMPLE: &str = "packaging/netfw.toml";

/// The master, seen from outside.
const MASTER: &str = "192.0.2.1";

/// Everything a step needs.
struct Stage<'lab> {
    lab: &'lab Lab,
    netfw: Netfw<'lab>,
    key: Key,
    narrator: Narrator,
}

/// Shows it all; with `keep`, the lab stays up at the end.
pub fn run(keep: bool) -> Result<()> {
    remove()?;
    let mut lab = Lab::named(NAME, Engine::Tc).context("building the lab")?;
    if keep {
        lab.keep();
    }
    let rules =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(SAMPLE)).context(SAMPLE)?;
    let shorter =
        vec![(program()?.display().to_string(), "netfw"), (lab.dir().display().to_string(), "$LAB")];
    let stage = Stage {
        lab: &lab,
        netfw: Netfw::prepare_verbatim(&lab, &rules)?,
        key: Key::create(&lab)?,
        narrator: Narrator::new(shorter),
    };
    let servers = stage.prepare()?;
    stage.access()?;
    let cluster = stage.cluster()?;
    stage.change(&rules)?;
    stage.report()?;
    if keep {
        stage.tell_how_to_enter();
        // Ends the demo without its guards: what runs goes on.
        std::process::exit(0);
    }
    drop((servers, cluster));
    stage.end()
}

impl<'lab> Stage<'lab> {
    fn host(&self, name: &str) -> &'lab Host {
        self.lab.host(name)
    }

    /// The words of a netfw command.
    fn netfw(&self, words: &[&str]) -> Result<Vec<String>> {
        self.netfw.line(words.iter().copied())
    }

    /// Step 1: five machines with OpenSSH, netfw up on the master with the sample rules.
    fn prepare(&self) -> Result<Vec<Background>> {
        let narrator = &self.narrator;
        narrator.step("1. Five machines with OpenSSH, netfw on the master");
        narrator.say(
            "  client 203.0.113.10 ── internet ── 192.0.2.1 master 192.168.80.2 ── worker1…4 192.168.80.3–6\n  \
             stranger 198.51.100.10 ──┘",
        );
        let servers = ssh::serve_everywhere(self.lab, &self.key)?;
        narrator.claim("an OpenSSH server runs on each of the five", servers.len() == 5)?;
        let rules = self.netfw.rules().display().to_string();
        let up = narrator.run(self.host("master"), &self.netfw(&["up", "-d", "-c", &rules])?)?;
        narrator.claim(&format!("netfw is up with {SAMPLE}"), up.code == 0)?;
        narrator.run(self.host("master"), &self.netfw(&["status"])?)?.success()?;
        Ok(servers)
    }

    /// Step 5: what was counted, which flows live.
    fn report(&self) -> Result<()> {
        self.narrator.step("5. What netfw counted, and the way back");
        self.narrator.run(self.host("master"), &self.netfw(&["stats"])?)?.success()?;
        self.narrator.run(self.host("master"), &self.netfw(&["flows"])?)?.success()?;
        Ok(())
    }

    fn end(&self) -> Result<()> {
        self.narrator.typed("master", &self.netfw(&["down"])?);
        self.netfw.down()?;
        self.narrator
            .claim("links, addresses, routes, forwarding, filters: the machine is as before", true)?;
        self.narrator.say("\nDone: every step was as it should be.");
        Ok(())
    }

    fn tell_how_to_enter(&self) {
        let (dir, narrator) = (self.lab.dir().display(), &self.narrator);
        narrator.step("The lab is yours");
        for host in self.lab.hosts() {
            let path = host.namespace().path();
            narrator.say(&format!("  {:9} sudo nsenter --net={} bash", host.name(), path.display()));
        }
        narrator.say(&format!("  from the client:  ssh -F {dir}/ssh-config -p 2201 {MASTER}"));
        narrator.say(&format!(
            "  on the master:    netfw --instance {NAME} stats; rules in {dir}/master/netfw.toml"
        ));
        narrator.say("  away with it:     cargo xtask demo --remove");
    }
}

/// Removes the lab that `run` kept, if there is one.
pub fn remove() -> Result<()> {
    let master = Path::new("/run/netns").join(format!("{NAME}-master"));
    if master.exists() {
        let network = format!("--net={}", master.display());
        let netfw = program()?.display().to_string();
        command::run(["nsenter", &network, &netfw, "--instance", NAME, "down"])?.success()?;
        forget(NAME);
    }
    lab::remove_named(NAME);
    Ok(())
}
