//! A typed view of a map: only values that are plain data on both sides, sizes checked when it is opened.

use std::{
    io,
    marker::PhantomData,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use aya::maps::MapData;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_type};
use netfw_common::shared::Shared;

use super::sys;

/// Update flag: the key may exist or not.
pub(super) const ANY: u64 = 0;
/// Update flag: the key must exist.
pub(super) const EXISTING: u64 = 2;

/// How many entries one batch call carries.
const BATCH: usize = 4096;

/// A map with keys `K` and values `V`.
pub(super) struct Table<K, V> {
    map: MapData,
    capacity: u32,
    types: PhantomData<fn(K) -> V>,
}

/// Entries that were read together.
struct Batch<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
    /// How many may be read at once.
    room: usize,
}

impl<K: Shared, V: Shared> Table<K, V> {
    /// The map pinned at `path`.
    ///
    /// # Errors
    /// When there is none, or its keys or values have another size.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let map =
            MapData::from_pin(path).with_context(|| format!("cannot open the map {}", path.display()))?;
        Self::check(map, &path.display().to_string())
    }

    /// The map with this number, by which a map of maps answers.
    ///
    /// # Errors
    /// There is none, or its keys or values have another size.
    pub(super) fn numbered(number: u32) -> Result<Self> {
        Self::check(MapData::from_id(number)?, &format!("number {number}"))
    }

    /// A new map, unpinned.
    ///
    /// # Errors
    /// What the kernel says, such as out of memory.
    pub(super) fn create(kind: bpf_map_type, name: &str, entries: u32, flags: u32) -> Result<Self> {
        let (key, value) = (size_of::<K>() as u32, size_of::<V>() as u32);
        let shape = aya_obj::Map::new_from_params(kind as u32, key, value, entries, flags);
        Self::check(MapData::create(shape, name, None)?, name)
    }

    /// A map of an object that was just loaded.
    ///
    /// # Errors
    /// Its keys or values have another size.
    pub(super) fn check(map: MapData, name: &str) -> Result<Self> {
        let info = map.info()?;
        if (info.key_size() as usize, info.value_size() as usize) != (size_of::<K>(), size_of::<V>()) {
            bail!("the map {name} has entries of another size: another version of netfw made it");
        }
        Ok(Self { map, capacity: info.max_entries(), types: PhantomData })
    }

    /// How many entries it can hold.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The number by which a map of maps names it.
    pub(super) fn descriptor(&self) -> u32 {
        self.map.fd().as_fd().as_raw_fd() as u32
    }

    /// Pins it at `path`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn pin(&self, path: &Path) -> Result<()> {
        self.map.pin(path).with_context(|| format!("cannot pin a map at {}", path.display()))
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// What the kernel says; a missing key is `None`.
    pub(super) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let mut attributes = self.element(key, value.as_mut_ptr(), 0);
        // SAFETY: key and value are as large as the map says (checked when it was opened), and not per CPU.
        match unsafe { sys::bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes) } {
            // SAFETY: the kernel has written all of it, and any bytes are a value of a `Shared` type.
            Ok(()) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Values of `key` on every possible CPU, which are `cpus` in number; only for per-CPU maps.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn get_per_cpu(&self, key: &K, cpus: usize) -> io::Result<Vec<V>> {
        assert!(size_of::<V>().is_multiple_of(8), "the kernel rounds per-CPU values up to 8 bytes");
        let mut values = Vec::<V>::with_capacity(cpus);
        let mut attributes = self.element(key, values.as_mut_ptr(), 0);
        // SAFETY: there is room for one value a possible CPU, which is what the kernel writes.
        unsafe { sys::bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes)? };
        // SAFETY: written by the kernel just now; any bytes are a value.
        unsafe { values.set_len(cpus) };
        Ok(values)
    }

    /// Writes the values of `key` on all possible CPUs; only for per-CPU maps.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn set_per_cpu(&self, key: &K, values: &[V]) -> io::Result<()> {
        assert!(size_of::<V>().is_multiple_of(8), "the kernel rounds per-CPU values up to 8 bytes");
        let mut attributes = self.element(key, values.as_ptr().cast_mut(), ANY);
        // SAFETY: there is one value a possible CPU, and the kernel only reads them.
        unsafe { sys::bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes) }
    }

    /// Writes an entry; `flags` is [`ANY`] or [`EXISTING`].
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn set(&self, key: &K, mut value: V, flags: u64) -> io::Result<()> {
        let mut attributes = self.element(key, &raw mut value, flags);
        // SAFETY: key and value are as large as the map says.
        unsafe { sys::bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes) }
    }

    /// Removes an entry; says whether there was one.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn remove(&self, key: &K) -> io::Result<bool> {
        let mut attributes = self.element(key, std::ptr::null_mut(), 0);
        // SAFETY: the key is as large as the map says; no value is touched.
        match unsafe { sys::bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attributes) } {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes `values[i]` to `keys[i]`, many in one call.
    ///
    /// # Errors
    /// What the kernel says; some entries may have been written.
    pub(super) fn set_all(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        assert_eq!(keys.len(), values.len(), "a value a key");
        if keys.is_empty() {
            return Ok(());
        }
        let mut attributes = self.batch(keys.as_ptr(), values.as_ptr(), keys.len());
        // SAFETY: both slices have as many elements as said, and the kernel only reads them.
        unsafe { sys::bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attributes) }
    }

    /// Writes values from entry `first` on of an array that was made with `BPF_F_MMAPABLE`, through memory: what a system call does for
    /// many entries takes a tenth of a microsecond for each.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn write_through(&self, first: u32, values: &[V]) -> io::Result<()> {
        assert!(size_of::<V>().is_multiple_of(8), "the kernel rounds values up to 8 bytes");
        if values.is_empty() {
            return Ok(());
        }
        let at = first as usize * size_of::<V>();
        sys::Mapped::map(self.map.fd().as_fd(), at + size_of_val(values))?.write(at, values);
        Ok(())
    }

    /// The memory of an array that was made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn memory(&self) -> io::Result<sys::Mapped> {
        sys::Mapped::map(self.map.fd().as_fd(), self.capacity as usize * size_of::<V>())
    }

    /// All entries. Entries that come or go meanwhile may be among them or not.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>> {
        let mut all = Vec::new();
        self.each_batch(|keys, values| {
            all.extend(keys.iter().copied().zip(values.iter().copied()));
            Ok(())
        })?;
        Ok(all)
    }

    /// Shows `visit` all entries, some thousands at a time; it may remove them.
    ///
    /// # Errors
    /// What the kernel says, or `visit`.
    pub(super) fn each_batch(&self, mut visit: impl FnMut(&[K], &[V]) -> Result<()>) -> Result<()> {
        let mut batch = Batch { keys: Vec::new(), values: Vec::new(), room: BATCH };
        // The kernel's own cursor: 4 bytes for hashes, a key for the others.
        let mut cursor = vec![0_u64; size_of::<K>().div_ceil(8).max(1)];
        let mut started = false;
        loop {
            let last = match self.next_batch(&mut batch, &mut cursor, started) {
                Ok(()) => false,
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                // A bucket holds more than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    batch.room *= 2;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            started = true;
            visit(&batch.keys, &batch.values)?;
            if last {
                return Ok(());
            }
        }
    }

    /// Fills `batch`; after the last entries the error is that nothing more was found.
    fn next_batch(&self, batch: &mut Batch<K, V>, cursor: &mut [u64], started: bool) -> io::Result<()> {
        batch.keys.clear();
        batch.values.clear();
        batch.keys.reserve(batch.room);
        batch.values.reserve(batch.room);
        let mut attributes = self.batch(batch.keys.as_ptr(), batch.values.as_ptr(), batch.room);
        attributes.batch.in_batch = if started { cursor.as_ptr() as u64 } else { 0 };
        attributes.batch.out_batch = cursor.as_mut_ptr() as u64;
        // SAFETY: both vectors have room for `room` elements, the cursor for a key.
        let result = unsafe { sys::bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        if result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            return result;
        }
        // SAFETY: the kernel has written `count` keys and values; any bytes are a value of a `Shared` type.
        unsafe {
            let count = attributes.batch.count as usize;
            batch.keys.set_len(count);
            batch.values.set_len(count);
        }
        result
    }

    fn element(&self, key: &K, value: *mut V, flags: u64) -> bpf_attr {
        let mut attributes = sys::attributes();
        // SAFETY: writing a union's fields; all of them are plain integers.
        unsafe {
            let element = &mut attributes.__bindgen_anon_2;
            element.map_fd = self.descriptor();
            element.key = std::ptr::from_ref(key) as u64;
            element.__bindgen_anon_1.value = value as u64;
            element.flags = flags;
        }
        attributes
    }

    fn batch(&self, keys: *const K, values: *const V, count: usize) -> bpf_attr {
        let mut attributes = sys::attributes();
        attributes.batch.map_fd = self.descriptor();
        attributes.batch.keys = keys as u64;
        attributes.batch.values = values as u64;
        attributes.batch.count = count as u32;
        attributes
    }
}
