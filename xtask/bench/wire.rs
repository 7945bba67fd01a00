//! The least that a gateway in XDP can do: send on what arrives. What the hook itself costs.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Xdp, XdpMode},
};
use nix::net::if_::if_nametoindex;

use crate::testbed::{INTERFACES, SOURCE_LINK, Testbed};

/// Link addresses of the server, and of the gateway's interface towards it.
const SERVER_LINK: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 4], [2, 0, 0, 0, 0, 3]);

/// From either side to the other.
pub(crate) fn lay(bed: &Testbed, object: &Path) -> Result<[Ebpf; 2]> {
    let (outside, inside) = INTERFACES;
    bed.gateway.enter(|| {
        Ok([one_way(object, outside, inside, SERVER_LINK)?, one_way(object, inside, outside, SOURCE_LINK)?])
    })
}

fn one_way(object: &Path, from: &str, to: &str, (next, own): ([u8; 6], [u8; 6])) -> Result<Ebpf> {
    let macs = [
        [next[0], next[1]],
        [next[2], next[3]],
        [next[4], next[5]],
        [own[0], own[1]],
        [own[2], own[3]],
        [own[4], own[5]],
    ];
    let mut ebpf = EbpfLoader::new()
        .override_global("OUT", &if_nametoindex(to)?, true)
        .override_global("MACS", &macs.map(u16::from_ne_bytes), true)
        .load_file(object.with_file_name("netfw-flood"))?;
    let program: &mut Xdp = ebpf.program_mut("wire").context("the object has no wire")?.try_into()?;
    program.load()?;
    program.attach(from, XdpMode::Driver)?;
    Ok(ebpf)
}
