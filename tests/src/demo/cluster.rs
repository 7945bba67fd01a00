//! Step 3: a Spark cluster behind the master, used from outside.

use anyhow::Result;

use super::{MASTER, Stage};
use crate::spark::{Cluster, Spark};

impl Stage<'_> {
    /// A job started over SSH, and the pages that people look at meanwhile.
    pub(super) fn cluster(&self) -> Result<Cluster> {
        self.narrator.step("3. A Spark cluster: the master, a worker on each of the four");
        let cluster = Cluster::start(self.lab, Spark::find()?)?;
        self.narrator.claim("four workers have registered with the master", true)?;
        let job = cluster.submit(self.lab, &self.key, MASTER, 2201)?;
        self.narrator.typed("client", &job.words);
        self.expect_page(8080, "Spark Master at")?;
        for number in 1..=4 {
            self.expect_page(8080 + number, &format!("Spark Worker at 192.168.80.{}:", number + 2))?;
        }
        job.wait_until_running()?;
        self.expect_page(4040, "netfw-pi")?;
        let result = job.finish()?;
        self.narrator.print(&result);
        self.narrator
            .claim("the job computed on all four workers", result.starts_with("Pi is roughly 3.1"))?;
        Ok(cluster)
    }

    fn expect_page(&self, port: u16, text: &str) -> Result<()> {
        let words =
            ["curl", "-sSfL", "--max-time", "60", &format!("http://{MASTER}:{port}/")].map(str::to_owned);
        self.narrator.typed("client", &words);
        let page = self.host("client").run(words)?.success()?;
        self.narrator.claim(&format!("the page says \"{text}\""), flat(&page).contains(text))
    }
}

/// The text of a page with its white space evened out.
fn flat(page: &str) -> String {
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}
