//! Compiled kernels kept on disk, so that the second start compiles nothing.
//!
//! An entry is two files in a folder that belongs to the user alone: `KEY.EXTENSION`, the machine code, and `KEY.log`,
//! whose first line is the BLAKE3 hash of everything else and whose rest is what the compiler said. The key is the hash
//! of all that decides the code: text, options, compiler, architecture. Cached files are executed, so an entry whose
//! hash does not fit (half written, damaged, tampered with) is compiled again and never used.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;

/// No compiled kernel file is larger.
const MOST_BYTES: u64 = 256 << 20;

/// The extension of texts that are kept beside the code.
const TEXT: &str = "json";

/// A compiler's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Machine code: a cubin, or a shared library.
    pub code: Vec<u8>,
    /// The compiler's log, also where it succeeded.
    pub log: String,
}

/// An entry of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// Where the code lies.
    pub path: PathBuf,
    /// Code and log.
    pub compiled: Compiled,
    /// Whether it had to be compiled just now.
    pub fresh: bool,
}

/// A folder of compiled kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
    /// Whether it is somebody's who may be another: only read, and every file looked at.
    is_read_only: bool,
}

/// How many entries there are, and their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Files.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Cache {
    /// The user's own: `RESIDUA_CACHE`, else `residua` in `XDG_CACHE_HOME`, else `~/.cache/residua`.
    ///
    /// # Errors
    /// None of these is set, or the folder is not the user's alone.
    pub fn of_user() -> Result<Cache> {
        Cache::at(Cache::folder_of_user()?)
    }

    /// Where [`Cache::of_user`] keeps its files; nothing is created.
    ///
    /// # Errors
    /// No variable says where.
    pub fn folder_of_user() -> Result<PathBuf> {
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        set("RESIDUA_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("residua")))
            .or_else(|| set("HOME").map(|folder| folder.join(".cache").join("residua")))
            .ok_or_else(|| {
                Error::invalid(
                    "there is no place for compiled kernels: none of RESIDUA_CACHE, XDG_CACHE_HOME and HOME holds an \
                     absolute path; set RESIDUA_CACHE to a folder of your own",
                )
            })
    }

    /// A cache in a folder, which is made private to the user.
    ///
    /// # Errors
    /// The folder cannot be made, or belongs to somebody else.
    pub fn at(folder: impl Into<PathBuf>) -> Result<Cache> {
        let folder = folder.into();
        make_private(&folder)?;
        Ok(Cache { folder, is_read_only: false })
    }

    /// A cache that is never written: a folder of root or of this user that nobody else can write. Hashes show damage, not origin.
    ///
    /// # Errors
    /// There is no such folder, or others could have written it.
    pub fn read_only(folder: impl Into<PathBuf>) -> Result<Cache> {
        let folder = folder.into();
        let metadata = fs::metadata(&folder).map_err(|e| Error::io("open", &folder, e))?;
        if !metadata.is_dir() || !is_trusted(&metadata) {
            return Err(Error::io(
                "take compiled kernels from",
                &folder,
                io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the folder must belong to root or to you, and nobody else may write it (chmod go-w); what others wrote could \
                     do anything",
                ),
            ));
        }
        Ok(Cache { folder, is_read_only: true })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The entry for `key` (everything that decides the code, in order), compiled if it is not there or damaged.
    ///
    /// # Errors
    /// `compile`'s own, or the disk's.
    pub fn get(
        &self,
        key: &[&[u8]],
        extension: &str,
        compile: impl FnOnce() -> Result<Compiled>,
    ) -> Result<Cached> {
        if let Some(found) = self.find(key, extension) {
            return Ok(found);
        }
        let [path, log_path] = self.paths(key, extension);
        let compiled = compile()?;
        for place in [&path, &log_path] {
            // Results follow links; an entry does not: what a link points to is not the cache's.
            if fs::symlink_metadata(place).is_ok_and(|metadata| !metadata.is_file()) {
                fs::remove_file(place).map_err(|e| Error::io("remove", place, e))?;
            }
        }
        files::write_atomically(&path, |file| file.write_all(&compiled.code))?;
        files::write_atomically(&log_path, |file| {
            write!(file, "{}\n{}", seal(&compiled.code, &compiled.log), compiled.log)
        })?;
        Ok(Cached { path, compiled, fresh: true })
    }

    /// The entry for `key`, if it is there, whole, and from whom it may be.
    pub fn find(&self, key: &[&[u8]], extension: &str) -> Option<Cached> {
        let [path, log_path] = self.paths(key, extension);
        let is_own = self.is_own(&path) && self.is_own(&log_path);
        let compiled = is_own.then(|| read(&path, &log_path)).flatten()?;
        Some(Cached { path, compiled, fresh: false })
    }

    fn paths(&self, key: &[&[u8]], extension: &str) -> [PathBuf; 2] {
        let name = name(key);
        [extension, "log"].map(|extension| self.folder.join(format!("{name}.{extension}")))
    }

    /// A text that was kept for `key`, if it is whole and the folder's owner wrote it.
    pub fn kept(&self, key: &[&[u8]]) -> Option<String> {
        self.whole_text(&self.text_path(key))
    }

    fn whole_text(&self, path: &Path) -> Option<String> {
        let text = self.is_own(path).then(|| files::read_text(path, MOST_BYTES).ok()).flatten()?;
        let (sealed, text) = text.split_once('\n')?;
        (sealed == seal(&[], text)).then(|| text.to_string())
    }

    /// Keeps a text for `key`, sealed by its hash as code is.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep(&self, key: &[&[u8]], text: &str) -> Result<PathBuf> {
        let path = self.text_path(key);
        files::write_atomically(&path, |file| write!(file, "{}\n{text}", seal(&[], text)))?;
        Ok(path)
    }

    fn text_path(&self, key: &[&[u8]]) -> PathBuf {
        self.folder.join(format!("{}.{TEXT}", name(key)))
    }

    /// Every text that was kept, whole, in the order of their files' names.
    pub fn all_kept(&self) -> Vec<String> {
        let mut paths: Vec<PathBuf> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == TEXT))
            .collect();
        paths.sort();
        paths.iter().filter_map(|path| self.whole_text(path)).collect()
    }

    /// Whether a path is a plain file of the folder's owner: what others put there while they could is not trusted.
    fn is_own(&self, path: &Path) -> bool {
        let (Ok(file), Ok(folder)) = (fs::symlink_metadata(path), fs::metadata(&self.folder)) else {
            return false;
        };
        if self.is_read_only {
            return file.is_file() && is_trusted(&file);
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            file.is_file() && file.uid() == folder.uid()
        }
        #[cfg(not(unix))]
        {
            let _ = folder;
            file.is_file()
        }
    }

    /// Contents of the folder.
    pub fn usage(folder: &Path) -> Usage {
        let mut usage = Usage::default();
        for file in fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Ok(metadata) = file.metadata()
                && metadata.is_file()
            {
                usage.files += 1;
                usage.bytes += metadata.len();
            }
        }
        usage
    }
}

/// Whether something belongs to root or to this user, and nobody else may write it.
#[cfg(unix)]
fn is_trusted(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owners = [0, rustix::process::geteuid().as_raw()];
    owners.contains(&metadata.uid()) && metadata.mode() & 0o022 == 0
}

#[cfg(not(unix))]
fn is_trusted(_: &fs::Metadata) -> bool {
    true
}

/// The hash of parts, whose lengths count: `ab`, `c` is not `a`, `bc`.
fn name(key: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in key {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}

/// The hash that seals code and log together.
fn seal(code: &[u8], log: &str) -> String {
    name(&[code, log.as_bytes()])
}

/// An entry that is whole.
fn read(path: &Path, log_path: &Path) -> Option<Compiled> {
    let log = files::read_text(log_path, MOST_BYTES).ok()?;
    let (sealed, log) = log.split_once('\n')?;
    let is_bounded = fs::metadata(path).ok()?.len() <= MOST_BYTES;
    let code = if is_bounded { fs::read(path).ok()? } else { return None };
    (sealed == seal(&code, log)).then(|| Compiled { code, log: log.to_string() })
}

/// Creates a folder that only the user may enter, or makes an existing one so.
#[cfg(unix)]
fn make_private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    let refused = |e| Error::io("make a private folder of", folder, e);
    if !folder.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(refused)?;
    }
    let metadata = fs::metadata(folder).map_err(refused)?;
    // A file that this process makes belongs to this process's user.
    let probe = tempfile::tempfile_in(folder).and_then(|file| file.metadata()).map_err(refused)?;
    if probe.uid() != metadata.uid() {
        return Err(Error::io(
            "keep compiled kernels in",
            folder,
            io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the folder belongs to another user, who could exchange them; set RESIDUA_CACHE to a folder of your own",
            ),
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(refused)?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn make_private(folder: &Path) -> Result<()> {
    files::create_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(code: &[u8], log: &str) -> Result<Compiled> {
        Ok(Compiled { code: code.to_vec(), log: log.to_string() })
    }

    fn must_not_compile() -> Result<Compiled> {
        panic!("the entry is in the cache")
    }

    #[test]
    fn an_entry_is_compiled_once_and_found_by_all_that_decides_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("kernels")).unwrap();
        let first =
            cache.get(&[b"text", b"sm_80"], "cubin", || compiled(b"\x7fELF", "16 registers\n")).unwrap();
        assert!(first.fresh);
        let second = cache.get(&[b"text", b"sm_80"], "cubin", must_not_compile).unwrap();
        assert_eq!((second.fresh, &second.compiled, &second.path), (false, &first.compiled, &first.path));
        for other in [[b"text".as_slice(), b"sm_90"], [b"tex", b"tsm_80"]] {
            assert!(cache.get(&other, "cubin", || compiled(b"other", "")).unwrap().fresh);
        }
        assert_eq!(Cache::usage(cache.folder()).files, 6);
    }

    #[cfg(unix)]
    #[test]
    fn a_damaged_entry_is_compiled_again_and_never_used() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let get = |compile: fn() -> Result<Compiled>| cache.get(&[b"text"], "cubin", compile).unwrap();
        let good = || compiled(b"code", "said\n");
        let path = get(good).path;
        let log = path.with_extension("log");
        let elsewhere = folder.path().join("elsewhere");
        let damages: [&dyn Fn(); 6] = [
            &|| fs::write(&path, b"cod").unwrap(),
            &|| fs::write(&path, b"evil").unwrap(),
            &|| fs::remove_file(&path).unwrap(),
            &|| fs::write(&log, b"").unwrap(),
            &|| fs::remove_file(&log).unwrap(),
            &|| {
                fs::rename(&path, &elsewhere).unwrap();
                std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
            },
        ];
        for damage in damages {
            damage();
            let again = get(good);
            assert!(again.fresh);
            assert_eq!(again.compiled.code, b"code");
            assert_eq!(get(must_not_compile).compiled, again.compiled);
        }
    }

    #[test]
    fn a_failed_compilation_leaves_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        assert!(cache.get(&[b"text"], "cubin", || Err(Error::invalid("a syntax error"))).is_err());
        assert_eq!(Cache::usage(cache.folder()), Usage::default());
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_the_users_alone_even_if_it_was_not_before() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        for path in [open, folder.path().join("new/deep")] {
            Cache::at(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_text_that_is_damaged_or_not_the_owners_is_as_if_it_were_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("kernels")).unwrap();
        let key: &[&[u8]] = &[b"a card"];
        assert_eq!(cache.kept(key), None);
        let path = cache.keep(key, "{\"right\": []}").unwrap();
        assert_eq!(cache.kept(key).as_deref(), Some("{\"right\": []}"));
        assert_eq!(cache.all_kept(), ["{\"right\": []}"]);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.replace("right", "wrong")).unwrap();
        assert!(cache.kept(key).is_none() && cache.all_kept().is_empty());
        #[cfg(unix)]
        {
            let elsewhere = folder.path().join("elsewhere");
            fs::write(&elsewhere, &whole).unwrap();
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
            assert_eq!(cache.kept(key), None);
        }
    }
}
