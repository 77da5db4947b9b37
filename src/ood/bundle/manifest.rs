//! `manifest.json` of a bundle: what was computed from what, and what each entry has to be.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::MOST_REPLICATES;
use super::compare::unlike;
use super::content::{
    CORRECT, FIT, METRICS, METRICS_CSV, TRAINING_SCORES, array_entry, is_as_written, parse, scores_entry,
};
use crate::archive::canonical;
use crate::error::{Error, Position, Result};
use crate::features::{FeatureSet, ForeignLogits, Head, StoredArray, hex};
use crate::ood::evaluate::ID;
use crate::ood::options::Options;
use crate::ood::run::{OodInput, Orientation, RunOptions};
use crate::ood::table::Group;

/// The entry's name.
pub(super) const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "residua result bundle";
const VERSION: u64 = 1;
/// More than ten thousand entries with their inputs and a thousand scores take.
const LARGEST: usize = 64 << 20;

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub format: String,
    pub version: u64,
    /// Program that wrote the bundle, with version and commit.
    pub program: String,
    pub parameters: Settings,
    pub head: HeadRecord,
    pub inputs: Vec<Input>,
    /// Warnings about the inputs.
    pub warnings: Vec<String>,
    /// Entries in their order, but for the manifest.
    pub entries: Vec<EntryRecord>,
}

/// Parameters of the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Scores, and constants where they do not bring their own.
    pub options: Options,
    /// Of each score all constants, as they are written behind its name.
    pub constants: BTreeMap<String, BTreeMap<String, String>>,
    pub orientation: Orientation,
    pub bootstrap: u32,
    pub balance: bool,
    pub allow_foreign_logits: bool,
}

impl Settings {
    pub fn of(options: &RunOptions) -> Settings {
        let RunOptions { scores, orientation, bootstrap, balance, foreign_logits } = options.clone();
        Settings {
            constants: constants(&scores),
            options: scores,
            orientation,
            bootstrap,
            balance,
            allow_foreign_logits: foreign_logits == ForeignLogits::Allow,
        }
    }

    pub fn run_options(&self) -> RunOptions {
        RunOptions {
            scores: self.options.clone(),
            orientation: self.orientation,
            bootstrap: self.bootstrap,
            balance: self.balance,
            foreign_logits: match self.allow_foreign_logits {
                true => ForeignLogits::Allow,
                false => ForeignLogits::Refuse,
            },
        }
    }
}

fn constants(options: &Options) -> BTreeMap<String, BTreeMap<String, String>> {
    let own = |wanted: crate::ood::options::Wanted| {
        let values = wanted.parameters.all().map(|(name, value)| (name.to_string(), value.to_string()));
        (wanted.name, values.collect())
    };
    options.wanted().into_iter().map(own).collect()
}

/// The last layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadRecord {
    /// Name of the file or cache it was in.
    pub file: String,
    pub classes: u64,
    pub features: u64,
    /// SHA-256 of W, row by row, and b as little-endian f64.
    pub sha256: String,
}

impl HeadRecord {
    pub fn of(head: &Head, path: &Path) -> HeadRecord {
        let mut hash = Sha256::new();
        head.weight().iter().chain(head.bias()).for_each(|value| hash.update(value.to_le_bytes()));
        HeadRecord {
            file: last_name(path),
            classes: head.classes() as u64,
            features: head.dimension() as u64,
            sha256: hex(&hash.finalize()),
        }
    }
}

/// The last part of a path: a bundle says nothing of the folders of the machine it was written on.
pub(super) fn last_name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// What a cache is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Train,
    Calibration,
    Id,
    Shifted,
    Ood,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Train => "train",
            Role::Calibration => "calibration",
            Role::Id => "id",
            Role::Shifted => "shifted",
            Role::Ood => "ood",
        }
    }
}

/// A cache that went in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    pub role: Role,
    /// Name in tables; of train, calibration and ID sets their role.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Name of the cache's folder or file.
    pub cache: String,
    pub samples: u64,
    pub arrays: Vec<StoredArray>,
    /// Of the cache's `meta.json`, where it has one: the checkpoint's hash, the data set with its split, the transform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<String>,
}

impl Input {
    pub fn of(role: Role, name: &str, group: Option<Group>, set: &FeatureSet) -> Input {
        let meta = set.meta();
        Input {
            role,
            name: name.to_string(),
            group,
            cache: last_name(set.path()),
            samples: set.len() as u64,
            arrays: set.stored_arrays(),
            checkpoint: meta.checkpoint.clone(),
            data: meta.data.clone(),
            transform: meta.transform.clone(),
        }
    }

    /// How messages call it: `train`, or `ood svhn`.
    pub fn title(&self) -> String {
        match self.role {
            Role::Shifted | Role::Ood => format!("{} {}", self.role.name(), self.name),
            role => role.name().to_string(),
        }
    }
}

/// What an entry has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryRecord {
    pub name: String,
    pub size: u64,
    pub sha256: String,
}

impl Manifest {
    pub fn new(
        parameters: Settings,
        head: HeadRecord,
        inputs: Vec<Input>,
        warnings: Vec<String>,
    ) -> Manifest {
        Manifest {
            format: FORMAT.into(),
            version: VERSION,
            program: format!("residua {}", env!("RESIDUA_VERSION")),
            parameters,
            head,
            inputs,
            warnings,
            entries: Vec::new(),
        }
    }

    /// The inputs of a role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Input> {
        self.inputs.iter().filter(move |input| input.role == role)
    }

    /// The ID test set.
    pub fn id(&self) -> &Input {
        self.of_role(Role::Id).next().expect("checked when the manifest was read")
    }

    /// Names that the entries have, in their order; those of predicted classes are there where labels are known.
    pub fn entry_names(&self, has_correct: impl Fn(&str) -> bool) -> Vec<String> {
        let of = |role| self.of_role(role).map(|input| input.name.as_str());
        let known = || of(Role::Id).chain(of(Role::Shifted));
        let scores = known().chain(of(Role::Ood)).map(scores_entry);
        let correct = known().filter(|name| has_correct(name)).map(|name| array_entry(CORRECT, name));
        let training = of(Role::Train).map(|_| TRAINING_SCORES.to_string());
        let tables = [METRICS, METRICS_CSV].map(String::from);
        [FIT.to_string()].into_iter().chain(scores).chain(correct).chain(training).chain(tables).collect()
    }

    /// The text that is written.
    pub fn text(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("a manifest is plain values");
        text + "\n"
    }

    /// Reads a manifest, which has to be as [`Manifest::text`] writes it.
    ///
    /// # Errors
    /// Malformed JSON, keys that are unknown or missing, another format or version, inputs or entries that do not fit together.
    pub fn read(bundle: &Path, bytes: &[u8]) -> Result<Manifest> {
        let wrong = |expected: &str, found: String| {
            Error::malformed(bundle, Position::Member(MANIFEST.into()), expected, found)
        };
        if bytes.len() > LARGEST {
            return Err(wrong("at most 64 MiB", format!("{} bytes", bytes.len())));
        }
        let value: Value = parse(bytes).map_err(|found| wrong("JSON", found))?;
        let format = value.get("format").and_then(Value::as_str);
        if format != Some(FORMAT) {
            let found = format.map_or("none".to_string(), |format| format!("`{format}`"));
            return Err(wrong("the format `residua result bundle`", found));
        }
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => {
                let found = format!("{other}; verify it with the program that wrote it, or a newer one");
                return Err(wrong("version 1 of the format", found));
            }
            None => return Err(wrong("version 1 of the format", "no whole number".into())),
        }
        is_as_written(bytes, &value).map_err(|found| wrong("JSON as this program lays it out", found))?;
        let manifest: Manifest = serde_json::from_value(value.clone())
            .map_err(|error| wrong("the keys and values of a manifest", error.to_string()))?;
        let again = serde_json::to_value(&manifest).expect("a manifest is plain values");
        if let Some(place) = unlike(&value, &again) {
            let found = format!("a key or value at `{place}` that it does not have");
            return Err(wrong("the keys and values of a manifest", found));
        }
        manifest.check().map_err(|(expected, found)| wrong(&expected, found))?;
        Ok(manifest)
    }

    /// Whether the parts fit together; else what was expected, and what found.
    fn check(&self) -> Result<(), (String, String)> {
        let fail = |expected: &str, found: String| Err((expected.to_string(), found));
        let Settings { options, constants: stated, bootstrap, .. } = &self.parameters;
        if let Some((key, what)) = options.wrong() {
            return fail(&format!("parameters that make sense: `{key}`"), what);
        }
        if *stated != constants(options) {
            return fail("the constants that these scores have", "others in `parameters.constants`".into());
        }
        if *bootstrap == 1 || *bootstrap > MOST_REPLICATES {
            let expected = format!("0, or 2 to {MOST_REPLICATES} bootstrap replicates");
            return fail(&expected, bootstrap.to_string());
        }
        for (role, least, most) in
            [(Role::Train, 0, 1), (Role::Calibration, 0, 1), (Role::Id, 1, 1), (Role::Ood, 1, usize::MAX)]
        {
            let count = self.of_role(role).count();
            if count < least || count > most {
                let expected = format!(
                    "{} input of role {}",
                    if least == 1 { "an" } else { "at most one" },
                    role.name()
                );
                return fail(&expected, count.to_string());
            }
        }
        let mut names = std::collections::HashSet::new();
        for input in &self.inputs {
            let is_named = matches!(input.role, Role::Shifted | Role::Ood);
            let fits = if is_named {
                OodInput::check_name(&input.name).is_ok()
            } else {
                input.name == input.role.name()
            };
            if !fits || !names.insert((is_named, input.name.as_str())) {
                let found = format!("`{}` of role {}", input.name, input.role.name());
                return fail("inputs with names of their own", found);
            }
            if input.samples == 0 || input.samples > u64::from(u32::MAX) {
                return fail(
                    "inputs of 1 to 2^32 - 1 samples",
                    format!("{} of {}", input.samples, input.title()),
                );
            }
            if input.group.is_some() && input.role != Role::Ood {
                return fail("a group of OOD sets alone", format!("one of {}", input.title()));
            }
        }
        debug_assert_eq!(self.id().name, ID);
        let listed: Vec<&str> = self.entries.iter().map(|entry| entry.name.as_str()).collect();
        let expected = self.entry_names(|name| listed.contains(&array_entry(CORRECT, name).as_str()));
        if let Some(name) = listed.iter().find(|name| !expected.iter().any(|own| own == *name)) {
            let known = canonical::check_name(name).map_or_else(|found| found, str::to_string);
            return fail("entries that this evaluation has", format!("`{known}`"));
        }
        match expected
            .iter()
            .zip(listed.iter().map(Some).chain(std::iter::repeat(None)))
            .find(|(own, listed)| Some(&own.as_str()) != *listed)
        {
            Some((own, Some(listed))) => {
                fail(&format!("`{own}` in the list of entries"), format!("`{listed}`"))
            }
            Some((own, None)) => fail(&format!("`{own}` in the list of entries"), "its end".into()),
            None if listed.len() > expected.len() => fail("each entry listed once", "one twice".into()),
            None => Ok(()),
        }
    }
}
