//! Source, gateway and sink in three network namespaces, joined by two links; one core for the gateway.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use netfw_tests::{
    lab::{Namespace, command, remove_named},
    wait,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, gettid},
};

/// Begin of all names here.
const NAME: &str = "nfwbench";
/// The core that makes frames.
const SOURCE_CORE: usize = 0;
/// The core that has nothing to do but forward them.
const GATEWAY_CORE: usize = 1;

/// Real-time priority of both: what else the machine does takes no part in the measurement.
const PRIORITY: &str = "20";

/// Link address of the source, and of the gateway's interface that frames arrive at.
pub(crate) const SOURCE_LINK: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
/// The gateway's interfaces: towards the source, towards the sink. Short, so that a thread's name holds the first.
pub(crate) const INTERFACES: (&str, &str) = ("nb0", "nb1");
/// The gateway's address towards the sink.
pub(crate) const INSIDE: &str = "192.168.80.1";
/// The first of those who send what is forwarded.
pub(crate) const SOURCE: &str = "198.51.100.10";
/// Where to: address and port of the gateway, before translation.
pub(crate) const FORWARDED: (&str, u16) = ("198.51.100.1", 7000);
/// Address and port after translation.
pub(crate) const TARGET: (&str, u16) = ("192.168.80.3", 7001);
/// Address and port behind the gateway that nothing leads to.
pub(crate) const DROPPED: (&str, u16) = ("192.168.80.3", 7100);

/// What they are in.
pub(crate) const LAN: &str = "198.51.100.0/24";
/// Senders: enough for a million flows.
const SENDERS: u32 = 20;

/// The three of them.
pub(crate) struct Testbed {
    pub(crate) source: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) sink: Namespace,
}

impl Testbed {
    /// Makes the namespaces and all that every kind of gateway needs: addresses, neighbours, forwarding.
    pub(crate) fn new() -> Result<Self> {
        remove_named(NAME);
        let [source, gateway, sink] =
            ["source", "gateway", "sink"].map(|name| Namespace::create(&format!("{NAME}-{name}")));
        let testbed = Self { source: source?, gateway: gateway?, sink: sink? };
        let first = SOURCE.parse::<Ipv4Addr>()?.to_bits();
        let senders: String = (first..first + SENDERS)
            .map(|sender| {
                format!("neighbour add {} lladdr 02:00:00:00:00:01 dev nb0\n", Ipv4Addr::from_bits(sender))
            })
            .collect();
        testbed.gateway.ip_batch(&format!(
            "link add nb0 address 02:00:00:00:00:02 type veth peer name nbc address 02:00:00:00:00:01 netns {NAME}-source\n\
             link add nb1 address 02:00:00:00:00:03 type veth peer name nbs address 02:00:00:00:00:04 netns {NAME}-sink\n\
             address add 198.51.100.1/24 dev nb0\n\
             address add 192.168.80.1/24 dev nb1\n\
             link set nb0 up\n\
             link set nb1 up\n\
             route add default via 198.51.100.10\n\
             {senders}\
             neighbour add 192.168.80.3 lladdr 02:00:00:00:00:04 dev nb1\n"
        ))?;
        testbed.source.ip_batch("link set nbc up")?;
        testbed.sink.ip_batch("link set nbs up")?;
        testbed.gateway.sysctl("net/ipv4/ip_forward", "1")?;
        testbed.receive_in_a_thread()?;
        Ok(testbed)
    }

    /// A veth takes frames from XDP only while it polls (GRO asks for that), and only a thread can be given a core. The sink polls
    /// where frames are sent to it: to wake a thread on the other core would be a large part of the gateway's work.
    fn receive_in_a_thread(&self) -> Result<()> {
        let name = self.gateway.name();
        let script = "ethtool -K nb0 gro on && ethtool -K nb1 gro on && echo 1 > /sys/class/net/nb0/threaded";
        command::run(["ip", "netns", "exec", name, "sh", "-c", script])?.success()?;
        Ok(())
    }

    /// Gives the gateway its core. To be repeated whenever programs were attached: that makes a new thread.
    pub(crate) fn pin_gateway(&self) -> Result<()> {
        let thread = wait::until("the gateway's receiving thread", || receiving_thread(INTERFACES.0))?;
        pin(thread, GATEWAY_CORE)
    }
}

impl Drop for Testbed {
    /// The links at once: the kernel takes its time with a namespace, and the next test bed looks for its receiving thread by name.
    fn drop(&mut self) {
        let gone = self.gateway.ip_batch("link delete nb0\nlink delete nb1\n");
        if let Err(error) = gone {
            eprintln!("bench: a link could not be removed: {error:#}");
        }
    }
}

/// Gives the calling thread the source's core.
pub(crate) fn pin_source() -> Result<()> {
    pin(gettid(), SOURCE_CORE)
}

/// Gives the calling thread the gateway's core.
pub(crate) fn pin_to_gateway() -> Result<()> {
    pin(gettid(), GATEWAY_CORE)
}

/// Gives a thread (0: the calling one) a core.
pub(crate) fn place(thread: Pid, core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(thread, &cores).with_context(|| format!("there is no core {core}: this needs two"))
}

/// The same, at real-time priority.
fn pin(thread: Pid, core: usize) -> Result<()> {
    place(thread, core)?;
    let thread = thread.to_string();
    command::run(["chrt", "--fifo", "--pid", PRIORITY, &thread])?.success()?;
    Ok(())
}

/// How long the gateway's core has had nothing to do since the machine started.
pub(crate) fn gateway_idle() -> Result<Duration> {
    spent(&format!("cpu{GATEWAY_CORE}"), 3)
}

/// How long the host ran something else on the two cores, on average.
pub(crate) fn stolen() -> Result<Duration> {
    let [one, other] = [SOURCE_CORE, GATEWAY_CORE].map(|core| spent(&format!("cpu{core}"), 7));
    Ok((one? + other?) / 2)
}

/// A column of `/proc/stat`.
fn spent(name: &str, column: usize) -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    let mut line = lines.find(|line| line.clone().next() == Some(name)).context("/proc/stat lacks a core")?;
    let ticks = line.nth(column + 1).context("/proc/stat has no such column")?.parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// The thread that polls an interface.
pub(crate) fn receiving_thread(interface: &str) -> Option<Pid> {
    let begin = format!("napi/{interface}-");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut found = processes.filter(|process| {
        fs::read_to_string(process.path().join("comm")).is_ok_and(|name| name.starts_with(&begin))
    });
    found.find_map(|process| process.file_name().to_str()?.parse().ok()).map(Pid::from_raw)
}
