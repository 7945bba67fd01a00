//! Scenario 21: a block list of a million prefixes. What time it takes is printed; how much memory at most, that no packet meets a
//! mix while a list is replaced, and that slots share one, is checked.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use ipnet::IpNet;
use netfw::{
    config::{HostFacts, load_text},
    image::{Ids, Image, compile},
    kernel::Maps,
};
use netfw_common::image::{Active, SLOTS};
use netfw_tests::packet::{
    Gateway, Hook, Packet, Side,
    world::{V4, V6},
};

use crate::{
    loaded::{Loaded, NEVER},
    memory::policy::host,
};

const MILLION: usize = 1_000_000;
/// What lists of a million prefixes may take, all that there are at a time.
const MEMORY: u64 = 256 << 20;
/// What a million addresses of IPv6 take by themselves.
const ADDRESSES: u64 = 16 * MILLION as u64;
/// Packets in one call.
const ROUNDS: u32 = 20_000;

/// The rules around the list.
const RULES: &str = "[block]\nfrom = [\"bad\"]\n[sets]\nbad = { file = \"bad.txt\" }\n[interfaces]\nexternal = \
                     [\"eth0\"]\ninternal = [\"eth1\"]\n[policy]\ninput = \"drop\"\n";

/// The stranger, and networks beside his: each of a length that an IPv6 address near them is looked up with.
const HEAD: [&str; 6] = [
    "198.51.100.10",
    "2001:db8:2::10",
    "2001:db8:3::/48",
    "2001:db8:2:100::/56",
    "2001:db8:2:1::/64",
    "2001:db8:2:0:1::/80",
];

/// As many prefixes, of both families and mixed lengths, none of which can be joined with another.
fn prefixes(count: usize, seed: u32) -> String {
    let mut text = HEAD.join("\n") + "\n";
    for number in 0..(count - HEAD.len()) as u32 {
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
    let read = |_: &Path| Ok(list.into());
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

/// Of a new flow that the policy drops, unless the list does.
fn frame(from: IpAddr) -> Vec<u8> {
    let world = if from.is_ipv4() { V4 } else { V6 };
    Gateway::framed(Side::Outside, &Packet::udp(SocketAddr::new(from, 4000), world.at("master", 9)))
}

/// What a packet of a new flow costs that the policy drops, in XDP, after it was looked for in the list.
fn cost(loaded: &mut Loaded, from: IpAddr) -> Result<Duration> {
    let frame = frame(from);
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
    let one = image(&prefixes(MILLION, 1), RULES);
    let other = image(&(prefixes(MILLION - 2, 2) + &ON_THE_SECOND.join("\n")), RULES);
    let count = [one.blocks.len(), other.blocks.len()];
    ensure!(count[0] == MILLION, "prefixes were joined: {count:?}");
    install(loaded, &small, 1)?;
    let [short, short6] = [V4, V6].map(|world| cost(loaded, world.host("client")));
    let took = install(loaded, &one, 2)?;
    let (number, memory) = list(loaded, loaded.maps().active_slot()?)?;
    println!(
        "a million prefixes are in the kernel's tables after {took:?} and take {} MiB",
        megabytes(memory)
    );
    let [far, near] = [V4.host("client"), ON_NONE[0].parse()?].map(|from| cost(loaded, from));
    println!(
        "a new flow costs {:?}, {:?} from beside a listed address, {:?} with one prefix",
        far?, near?, short?
    );
    let [three, five] = [V6.host("client"), "2001:db8:2::13".parse()?].map(|from| cost(loaded, from));
    println!(
        "one of IPv6 {:?} where three lengths are listed near it, {:?} where five are, {:?} without a prefix of IPv6",
        three?, five?, short6?
    );
    shares(loaded, &one, number)?;
    replaces(loaded, [&one, &other])?;
    follows(loaded, &one)?;
    largest(loaded, &small)?;
    install(loaded, &small, 30)?;
    install(loaded, &small, 31)?;
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
    let mut lists = (0..SLOTS).filter_map(|slot| list(loaded, slot).ok()).collect::<Vec<_>>();
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

/// In every slot another list of the kind that takes most: one more than there ever are, the present one, the last confirmed one
/// and the one on trial.
fn largest(loaded: &Loaded, small: &Image) -> Result<()> {
    let mut slots = Vec::new();
    for number in 0..SLOTS {
        let slot = loaded.maps().write(&of_addresses(small, number), 25 + number, &slots)?;
        slots.push(slot);
        loaded.maps().hold(Active::confirmed(slot))?;
    }
    let all = total(loaded)?;
    println!("{SLOTS} lists of a million addresses of IPv6 take {} MiB", megabytes(all));
    ensure!(
        all > u64::from(SLOTS) * ADDRESSES,
        "lists that are not the same are shared, or have been given up"
    );
    ensure!(all <= MEMORY, "{all} bytes for lists, of {MEMORY}");
    Ok(())
}

/// Blocks a million addresses of IPv6; which, the number tells.
fn of_addresses(image: &Image, number: u32) -> Image {
    let mut image = image.clone();
    let first = u128::from(0x2a00_0000 + number) << 96;
    let addresses = (0..MILLION as u128).map(|place| Ipv6Addr::from_bits(first | place << 33));
    image.blocks = Arc::new(addresses.map(|address| IpAddr::V6(address).into()).collect());
    // Not that of a list that was given up.
    image.policy.block_digest = [number + 1; 8];
    image
}

/// Which addresses are on the lists, of each family: both name the first, the second alone the second.
const ON_BOTH: [&str; 2] = ["198.51.100.10", "2001:db8:2::10"];
const ON_THE_SECOND: [&str; 2] = ["198.51.100.12", "2001:db8:4::12"];
const ON_NONE: [&str; 2] = ["198.51.100.13", "2001:db8:2::13"];
/// By which hook packets come, and of which family they are.
const WAYS: [(Hook, usize); 4] = [(Hook::Xdp, 0), (Hook::Ingress, 1), (Hook::Xdp, 1), (Hook::Ingress, 0)];

/// How many packets met the list that holds: by which hook, from whom, and whether it names him.
type Seen = BTreeMap<(String, &'static str, bool), u64>;

/// While lists are written, tried out, taken back, put and confirmed, packets are dropped exactly if the list that holds names
/// their source.
fn replaces(loaded: &mut Loaded, images: [&Image; 2]) -> Result<()> {
    let change = Change { maps: Maps::open(loaded.pins())?, images, stores: AtomicU32::new(0) };
    let mut seen = Seen::new();
    change.meanwhile(loaded, &mut seen, || {
        (0..2).try_for_each(|round| change.there_and_back(10 + 5 * round))
    })?;
    change.there(20)?;
    change.is_met_each_way(loaded, &mut seen)?;
    let all = total(loaded)?;
    println!("packets that met the lists: {seen:?}; all lists take {} MiB", megabytes(all));
    ensure!(seen.len() == 4 * WAYS.len(), "not every list was met");
    ensure!(all <= MEMORY, "{all} bytes for lists, of {MEMORY}");
    Ok(())
}

/// Changes of a few addresses are made in the pages of the list that holds, while packets read them.
const FEW: u32 = 40;

/// While the list gets a few more and loses them again, packets are dropped exactly if the list that holds names their source.
fn follows(loaded: &mut Loaded, one: &Image) -> Result<()> {
    install(loaded, one, 40)?;
    let pages = list(loaded, loaded.maps().active_slot()?)?;
    let change = Change { maps: Maps::open(loaded.pins())?, images: [one; 2], stores: AtomicU32::new(0) };
    let (mut seen, mut took) = (Seen::new(), Duration::ZERO);
    change.meanwhile(loaded, &mut seen, || {
        (0..FEW).try_for_each(|number| change.by_a_few(number, &mut took))
    })?;
    change.by_a_few(FEW, &mut took)?;
    change.is_met_each_way(loaded, &mut seen)?;
    println!(
        "a change of a few of a million holds after {:?}; packets that met it: {seen:?}",
        took / (FEW + 1)
    );
    ensure!(seen.len() == 4 * WAYS.len(), "not every list was met");
    ensure!(list(loaded, loaded.maps().active_slot()?)? == pages, "the list was laid out anew");
    Ok(())
}

/// A list with one more address of each family, another one each time, and every other time with what is on the second.
fn with_a_few(one: &Image, number: u32) -> Image {
    let mut image = one.clone();
    let mut blocks = image.blocks.to_vec();
    let four = Ipv4Addr::from_bits(0xc0a8_0000 + 2 * number);
    let six = Ipv6Addr::from_bits(0x2001_0db8_0009 << 80 | u128::from(number) << 1);
    blocks.extend([IpAddr::V4(four), IpAddr::V6(six)].map(IpNet::from));
    if number.is_multiple_of(2) {
        blocks.extend(ON_THE_SECOND.map(|text| IpNet::from(text.parse::<IpAddr>().expect("an address"))));
    }
    blocks.sort();
    image.blocks = blocks.into();
    // Not that of any other list.
    image.policy.block_digest = [1000 + number; 8];
    image
}

/// Changes between two lists, the first of which holds.
struct Change<'a> {
    maps: Maps,
    images: [&'a Image; 2],
    /// Goes up before and after each store that makes the other list hold: odd, while that is being done.
    stores: AtomicU32,
}

impl Change<'_> {
    /// To the second list on trial, and back; to it for good, and back through a trial.
    fn there_and_back(&self, generation: u32) -> Result<()> {
        let [first, second] = self.images;
        let old = self.maps.active_slot()?;
        let tried = self.maps.write(second, generation, &[])?;
        self.store(Active::until(NEVER, tried, old))?;
        self.store(Active::confirmed(old))?;
        let new = self.there(generation + 1)?;
        let back = self.maps.write(first, generation + 2, &[new])?;
        self.store(Active::until(NEVER, back, new))?;
        self.maps.hold(Active::confirmed(back))
    }

    /// To the second list, which lies in the slot that is returned.
    fn there(&self, generation: u32) -> Result<u32> {
        let new = self.maps.write(self.images[1], generation, &[])?;
        self.store(Active::confirmed(new))?;
        Ok(new)
    }

    /// To another list that differs in a few.
    fn by_a_few(&self, number: u32, took: &mut Duration) -> Result<()> {
        let image = with_a_few(self.images[0], number);
        let begun = Instant::now();
        let new = self.maps.write(&image, 41 + number, &[])?;
        self.store(Active::confirmed(new))?;
        *took += begun.elapsed();
        Ok(())
    }

    fn store(&self, word: Active) -> Result<()> {
        self.stores.fetch_add(1, SeqCst);
        self.maps.hold(word)?;
        self.stores.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Sends packets while somebody makes changes, and after: however fast those were, the list that holds then is met.
    fn meanwhile(
        &self,
        loaded: &mut Loaded,
        seen: &mut Seen,
        changes: impl FnOnce() -> Result<()> + Send,
    ) -> Result<()> {
        thread::scope(|scope| {
            let changes = scope.spawn(changes);
            for &way in WAYS.iter().cycle() {
                if changes.is_finished() {
                    break;
                }
                self.is_met(loaded, way, seen)?;
            }
            changes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        self.is_met_each_way(loaded, seen)
    }

    fn is_met_each_way(&self, loaded: &mut Loaded, seen: &mut Seen) -> Result<()> {
        WAYS.iter().try_for_each(|&way| self.is_met(loaded, way, seen))
    }

    /// Sends packets of each kind; notes how many met which list, where that is certain.
    fn is_met(&self, loaded: &mut Loaded, (hook, family): (Hook, usize), seen: &mut Seen) -> Result<()> {
        for hosts in [ON_BOTH, ON_THE_SECOND, ON_NONE] {
            let host = hosts[family];
            let before = self.stores.load(SeqCst);
            let blocked = blocked(loaded, hook, host)?;
            // Packets on both sides of a store meet both lists.
            if before.is_multiple_of(2) && self.stores.load(SeqCst) == before {
                let listed = hosts == ON_BOTH || hosts == ON_THE_SECOND && before / 2 % 2 == 1;
                let expected = if listed { u64::from(ROUNDS) } else { 0 };
                ensure!(
                    blocked == expected,
                    "{hook:?}: {blocked} packets of {host} were blocked, not {expected}"
                );
                *seen.entry((format!("{hook:?}"), host, listed)).or_default() += u64::from(ROUNDS);
            }
        }
        Ok(())
    }
}

/// How many of many packets from an address are dropped because it is blocked; all others are by the policy.
fn blocked(loaded: &mut Loaded, hook: Hook, from: &str) -> Result<u64> {
    let frame = frame(from.parse()?);
    let before = loaded.count()?;
    loaded.run_often(hook, Side::Outside, &frame, ROUNDS)?;
    let drops = loaded.count()?.since(&before).drops;
    let count = |reason| drops.get(reason).map_or(0, |count| count.packets);
    let (blocked, refused) = (count("blocked"), count("policy-input"));
    ensure!(blocked + refused == u64::from(ROUNDS), "{blocked} blocked and {refused} refused, of {ROUNDS}");
    Ok(blocked)
}
