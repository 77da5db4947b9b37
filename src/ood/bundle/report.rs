//! What verifying a bundle found, level by level, in words and as JSON.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::compare::{Difference, Largest, Tally};
use super::manifest::{Manifest, Role};
use super::{AUTHORSHIP, TOLERANCE};
use crate::error::printable;

/// Differences of a level that are printed.
const LISTED: usize = 10;

/// How a level came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Everything is as it should be.
    Holds,
    /// Something is not.
    Differs,
    /// It was not asked for, or could not be done.
    NotDone,
}

impl State {
    fn words(self) -> &'static str {
        match self {
            State::Holds => "holds",
            State::Differs => "DIFFERS",
            State::NotDone => "not done",
        }
    }
}

/// One level.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Level {
    /// 1 to 4.
    pub level: u8,
    /// What is verified.
    pub what: &'static str,
    /// How it came out.
    pub state: State,
    /// Number of comparisons.
    pub compared: u64,
    /// The largest difference of numbers, whether it holds or not.
    pub largest_difference: Option<Largest>,
    /// Number of differences that do not hold.
    pub differences: u64,
    /// The first thousand of them.
    pub list: Vec<Difference>,
    /// Further words: why a level was not done, what stopped it.
    pub note: String,
}

/// A cache that stood for an input.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TakenCache {
    /// Role and name of the input.
    pub input: String,
    /// The cache.
    pub path: String,
    /// Whether its recorded name led to it, or what it holds alone.
    pub found_by: &'static str,
}

/// Everything that verifying found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The bundle.
    pub bundle: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the whole file.
    pub sha256: String,
    /// Program that wrote it, by its own word.
    pub written_by: String,
    /// Program that verifies it.
    pub verified_by: String,
    /// Number of entries.
    pub entries: usize,
    /// Number of scores that were asked for.
    pub scores: usize,
    /// Number of ID test samples.
    pub id_samples: u64,
    /// Names of the OOD sets.
    pub ood: Vec<String>,
    /// Names of the shifted ID sets.
    pub shifted: Vec<String>,
    /// Differences of numbers up to this share hold.
    pub tolerance: f64,
    /// Caches that were taken.
    pub caches: Vec<TakenCache>,
    /// The four levels.
    pub levels: Vec<Level>,
    /// Whether no level differs.
    pub holds: bool,
    /// The result in a sentence.
    pub verdict: String,
    /// What hashes do not show.
    pub authorship: &'static str,
}

impl Level {
    pub(super) fn done(&mut self, tally: Tally, note: String) {
        self.state = if tally.count == 0 { State::Holds } else { State::Differs };
        let Tally { compared, largest, differences, count } = tally;
        (self.compared, self.largest_difference) = (compared, largest);
        (self.list, self.differences, self.note) = (differences, count, note);
    }

    /// The level was begun, and something made it impossible.
    pub(super) fn failed(&mut self, message: &str) {
        (self.state, self.note) = (State::Differs, message.to_string());
    }

    pub(super) fn not_done(&mut self, reason: &str) {
        (self.state, self.note) = (State::NotDone, reason.to_string());
    }

    fn words(&self) -> String {
        let things = match (self.level, self.state) {
            (1, State::Holds) => "entries, and every byte around them",
            (1, _) => "entries",
            _ => "comparisons",
        };
        let mut parts = Vec::new();
        if self.compared > 0 {
            let compared = with_commas(self.compared);
            parts.push(match (&self.state, self.differences) {
                (State::Differs, count) if count > 0 => {
                    format!("{} of {compared} {things}", with_commas(count))
                }
                _ => format!("{compared} {things}"),
            });
        }
        match &self.largest_difference {
            Some(Largest { share, .. }) if *share == 0.0 => parts.push("largest difference 0".into()),
            Some(Largest { share, place }) => {
                parts.push(format!("largest difference {share:.1e}, in {}", printable(place)));
            }
            None => {}
        }
        if !self.note.is_empty() {
            parts.push(printable(&self.note));
        }
        parts.join("; ")
    }
}

impl Report {
    pub(super) fn of(manifest: &Manifest, path: &Path, bytes: u64, entries: usize) -> Report {
        const LEVELS: [&str; 4] =
            ["hashes of entries", "tables from scores", "scores from fit and caches", "fit from caches"];
        let level = |(index, what)| Level {
            level: index as u8 + 1,
            what,
            state: State::NotDone,
            compared: 0,
            largest_difference: None,
            differences: 0,
            list: Vec::new(),
            note: String::new(),
        };
        let names = |role| manifest.of_role(role).map(|input| input.name.clone()).collect();
        Report {
            bundle: path.display().to_string(),
            bytes,
            sha256: String::new(),
            written_by: manifest.program.clone(),
            verified_by: format!("residua {}", env!("RESIDUA_VERSION")),
            entries,
            scores: manifest.parameters.options.specs().len(),
            id_samples: manifest.id().samples,
            ood: names(Role::Ood),
            shifted: names(Role::Shifted),
            tolerance: TOLERANCE,
            caches: Vec::new(),
            levels: LEVELS.into_iter().enumerate().map(level).collect(),
            holds: false,
            verdict: String::new(),
            authorship: AUTHORSHIP,
        }
    }

    /// With the verdict over all levels.
    pub(super) fn judged(mut self) -> Report {
        let of = |state: State| -> Vec<String> {
            let own = self.levels.iter().filter(|level| level.state == state);
            own.map(|level| level.level.to_string()).collect()
        };
        let (hold, differ, open) = (of(State::Holds), of(State::Differs), of(State::NotDone));
        self.holds = differ.is_empty();
        let mut parts = Vec::new();
        if !differ.is_empty() {
            parts.push(format!("the bundle does NOT hold: it differs at {}", levels(&differ)));
        }
        if !hold.is_empty() {
            let prefix = if differ.is_empty() { "the bundle holds at " } else { "it holds at " };
            parts.push(format!("{prefix}{}", levels(&hold)));
        }
        if !open.is_empty() {
            parts.push(format!("{} not done", levels(&open)));
        }
        self.verdict = parts.join("; ");
        self
    }

    /// The report as text.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_summary(&mut text);
        text
    }

    fn write_summary(&self, text: &mut String) -> std::fmt::Result {
        let sets = |names: &[String]| names.join(", ");
        writeln!(text, "{}", printable(&self.bundle))?;
        writeln!(text, "  SHA-256     {}", self.sha256)?;
        writeln!(text, "  size        {} bytes in {} entries", with_commas(self.bytes), self.entries)?;
        let scores = if self.scores == 1 { "score" } else { "scores" };
        let shifted = match self.shifted.is_empty() {
            true => String::new(),
            false => format!(", shifted {}", sets(&self.shifted)),
        };
        writeln!(
            text,
            "  content     {} {scores} of {} ID samples{shifted}, OOD {}",
            self.scores,
            with_commas(self.id_samples),
            sets(&self.ood)
        )?;
        let written_by = printable(&self.written_by);
        match self.written_by == self.verified_by {
            true => writeln!(text, "  written by  {written_by}")?,
            false => writeln!(text, "  written by  {written_by}, verified by {}", self.verified_by)?,
        }
        for (index, TakenCache { input, path, found_by }) in self.caches.iter().enumerate() {
            let title = if index == 0 { "caches" } else { "" };
            writeln!(text, "  {title:<11} {input}: {} (by {found_by})", printable(path))?;
        }
        writeln!(text)?;
        for level in &self.levels {
            let Level { level: number, what, state, .. } = level;
            writeln!(text, "  {number}  {:<9} {what}: {}", state.words(), level.words())?;
        }
        for level in self.levels.iter().filter(|level| !level.list.is_empty()) {
            writeln!(text, "\nDifferences at level {}", level.level)?;
            for Difference { place, bundle, expected } in level.list.iter().take(LISTED) {
                let [place, bundle, expected] = [place, bundle, expected].map(|text| printable(text));
                writeln!(text, "  {place}: the bundle has {bundle}, expected {expected}")?;
            }
            if level.differences > LISTED as u64 {
                let more = level.differences - LISTED as u64;
                writeln!(text, "  and {} more (--json lists a thousand)", with_commas(more))?;
            }
        }
        writeln!(
            text,
            "\nNumbers hold up to a difference of {TOLERANCE:e} of their size; `residua verify --help` says what is compared."
        )?;
        writeln!(text, "{}", self.authorship)?;
        writeln!(text, "\nverdict: {}", self.verdict)
    }
}

/// `level 2`, or `levels 1, 2 and 4`.
fn levels(numbers: &[String]) -> String {
    match numbers {
        [one] => format!("level {one}"),
        [all @ .., last] => format!("levels {} and {last}", all.join(", ")),
        [] => String::new(),
    }
}

/// A whole number with its thousands apart.
fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("")).collect();
    groups.join(",")
}
