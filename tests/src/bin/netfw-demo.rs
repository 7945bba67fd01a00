//! `cargo xtask demo` starts this: the original setup, shown step by step.

use anyhow::{Result, bail};
use netfw_tests::demo;

fn main() -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => demo::run(false),
        ["--keep"] => demo::run(true),
        ["--remove"] => demo::remove(),
        _ => bail!("usage: netfw-demo [--keep | --remove]"),
    }
}
