//! A stream with its files: lines go out as they come, the state follows.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::line::{Answered, Failed};
use super::state::{Output, State};
use super::stream::Observed;
use crate::error::{Error, Result};
use crate::files;

/// Where lines go.
#[derive(Debug)]
enum Place {
    /// Standard output.
    Standard,
    /// A pipe or a device.
    Through(File, PathBuf),
    /// A file, its path without links, and its bytes.
    File(File, PathBuf, u64),
}

/// The lines of a stream, each written whole as it comes.
#[derive(Debug)]
pub struct Lines {
    place: Place,
    /// Number of bytes that were cut off, which a state does not know of.
    cut: u64,
}

impl Lines {
    /// Opens where lines go: standard output, a pipe, or a file. A file that is there is only taken if it is the one that a resumed stream
    /// wrote (`resumed`): it is cut to the length that the state knows, and the stream goes on behind.
    ///
    /// # Errors
    /// Another file is there, the stream's own file is shorter than it was, or it cannot be written.
    pub fn open(path: &Path, resumed: Option<&Output>) -> Result<Lines> {
        if files::is_standard_output(path) {
            return Ok(Lines { place: Place::Standard, cut: 0 });
        }
        let failed = |e| Error::io("open", path, e);
        if !files::is_replaceable(path) {
            let file = File::options().write(true).open(path).map_err(failed)?;
            return Ok(Lines { place: Place::Through(file, path.to_path_buf()), cut: 0 });
        }
        files::create_folder(files::parent(path))?;
        let file = File::options().append(true).create(true).open(path).map_err(failed)?;
        let length = file.metadata().map_err(|e| Error::io("read the size of", path, e))?.len();
        let real = std::fs::canonicalize(path).map_err(failed)?;
        let kept = match resumed.filter(|output| output.path == real.display().to_string()) {
            None if length > 0 => {
                return Err(Error::usage(format!(
                    "{} is there already, and holds no lines of this stream; lines are written as they come, so it cannot be \
                     replaced at the end: name another file, or move it away",
                    path.display()
                )));
            }
            None => 0,
            Some(Output { bytes, .. }) if *bytes > length => {
                return Err(Error::invalid(format!(
                    "{} has {length} bytes, and had {bytes} when the state was written; give the whole file back, or name another \
                     one for the lines to come",
                    path.display()
                )));
            }
            Some(Output { bytes, .. }) => *bytes,
        };
        file.set_len(kept).map_err(|e| Error::io("cut", path, e))?;
        Ok(Lines { place: Place::File(file, real, kept), cut: length - kept })
    }

    /// Number of bytes beyond the state that were cut off a resumed stream's file; the stream answers these rows anew.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Writes a line. Returns whether somebody may still read it: `false` of a pipe that was closed.
    fn write(&mut self, line: &str) -> Result<bool> {
        let (written, path) = match &mut self.place {
            Place::Standard => {
                let mut out = io::stdout().lock();
                (out.write_all(line.as_bytes()).and_then(|()| out.flush()), Path::new("standard output"))
            }
            Place::Through(file, path) => (file.write_all(line.as_bytes()), path.as_path()),
            Place::File(file, path, bytes) => {
                let written = file.write_all(line.as_bytes());
                *bytes += line.len() as u64;
                (written, path.as_path())
            }
        };
        match written {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true).map_err(|e| Error::io("write", path, e)),
        }
    }

    /// Makes sure that what was written to a file is on the disk, and says what was.
    fn sync(&self) -> Result<Option<Output>> {
        let Place::File(file, path, bytes) = &self.place else { return Ok(None) };
        file.sync_data().map_err(|e| Error::io("sync", path, e))?;
        Ok(Some(Output { path: path.display().to_string(), bytes: *bytes }))
    }
}

/// A stream with where its lines go and where its state is kept.
#[derive(Debug)]
pub struct Session {
    state: State,
    lines: Lines,
    /// The state's file, and every how many rows it is written.
    keep: Option<(PathBuf, u64)>,
    is_open: bool,
}

impl Session {
    /// Puts a stream and its files together.
    pub fn new(state: State, lines: Lines, keep: Option<(PathBuf, u64)>) -> Session {
        Session { state, lines, keep, is_open: true }
    }

    /// The stream.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether anybody reads the lines: not once a pipe was closed.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Takes the next sample, and writes its line.
    ///
    /// # Errors
    /// The line or the state cannot be written.
    pub fn answer(&mut self, image: Option<&str>, answered: &Answered<'_>) -> Result<Observed> {
        let observed = self.state.monitor.observe(answered.place, answered.p_value, answered.novel);
        self.write(&answered.line(image, &observed))?;
        Ok(observed)
    }

    /// Takes a row without an answer, and writes why.
    ///
    /// # Errors
    /// As [`Session::answer`].
    pub fn fail(&mut self, image: Option<&str>, error: &str) -> Result<()> {
        let row = self.state.monitor.fail();
        self.write(&Failed { row, image, error }.line())
    }

    fn write(&mut self, line: &str) -> Result<()> {
        self.is_open = self.lines.write(line)?;
        match self.keep {
            Some((_, every)) if self.state.monitor.counts().rows.is_multiple_of(every) => self.save(),
            _ => Ok(()),
        }
    }

    /// Writes the state, if it is kept: after the lines are on the disk, so that it never knows of more than there are.
    ///
    /// # Errors
    /// It cannot be written; the older one is untouched.
    pub fn save(&mut self) -> Result<()> {
        let Some((path, _)) = &self.keep else { return Ok(()) };
        self.state.output = self.lines.sync()?;
        self.state.write(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{Monitor, Settings};

    fn answered(score: f64) -> Answered<'static> {
        Answered { class: Some("a"), score, place: score, p_value: 0.5, novel: false }
    }

    fn new_state() -> State {
        let monitor = Monitor::new(Settings::default(), &[0.0, 1.0, 2.0]);
        State { thresholds: "t".into(), level: "class".into(), monitor, output: None }
    }

    #[test]
    fn after_a_crash_the_lines_are_cut_to_the_state_and_come_out_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (out, kept) = (path("out.jsonl"), path("state"));
        let mut session =
            Session::new(new_state(), Lines::open(&out, None).unwrap(), Some((kept.clone(), 10)));
        for row in 0..25 {
            session.answer(None, &answered(f64::from(row % 7))).unwrap();
        }
        // No last state: the process was killed, in the middle of a line.
        drop(session);
        let whole = std::fs::read_to_string(&out).unwrap();
        std::fs::write(&out, &whole[..whole.len() - 5]).unwrap();
        let state = State::read(&kept).unwrap();
        assert_eq!(state.monitor.counts().rows, 20);
        let lines = Lines::open(&out, state.output.as_ref()).unwrap();
        assert!(lines.cut() > 0);
        let mut session = Session::new(state, lines, Some((kept.clone(), 10)));
        for row in 20..25 {
            session.answer(None, &answered(f64::from(row % 7))).unwrap();
        }
        session.save().unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), whole);
        // A file that has lost lines is not gone on with.
        std::fs::write(&out, &whole[..100]).unwrap();
        let output = State::read(&kept).unwrap().output;
        let error = Lines::open(&out, output.as_ref()).unwrap_err().to_string();
        assert!(error.contains("has 100 bytes, and had"), "{error}");
        // Elsewhere the stream may go on.
        assert!(Lines::open(&path("other.jsonl"), output.as_ref()).is_ok());
    }

    #[test]
    fn a_file_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.jsonl");
        std::fs::write(&out, "results\n").unwrap();
        let error = Lines::open(&out, None).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("is there already"), "{error}");
        let other = Output { path: "/elsewhere".into(), bytes: 0 };
        assert!(Lines::open(&out, Some(&other)).is_err());
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "results\n");
    }
}
