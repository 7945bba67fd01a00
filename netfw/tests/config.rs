//! Rules files from `tests/config`: what each wrong one is told, and what the right ones mean.
//!
//! `UPDATE_GOLDEN=1 cargo test -p netfw --test config` writes the expected texts anew; read the difference.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use netfw::{
    config::{CheckReport, HostFacts, LoadError, Loaded, load, load_text},
    policy::{
        Action, AntiSpoof, Chain, Dependence, EngineMode, Limit, LimitScope, OnChange, PortRange, Probe,
        Role, SourceNat, Spread, SynProxy,
        facts::{HostInterface, ListeningPort},
    },
};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config")
}

/// The host of all tests.
fn facts() -> HostFacts {
    let interface = |(index, name): (u32, &str)| HostInterface { name: name.into(), index };
    let listens =
        |address: &str, port| ListeningPort { protocol: 6, address: address.parse().unwrap(), port };
    HostFacts {
        interfaces: [(1, "lo"), (2, "eth0"), (3, "eth1")].map(interface).into(),
        addresses: ["198.51.100.1", "192.168.80.2"].map(|address| address.parse().unwrap()).into(),
        listening: vec![listens("::", 8085), listens("127.0.0.1", 8086), listens("::", 22)],
        lacks_syn_cookies: false,
    }
}

/// Loads a file of the directory under its bare name, so that errors are the same everywhere.
fn load_named(name: &str) -> Result<Loaded, LoadError> {
    let text = fs::read_to_string(directory().join(name)).unwrap();
    load_text(
        Path::new(name),
        &text,
        &|included| Ok(fs::read_to_string(directory().join(included))?.into()),
        &facts(),
    )
}

fn load_str(text: &str) -> Result<Loaded, LoadError> {
    load_text(Path::new("netfw.toml"), text, &|path| Ok(fs::read_to_string(path)?.into()), &facts())
}

/// Everything that is said about a file: drawn for the terminal, and one line each for the log.
fn findings(result: &Result<Loaded, LoadError>) -> String {
    let report = CheckReport::from(result);
    let all = || report.errors.iter().chain(report.warnings);
    let drawn: String = all().map(|finding| finding.render(false)).collect();
    all().fold(drawn, |mut text, finding| {
        writeln!(text, "{finding}").unwrap();
        text
    })
}

#[test]
fn wrong_files_are_told_what_is_wrong() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut names: Vec<_> = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    names.sort();
    assert!(names.len() > 20, "the files are not found");
    let mut different = Vec::new();
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        let said = findings(&load_named(name));
        assert!(!said.is_empty(), "{name}: nothing is wrong with it");
        let golden = path.with_extension("stderr");
        if update {
            fs::write(&golden, &said).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != said {
            different.push(format!("── {name}\n{said}"));
        }
    }
    assert!(different.is_empty(), "other findings than expected:\n{}", different.join("\n"));
}

#[test]
fn every_error_has_a_place_and_a_remedy() {
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let result = load_named(path.file_name().unwrap().to_str().unwrap());
        let report = CheckReport::from(&result);
        for finding in report.errors.iter().chain(report.warnings) {
            assert!(finding.line > 0 && finding.column > 0, "{finding}");
            assert!(!finding.message.is_empty() && !finding.help.is_empty(), "{finding}");
        }
    }
}

#[test]
fn json_has_the_keys_of_check() {
    let result =
        load_str("[interfaces]\nexternal = [\"eth0\"]\n[[rule]]\nname = \"web\"\naction = \"acept\"\n");
    let json = serde_json::to_value(CheckReport::from(&result)).unwrap();
    assert_eq!(json["valid"], false);
    assert_eq!(json["warnings"], serde_json::json!([]));
    let error = serde_json::json!({
        "file": "netfw.toml", "line": 5, "column": 10, "rule": "rule \"web\"",
        "message": "rule \"web\": \"action\" cannot be \"acept\"", "help": "did you mean \"accept\"?",
    });
    assert_eq!(json["errors"], serde_json::json!([error]));
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("netfw.toml");
    let binary = directory.path().join("binary.toml");
    fs::write(&binary, [0xff, 0xfe]).unwrap();
    let cases = [
        (missing.as_path(), "write the rules there"),
        (binary.as_path(), "save the file as UTF-8"),
        (directory.path(), "name the rules file inside it"),
    ];
    for (path, remedy) in cases {
        let error = load(path, &facts()).unwrap_err();
        assert!(matches!(error, LoadError::Unreadable(_)));
        let text = error.to_string();
        assert!(text.starts_with(path.to_str().unwrap()) && text.contains(remedy), "{text}");
    }
}

#[test]
fn a_missing_interface_is_found_where_it_is_named() {
    let loaded =
        load_str("[interfaces]\nexternal = [\"eth0\", \"wan9\"]\n[policy]\ninput = \"accept\"\n").unwrap();
    let missing = loaded.missing_interfaces(&facts());
    let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let expected =
        "netfw.toml:2:21: interface wan9 does not exist; write one that this host has: lo, eth0, eth1";
    assert_eq!(lines, [expected]);
}

#[test]
fn the_shipped_sample_is_beyond_doubt() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/netfw.toml");
    let loaded = load(&path, &facts());
    assert_eq!(findings(&loaded), "");
    let policy = loaded.unwrap().policy;
    let names: Vec<_> = policy.port_forwards().iter().map(|forward| forward.name.as_str()).collect();
    assert_eq!(names, ["ssh", "spark-workers", "spark-app-ui"]);
}

fn ports(first: u16, last: u16) -> PortRange {
    PortRange { first, last }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn everything() -> Loaded {
    let loaded = load_named("valid/everything.toml");
    assert_eq!(findings(&loaded), "");
    loaded.unwrap()
}

#[test]
fn settings_mean_what_they_say() {
    let loaded = everything();
    let policy = &loaded.policy;
    let interfaces: Vec<_> = policy.interfaces().iter().map(|i| (i.name.as_str(), i.role)).collect();
    assert_eq!(interfaces, [("eth0", Role::External), ("eth1", Role::Internal)]);
    assert_eq!(policy.anti_spoof(), AntiSpoof::Loose);
    let defaults = [Chain::Input, Chain::Forward, Chain::Output].map(|chain| policy.default_action(chain));
    assert_eq!(defaults, [Action::Reject, Action::Drop, Action::Accept]);
    assert_eq!((policy.capacity(), policy.on_change()), (65_536, OnChange::Keep));
    assert_eq!((policy.engine(), policy.mss_clamp(), policy.watch()), (EngineMode::Tc, false, false));
    assert_eq!(policy.confirm(), Some(Duration::from_secs(120)));
    let door = policy.failsafe().expect("a door");
    assert!(door.port == 2222 && door.from.matches(address("203.0.113.9")));
    assert!(!door.from.matches(address("198.51.100.1")));
    let blocked = |text| policy.block().iter().any(|prefix| prefix.contains(&address(text)));
    assert!(blocked("198.51.100.8") && blocked("2001:db8:bad::1"));
    assert!(!blocked("198.51.100.7") && !blocked("203.0.113.200"));
    let timeouts = policy.timeouts();
    assert_eq!(timeouts.tcp_established, Duration::from_secs(10_800));
    assert_eq!(
        (timeouts.tcp_opening, timeouts.tcp_closed),
        (Duration::from_secs(300), Duration::from_secs(240))
    );
    assert_eq!(timeouts.udp, Duration::from_secs(600));
    assert_eq!(timeouts.icmp, Duration::from_secs(60), "not written: the default");
    let files = ["valid/everything.toml", "valid/../included/blocked.txt"].map(PathBuf::from);
    assert_eq!(policy.files(), files);
    assert_eq!(loaded.sources.len(), 2, "both texts are kept");
}

#[test]
fn port_forwards_mean_what_they_say() {
    let policy = everything().policy;
    let [ssh, app, history, login, dns] = policy.port_forwards() else { panic!("five port-forwards") };
    assert_eq!((ssh.ports.as_slice(), ssh.spread), ([ports(2201, 2202)].as_slice(), Spread::OneToOne));
    assert_eq!(ssh.targets[1].addresses, [address("192.168.80.4")]);
    assert_eq!(ssh.targets[0].addresses, [address("192.168.80.3"), address("fd00:80::3")]);
    assert_eq!(ssh.targets[1].ports, ports(22, 22));
    assert!(ssh.from.is_any());
    assert_eq!(app.ports, [ports(4040, 4049), ports(4100, 4100)]);
    assert_eq!(app.targets[0].ports, ports(5040, 5050));
    assert!(app.from.matches(address("203.0.113.9")) && !app.from.matches(address("203.0.113.66")));
    assert!(app.from.matches(address("2001:db8:1::9")) && !app.from.matches(address("192.0.2.1")));
    assert_eq!((history.spread, history.source_nat), (Spread::SourceHash, SourceNat::Always));
    assert_eq!(history.addresses, [address("198.51.100.1")]);
    assert_eq!(history.idle_timeout, Some(Duration::from_secs(86_400)));
    let check = history.check.as_ref().unwrap();
    assert_eq!((&check.probe, check.on_down), (&Probe::Http("/health?full=1".into()), OnChange::Keep));
    let numbers = (check.port, check.interval.as_secs(), check.rise, check.fall);
    assert_eq!(numbers, (Some(8081), 5, 1, 4));
    let check = login.check.as_ref().unwrap();
    assert_eq!((&check.probe, check.on_down), (&Probe::Banner("SSH-".into()), OnChange::Cut));
    assert_eq!((check.port, check.interval.as_secs(), check.rise, check.fall), (None, 2, 2, 3));
    assert_eq!(login.targets.iter().map(|target| target.drains).collect::<Vec<_>>(), [false, true]);
    assert_eq!(dns.name, "port-forward#68");
    assert_eq!(dns.protocols, [6, 17]);
    assert_eq!((dns.syn_proxy, ssh.syn_proxy), (SynProxy::Auto, SynProxy::Off));
    assert_eq!(dns.targets[0].ports, ports(53, 53), "a port that is not written is kept");
    assert_eq!(dns.place.to_string(), "valid/everything.toml:68");
}

#[test]
fn masquerades_mean_what_they_say() {
    let policy = everything().policy;
    let [lan, rest] = policy.masquerades() else { panic!("two masquerades") };
    assert_eq!(lan.ports, Some(ports(20_000, 60_000)));
    assert_eq!(lan.to, ["198.51.100.1", "192.168.80.2"].map(address));
    assert!(lan.from.matches(address("192.168.80.77")) && !lan.from.matches(address("192.168.81.1")));
    assert_eq!((lan.mapping, lan.filtering), (Dependence::Independent, Dependence::Independent));
    assert_eq!((rest.ports, rest.to.as_slice()), (None, &[][..]));
    assert_eq!((rest.mapping, rest.filtering), (Dependence::AddressAndPort, Dependence::AddressAndPort));
}

#[test]
fn rules_mean_what_they_say() {
    let policy = everything().policy;
    let [ssh, forwarded, ping, echo, other] = policy.rules() else { panic!("five rules") };
    assert_eq!((ssh.chain, ssh.action), (Chain::Input, Action::Accept));
    assert_eq!(
        (ssh.protocols.as_slice(), ssh.ports.as_slice()),
        ([6].as_slice(), [ports(22, 22)].as_slice())
    );
    assert_eq!(ssh.from_ports, [ports(1024, 65_535)]);
    assert_eq!(ssh.interfaces, ["eth0"]);
    assert_eq!(other.interfaces, ["eth0", "eth1"], "sorted, each once");
    assert_eq!((forwarded.port_forwards.as_deref(), forwarded.chain), (Some(&[0, 2][..]), Chain::Forward));
    assert!(ping.interfaces.is_empty() && ping.port_forwards.is_none());
    assert!(forwarded.from.matches(address("198.51.100.200")), "a member of the included file");
    assert!(forwarded.from.matches(address("2001:db8:bad::1")));
    assert!(!forwarded.from.matches(address("198.51.101.1")));
    assert_eq!((ping.icmp_types.as_slice(), ping.protocols.as_slice()), ([8, 13].as_slice(), [1].as_slice()));
    assert_eq!(echo.icmp_types, [128]);
    let minute = Duration::from_secs(60);
    let limit = Limit { flows: 10, period: minute, burst: 20, scope: LimitScope::Source };
    assert_eq!((ping.limit, echo.limit), (Some(limit), None));
    assert_eq!((ping.log, echo.log), (true, false));
    assert_eq!((other.name.as_str(), other.protocols.as_slice()), ("output#106", [6, 47, 132].as_slice()));
    assert!(other.to.restricted && other.to.include.is_empty(), "an empty set is nobody");
}

#[test]
fn what_is_switched_off_takes_no_part() {
    let loaded = load_named("valid/switched-off.toml");
    assert_eq!(findings(&loaded), "");
    let policy = loaded.unwrap().policy;
    let [open, translated, nobody] = policy.rules() else { panic!("three rules") };
    assert_eq!((open.name.as_str(), open.place.line), ("not shadowed", 12));
    let [web] = policy.port_forwards() else { panic!("one port-forward") };
    assert_eq!((web.name.as_str(), translated.port_forwards.as_deref()), ("web", Some(&[0][..])));
    assert_eq!(nobody.port_forwards.as_deref(), Some(&[][..]), "matches nothing, and not everything");
}

/// However many rules name a large set: it is held once.
#[test]
fn selections_that_are_written_alike_are_one() {
    let rule = |from: &str| format!("[[rule]]\naction = \"accept\"\nfrom = [{from}]\n");
    let rules: String = ["\"office\"", "\"office\", \"!192.0.2.7\"", "\"office\""].map(rule).concat();
    let sets = "[interfaces]\nexternal = \"eth0\"\n[sets]\noffice = [\"192.0.2.0/24\"]\n";
    let policy = load_str(&format!("{sets}{rules}")).unwrap().policy;
    let [first, other, again] = policy.rules() else { panic!("three rules") };
    assert!(Arc::ptr_eq(&first.from, &again.from) && !Arc::ptr_eq(&first.from, &other.from));
    assert!(Arc::ptr_eq(&first.to, &other.to), "not written in either");
}

#[test]
fn a_small_file_has_the_documented_defaults() {
    let policy = load_str("[interfaces]\nexternal = \"eth0\"\n").unwrap().policy;
    let defaults = [Chain::Input, Chain::Forward, Chain::Output].map(|chain| policy.default_action(chain));
    assert_eq!(defaults, [Action::Drop, Action::Drop, Action::Accept]);
    assert_eq!((policy.anti_spoof(), policy.capacity()), (AntiSpoof::Strict, 262_144));
    assert_eq!((policy.engine(), policy.on_change()), (EngineMode::Auto, OnChange::Cut));
    assert!(policy.mss_clamp() && policy.watch() && policy.confirm().is_none());
    assert_eq!(policy.timeouts().tcp_established, Duration::from_secs(7440));
}

#[test]
fn ssh_is_admitted_by_a_rule_or_by_the_policy() {
    let locked = |rules: &str| {
        let text = format!("[interfaces]\nexternal = \"eth0\"\n{rules}");
        load_str(&text).unwrap().warnings.iter().any(|warning| warning.message.contains("lock yourself out"))
    };
    let accept = "[[rule]]\naction = \"accept\"\nprotocol = \"tcp\"\nport = \"20-30\"\n";
    let shut = "[[rule]]\naction = \"drop\"\n";
    assert!(locked(""));
    assert!(!locked(accept));
    assert!(!locked("[policy]\ninput = \"accept\"\n"));
    assert!(locked(&format!("{shut}{accept}")));
    assert!(locked(&format!("[policy]\ninput = \"accept\"\n{shut}")));
    assert!(locked("[sets]\nnobody = []\n[[rule]]\naction = \"accept\"\nfrom = [\"nobody\"]\n"));
    assert!(locked("[[rule]]\naction = \"accept\"\nchain = \"output\"\n"));
}

/// A text that is nearly right: the file of all keys with a piece cut out and another put in.
fn nearly_right() -> impl Strategy<Value = String> {
    let text = fs::read_to_string(directory().join("valid/everything.toml")).unwrap();
    let length = text.len();
    let noise = prop_oneof!["[\\[\\]{}\"'=,.#!:/\n -]{0,6}", "\\PC{0,8}", "[0-9:./-]{0,8}"];
    (0..length, 0..40_usize, noise).prop_map(move |(start, cut, noise)| {
        let start = text.floor_char_boundary(start);
        let end = text.floor_char_boundary((start + cut).min(length));
        format!("{}{noise}{}", &text[..start], &text[end..])
    })
}

proptest! {
    #[test]
    fn damage_is_reported_and_never_worse(text in nearly_right()) {
        let result = load_text(Path::new("netfw.toml"), &text, &|_| Ok("".into()), &facts());
        let report = CheckReport::from(&result);
        prop_assert_eq!(report.valid, report.errors.is_empty());
        for finding in report.errors.iter().chain(report.warnings) {
            prop_assert!(finding.line > 0 && finding.column > 0);
            prop_assert!(!finding.render(false).is_empty());
        }
    }
}

#[test]
fn a_kernel_without_syn_cookies_is_told() {
    let text = "[interfaces]\nexternal = [\"eth0\"]\n[[port-forward]]\nprotocol = \"tcp\"\nport = 80\n\
                to = \"192.0.2.1:80\"\nsyn-proxy = ";
    let load = |value: &str, lacks_syn_cookies| {
        let (text, facts) = (format!("{text}\"{value}\"\n"), HostFacts { lacks_syn_cookies, ..facts() });
        load_text(Path::new("netfw.toml"), &text, &|path| Ok(fs::read_to_string(path)?.into()), &facts)
    };
    assert!(load("auto", false).is_ok() && load("off", true).is_ok());
    let told = findings(&load("auto", true));
    assert!(
        told.contains("netfw.toml:7:13: port-forward \"port-forward#3\"")
            && told.contains("CONFIG_SYN_COOKIES"),
        "{told}"
    );
}
