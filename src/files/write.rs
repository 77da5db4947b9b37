//! Writing results: files appear whole or not at all, links are followed, and what is no file is written through.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use super::temporary::{Pending, named};
use super::{create_folder, parent};
use crate::error::{Error, Result};

/// The name of standard output where a file could be named.
const STANDARD_OUTPUT: &str = "-";

/// The destination of a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Standard output.
    StandardOutput,
    /// A device, a pipe, a socket: something that is there and takes bytes, and must not be replaced by a file.
    Through(PathBuf),
    /// A file or folder, or a name that is free; no link.
    Place(PathBuf),
}

/// Names that are standard output by the kernel's convention, whatever it is connected to.
const STANDARD_OUTPUTS: [&str; 4] = [STANDARD_OUTPUT, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

/// Whether a path means standard output; everything else the program says then belongs on standard error.
pub fn is_standard_output(path: &Path) -> bool {
    STANDARD_OUTPUTS.iter().any(|name| path.as_os_str() == *name)
}

/// Kind of place that a path names.
pub(super) fn target(path: &Path) -> Result<Target> {
    if is_standard_output(path) {
        return Ok(Target::StandardOutput);
    }
    match fs::metadata(path) {
        Ok(found) if !found.is_file() && !found.is_dir() => Ok(Target::Through(path.to_path_buf())),
        // An open file of a process: renaming over it would take it away from whoever opened it.
        Ok(_) if path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") => {
            Ok(Target::Through(path.to_path_buf()))
        }
        _ => resolve(path).map(Target::Place),
    }
}

/// The path that a chain of links ends at, whether or not something is there; a path that is no link is itself.
///
/// # Errors
/// The links go in a circle, or cannot be read.
fn resolve(path: &Path) -> Result<PathBuf> {
    // Linux follows this number of links.
    const MOST_LINKS: usize = 40;
    let mut place = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_symlink() => {
                let next = fs::read_link(&place).map_err(|e| Error::io("read the link", &place, e))?;
                place = parent(&place).join(next);
            }
            _ => return Ok(place),
        }
    }
    Err(Error::invalid(format!("{}: more than {MOST_LINKS} links follow each other", path.display())))
}

/// Whether writing to a path replaces a file; a device, a pipe and standard output append new bytes to the earlier
/// ones.
pub fn is_replaceable(path: &Path) -> bool {
    matches!(target(path), Ok(Target::Place(_)))
}

/// Refuses a path that no file can be written to, before the work whose result it is for.
///
/// # Errors
/// A folder is there, or one of the files that the result is made from; or nothing can be created in its folder.
pub fn check_output_file(path: &Path, inputs: &[&Path]) -> Result<()> {
    let Target::Place(place) = target(path)? else { return Ok(()) };
    refuse_folder(path, &place)?;
    let real = |path: &Path| fs::canonicalize(path).ok();
    if let Some(input) =
        inputs.iter().find(|input| real(&place).is_some_and(|place| real(input) == Some(place)))
    {
        return Err(Error::usage(format!(
            "{} is an input of this ({}), and the result would replace it; name another file",
            path.display(),
            input.display()
        )));
    }
    check_writable(parent(&place))
}

fn refuse_folder(path: &Path, place: &Path) -> Result<()> {
    if !place.is_dir() {
        return Ok(());
    }
    Err(Error::usage(format!("{} is a folder, and the result is a file; name the file", path.display())))
}

/// Refuses a folder in which nothing can be created; of one that is not there yet, the nearest that is.
fn check_writable(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(there).map(drop).map_err(|e| Error::io("create a file in", there, e))
}

/// The folder that results go into, links followed; before the work whose results they are.
///
/// # Errors
/// The path is standard output, a file, a device or a pipe; or nothing can be created there.
pub fn check_output_folder(path: &Path) -> Result<PathBuf> {
    let refused = |what: &str| {
        Err(Error::usage(format!("{} is {what}, and the result is a folder; name a folder", path.display())))
    };
    match target(path)? {
        Target::StandardOutput => refused("standard output"),
        Target::Through(_) => refused("a device or a pipe"),
        Target::Place(place) if place.is_file() => refused("a file"),
        Target::Place(place) => {
            check_writable(&place)?;
            Ok(place)
        }
    }
}

/// Writes a file all at once or not at all: a temporary file in the same folder, filled by `write`, synced, renamed. A link
/// stays a link, and the file it points to is replaced. A device, a pipe and standard output (`-`)
/// get the bytes once all of them are there.
///
/// Missing parent folders are created. On any error the old file, if there was one, is untouched.
///
/// # Errors
/// The disk is full, or the file cannot be created. A reader that closes its end of a pipe has what it wants: no error.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    let mut write = Some(write);
    write_whole(path, &mut |out| write.take().expect("a result is written once")(out))
}

/// The content of a result; called once.
type Content<'a> = &'a mut dyn FnMut(&mut BufWriter<&File>) -> io::Result<()>;

/// One for all contents, so that it is compiled once.
fn write_whole(path: &Path, write: Content<'_>) -> Result<()> {
    let failed = |e| Error::io("write", path, e);
    match target(path)? {
        Target::Place(place) => replace(path, &place, write),
        Target::StandardOutput => {
            let mut spooled = spool(write).map_err(failed)?;
            through(&mut spooled, &mut io::stdout().lock()).map_err(standard_output)
        }
        Target::Through(place) => {
            let mut spooled = spool(write).map_err(failed)?;
            let mut open =
                File::options().write(true).open(&place).map_err(|e| Error::io("open", path, e))?;
            through(&mut spooled, &mut open).map_err(failed)
        }
    }
}

fn replace(path: &Path, place: &Path, write: Content<'_>) -> Result<()> {
    refuse_folder(path, place)?;
    let folder = parent(place);
    create_folder(folder)?;
    let temporary =
        named(".tmp").tempfile_in(folder).map_err(|e| Error::io("create a temporary file in", folder, e))?;
    let _pending = Pending::new(temporary.path());
    let mut buffered = BufWriter::new(temporary.as_file());
    write(&mut buffered).and_then(|()| buffered.flush()).map_err(|e| Error::io("write", path, e))?;
    drop(buffered);
    set_ordinary_permissions(temporary.as_file()).map_err(|e| Error::io("set permissions of", path, e))?;
    temporary.as_file().sync_all().map_err(|e| Error::io("sync", path, e))?;
    temporary.persist(place).map_err(|e| Error::io("rename into place", path, e.error))?;
    Ok(())
}

/// The whole result in a file without a name, at its beginning: a pipe gets all of it or nothing, and formats that go back
/// to an earlier byte can be written to a pipe.
fn spool(write: Content<'_>) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    let mut buffered = BufWriter::new(&file);
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.rewind()?;
    Ok(file)
}

/// Copies to something that is no regular file; a closed pipe is no error.
fn through(from: &mut impl io::Read, to: &mut impl Write) -> io::Result<()> {
    match io::copy(from, to).and_then(|_| to.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

fn standard_output(error: io::Error) -> Error {
    Error::io("write", "standard output", error)
}

/// Writes text to standard output; a closed pipe (`| head`) is no error, a full disk is one.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: &str) -> Result<()> {
    through(&mut text.as_bytes(), &mut io::stdout().lock()).map_err(standard_output)
}

/// Temporary files are private (0600); a result should be readable like any other file the user makes (0644).
fn set_ordinary_permissions(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        write_atomically(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_atomically(&path, |w| {
            w.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_result_is_a_file_and_not_a_folder_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomically(folder.path(), |w| w.write_all(b"x")).unwrap_err().to_string();
        assert!(error.contains("is a folder, and the result is a file"), "{error}");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, what) in [(file.as_path(), "is a file"), (Path::new("-"), "is standard output")] {
            let error = check_output_folder(path).unwrap_err();
            assert!(error.to_string().contains(what) && error.exit_code() == 2, "{error}");
        }
    }

    #[cfg(unix)]
    mod unix {
        use super::*;
        use std::os::unix::fs::{FileTypeExt, symlink};
        use std::process::Command;

        #[test]
        fn a_link_stays_a_link_and_its_target_is_replaced() {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            fs::create_dir(path("elsewhere")).unwrap();
            fs::write(path("elsewhere/target"), "old").unwrap();
            symlink("elsewhere/target", path("one")).unwrap();
            symlink("one", path("two")).unwrap();
            symlink("elsewhere/none yet", path("dangling")).unwrap();
            write_atomically(&path("two"), |w| w.write_all(b"new")).unwrap();
            write_atomically(&path("dangling"), |w| w.write_all(b"new")).unwrap();
            for (link, target) in
                [("one", "elsewhere/target"), ("two", "one"), ("dangling", "elsewhere/none yet")]
            {
                assert_eq!(fs::read_link(path(link)).unwrap(), Path::new(target));
                assert_eq!(fs::read(path(link)).unwrap(), b"new");
            }
            symlink("circle", path("circle")).unwrap();
            let error = write_atomically(&path("circle"), |w| w.write_all(b"new")).unwrap_err();
            assert!(error.to_string().contains("links"), "{error}");
        }

        #[test]
        fn a_pipe_gets_the_whole_result_and_stays_a_pipe() {
            let folder = tempfile::tempdir().unwrap();
            let fifo = folder.path().join("pipe");
            assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
            let link = folder.path().join("link");
            symlink(&fifo, &link).unwrap();
            for path in [&fifo, &link] {
                let reader = std::thread::spawn({
                    let fifo = fifo.clone();
                    move || fs::read(fifo).unwrap()
                });
                // Written out of order, as an archive with its table of contents is.
                write_atomically(path, |w| {
                    w.write_all(b"....result")?;
                    w.rewind()?;
                    w.write_all(b"the ")
                })
                .unwrap();
                assert_eq!(reader.join().unwrap(), b"the result");
                assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
            }
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary beside a pipe");
        }

        #[test]
        fn a_failed_write_sends_nothing_through_a_pipe() {
            let folder = tempfile::tempdir().unwrap();
            let fifo = folder.path().join("pipe");
            assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
            // Opening the pipe would block: nobody reads it.
            let failed = write_atomically(&fifo, |w| {
                w.write_all(b"half")?;
                Err(io::Error::other("no more"))
            });
            assert!(failed.unwrap_err().to_string().contains("no more"));
        }
    }
}
