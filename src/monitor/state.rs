//! A stream in a file: everything that the next step depends on.
//!
//! ```text
//! residua monitor state 1\n
//! {…}\n                      a header, JSON on one line
//! scores                     as many f64, little-endian, ascending, as the header says
//! 32 bytes                   BLAKE3 of everything before
//! ```

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::lond::Lond;
use super::martingale::Martingale;
use super::ranks::Ranks;
use super::stream::{Counts, Monitor, Settings};
use crate::error::{Error, Position, Result};
use crate::files;

/// The first line, without the version.
const FIRST: &str = "residua monitor state ";
/// The version that is written; this one is read and none newer.
const VERSION: u32 = 1;
/// The most bytes of a header.
const LONGEST_HEADER: usize = 64 << 10;
/// Bytes of a BLAKE3 hash.
const HASH: usize = 32;

/// The file that lines were appended to, and its length when the state was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its path, without links.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
}

/// A stream, and what it belongs to.
#[derive(Debug, Clone)]
pub struct State {
    /// BLAKE3 of the threshold file.
    pub thresholds: String,
    /// The level of that file that is monitored.
    pub level: String,
    /// The stream.
    pub monitor: Monitor,
    /// Where its lines went, if to a file.
    pub output: Option<Output>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    thresholds: String,
    level: String,
    settings: Settings,
    counts: Counts,
    discoveries: u64,
    calibration: u64,
    scores: u64,
    /// Natural logarithm of the martingale.
    logarithm: f64,
    shares: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<Output>,
}

impl State {
    /// Writes the state, whole or not at all: 8 bytes a score, and 2 KiB.
    ///
    /// # Errors
    /// The disk is full; an older state is then untouched.
    pub fn write(&self, path: &Path) -> Result<()> {
        let Monitor { settings, calibration, ranks, lond, martingale, counts, .. } = &self.monitor;
        let scores = ranks.ascending();
        let header = Header {
            thresholds: self.thresholds.clone(),
            level: self.level.clone(),
            settings: *settings,
            counts: *counts,
            discoveries: lond.discoveries(),
            calibration: *calibration,
            scores: scores.len() as u64,
            logarithm: martingale.logarithm(),
            shares: martingale.shares().to_vec(),
            output: self.output.clone(),
        };
        // −∞ cannot be in the header: its numbers are finite.
        let header = serde_json::to_string(&header).expect("plain values");
        files::write_atomically(path, |out| {
            let mut hasher = blake3::Hasher::new();
            let mut put = |bytes: &[u8]| {
                hasher.update(bytes);
                out.write_all(bytes)
            };
            put(format!("{FIRST}{VERSION}\n{header}\n").as_bytes())?;
            for score in &scores {
                put(&score.to_le_bytes())?;
            }
            out.write_all(hasher.finalize().as_bytes())
        })
    }

    /// Reads a state.
    ///
    /// # Errors
    /// It is no state, of a newer version, cut off or damaged, or its parts do not fit together. The message has the file, what was
    /// expected, what was found and what to do.
    pub fn read(path: &Path) -> Result<State> {
        let bytes = files::map(path)?;
        let bad = |at: Position, expected: &str, found: String| Error::malformed(path, at, expected, found);
        let Some(rest) = bytes.strip_prefix(FIRST.as_bytes()) else {
            let found = files::describe_content(&bytes);
            return Err(bad(Position::Byte(0), "the state of a monitored stream", found));
        };
        let (version, rest) = line(rest, 16)
            .ok_or_else(|| bad(Position::Line(1), "the version of a state", "another text".into()))?;
        let version = version.parse::<u32>().ok();
        if version != Some(VERSION) {
            let found = version.map_or_else(|| "another text".into(), |version| format!("version {version}"));
            let expected = format!("a state of version {VERSION}");
            let found = format!("{found}; if a newer residua wrote it, use that one");
            return Err(bad(Position::Line(1), &expected, found));
        }
        let damaged = |what: &str| {
            let found = format!("{what}; take a copy of it, or begin a new stream with another --state");
            bad(Position::File, "a state as monitor writes it", found)
        };
        let Some((whole, hash)) = bytes.split_last_chunk::<HASH>() else {
            return Err(damaged("a file that is cut off"));
        };
        if blake3::hash(whole).as_bytes() != hash {
            return Err(damaged("a file that is cut off or damaged (its BLAKE3 hash is another)"));
        }
        let (header, rest) =
            line(rest, LONGEST_HEADER).ok_or_else(|| damaged("a header that does not end"))?;
        let header: Header = serde_json::from_str(header).map_err(|error| damaged(&error.to_string()))?;
        let scores = &rest[..rest.len().saturating_sub(HASH)];
        let (scores, odd) = scores.as_chunks::<8>();
        if scores.len() as u64 != header.scores || !odd.is_empty() {
            return Err(damaged(&format!("{} scores where the header says {}", scores.len(), header.scores)));
        }
        let scores: Vec<f64> = scores.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        header.into_state(scores).map_err(damaged)
    }

    /// Refuses a state of other thresholds, of another level, or with other settings than those given.
    ///
    /// # Errors
    /// Says what differs, and what to do.
    pub fn check(&self, path: &Path, thresholds: (&Path, &str), level: &str, given: Given) -> Result<()> {
        let name = path.display();
        if self.thresholds != thresholds.1 {
            return Err(Error::invalid(format!(
                "{name} is the state of a stream with other thresholds (BLAKE3 {}) than {} ({}); give those, or begin a new \
                 stream with another --state",
                self.thresholds,
                thresholds.0.display(),
                thresholds.1
            )));
        }
        let Settings { alpha, horizon, alarm, seed } = self.monitor.settings;
        let text = |value: Option<String>, own: String| {
            value.filter(|value| *value != own).map(|value| (value, own))
        };
        let differing = [
            ("--level", text(Some(level.to_string()), self.level.clone())),
            ("--alpha", text(given.alpha.map(|value| value.to_string()), alpha.to_string())),
            ("--horizon", text(given.horizon.map(|value| value.to_string()), horizon.to_string())),
            ("--alarm", text(given.alarm.map(|value| value.to_string()), alarm.to_string())),
            ("--seed", text(given.seed.map(|value| value.to_string()), seed.to_string())),
        ];
        match differing.into_iter().find_map(|(flag, values)| Some((flag, values?))) {
            None => Ok(()),
            Some((flag, (value, own))) => Err(Error::usage(format!(
                "{flag} {value}: the stream of {name} was begun with {own}, and a stream keeps what it is monitored with; give \
                 {flag} {own}, or begin a new stream with another --state"
            ))),
        }
    }
}

/// Settings as a user gave them; those that were not given are the stream's own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Given {
    /// See [`Settings::alpha`].
    pub alpha: Option<f64>,
    /// See [`Settings::horizon`].
    pub horizon: Option<u64>,
    /// See [`Settings::alarm`].
    pub alarm: Option<f64>,
    /// See [`Settings::seed`].
    pub seed: Option<u64>,
}

impl Given {
    /// The settings of a new stream.
    pub fn settings(self) -> Settings {
        let usual = Settings::default();
        Settings {
            alpha: self.alpha.unwrap_or(usual.alpha),
            horizon: self.horizon.unwrap_or(usual.horizon),
            alarm: self.alarm.unwrap_or(usual.alarm),
            seed: self.seed.unwrap_or(usual.seed),
        }
    }
}

impl Header {
    fn into_state(self, scores: Vec<f64>) -> Result<State, &'static str> {
        let Header { thresholds, level, settings, counts, discoveries, calibration, .. } = self;
        let share = |value: f64| value > 0.0 && value < 1.0;
        if !share(settings.alpha) || !share(settings.alarm) || settings.horizon == 0 {
            return Err("settings outside their ranges");
        }
        // NaN is in no order.
        if !scores.is_sorted() || scores.iter().any(|score| score.is_nan() || *score == f64::INFINITY) {
            return Err("scores in another order, or no numbers");
        }
        let tested = counts.rows.checked_sub(counts.failed).ok_or("more rows without a score than rows")?;
        if (scores.len() as u64).checked_sub(calibration) != Some(tested) {
            return Err("another number of scores than of calibration samples and rows");
        }
        if counts.novel > tested || discoveries > tested || counts.alarm.is_some_and(|row| row >= counts.rows)
        {
            return Err("more discoveries, novel samples or alarms than rows");
        }
        let martingale =
            Martingale::resumed(&self.shares, self.logarithm).ok_or("a martingale that is none")?;
        let lond = Lond::resumed(settings.alpha, settings.horizon, tested, discoveries);
        let monitor = Monitor::assemble(settings, calibration, Ranks::new(scores), lond, martingale, counts);
        Ok(State { thresholds, level, monitor, output: self.output })
    }
}

/// A line of text of at most so many bytes, and what follows its end.
fn line(bytes: &[u8], longest: usize) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(longest + 1).position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
