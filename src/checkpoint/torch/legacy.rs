//! PyTorch's files before 1.6: pickles one behind the other (magic number, protocol version, facts about the
//! machine, the object, the list of storage keys), then each storage as a count of elements and their bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use super::{Contents, Storages, Wanted, contents, refuse_big_endian, tensors};
use crate::error::{Error, Position, Result};
use crate::pickle::{self, Pickle};

/// `0x1950a86a20f9469cfc6c`, little-endian: the first pickle of every such file.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The one version of the layout there ever was.
const PROTOCOL_VERSION: i64 = 1001;

/// Whether bytes begin with the pickle of the magic number.
pub(in crate::checkpoint) fn is_legacy(bytes: &[u8]) -> bool {
    pickle::read(bytes).is_ok_and(|first| first.root().long_integer() == Some(&MAGIC))
}

/// Reads the tensors of such a file.
pub(super) fn read(path: &Path, bytes: &[u8], wanted: Wanted<'_>) -> Result<Contents> {
    let mut at = 0;
    let magic = next(path, bytes, &mut at)?;
    if magic.root().long_integer() != Some(&MAGIC) {
        let found = magic.root().describe();
        return Err(Error::malformed(path, Position::Byte(0), "PyTorch's magic number", found));
    }
    let start = at;
    let version = next(path, bytes, &mut at)?;
    if version.root().integer() != Some(PROTOCOL_VERSION) {
        let expected = format!("protocol version {PROTOCOL_VERSION}");
        return Err(Error::malformed(
            path,
            Position::Byte(start as u64),
            expected,
            version.root().describe(),
        ));
    }
    let start = at;
    let machine = next(path, bytes, &mut at)?;
    if machine.root().get("little_endian").and_then(|little| little.boolean()) == Some(false) {
        return Err(refuse_big_endian(path, Position::Byte(start as u64)));
    }
    let object_at = at;
    let object = next(path, bytes, &mut at)?;
    let mut storages = LegacyStorages { path, bytes, object_at, ranges: HashMap::new() };
    let sizes = tensors::storage_sizes(path, &object, &mut storages)?;
    let keys = next(path, bytes, &mut at)?;
    storages.locate(&keys, &sizes, at)?;
    contents(path, &object, &mut storages, wanted)
}

/// The pickle that starts at `at`, which moves behind it.
fn next<'a>(path: &Path, bytes: &'a [u8], at: &mut usize) -> Result<Pickle<'a>> {
    let pickle = pickle::read(&bytes[*at..]).map_err(|problem| problem.in_file(path, *at))?;
    *at += pickle.length();
    Ok(pickle)
}

/// Storages in the file itself.
struct LegacyStorages<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    object_at: usize,
    ranges: HashMap<String, Range<usize>>,
}

impl LegacyStorages<'_> {
    /// Finds each storage: they follow each other in the order of the keys, from byte `at` on.
    fn locate(
        &mut self,
        keys: &Pickle<'_>,
        sizes: &BTreeMap<String, (usize, usize)>,
        mut at: usize,
    ) -> Result<()> {
        let wrong = |at: usize, expected: String, found: String| {
            Error::malformed(self.path, Position::Byte(at as u64), expected, found)
        };
        let root = keys.root();
        let elements = root
            .elements()
            .ok_or_else(|| wrong(at, "a list of storage keys before here".into(), root.describe()))?;
        for key in elements {
            let key = key.text().ok_or_else(|| wrong(at, "a storage key".into(), key.describe()))?;
            let &(size, length) = sizes
                .get(key)
                .ok_or_else(|| wrong(at, "keys of storages the object uses".into(), format!("`{key}`")))?;
            let Some(count) = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
                return Err(wrong(at, format!("storage `{key}`"), "the end of the file".into()));
            };
            let count = u64::from_le_bytes(*count);
            if count.checked_mul(size as u64) != Some(length as u64) {
                let expected = format!("{} elements in storage `{key}`", length / size);
                return Err(wrong(at, expected, count.to_string()));
            }
            let start = at + 8;
            let rest = self.bytes.len() - start;
            if length > rest {
                let expected = format!("{length} bytes of storage `{key}`");
                return Err(wrong(start, expected, format!("{rest} until the end of the file")));
            }
            at = start + length;
            if self.ranges.insert(key.to_string(), start..at).is_some() {
                return Err(wrong(start, "each storage once".into(), format!("`{key}` twice")));
            }
        }
        Ok(())
    }
}

impl Storages for LegacyStorages<'_> {
    fn bytes(&mut self, key: &str, length: usize) -> Result<Cow<'_, [u8]>> {
        match self.ranges.get(key) {
            Some(range) if range.len() == length => Ok(Cow::Borrowed(&self.bytes[range.clone()])),
            _ => Err(Error::malformed(
                self.path,
                self.position(),
                format!("a storage `{key}` of {length} bytes"),
                "none in the list of storages",
            )),
        }
    }

    fn position(&self) -> Position {
        Position::Byte(self.object_at as u64)
    }
}
