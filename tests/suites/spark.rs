//! A Spark cluster behind netfw, with the rules that the project ships.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use netfw_tests::{
    scenario::two_armed,
    spark::{Cluster, Spark},
    ssh::{self, Key},
};

/// A job over SSH through 2201; the pages of the master, the workers and the application from outside.
#[test]
fn a_job_and_its_pages() -> Result<()> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("packaging/netfw.toml");
    two_armed(&fs::read_to_string(sample)?, |lab, netfw| {
        // Programs of the cluster look for a name server, and for each other at addresses that the rules keep shut.
        netfw.expect_drops("policy-input", ..);
        netfw.expect_drops("policy-forward", ..);
        let key = Key::create(lab)?;
        let _server = ssh::serve(lab.host("worker1"), &key)?;
        let cluster = Cluster::start(lab, Spark::find()?)?;
        let job = cluster.submit(lab, &key, "192.0.2.1", 2201)?;
        job.wait_until_running()?;
        let pages =
            [(8080, "Spark Master"), (8081, "Spark Worker"), (8084, "Spark Worker"), (4040, "netfw-pi")];
        for (port, text) in pages {
            let page =
                lab.host("client").shell(&format!("curl -sSfL --max-time 60 http://192.0.2.1:{port}/"))?;
            ensure!(page.contains(text), "port {port}: {page}");
        }
        ensure!(job.finish()?.starts_with("Pi is roughly 3.1"));
        Ok(())
    })
}
