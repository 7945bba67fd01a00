//! Scenario 21: a block list of a million prefixes. What it takes is printed; that a list is replaced while packets meet it,
//! and that slots share one, is checked.

use std::{
    cell::RefCell,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use netfw::{
    config::{HostFacts, load_text},
    image::{Ids, Image, compile},
    kernel::Maps,
};
use netfw_tests::packet::{Gateway, Hook, Packet, Side, world::V4};

use crate::{loaded::Loaded, memory::policy::host};

const MILLION: usize = 1_000_000;
/// Packets in one call.
const ROUNDS: u32 = 20_000;

/// The rules around the list.
const RULES: &str = "[block]\nfrom = [\"bad\"]\n[sets]\nbad = { file = \"bad.txt\" }\n[interfaces]\nexternal = \
                     [\"eth0\"]\ninternal = [\"eth1\"]\n[policy]\ninput = \"drop\"\n";

/// As many prefixes, of both families and mixed lengths, none of which can be joined with another; and the stranger.
fn prefixes(count: usize, seed: u32) -> String {
    let mut text = "198.51.100.10\n".to_owned();
    for number in 0..count as u32 - 1 {
        // Writing to a string cannot fail.
        let _ = if number % 4 == 3 {
            let length = [32, 36, 40, 44, 48, 56, 64, 128][(number / 4 % 8) as usize];
            let place = u128::from(0x2a00_0000 + number / 4) << 96 | u128::from(seed) << 1;
            writeln!(text, "{}/{length}", Ipv6Addr::from_bits(place >> (128 - length) << (128 - length)))
        } else {
            let length = 23 + number % 10;
            let place = 0x0b00_0000 + number * 1024 + (seed << 9);
            writeln!(text, "{}/{length}", Ipv4Addr::from_bits(place))
        };
    }
    text
}

fn image(list: &str, rules: &str) -> Image {
    let read = |_: &Path| Ok(list.to_owned());
    let loaded = load_text(Path::new("netfw.toml"), rules, &read, &HostFacts::default());
    compile(&loaded.expect("valid rules").policy, &host(), &mut Ids::default()).expect("a small policy")
}

/// The number of the list that a slot leads to, and what it takes of memory.
fn list(loaded: &Loaded, slot: u32) -> Result<(u32, u64)> {
    let number = loaded.maps().block_list(slot)?.context("a slot that was never used")?;
    let map = MapData::from_id(number)?;
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
    let memory = about.lines().find_map(|line| line.strip_prefix("memlock:")).context("no size")?;
    Ok((number, memory.trim().parse()?))
}

fn megabytes(bytes: u64) -> u64 {
    bytes >> 20
}

/// What a packet of a new flow costs that the policy drops, in XDP, after it was looked for in the list.
fn cost(loaded: &mut Loaded, from: &str) -> Result<Duration> {
    let frame = Gateway::framed(Side::Outside, &Packet::udp(V4.at(from, 4000), V4.at("master", 9)));
    Ok((0..10)
        .map(|_| Ok(loaded.run_often(Hook::Xdp, Side::Outside, &frame, ROUNDS)?.1))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .min()
        .unwrap_or_default())
}

/// Loads lists and replaces them; prints what that takes.
pub(crate) fn check(loaded: &Rc<RefCell<Loaded>>) -> Result<(), String> {
    tell(&mut loaded.borrow_mut()).map_err(|error| format!("{error:?}"))
}

fn tell(loaded: &mut Loaded) -> Result<()> {
    loaded.empty()?;
    let small = image("198.51.100.10\n", RULES);
    let [one, other] = [1, 2].map(|seed| image(&prefixes(MILLION, seed), RULES));
    assert_eq!([one.blocks.len(), other.blocks.len()], [MILLION; 2], "prefixes were joined");
    install(loaded, &small, 1)?;
    let short = cost(loaded, "client")?;
    let took = install(loaded, &one, 2)?;
    let (number, memory) = list(loaded, loaded.maps().active_slot()?)?;
    println!(
        "a million prefixes are in the kernel's tables after {took:?} and take {} MiB",
        megabytes(memory)
    );
    println!("a new flow costs {:?}, {short:?} with one prefix", cost(loaded, "client")?);
    shares(loaded, &one, number)?;
    replaces(loaded, [&one, &other])?;
    install(loaded, &small, 20)?;
    install(loaded, &small, 21)?;
    let left = total(loaded)?;
    ensure!(left < 1 << 20, "{} MiB are left of lists that nobody uses", megabytes(left));
    Ok(())
}

fn install(loaded: &Loaded, image: &Image, generation: u32) -> Result<Duration> {
    let begun = Instant::now();
    loaded.maps().install(image, generation)?;
    Ok(begun.elapsed())
}

/// Memory of all lists.
fn total(loaded: &Loaded) -> Result<u64> {
    let mut lists =
        (0..netfw_common::image::SLOTS).filter_map(|slot| list(loaded, slot).ok()).collect::<Vec<_>>();
    lists.sort_unstable();
    lists.dedup();
    Ok(lists.iter().map(|(_, memory)| memory).sum())
}

/// Other rules with the same list use the one that is there.
fn shares(loaded: &Loaded, image: &Image, number: u32) -> Result<()> {
    let mut image = image.clone();
    image.policy.default_actions[0] ^= 1;
    let took = install(loaded, &image, 3)?;
    image.policy.default_actions[0] ^= 1;
    install(loaded, &image, 4)?;
    ensure!(list(loaded, loaded.maps().active_slot()?)?.0 == number, "the same list was loaded again");
    println!("other rules with the same list hold after {took:?}");
    Ok(())
}

/// While one list takes the other's place, again and again, whom both name is dropped, and whom neither names is not.
fn replaces(loaded: &mut Loaded, images: [&Image; 2]) -> Result<()> {
    let frame = |from| Gateway::framed(Side::Outside, &Packet::udp(V4.at(from, 4000), V4.at("master", 9)));
    let frames = [frame("stranger"), frame("client")];
    let maps = Maps::open(loaded.pins())?;
    let (mut sent, before) = (0, loaded.count()?);
    thread::scope(|scope| {
        let changes = scope.spawn(move || {
            (5..13).try_for_each(|generation| {
                maps.install(images[generation as usize % 2], generation).map(drop)
            })
        });
        while !changes.is_finished() {
            for frame in &frames {
                loaded.run_often(Hook::Xdp, Side::Outside, frame, ROUNDS)?;
            }
            sent += u64::from(ROUNDS);
        }
        changes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let drops = loaded.count()?.since(&before).drops;
    let [blocked, refused] =
        ["blocked", "policy-input"].map(|reason| drops.get(reason).map_or(0, |count| count.packets));
    ensure!([blocked, refused] == [sent; 2], "{blocked} blocked and {refused} not, of {sent} each");
    println!(
        "{sent} packets of each kind met 8 changes of the list; all lists take {} MiB",
        megabytes(total(loaded)?)
    );
    Ok(())
}
