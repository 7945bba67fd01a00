//! What does not fit is refused in words.

use netfw::image::{CompileError, Ids, compile};

use crate::{host, load};

const INTERFACES: &str = "[interfaces]\nexternal = [\"eth0\"]\ninternal = [\"eth1\"]\n";

fn refusal(text: &str) -> CompileError {
    let mut ids = Ids::default();
    let refused = compile(&load(text), &host(), &mut ids).expect_err("too large");
    assert_eq!(ids, Ids::default(), "a refused policy leaves the ids alone");
    assert!(!refused.remedy().is_empty());
    refused
}

#[test]
fn too_many_rules() {
    let mut text = INTERFACES.to_owned();
    for _ in 0..4097 {
        text.push_str("[[rule]]\naction = \"accept\"\n");
    }
    assert_eq!(refusal(&text).to_string(), "4097 rules are too many: the datapath has room for 4096");
}
