//! OpenSSH as it is: servers on the hosts, each under its own host name, and a client with a key.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::lab::{Background, Host, Lab, command};

/// No questions, no memory of earlier labs.
const CLIENT: &str = "\
User root
BatchMode yes
ConnectTimeout 5
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
";

/// The one key that every server of a lab admits, and a client configuration that uses it.
#[derive(Debug)]
pub struct Key {
    private: PathBuf,
    config: PathBuf,
}

impl Key {
    /// Makes a key among the files of `lab`.
    pub fn create(lab: &Lab) -> Result<Self> {
        let key = Self { private: lab.dir().join("ssh-key"), config: lab.dir().join("ssh-config") };
        generate(&key.private)?;
        fs::write(&key.config, CLIENT.to_owned() + &format!("IdentityFile {}\n", key.private.display()))?;
        Ok(key)
    }

    /// The words of an ssh client to `address` and `port`, to be followed by the remote command.
    pub fn client(&self, address: &str, port: u16) -> Vec<String> {
        let config = self.config.display().to_string();
        ["ssh", "-F", &config, "-p", &port.to_string(), address].map(str::to_owned).to_vec()
    }

    /// Runs `remote` through ssh from `host`; its output.
    pub fn run(&self, host: &Host, address: &str, port: u16, remote: &str) -> Result<String> {
        let mut words = self.client(address, port);
        words.push(remote.to_owned());
        host.run(words)?.success()
    }

    /// Opens a session from `host` that stays: it prints the remote host's name, then `tick` again and again.
    pub fn session(&self, host: &Host, address: &str, port: u16) -> Result<Background> {
        let mut words = self.client(address, port);
        words.push("hostname; while echo tick; do sleep 0.2; done".to_owned());
        let session = host.spawn(words)?;
        session.wait_for("tick")?;
        Ok(session)
    }
}

/// An OpenSSH server on port 22 of `host`.
pub fn serve(host: &Host, key: &Key) -> Result<Background> {
    let dir = host.dir().join("sshd");
    fs::create_dir_all(&dir)?;
    // Where sshd separates privileges; Debian makes it when the service starts.
    fs::create_dir_all("/run/sshd")?;
    generate(&dir.join("host-key"))?;
    let config = dir.join("config");
    fs::write(&config, config_text(&dir, key))?;
    let config = config.display().to_string();
    let server = host.spawn_as_machine(["/usr/sbin/sshd", "-D", "-e", "-f", &config])?;
    server.wait_for("listening on").with_context(|| format!("sshd on {}", host.name()))?;
    Ok(server)
}

/// Servers on the master and the four workers.
pub fn serve_everywhere(lab: &Lab, key: &Key) -> Result<Vec<Background>> {
    ["master", "worker1", "worker2", "worker3", "worker4"]
        .iter()
        .map(|name| serve(lab.host(name), key))
        .collect()
}

fn config_text(dir: &Path, key: &Key) -> String {
    format!(
        "Port 22\nHostKey {dir}/host-key\nPidFile {dir}/pid\nAuthorizedKeysFile {key}.pub\nStrictModes no\nUsePAM no\n\
         PermitRootLogin yes\nPasswordAuthentication no\nUseDNS no\nMaxStartups 200\nPrintMotd no\nPrintLastLog no\n",
        dir = dir.display(),
        key = key.private.display()
    )
}

fn generate(path: &Path) -> Result<()> {
    let path = path.display().to_string();
    command::run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &path])?.success()?;
    Ok(())
}
