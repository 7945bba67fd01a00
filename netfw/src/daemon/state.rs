//! What an instance remembers beside its maps: for the commands, and for the next `netfw up`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use super::{engine::Engine, host::sysctl::Turned, instance::Instance, standing::Standing, sweep::Refused};
use crate::{
    config::{Loaded, Source},
    image::Ids,
    kernel::{boot_now, remove_if_there},
    policy::Role,
};

/// Kept under `/run` while the instance is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Network namespace it belongs to (inode).
    pub namespace: u64,
    /// The rules file.
    pub rules_file: PathBuf,
    /// Number of the image that was made last; those of earlier lives of the instance count too.
    pub generation: u32,
    /// Which images hold.
    pub standing: Standing,
    /// Flows that the table was made for; changing it needs a new start.
    pub capacity: u32,
    /// Managed interfaces, by name.
    pub interfaces: BTreeMap<String, Managed>,
    /// Slots of all interfaces that were ever managed: their counters go on when they come back.
    pub slots: BTreeMap<String, u32>,
    /// Kernel index of the interface behind which the kernel reassembles; 0: it cannot.
    #[serde(default)]
    pub reassembler: u32,
    /// Ids of rules and port-forwards.
    pub ids: Ids,
    /// How the last attempt to apply rules ended.
    pub last_reload: LastReload,
}

/// A managed interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managed {
    /// Kernel index; 0 while it is gone.
    pub index: u32,
    /// Towards the outside.
    pub external: bool,
    /// Hook in use.
    pub engine: Engine,
    /// Hook that was tried.
    #[serde(default)]
    pub wanted: Engine,
    /// Why not a faster one.
    pub reason: String,
    /// Switches turned for it.
    pub turned: Vec<Turned>,
    /// Whether `clsact` was put on it.
    pub clsact: bool,
}

impl Managed {
    /// Its side.
    pub fn role(&self) -> Role {
        if self.external { Role::External } else { Role::Internal }
    }
}

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    /// When.
    pub at: SystemTime,
    /// Why nothing was changed; none: it was.
    pub error: Option<String>,
    /// What became of the flows that it no longer admits.
    #[serde(default)]
    pub flows: Refused,
}

impl LastReload {
    /// Now.
    pub fn now(error: Option<String>) -> Self {
        Self { at: SystemTime::now(), error, flows: Refused::default() }
    }
}

/// The text of a rules file and of what it includes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Rules {
    /// Paths with their text, the rules file first.
    pub texts: Vec<(PathBuf, Arc<str>)>,
}

impl Rules {
    /// Of a rules file that was just read.
    pub fn of(loaded: &Loaded) -> Self {
        let text = |source: &Arc<Source>| (source.path().to_owned(), Arc::clone(source.text()));
        Self { texts: loaded.sources.iter().map(text).collect() }
    }

    /// The rules file's path and text.
    pub fn main(&self) -> Option<(&Path, &str)> {
        self.texts.first().map(|(path, text)| (path.as_path(), &**text))
    }

    /// What tells this text from others, wherever it lies.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for (_, text) in &self.texts {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        format!("{:x}", hash.finalize())
    }

    /// An included file's text.
    ///
    /// # Errors
    /// It is not among them.
    pub fn read(&self, path: &Path) -> io::Result<Arc<str>> {
        let found = self.texts.iter().find(|(known, _)| known == path);
        found.map(|(_, text)| Arc::clone(text)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl State {
    /// Of an instance, if it remembers something.
    ///
    /// # Errors
    /// Another version of netfw wrote it.
    pub fn find(instance: &Instance) -> Result<Option<Self>> {
        read(&instance.run().join("state.json"))
    }

    /// Of a running instance.
    ///
    /// # Errors
    /// There is none, or another version of netfw wrote it.
    pub fn load(instance: &Instance) -> Result<Self> {
        Self::find(instance)?.with_context(|| {
            format!(
                "a start of instance {instance} is under way, or was killed\nhelp: wait for it, or clear up with \
                 `netfw --instance {instance} down`"
            )
        })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, instance: &Instance) -> Result<()> {
        write(&instance.run().join("state.json"), self)
    }

    /// The slot of an interface, a new one where it has none.
    ///
    /// # Errors
    /// All are taken.
    pub fn slot(&mut self, name: &str) -> Result<u32> {
        if let Some(&slot) = self.slots.get(name) {
            return Ok(slot);
        }
        let taken = |slot: u32| self.slots.values().any(|&other| other == slot);
        let Some(slot) = (1..netfw_common::interface::MAX_INTERFACES as u32).find(|&slot| !taken(slot))
        else {
            bail!(
                "{name} would be one interface too many: an instance remembers up to 63\nhelp: run a second one"
            );
        };
        self.slots.insert(name.to_owned(), slot);
        Ok(slot)
    }
}

/// The rules that were applied last for good: those that an instance starts from when its rules file is of no
/// use.
///
/// # Errors
/// The file cannot be read.
pub fn last_valid(instance: &Instance) -> Result<Option<Rules>> {
    match stand_in(instance)? {
        None => read_rules(&last_valid_file(instance)),
        Some(stand_in) => Ok(Some(stand_in.rules)),
    }
}

/// Rules that hold though they are not kept as the last valid ones. A reboot forgets them: the next start may find better
/// ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// Their text.
    pub rules: Rules,
    /// Whether they were made to shut everything but the fail-safe door; otherwise nothing can be kept.
    pub shut: bool,
}

/// Those that hold, if they do.
///
/// # Errors
/// The file cannot be read.
pub fn stand_in(instance: &Instance) -> Result<Option<StandIn>> {
    read(&stand_in_file(instance))
}

/// Remembers them.
///
/// # Errors
/// What the file system says.
pub fn keep_stand_in(instance: &Instance, stand_in: &StandIn) -> Result<()> {
    write(&stand_in_file(instance), stand_in)
}

fn stand_in_file(instance: &Instance) -> PathBuf {
    instance.run().join("stand-in.json")
}

/// Where they are kept.
pub fn last_valid_file(instance: &Instance) -> PathBuf {
    instance.library().join("last-valid.json")
}

/// Keeps rules that were applied.
///
/// # Errors
/// What the file system says.
pub fn keep_valid(instance: &Instance, rules: &Rules) -> Result<()> {
    write(&last_valid_file(instance), rules)?;
    remove_if_there(&stand_in_file(instance))
}

/// The same for rules that lie in another file, which from now on is replaced but never written to. Their text may be long:
/// it gets a second name, and is not written a second time.
///
/// # Errors
/// What the file system says.
pub fn keep_valid_as(instance: &Instance, file: &Path) -> Result<()> {
    let valid = last_valid_file(instance);
    let draft = valid.with_extension("new");
    remove_if_there(&draft)?;
    let link = fs::hard_link(file, &draft).and_then(|()| fs::rename(&draft, &valid));
    link.with_context(|| format!("cannot write {}", valid.display()))?;
    remove_if_there(&stand_in_file(instance))
}

/// The text of the rules that wait for confirmation.
///
/// # Errors
/// The file cannot be read.
pub fn candidate(instance: &Instance) -> Result<Option<Rules>> {
    read_rules(&instance.run().join("candidate.json"))
}

/// Keeps the text of rules that will wait for confirmation.
///
/// # Errors
/// What the file system says.
pub fn keep_candidate(instance: &Instance, rules: &Rules) -> Result<()> {
    write(&instance.run().join("candidate.json"), rules)
}

/// The rules that hold now.
///
/// # Errors
/// The file cannot be read.
pub fn in_force(instance: &Instance) -> Result<Option<Rules>> {
    let state = State::find(instance)?;
    if state.is_some_and(|state| state.standing.pending(boot_now()).is_some())
        && let Some(rules) = candidate(instance)?
    {
        return Ok(Some(rules));
    }
    last_valid(instance)
}

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    open(path)?.map(|file| parse(path, &file)).transpose()
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, file: &File) -> Result<T> {
    let text = io::read_to_string(file).with_context(|| format!("cannot read {}", path.display()))?;
    let value = serde_json::from_str(&text);
    value.with_context(|| format!("{} is of another version of netfw, or broken", path.display()))
}

/// Bytes from which on a document is a long one.
const LONG: u64 = 1 << 16;

/// Device, inode, time and length: which file a document is. One is replaced, never written to, so another text is another file;
/// only a short one could be there, gone, and have its inode and time taken over by the next.
type Identity = (u64, u64, SystemTime, u64);

/// The long document of rules that was read last: with a million addresses that takes a while, and one change asks for it
/// several times.
static LAST_READ: Mutex<Option<(Identity, Rules)>> = Mutex::new(None);

pub(super) fn read_rules(path: &Path) -> Result<Option<Rules>> {
    let Some(file) = open(path)? else { return Ok(None) };
    // Of the open file: at its path may be another one by now.
    let about = file.metadata().with_context(|| format!("cannot read {}", path.display()))?;
    let identity = (about.dev(), about.ino(), about.modified()?, about.len());
    let mut last = LAST_READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, rules)) = &*last
        && *known == identity
    {
        return Ok(Some(rules.clone()));
    }
    let rules: Rules = parse(path, &file)?;
    if about.len() >= LONG {
        *last = Some((identity, rules.clone()));
    }
    Ok(Some(rules))
}

/// In one step: a reader sees the old content or the new one.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let draft = path.with_extension("new");
    let save = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        // Without the buffer each escaped line break of a text would be a system call of its own.
        let mut file = io::BufWriter::new(File::create(&draft)?);
        serde_json::to_writer(&mut file, value)?;
        file.into_inner()?.sync_data()?;
        fs::rename(&draft, path)
    };
    save().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("below").join("rules.json");
        assert_eq!(read::<Rules>(&path)?, None);
        let rules = Rules { texts: vec![("/etc/netfw/netfw.toml".into(), "[policy]\n".into())] };
        write(&path, &rules)?;
        assert_eq!(read::<Rules>(&path)?, Some(rules.clone()));
        assert_eq!(&*rules.read(Path::new("/etc/netfw/netfw.toml"))?, "[policy]\n");
        assert!(rules.read(Path::new("/etc/passwd")).is_err());
        Ok(())
    }

    #[test]
    fn a_long_text_that_was_replaced_is_another_one() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let [path, kept] = ["rules.json", "kept.json"].map(|name| directory.path().join(name));
        let rules =
            |letter: &str| Rules { texts: vec![("netfw.toml".into(), letter.repeat(1 << 17).into())] };
        write(&path, &rules("a"))?;
        fs::hard_link(&path, &kept)?;
        assert_eq!(read_rules(&path)?, Some(rules("a")));
        write(&path, &rules("b"))?;
        assert_eq!(read_rules(&path)?, Some(rules("b")));
        assert_eq!(read_rules(&kept)?, Some(rules("a")), "what was replaced has another name");
        fs::remove_file(&path)?;
        assert_eq!(read_rules(&path)?, None);
        Ok(())
    }

    #[test]
    fn a_broken_file_is_named() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("state.json");
        fs::write(&path, "{")?;
        let error = read::<Rules>(&path).expect_err("not a document");
        assert!(error.to_string().contains("state.json"), "{error}");
        Ok(())
    }
}
