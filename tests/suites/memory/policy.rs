//! From a rules text for the two-armed lab to an image.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use netfw::{
    config::{HostFacts, load_text},
    image::{Host, Ids, Image, compile},
    policy::ValidPolicy,
};
use netfw_tests::packet::Side;

/// What became of a rules text.
#[derive(Clone)]
pub(crate) struct Compiled {
    text: String,
    before: Ids,
    /// What it means.
    pub(crate) policy: ValidPolicy,
    /// What the datapath reads.
    pub(crate) image: Image,
    /// The ids that its names have now.
    pub(crate) ids: Ids,
}

/// Compiles each text once: random tests apply the same ones thousands of times.
pub(crate) fn compiled(text: &str, before: &Ids) -> Compiled {
    static KNOWN: Mutex<Vec<Compiled>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.iter().find(|known| known.text == text && known.before == *before) {
        return found.clone();
    }
    let policy = load(text);
    let mut ids = before.clone();
    let image = compile(&policy, &host(), &mut ids).expect("a small policy");
    let compiled = Compiled { text: text.to_owned(), before: before.clone(), policy, image, ids };
    known.push(compiled.clone());
    compiled
}

/// The interfaces of the lab.
pub(crate) fn host() -> Host {
    let sides = [Side::Outside, Side::Inside];
    Host { interfaces: sides.map(|side| (side.interface().to_owned(), side.slot())).into() }
}

/// A rules text as a policy.
fn load(text: &str) -> ValidPolicy {
    let nothing = |_: &Path| unreachable!("no file is included");
    let loaded = load_text(Path::new("netfw.toml"), text, &nothing, &HostFacts::default());
    loaded.unwrap_or_else(|error| panic!("{error}\n{text}")).policy
}
