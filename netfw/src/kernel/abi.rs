//! Notices when the layout of the pinned maps has changed and its number has not.

use std::fmt::Write as _;

use aya_obj::Object;
use netfw_common::{
    ABI_VERSION,
    block::{self, Bans, Lengths},
    bloom::Halves,
    bucket::Bucket,
    changes::Changes,
    counters::{Count, InterfaceCount, Shares, TranslationCount},
    door::Handshake,
    event::{Event, Prefix, Watch},
    family::{Addr4, Addr6},
    flow::{Flow, Hop},
    fragment::{Held, Ports},
    image::{AddressClass, Forward, Masquerade, Policy, Rule, Service, Target, Vector},
    interface::Interface,
    limit::Limit,
    mapping::Mapping,
    neighbour::Neighbour,
    pressure::Pressure,
    shared::Shared,
    slots::Slot,
    tuple::Tuple,
};
use sha2::{Digest as _, Sha256};

use super::object::{OBJECT, PINNED};

/// A layout, in short, and the number that it has.
const KNOWN: (u32, &str) = (11, "2fae023f161a1026");

#[test]
fn another_layout_has_another_number() {
    let layout = structs() + &maps();
    let digest: String = Sha256::digest(&layout).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (ABI_VERSION, digest.as_str()),
        KNOWN,
        "the layout of the maps has changed: raise ABI_VERSION if a version with it was out, and note both in KNOWN\n{layout}"
    );
}

/// A line for each struct in a map: its name, size, and fields with their offsets.
fn structs() -> String {
    let mut lines = String::new();
    macro_rules! describe {
        ($($type:ty),+ $(,)?) => { $( describe::<$type>(stringify!($type), &mut lines); )+ };
    }
    describe!(
        AddressClass,
        Bans,
        Bucket,
        Changes,
        Count,
        Event,
        Flow<Addr4>,
        Flow<Addr6>,
        Forward,
        Halves,
        Handshake,
        Held,
        Hop,
        Interface,
        InterfaceCount,
        block::Layout,
        block::v6::Layout,
        Lengths,
        Limit,
        Mapping<Addr4>,
        Mapping<Addr6>,
        Masquerade,
        Neighbour,
        Policy,
        Ports,
        Prefix,
        Pressure,
        Rule,
        Service,
        Shares,
        Slot,
        Target,
        TranslationCount,
        Tuple<Addr4>,
        Tuple<Addr6>,
        Vector,
        Watch,
    );
    lines
}

fn describe<T: Shared>(name: &str, lines: &mut String) {
    let _ = writeln!(lines, "{name} {} {:?}", size_of::<T>(), T::FIELDS);
}

/// A line for each pinned map: what it is, and how large keys and values are.
fn maps() -> String {
    let object = Object::parse(OBJECT).expect("the object was built with this crate");
    let mut lines = String::new();
    for name in PINNED {
        let map = &object.maps[name];
        let (kind, key, value, flags) = (map.map_type(), map.key_size(), map.value_size(), map.map_flags());
        let _ = writeln!(lines, "{name} {kind} {key} {value} {flags}");
    }
    lines
}
