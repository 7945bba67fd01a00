//! What outlives a reboot: the rules that held last, and the texts that are not applied by themselves.

use std::{fs, path::PathBuf, time::SystemTime};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    instance::Instance,
    state::{self, Rules, read, read_rules, write},
};
use crate::kernel::remove_if_there;

/// How many generations are kept.
const KEPT: usize = 10;
/// How many refused texts are remembered.
const REFUSED: usize = 100;

/// Rules that have held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Number of the image.
    pub generation: u32,
    /// Since when.
    pub at: SystemTime,
    /// [`Rules::hash`] of their text.
    pub hash: String,
    /// The file they were read from.
    pub file: PathBuf,
}

/// The generations that are kept, the oldest first.
///
/// # Errors
/// The list cannot be read.
pub fn generations(instance: &Instance) -> Result<Vec<Kept>> {
    Ok(read(&list(instance))?.unwrap_or_default())
}

/// Keeps rules that hold from now on, as the last valid ones too, and pardons them. The text of the generation `needed` stays.
///
/// # Errors
/// What the file system says.
pub fn keep(instance: &Instance, generation: u32, rules: &Rules, needed: u32) -> Result<()> {
    let (hash, file) = (rules.hash(), rules.main().map(|(path, _)| path.to_owned()).unwrap_or_default());
    pardon(instance, &hash)?;
    write(&text(instance, generation), rules)?;
    let mut kept = generations(instance)?;
    let mut gone = Vec::new();
    // The same rules once more, as after an adoption, are no generation of their own.
    if let Some(last) = kept.pop_if(|last| last.hash == hash && last.generation != needed) {
        gone.push(last);
    }
    kept.retain(|old| old.generation != generation);
    kept.push(Kept { generation, at: SystemTime::now(), hash: hash.clone(), file });
    while kept.len() > KEPT
        && let Some(oldest) = kept.iter().position(|old| old.generation != needed)
    {
        gone.push(kept.remove(oldest));
    }
    write(&list(instance), &kept)?;
    for old in gone.iter().filter(|old| old.generation != generation) {
        remove_if_there(&text(instance, old.generation))?;
    }
    state::keep_valid_as(instance, &text(instance, generation))
}

/// The text of a generation.
///
/// # Errors
/// It is not kept, or cannot be read.
pub fn recall(instance: &Instance, generation: u32) -> Result<Rules> {
    read_rules(&text(instance, generation))?.with_context(|| {
        format!("generation {generation} is not kept\nhelp: `netfw generations` lists those that are")
    })
}

/// From now on these texts are applied only by a person's word.
///
/// # Errors
/// What the file system says.
pub fn refuse(instance: &Instance, hashes: &[String]) -> Result<()> {
    let mut refused = refused(instance)?;
    refused.retain(|known| !hashes.contains(known));
    refused.extend_from_slice(hashes);
    let surplus = refused.len().saturating_sub(REFUSED);
    refused.drain(..surplus);
    write(&instance.library().join("refused.json"), &refused)
}

/// A text may be applied again by whatever notices it.
///
/// # Errors
/// What the file system says.
pub fn pardon(instance: &Instance, hash: &str) -> Result<()> {
    let mut refused = refused(instance)?;
    let before = refused.len();
    refused.retain(|known| known != hash);
    if refused.len() == before {
        return Ok(());
    }
    write(&instance.library().join("refused.json"), &refused)
}

/// Whether the text was taken back, or never confirmed.
///
/// # Errors
/// The list cannot be read.
pub fn is_refused(instance: &Instance, rules: &Rules) -> Result<bool> {
    let refused = refused(instance)?;
    Ok(!refused.is_empty() && refused.contains(&rules.hash()))
}

/// Puts documents out of the way that a power failure has damaged: they would keep netfw from starting, and from remembering.
pub fn set_damaged_aside(instance: &Instance) {
    let documents = ["generations.json", "refused.json", "last-valid.json"];
    for document in documents.map(|name| instance.library().join(name)) {
        let Err(error) = read::<serde_json::Value>(&document) else { continue };
        let aside = document.with_extension("damaged");
        match fs::rename(&document, &aside) {
            Ok(()) => tracing::error!("{error:#}; it is {} now", aside.display()),
            Err(failure) => tracing::error!("{error:#}; it cannot be put aside: {failure}"),
        }
    }
}

fn refused(instance: &Instance) -> Result<Vec<String>> {
    Ok(read(&instance.library().join("refused.json"))?.unwrap_or_default())
}

fn list(instance: &Instance) -> PathBuf {
    instance.library().join("generations.json")
}

fn text(instance: &Instance, generation: u32) -> PathBuf {
    instance.library().join("generations").join(format!("{generation}.json"))
}
