//! What does not fit is refused in words.

use std::fmt::Write;

use netfw::image::{CompileError, Host, Ids, compile};

use crate::{host, load};

const INTERFACES: &str = "[interfaces]\nexternal = [\"eth0\"]\ninternal = [\"eth1\"]\n";

fn refusal(text: &str) -> String {
    let mut ids = Ids::default();
    let refused = compile(&load(text), &host(), &mut ids).expect_err("too large");
    assert_eq!(ids, Ids::default(), "a refused policy leaves the ids alone");
    let text = refused.to_string();
    let (what, help) = text.split_once("\nhelp: ").expect("a remedy");
    assert!(!help.is_empty());
    what.to_owned()
}

#[test]
fn rules() {
    let text = INTERFACES.to_owned() + &"[[rule]]\naction = \"accept\"\n".repeat(4097);
    assert_eq!(refusal(&text), "4097 rules are too many: the datapath has room for 4096");
}

#[test]
fn masquerades() {
    let text = INTERFACES.to_owned() + &"[[masquerade]]\nfrom = [\"192.0.2.0/24\"]\n".repeat(17);
    assert_eq!(refusal(&text), "17 masquerades are too many: the datapath has room for 16");
}

#[test]
fn port_ranges() {
    let ports: Vec<String> = (0..4097).map(|n| (2 * n + 1).to_string()).collect();
    let text = format!(
        "{INTERFACES}[[port-forward]]\nprotocol = \"tcp\"\nport = [{}]\nto = \"192.0.2.1:22\"\n",
        ports.join(", ")
    );
    let words = "4097 port ranges of port-forwards are too many: the datapath has room for 4096";
    assert_eq!(refusal(&text), words);
}

#[test]
fn balanced_targets() {
    let targets: Vec<String> = (0..129).map(|n| format!("\"192.0.2.{n}:22\"")).collect();
    let text = format!(
        "{INTERFACES}[[port-forward]]\nprotocol = \"tcp\"\nport = 22\nto = [{}]\n",
        targets.join(", ")
    );
    let words = "129 targets of one port-forward are too many: the datapath has room for 128";
    assert_eq!(refusal(&text), words);
}

#[test]
fn targets() {
    let mut text = INTERFACES.to_owned();
    for forward in 0..130 {
        let targets: Vec<String> = (0..128).map(|n| format!("\"10.{forward}.0.{n}:22\"")).collect();
        writeln!(
            text,
            "[[port-forward]]\nprotocol = \"tcp\"\nport = {}\nto = [{}]",
            1000 + forward,
            targets.join(", ")
        )
        .unwrap();
    }
    let words = "16640 targets of port-forwards are too many: the datapath has room for 16384";
    assert_eq!(refusal(&text), words);
}

#[test]
fn an_interface_without_a_slot() {
    let policy =
        load(&format!("{INTERFACES}[[rule]]\nname = \"lan\"\naction = \"accept\"\ninterface = \"eth1\"\n"));
    let nothing = compile(&policy, &Host::default(), &mut Ids::default());
    let expected = CompileError::UnmanagedInterface { rule: "lan".into(), interface: "eth1".into() };
    assert_eq!(nothing, Err(expected));
}
