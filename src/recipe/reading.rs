//! Reading recipes: every complaint has file and line, and a misspelt key the one that was probably meant.

use std::fmt::Display;
use std::path::Path;

use crate::error::{Error, Position, Result};
use crate::files;
use crate::train::WrongOption;
use crate::values::did_you_mean;

/// No recipe is longer than this.
const LONGEST_RECIPE: u64 = 1 << 20;

/// A value in a recipe that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongKey {
    /// The table the key stands in, `train` or `calibrate.superclass`; empty for the top of the file.
    pub table: String,
    /// The key.
    pub key: String,
    /// The expectation, and the value found.
    pub what: String,
}

impl WrongKey {
    /// A value of a key in a table.
    pub(super) fn new(table: &str, key: &str, what: impl Into<String>) -> WrongKey {
        WrongKey { table: table.into(), key: key.into(), what: what.into() }
    }

    /// A complaint about a value of a key in a table, if it is wrong.
    pub(super) fn refuse(is_wrong: bool, table: &str, key: &str, what: &str) -> Result<(), WrongKey> {
        if is_wrong { Err(WrongKey::new(table, key, what)) } else { Ok(()) }
    }

    /// A complaint about a value outside a range, if `checked` is one.
    pub(super) fn of_range(
        checked: Result<(), String>,
        table: &str,
        key: &str,
        found: impl Display,
    ) -> Result<(), WrongKey> {
        checked.map_err(|range| WrongKey::new(table, key, format!("{range}, found {found}")))
    }

    /// The complaint as an error, where no file says a line.
    pub fn error(self) -> Error {
        Error::usage(self.message())
    }

    /// The complaint as an error, with file and line.
    pub(super) fn in_file(self, text: &str, path: &Path) -> Error {
        let place = place_of(text, &self.table, &self.key).unwrap_or(0);
        Error::usage(format!("{} line {}: {}", path.display(), line_at(text, place), self.message()))
    }

    /// The complaint, without its place.
    fn message(&self) -> String {
        let WrongKey { table, key, what } = self;
        if table.is_empty() { format!("{key}: {what}") } else { format!("[{table}] {key}: {what}") }
    }
}

impl From<WrongOption> for WrongKey {
    fn from(wrong: WrongOption) -> WrongKey {
        WrongKey::new("train", wrong.key, wrong.what)
    }
}

/// The text of a recipe.
///
/// # Errors
/// The file cannot be read, or is too long for a recipe.
pub(super) fn text(path: &Path) -> Result<String> {
    files::read_text(path, LONGEST_RECIPE)
}

/// Parses a recipe of any kind.
///
/// # Errors
/// Text that is no TOML, an unknown key, a value of the wrong kind; with file and line.
pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    toml::from_str(text).map_err(|e| {
        let line = line_at(text, e.span().map_or(0, |span| span.start));
        Error::malformed(path, Position::Line(line), "a valid recipe", in_words(e.message()))
    })
}

/// The line, counted from 1, that a byte is in.
fn line_at(text: &str, byte: usize) -> u64 {
    1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Message of the parser, for people: of an unknown key the nearest one instead of all.
pub(super) fn in_words(message: &str) -> String {
    let Some((given, rest)) = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'))
    else {
        return message.to_string();
    };
    // serde lists the keys there are in backticks.
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    format!(
        "the key `{given}`, which is none{}; there are {}",
        did_you_mean(given, known.iter().copied()),
        known.join(", ")
    )
}

/// The byte where a key stands, or its table where the key is left out.
fn place_of(text: &str, table: &str, key: &str) -> Option<usize> {
    let parsed = toml::de::DeTable::parse(text).ok()?;
    let mut here = parsed.get_ref();
    let mut place = None;
    for name in table.split('.').filter(|name| !name.is_empty()) {
        let (found, value) = here.iter().find(|(found, _)| found.get_ref() == name)?;
        place = Some(found.span().start);
        here = value.get_ref().as_table()?;
    }
    let own = here.iter().find(|(found, _)| found.get_ref() == key).map(|(found, _)| found.span().start);
    own.or(place)
}

#[cfg(test)]
mod tests {
    use crate::recipe::Recipe;

    const OOD: &str = "seed = 1\n[train]\ndata = \"cifar10:x\"\n[evaluate]\nid = \"cifar10:x\"\n";
    const NOVELTY: &str =
        "approach = \"two_models\"\n[data]\ntrain = \"csv:a,images=b?labels=both\"\n[train]\n";

    fn refused(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Recipe::read(file.path()).unwrap_err().to_string()
    }

    #[test]
    fn a_misspelt_key_is_answered_with_its_line_and_the_nearest_key() {
        for (text, line, meant) in [
            (format!("sede = 1\n{OOD}"), 1, "seed"),
            (OOD.replace("[evaluate]", "epohcs = 3\n[evaluate]"), 4, "epochs"),
            (OOD.replace("[evaluate]", "label-smoothing = 0.1\n[evaluate]"), 4, "label_smoothing"),
            (format!("{OOD}[colapse]\nenabled = true\n"), 6, "collapse"),
            (format!("{NOVELTY}[calibrate.superclas]\n"), 5, "superclass"),
            (format!("{NOVELTY}[subclass]\nepocs = 3\n"), 6, "epochs"),
        ] {
            let error = refused(&text);
            assert!(error.contains(&format!(" line {line}: ")), "{error}");
            assert!(error.contains(&format!("did you mean `{meant}`?")), "{error}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_answered_with_its_line_and_the_range() {
        let train = |line: &str| OOD.replace("[evaluate]", &format!("{line}\n[evaluate]"));
        for (text, line, part) in [
            (train("lr = -1.0"), 4, "[train] lr: expected a number of at least 0, found -1"),
            (train("epochs = 0"), 4, "[train] epochs: expected a whole number of at least 1, found 0"),
            (train("batch_size = 0"), 4, "at least 1, found 0"),
            (train("warmup_epochs = 31.0"), 4, "from 0 to 30"),
            (format!("{OOD}batch_size = 0\n"), 6, "[evaluate] batch_size"),
            (format!("{OOD}[scores]\nreact_percentile = 100.5\n"), 7, "[scores] react_percentile"),
            (format!("{OOD}[scores]\nbootstrap = 1\n"), 7, "[scores] bootstrap"),
            (format!("{NOVELTY}[predict]\nbatch_size = 0\n"), 6, "[predict] batch_size"),
            (
                format!("{NOVELTY}[calibrate.subclass]\ntemperature = 0.0\n"),
                6,
                "[calibrate.subclass] temperature",
            ),
            (
                format!("{NOVELTY}[subclass]\nlr = -2.0\n"),
                6,
                "[subclass] lr: expected a number of at least 0",
            ),
        ] {
            let error = refused(&text);
            assert!(error.contains(&format!(" line {line}: ")) && error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_name_in_a_recipe_may_be_spelt_as_on_the_command_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = OOD.replace("[evaluate]", "optimizer = \"AdamW\"\nschedule = \"one-cycle\"\n[evaluate]");
        std::fs::write(file.path(), text).unwrap();
        let recipe = Recipe::read(file.path()).unwrap();
        let written = recipe.to_toml();
        assert!(
            written.contains("optimizer = \"adamw\"") && written.contains("schedule = \"onecycle\""),
            "{written}"
        );
        let error = refused(&OOD.replace("[evaluate]", "optimizer = \"adamm\"\n[evaluate]"));
        assert!(error.contains(" line 4: ") && error.contains("did you mean `adam`?"), "{error}");
    }
}
