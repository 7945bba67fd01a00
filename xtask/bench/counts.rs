//! `bench counts`: the packets of `bench stages`, in instructions and in calls of the kernel's functions that look up: figures that no
//! machine changes. The kernel must be one whose clock goes on by a nanosecond an instruction, as `cargo xtask bench counts` boots
//! it.

use std::iter;

use anyhow::Result;

use crate::{
    probes::Probes,
    stages::{self, Args},
};

/// What the kernel does for a program in functions of its own. A look-up in an array is none: the verifier puts it in line.
const CALLS: [(&str, &[&str]); 4] = [
    // The verifier calls the first where it knows the map; where it does not, one of the others is called, with the first in line.
    ("hash look-ups", &["__htab_map_lookup_elem", "htab_map_lookup_elem", "htab_lru_map_lookup_elem"]),
    (
        "hash writes",
        &[
            "htab_map_update_elem",
            "htab_map_delete_elem",
            "htab_lru_map_update_elem",
            "htab_lru_map_delete_elem",
        ],
    ),
    ("trie look-ups", &["trie_lookup_elem"]),
    ("route look-ups", &["bpf_ipv4_fib_lookup", "bpf_ipv6_fib_lookup"]),
];
/// Packets of a kind that are counted, for the median: a timer may interrupt one, and now and then a full hash makes room for many.
const PACKETS: usize = 101;
/// A table that the packets before those fill.
const SMALL: &str = "[flows]\ncapacity = 65536\n";

/// Counts and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    print!("{:48} {:>14}", "A packet by test run, by where it ends", "instructions");
    CALLS.iter().for_each(|(what, _)| print!(" {what:>14}"));
    println!();
    stages::each(&args.common, 1, SMALL, |hook, kind, next| {
        // Before there are probes, which have instructions of their own.
        let instructions = stages::median(iter::repeat_with(&mut *next).take(PACKETS))?.as_nanos();
        print!("{:48} {instructions:>14}", format!("{hook}, {kind}"));
        for (_, functions) in CALLS {
            let probes = Probes::set(functions)?;
            let calls = iter::repeat_with(|| probes.calls_in(&mut *next));
            print!(" {:>14}", stages::median(calls.take(PACKETS))?);
        }
        println!();
        Ok(())
    })
}
