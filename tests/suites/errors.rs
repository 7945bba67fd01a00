//! Bad input, and machines that cannot: a clear error, the right exit code, nothing changed. Scenario 31.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use netfw_tests::{
    lab::{Engine, Lab},
    netfw::{Netfw, program},
    rules, wait,
};

/// A mistake: what is wrong, the text that is added to good rules, the words at fault, and a word the report must say.
type Mistake = (&'static str, &'static str, &'static str, &'static str);

const MISTAKES: [Mistake; 15] = [
    ("an unknown key", "[flows]\ncapactiy = 1000\n", "capactiy", "capacity"),
    ("an unknown key in a rule", "[[rule]]\naction = \"accept\"\nprotocl = \"tcp\"\n", "protocl", "protocol"),
    ("an unknown table", "[colour]\nsky = \"blue\"\n", "[colour]", "colour"),
    ("not built yet", "[metrics]\nlisten = \"127.0.0.1:9477\"\n", "[metrics]", "not yet supported"),
    ("a wrong type", "[flows]\ncapacity = \"many\"\n", "capacity", "capacity"),
    (
        "a bad address",
        "[[rule]]\naction = \"drop\"\nfrom = [\"192.168.80.256\"]\n",
        "192.168.80.256",
        "192.168.80.256",
    ),
    ("port 0", "[[port-forward]]\nprotocol = \"tcp\"\nport = 0\nto = \"worker1:22\"\n", "port = 0", "1"),
    (
        "an inverted range",
        "[[port-forward]]\nprotocol = \"tcp\"\nport = \"2204-2201\"\nto = \"worker1:22\"\n",
        "2204-2201",
        "2201-2204",
    ),
    (
        "a spread of unequal lengths",
        "[[port-forward]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = \"2201-2204\"\nto = [\"worker1:22\"]\nspread = \"one-to-one\"\n",
        "spread = \"one",
        "ssh",
    ),
    (
        "an unknown host",
        "[[port-forward]]\nprotocol = \"tcp\"\nport = 80\nto = \"wroker1:22\"\n",
        "wroker1",
        "worker1",
    ),
    ("an unknown set", "[[rule]]\naction = \"drop\"\nfrom = [\"offcie\"]\n", "offcie", "office"),
    (
        "two forwards on one port",
        "[[port-forward]]\nname = \"one\"\nprotocol = \"tcp\"\nport = 80\nto = \"worker1:80\"\n\
         [[port-forward]]\nname = \"two\"\nprotocol = \"tcp\"\nport = \"79-81\"\nto = \"worker2:79-81\"\n",
        "79-81\"\nto",
        "one",
    ),
    ("an action that does not exist", "[[rule]]\naction = \"allow\"\n", "allow", "accept"),
    (
        "the same name twice",
        "[[rule]]\nname = \"r\"\naction = \"accept\"\n[[rule]]\nname = \"r\"\naction = \"drop\"\n",
        "name = \"r\"\naction = \"drop\"",
        "r",
    ),
    ("no TOML at all", "[[rule\n", "[[rule\n", "]]"),
];

/// Each mistake is told with file, line and remedy, by `check` and by `up`, and changes nothing.
#[test]
fn mistakes_are_told_and_change_nothing() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, "")?;
    for (what, text, at, says) in MISTAKES {
        netfw.write_rules(&rules::two_armed(text))?;
        expect_told(&netfw, at, says).with_context(|| format!("{what}:\n{text}"))?;
        netfw.expect_untouched().context(what)?;
    }
    Ok(())
}

fn expect_told(netfw: &Netfw<'_>, at: &str, says: &str) -> Result<()> {
    let path = netfw.rules().display().to_string();
    let text = fs::read_to_string(netfw.rules())?;
    let line =
        1 + text[..text.find(at).with_context(|| format!("{at} is not in:\n{text}"))?].matches('\n').count();
    let check = netfw.command(["--json", "check", &path])?;
    check.expect_code(3)?;
    let report: serde_json::Value = serde_json::from_str(&check.stdout).context("the report of check")?;
    let errors = report["errors"].as_array().context("a list of errors")?;
    let told = errors.iter().find(|error| error["line"] == line);
    let told = told.with_context(|| format!("no error at line {line}: {report}"))?;
    ensure!(report["valid"] == false, "{report}");
    ensure!(told["file"].as_str().is_some_and(|file| file.ends_with("netfw.toml")), "{told}");
    ensure!(told["help"].as_str().is_some_and(|help| !help.is_empty()), "no remedy: {told}");
    ensure!(told.to_string().contains(says), "it does not say {says}: {told}");
    let up = netfw.command(["up", "-d", "-c", &path])?;
    up.expect_code(3)?;
    ensure!(up.stderr.contains(&format!("netfw.toml:{line}")), "no place in: {}", up.stderr);
    Ok(())
}

/// A set cycle names the sets that form it.
#[test]
fn a_set_cycle_is_told() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, "")?;
    netfw.write_rules(
        "[interfaces]\nexternal = [\"eth0\"]\n[sets]\none = [\"two\"]\ntwo = [\"one\"]\n[[rule]]\naction = \"drop\"\nfrom = [\"one\"]\n",
    )?;
    expect_told(&netfw, "two = [", "one")
}

/// All mistakes are reported at once.
#[test]
fn all_mistakes_are_told_at_once() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, "")?;
    let text = "[[rule]]\naction = \"allow\"\n[[rule]]\naction = \"drop\"\nfrom = [\"offcie\"]\n[[rule]]\naction = \"drop\"\ncolour = 1\n";
    netfw.write_rules(&rules::two_armed(text))?;
    for (at, says) in [("allow", "accept"), ("offcie", "office"), ("colour", "colour")] {
        expect_told(&netfw, at, says)?;
    }
    Ok(())
}

/// A file that is missing, or cannot be read, and nothing to start from.
#[test]
fn a_file_that_cannot_be_read_is_told() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, "")?;
    fs::remove_file(netfw.rules())?;
    let path = netfw.rules().display().to_string();
    for words in [&["up", "-d", "-c", &path][..], &["check", &path][..]] {
        let tried = netfw.command(words.iter().copied())?;
        tried.expect_code(3)?;
        ensure!(tried.stderr.contains(&path), "{}", tried.stderr);
    }
    fs::create_dir(netfw.rules())?;
    let tried = netfw.command(["up", "-d", "-c", &path])?;
    tried.expect_code(3)?;
    ensure!(tried.stderr.contains(&path), "{}", tried.stderr);
    netfw.expect_untouched()
}

/// An interface that does not exist is an error that lists those that do.
#[test]
fn a_missing_interface_is_told() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, "[interfaces]\nexternal = [\"eth9\"]\ninternal = [\"eth1\"]\n")?;
    let path = netfw.rules().display().to_string();
    let tried = netfw.command(["up", "-d", "-c", &path])?;
    ensure!([1, 3].contains(&tried.code), "{tried:?}");
    ensure!(tried.stderr.contains("eth9"), "{}", tried.stderr);
    netfw.expect_untouched()
}

/// Whoever isn't root is told so.
#[test]
fn without_permission() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, &rules::two_armed(""))?;
    let path = netfw.rules().display().to_string();
    let line = netfw.line(["up", "-d", "-c", &path])?.join(" ");
    // Readable for everybody, so that permission to load programs is what is missing.
    let readable = format!("chmod a+rX {} {}", lab.dir().display(), lab.host("master").dir().display());
    lab.host("master").shell(&readable)?;
    let copy = lab.dir().join("netfw");
    fs::copy(program()?, &copy)?;
    let line = line.replacen(&program()?.display().to_string(), &copy.display().to_string(), 1);
    let tried = lab.host("master").run([
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sh",
        "-c",
        &line,
    ])?;
    tried.expect_code(5)?;
    ensure!(tried.stderr.contains("root") || tried.stderr.contains("CAP_"), "{}", tried.stderr);
    netfw.expect_untouched()
}

/// A kernel that lacks what netfw needs is told which one it takes. (The personality makes this kernel look like 2.6.)
#[test]
fn an_old_kernel_is_told() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, &rules::two_armed(""))?;
    let path = netfw.rules().display().to_string();
    let mut words = vec!["setarch".to_owned(), "--uname-2.6".to_owned()];
    words.extend(netfw.line(["up", "-d", "-c", &path])?);
    let tried = lab.host("master").run(words)?;
    tried.expect_code(5)?;
    ensure!(tried.stderr.contains("Linux 2.6 is too old"), "{}", tried.stderr);
    ensure!(tried.stderr.contains("6.1 or newer"), "{}", tried.stderr);
    netfw.expect_untouched()
}

/// A table that no memory holds is refused before anything is attached.
#[test]
fn a_table_that_no_memory_holds() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, &rules::two_armed("[flows]\ncapacity = 2000000000\n"))?;
    let path = netfw.rules().display().to_string();
    let tried = netfw.command(["up", "-d", "-c", &path])?;
    ensure!([1, 3].contains(&tried.code), "{tried:?}");
    ensure!(tried.stderr.contains("capacity") || tried.stderr.contains("memory"), "{}", tried.stderr);
    netfw.expect_untouched()
}

/// Without bpffs, netfw mounts it; where it is read-only, it says so and leaves nothing attached.
#[test]
fn bpffs_missing_and_read_only() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::prepare(&lab, &rules::two_armed(""))?;
    let path = netfw.rules().display().to_string();
    let words = |words: &[&str]| netfw.line(words.iter().copied()).map(|line| line.join(" "));
    let (up, status, down) = (words(&["up", "-d", "-c", &path])?, words(&["status"])?, words(&["down"])?);
    let without = "while umount -l /sys/fs/bpf 2>/dev/null; do :; done";
    let missing = format!("{without}; {up} && {status} && {down}");
    lab.host("master").run(["unshare", "--mount", "sh", "-c", &missing])?.success()?;
    let read_only =
        format!("{without}; mount -t bpf bpf /sys/fs/bpf && mount -o remount,ro /sys/fs/bpf && {up}");
    let tried = lab.host("master").run(["unshare", "--mount", "sh", "-c", &read_only])?;
    ensure!([1, 5].contains(&tried.code), "{tried:?}");
    ensure!(tried.stderr.contains("/sys/fs/bpf"), "{}", tried.stderr);
    netfw.expect_untouched()
}

/// An interface belongs to one instance, an instance to one network namespace.
#[test]
fn what_another_instance_holds_is_refused() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let netfw = Netfw::up(&lab, &rules::two_armed(""))?;
    let path = netfw.rules().display().to_string();
    let mut other = netfw.line(["up", "-d", "-c", &path])?;
    let name = format!("{}-other", lab.name());
    other[2].clone_from(&name);
    let tried = lab.host("master").run(&other)?;
    tried.expect_code(1)?;
    ensure!(tried.stderr.contains("eth0") && tried.stderr.contains(lab.name()), "{}", tried.stderr);
    let elsewhere = lab.host("internet").run(netfw.line(["up", "-d", "-c", &path])?)?;
    elsewhere.expect_code(1)?;
    ensure!(elsewhere.stderr.contains("namespace"), "{}", elsewhere.stderr);
    netfw.command(["status"])?.success()?;
    for place in ["/sys/fs/bpf/netfw", "/run/netfw"] {
        ensure!(!Path::new(place).join(&name).exists(), "the refused instance left something in {place}");
    }
    netfw.finish()
}

/// A broken file while netfw is up: the rules in force stay, and everybody who asks is told.
#[test]
fn a_broken_file_leaves_the_rules_in_force() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let rules = rules::two_armed("[[rule]]\nname = \"r\"\naction = \"accept\"\nprotocol = \"icmp\"\n");
    let netfw = Netfw::up(&lab, &rules)?;
    let generation = netfw.json("status")?["generation"].clone();
    netfw.write_rules(&format!("{rules}\n[colour]\n"))?;
    netfw.command(["reload"])?.expect_code(3)?;
    let status = netfw.json("status")?;
    ensure!(status["generation"] == generation, "{status}");
    ensure!(status["last_reload"]["result"] == "error", "{status}");
    ensure!(
        status["last_reload"]["error"].as_str().is_some_and(|error| error.contains("colour")),
        "{status}"
    );
    wait::until("the log to say it, too", || netfw.log().contains("colour").then_some(()))?;
    lab.host("client").run(["ping", "-c1", "-W5", "192.0.2.1"])?.success()?;
    netfw.finish()
}

/// A later `up` with an invalid file starts from the last valid rules, and says so.
#[test]
fn the_last_valid_rules_are_kept() -> Result<()> {
    let lab = Lab::two_armed(Engine::Tc)?;
    let rules = rules::two_armed("[[rule]]\nname = \"r\"\naction = \"accept\"\nprotocol = \"icmp\"\n");
    let netfw = Netfw::up(&lab, &rules)?;
    netfw.down()?;
    netfw.write_rules("colour = 1\n")?;
    netfw.start()?;
    ensure!(netfw.log().contains("colour"), "{}", netfw.log());
    lab.host("client").run(["ping", "-c1", "-W5", "192.0.2.1"])?.success()?;
    netfw.finish()
}
