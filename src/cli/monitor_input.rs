//! Standard input of `monitor`, line by line, in a thread of its own: a signal ends the wait for the next one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::data::{self, DataSpec, RgbImage, Source, Split};
use crate::error::{Error, Result, printable};
use crate::monitor::{InputLine, LONGEST_LINE, next_line};

/// How often a wait looks whether a signal came.
const LOOK: Duration = Duration::from_millis(50);
/// Lines that are read before they are asked for.
const AHEAD: usize = 16;

/// Lines of standard input.
pub struct Input {
    lines: Receiver<std::io::Result<InputLine>>,
}

impl Input {
    /// Begins to read.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn begin() -> Result<Input> {
        let (sender, lines) = sync_channel(AHEAD);
        let read = move || {
            let mut input = std::io::stdin().lock();
            while let Some(line) = next_line(&mut input).transpose() {
                let is_last = line.is_err();
                if sender.send(line).is_err() || is_last {
                    return;
                }
            }
        };
        let reading = std::thread::Builder::new().name("input".into()).spawn(read);
        reading.map_err(|e| Error::invalid(format!("cannot read standard input: {e}")))?;
        Ok(Input { lines })
    }

    /// The next line; nothing at the end of the input, or once `stop` is set.
    ///
    /// # Errors
    /// Standard input cannot be read.
    pub fn next(&mut self, stop: &AtomicBool) -> Result<Option<InputLine>> {
        while !stop.load(Ordering::Relaxed) {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => return line.map(Some).map_err(|e| Error::io("read", "standard input", e)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// The bytes of a line, or why there are none.
fn bytes(line: InputLine) -> Result<Vec<u8>, String> {
    match line {
        InputLine::Whole(bytes) if bytes.is_empty() => Err("an empty line".to_string()),
        InputLine::Whole(bytes) => Ok(bytes),
        InputLine::TooLong => Err(format!("a line of more than {LONGEST_LINE} bytes")),
    }
}

/// The image that a line names: its path as text, and the image or why there is none.
pub fn decode(line: InputLine) -> (String, Result<RgbImage, String>) {
    let bytes = match bytes(line) {
        Ok(bytes) => bytes,
        Err(why) => return (String::new(), Err(format!("{why} where a path was expected"))),
    };
    let name = String::from_utf8_lossy(&bytes).into_owned();
    let path = path(bytes);
    if path.is_dir() {
        let found = "a folder where an image was expected";
        return (name, Err(found.to_string()));
    }
    let open = || {
        let data = data::open(&DataSpec::of(Source::Images { path: path.clone() }), Split::Test)?;
        match data.len() {
            1 => data.image(0),
            count => Err(Error::invalid(format!("expected one image, found {count}"))),
        }
    };
    // A path that is no file is told as such, whatever `images:` would take.
    let there = std::fs::metadata(&path).map_err(|e| Error::io("open", &path, e));
    let image = there.and_then(|_| open()).map_err(|error| error.to_string());
    (name, image)
}

#[cfg(unix)]
fn path(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn path(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// The row of features that a line holds: a JSON array of `dimension` numbers.
///
/// # Errors
/// It is none.
pub fn numbers(line: InputLine, dimension: usize) -> Result<Vec<f64>> {
    let expected = || format!("expected a JSON array of {dimension} finite numbers");
    let bytes = bytes(line).map_err(|why| Error::invalid(format!("{}, found {why}", expected())))?;
    let row: Vec<f64> = serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(format!("{}: {}", expected(), printable(&error.to_string()))))?;
    if row.len() != dimension {
        return Err(Error::invalid(format!("{}, found {}", expected(), row.len())));
    }
    Ok(row)
}
