//! A Spark standalone cluster on the hosts of a lab: real software with a dozen ports, some of them for people.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    lab::{Background, Host, Lab, command},
    ssh::Key,
};

/// The address the master of the cluster listens on.
const MASTER: &str = "192.168.80.2";

/// Ten virtual machines take long to start where two cores are shared with others.
const START: Duration = Duration::from_secs(300);

/// Estimates pi again and again until a file appears, so that somebody can look at the application's page meanwhile.
const JOB: &str = include_str!("job.py");

/// Where Spark is installed.
#[derive(Debug)]
pub struct Spark {
    python: PathBuf,
    home: PathBuf,
}

impl Spark {
    /// Finds what `cargo xtask setup` installed below the workspace's `target` directory.
    pub fn find() -> Result<Self> {
        let advice = "Spark or Java is missing: run `cargo xtask setup`";
        command::run(["java", "-version"])?.success().context(advice)?;
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("spark/bin/python");
        let script = "import pyspark; print(pyspark.__path__[0])";
        let home =
            command::run([python.as_os_str(), "-c".as_ref(), script.as_ref()])?.success().context(advice)?;
        Ok(Self { python, home: home.into() })
    }

    /// The environment every program of Spark gets, as words of `env`: where it listens, how pages name it.
    fn environment(&self, listen: &str, public: &str) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("SPARK_HOME={}", self.home.display()),
            format!("PYSPARK_PYTHON={}", self.python.display()),
            format!("SPARK_LOCAL_IP={listen}"),
            format!("SPARK_PUBLIC_DNS={public}"),
            "SPARK_DAEMON_MEMORY=256m".to_owned(),
            // Ten virtual machines start at once: what helps long runs only slows them.
            "JAVA_TOOL_OPTIONS=-XX:+UseSerialGC -XX:TieredStopAtLevel=1".to_owned(),
        ]
    }

    fn program(&self, name: &str) -> String {
        self.home.join("bin").join(name).display().to_string()
    }

    fn daemon(&self, host: &Host, (listen, public): (&str, &str), words: &[&str]) -> Result<Background> {
        let mut line = self.environment(listen, public);
        line.push(self.program("spark-class"));
        line.extend(words.iter().map(|word| (*word).to_owned()));
        host.spawn_as_machine(line)
    }
}

/// A running cluster: a master, and a worker on each of the four.
#[derive(Debug)]
pub struct Cluster {
    spark: Spark,
    _daemons: Vec<Background>,
}

impl Cluster {
    /// Starts it, and waits until all four workers are registered.
    pub fn start(lab: &Lab, spark: Spark) -> Result<Self> {
        let words = [
            "org.apache.spark.deploy.master.Master",
            "--host",
            MASTER,
            "--port",
            "7077",
            "--webui-port",
            "8080",
        ];
        // Its page is for people outside: on every address. The cluster talks to the one in the LAN.
        let master = spark.daemon(lab.host("master"), ("0.0.0.0", MASTER), &words)?;
        master.wait_for_within(START, "New state: ALIVE")?;
        let mut daemons = vec![master];
        for number in 1..=4 {
            daemons.push(start_worker(
                &spark,
                lab.host(&format!("worker{number}")),
                &worker_address(number),
            )?);
        }
        for worker in &daemons[1..] {
            worker.wait_for_within(START, "Successfully registered with master")?;
        }
        Ok(Self { spark, _daemons: daemons })
    }

    /// Starts a job from `client` over SSH to worker1 at `address` and `port`; it runs until [`Job::finish`].
    pub fn submit(&self, lab: &Lab, key: &Key, address: &str, port: u16) -> Result<Job> {
        let [script, submit, enough] =
            ["job.py", "submit-job", "job-enough"].map(|name| lab.dir().join(name));
        fs::write(&script, JOB)?;
        let quoted: Vec<_> =
            self.submit_words(&script, &enough).iter().map(|word| format!("'{word}'")).collect();
        fs::write(&submit, format!("exec {}\n", quoted.join(" ")))?;
        let mut words = key.client(address, port);
        words.extend(["sh".to_owned(), submit.display().to_string()]);
        let ssh = lab.host("client").spawn(&words)?;
        Ok(Job { words, ssh, enough })
    }

    fn submit_words(&self, script: &Path, enough: &Path) -> Vec<String> {
        let driver = worker_address(1);
        let mut words = self.spark.environment(&driver, &driver);
        words.push(self.spark.program("spark-submit"));
        words.extend(["--master".to_owned(), format!("spark://{MASTER}:7077")]);
        let settings = [
            format!("spark.driver.host={driver}"),
            "spark.executor.memory=512m".to_owned(),
            "spark.driver.memory=512m".to_owned(),
            "spark.ui.port=4040".to_owned(),
            "spark.log.level=WARN".to_owned(),
            "spark.ui.showConsoleProgress=false".to_owned(),
        ];
        words.extend(settings.into_iter().flat_map(|setting| ["--conf".to_owned(), setting]));
        words.extend([script.display().to_string(), enough.display().to_string()]);
        words
    }
}

fn worker_address(number: u8) -> String {
    format!("192.168.80.{}", number + 2)
}

fn start_worker(spark: &Spark, host: &Host, address: &str) -> Result<Background> {
    let dir = host.dir().join("spark").display().to_string();
    let master = format!("spark://{MASTER}:7077");
    let words = ["org.apache.spark.deploy.worker.Worker", "--host", address, "--webui-port", "8081"];
    let size = ["--cores", "1", "--memory", "700m", "--work-dir", &dir, &master];
    spark.daemon(host, (address, address), &[&words[..], &size[..]].concat())
}

/// A job that runs on the cluster.
#[derive(Debug)]
pub struct Job {
    /// The command that started it.
    pub words: Vec<String>,
    ssh: Background,
    enough: PathBuf,
}

impl Job {
    /// Waits until every worker has computed for it.
    pub fn wait_until_running(&self) -> Result<()> {
        self.ssh.wait_for_within(START, "computed on 4 executors")
    }

    /// Lets it end; the line with its result.
    pub fn finish(mut self) -> Result<String> {
        fs::write(&self.enough, "")?;
        let code = self.ssh.wait()?;
        let output = self.ssh.output();
        let result = output.lines().find(|line| line.starts_with("Pi is roughly"));
        match result {
            Some(line) if code == 0 => Ok(line.to_owned()),
            _ => bail!("the job ended with {code}:\n{output}"),
        }
    }
}
