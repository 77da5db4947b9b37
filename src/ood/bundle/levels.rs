//! The four levels at which a bundle is verified.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::TOLERANCE;
use super::caches::Located;
use super::compare::Tally;
use super::content::{
    CORRECT, FIT, METRICS, METRICS_CSV, TRAINING_SCORES, array_entry, flags, is_as_written, parse, scores,
    scores_entry,
};
use super::manifest::{HeadRecord, MANIFEST, Manifest, Role};
use super::verify::Bundle;
use crate::error::{Error, Position, Result};
use crate::features::{FeatureSet, hex};
use crate::ood::compute::OnCpu;
use crate::ood::detectors::{Detectors, Scores};
use crate::ood::evaluate::{ID, Known, Scored, evaluate};
use crate::ood::run::{OodInput, Sets, ShiftedInput, check_inputs, correct_answers};
use crate::ood::sanity;
use crate::ood::table::{Evaluation, FitSummary, OodSet};

/// What a condition number is multiplied by to be the share that scores of a new fit may differ by.
const ROUNDING: f64 = 16.0 * f64::EPSILON;

/// Level 1: every entry against its size and hash in the manifest, and its checksum in the archive.
pub(super) fn hashes(bundle: &Bundle) -> Tally {
    let mut tally = Tally::default();
    for record in &bundle.manifest.entries {
        let (entry, content) = bundle.entry(&record.name);
        tally.compared += 1;
        let found = hex(&Sha256::digest(content.as_ref()));
        if content.as_ref().len() as u64 != record.size {
            let size = |bytes: u64| format!("{bytes} bytes");
            tally.differs(record.name.clone(), size(content.as_ref().len() as u64), size(record.size));
        } else if found != record.sha256 {
            tally.differs(
                record.name.clone(),
                format!("SHA-256 {found}"),
                format!("SHA-256 {}", record.sha256),
            );
        } else if entry.checksum != entry.stated_checksum {
            let checksum = |sum: u32| format!("checksum {sum:08x} in the archive");
            tally.differs(record.name.clone(), checksum(entry.stated_checksum), checksum(entry.checksum));
        }
    }
    tally
}

/// What a bundle holds, read.
pub(super) struct Held {
    pub detectors: Detectors,
    /// Scores by set; the ID set is `id`.
    pub scores: BTreeMap<String, Scores>,
    pub known: Known,
    metrics: Value,
}

impl Held {
    /// Reads all entries.
    ///
    /// # Errors
    /// One is damaged, or does not fit the manifest.
    pub fn read(bundle: &Bundle) -> Result<Held> {
        let (path, manifest) = (bundle.path.as_path(), &bundle.manifest);
        let detectors = Detectors::of(&super::inside(path, FIT), bundle.entry(FIT).1)?;
        let names = detectors.names();
        let sign = manifest.parameters.orientation.sign();
        let mut held = BTreeMap::new();
        for input in [Role::Id, Role::Shifted, Role::Ood].into_iter().flat_map(|role| manifest.of_role(role))
        {
            let entry = scores_entry(&input.name);
            let wanted = (names.as_slice(), Some(input.samples), sign);
            held.insert(input.name.clone(), scores(path, &entry, bundle.entry(&entry).1, wanted)?);
        }
        let mut known = Known { warnings: manifest.warnings.clone(), ..Known::default() };
        for input in manifest.of_role(Role::Id).chain(manifest.of_role(Role::Shifted)) {
            let entry = array_entry(CORRECT, &input.name);
            if bundle.has(&entry) {
                let flags = flags(path, &entry, bundle.entry(&entry).1, input.samples)?;
                known.correct.insert(input.name.clone(), flags);
            }
        }
        if bundle.has(TRAINING_SCORES) {
            let wanted = (names.as_slice(), None, sign);
            known.training = Some(scores(path, TRAINING_SCORES, bundle.entry(TRAINING_SCORES).1, wanted)?);
        }
        let content = bundle.entry(METRICS).1;
        let wrong = |found: String| {
            let expected = "JSON as this program lays it out";
            Error::malformed(path, Position::Member(METRICS.into()), expected, found)
        };
        let metrics = parse(content.as_ref()).map_err(wrong)?;
        is_as_written(content.as_ref(), &metrics).map_err(wrong)?;
        Ok(Held { detectors, scores: held, known, metrics })
    }
}

impl Held {
    fn evaluation(&self, bundle: &Bundle) -> Result<Evaluation> {
        serde_json::from_value(self.metrics.clone()).map_err(|error| {
            let expected = "the metrics of an OOD evaluation";
            Error::malformed(&bundle.path, Position::Member(METRICS.into()), expected, error.to_string())
        })
    }
}

fn as_json(value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::invalid(error.to_string()))
}

/// Level 2: the tables, computed anew from the scores, and what the manifest says of the fit.
///
/// # Errors
/// Tables cannot be computed.
pub(super) fn tables(bundle: &Bundle, held: &Held) -> Result<Tally> {
    let (manifest, mut tally) = (&bundle.manifest, Tally::default());
    let options = manifest.parameters.run_options();
    let set = |name: &str| &held.scores[name];
    let of_ood = manifest.of_role(Role::Ood).map(|input| {
        let described = OodSet { name: input.name.clone(), group: input.group, samples: input.samples };
        (described, set(&input.name))
    });
    let of_shifted =
        manifest.of_role(Role::Shifted).map(|input| (input.name.as_str(), input.samples, set(&input.name)));
    let scored = Scored {
        id: (manifest.id().samples, set(ID)),
        ood: of_ood.collect(),
        shifted: of_shifted.collect(),
        known: &held.known,
    };
    let evaluation = evaluate(scored, &held.detectors, &options)?;
    let read = held.evaluation(bundle)?;
    // How constants were chosen is not said by scores; level 4 chooses again.
    let made = Evaluation { tuning: read.tuning.clone(), ..evaluation };
    tally.json(METRICS, &held.metrics, &as_json(&made)?, TOLERANCE);
    compare_lines(
        &mut tally,
        &String::from_utf8_lossy(bundle.entry(METRICS_CSV).1.as_ref()),
        &Evaluation::csv(&[read])?,
    );
    compare_description(&mut tally, manifest, &held.detectors);
    Ok(tally)
}

/// Text line by line, exactly.
fn compare_lines(tally: &mut Tally, found: &str, expected: &str) {
    let (mut found, mut expected) = (found.split('\n'), expected.split('\n'));
    for number in 1.. {
        let (own, other) = (found.next(), expected.next());
        if own.is_none() && other.is_none() {
            return;
        }
        let end = "the end of the file";
        let text = |line: Option<&str>| line.unwrap_or(end).to_string();
        tally.same(&format!("{METRICS_CSV} line {number}"), &text(own), &text(other));
    }
}

/// What manifest and fit both say.
fn compare_description(tally: &mut Tally, manifest: &Manifest, detectors: &Detectors) {
    let mut of_fit = detectors.options().clone();
    let wanted = &manifest.parameters.options;
    // Scores that mean nothing for the training set are left out of the fit.
    let is_asked_for = of_fit.methods.iter().all(|spec| wanted.methods.contains(spec));
    of_fit.methods = wanted.methods.clone();
    tally.compared += 1;
    if !is_asked_for || of_fit != *wanted {
        let other = "those of the manifest";
        tally.differs(format!("{FIT} scores and their constants"), "others", other);
    }
    let head = HeadRecord::of(detectors.head(), Path::new(FIT));
    tally.same(&format!("{FIT} SHA-256 of the head"), &head.sha256, &manifest.head.sha256);
    let trained = manifest.of_role(Role::Train).next().unwrap_or(manifest.id());
    let text = |checkpoint: Option<&str>| checkpoint.unwrap_or("none").to_string();
    let (own, wanted) = (text(detectors.checkpoint()), text(trained.checkpoint.as_deref()));
    tally.same(&format!("{FIT} checkpoint"), &own, &wanted);
}

/// The caches of a bundle in their roles.
pub(super) struct Caches {
    train: Option<FeatureSet>,
    calibration: Option<FeatureSet>,
    id: FeatureSet,
    shifted: Vec<ShiftedInput>,
    ood: Vec<OodInput>,
}

impl Caches {
    pub fn new(manifest: &Manifest, located: Located) -> Caches {
        let of = |role: Role| {
            let pairs =
                manifest.inputs.iter().zip(&located.sets).filter(move |(input, _)| input.role == role);
            pairs.map(|(input, set)| (input.clone(), set.clone())).collect::<Vec<_>>()
        };
        let one = |role| of(role).into_iter().next().map(|(_, set)| set);
        let ood = of(Role::Ood).into_iter();
        Caches {
            train: one(Role::Train),
            calibration: one(Role::Calibration),
            id: one(Role::Id).expect("checked when the manifest was read"),
            shifted: of(Role::Shifted)
                .into_iter()
                .map(|(input, set)| ShiftedInput { name: input.name, set })
                .collect(),
            ood: ood.map(|(input, set)| OodInput { name: input.name, group: input.group, set }).collect(),
        }
    }

    fn sets(&self) -> Sets<'_> {
        Sets {
            train: self.train.as_ref(),
            calibration: self.calibration.as_ref(),
            id: &self.id,
            shifted: &self.shifted,
            ood: &self.ood,
        }
    }

    /// Every set that is scored, by name.
    fn tested(&self) -> impl Iterator<Item = (&str, &FeatureSet)> {
        let shifted = self.shifted.iter().map(|input| (input.name.as_str(), &input.set));
        let ood = self.ood.iter().map(|input| (input.name.as_str(), &input.set));
        [(ID, &self.id)].into_iter().chain(shifted).chain(ood)
    }

    /// The caches' `meta.json` against the manifest.
    fn compare_meta(&self, tally: &mut Tally, manifest: &Manifest) {
        let sets = self.sets();
        let one = [(Role::Train, sets.train), (Role::Calibration, sets.calibration)];
        let one = one.into_iter().filter_map(|(role, set)| Some((role.name(), set?)));
        let tested: Vec<(&str, &FeatureSet)> = one.chain(self.tested()).collect();
        for (input, (_, set)) in manifest.inputs.iter().filter_map(|input| {
            let is_own = |(name, _): &&(&str, &FeatureSet)| *name == input.name;
            Some((input, tested.iter().find(is_own)?))
        }) {
            let meta = set.meta();
            for (key, own, found) in [
                ("checkpoint", &input.checkpoint, &meta.checkpoint),
                ("data", &input.data, &meta.data),
                ("transform", &input.transform, &meta.transform),
            ] {
                let text = |value: &Option<String>| value.clone().unwrap_or("none".into());
                tally.same(&format!("{MANIFEST} {key} of {}", input.title()), &text(own), &text(found));
            }
        }
    }
}

/// Level 3: scores of the caches by the fit of the bundle, and predicted classes.
///
/// # Errors
/// The caches do not fit the head, or cannot be scored.
pub(super) fn scores_from_fit(bundle: &Bundle, held: &Held, caches: &Caches) -> Result<Tally> {
    let (mut tally, manifest) = (Tally::default(), &bundle.manifest);
    let (sets, head) = (caches.sets(), held.detectors.head());
    check_inputs(sets, head, &manifest.parameters.run_options())?;
    caches.compare_meta(&mut tally, manifest);
    let correct = correct_answers(&sets, head, &mut Vec::new())?;
    for (name, _) in caches.tested() {
        match (held.known.correct.get(name), correct.get(name)) {
            (None, None) => {}
            (Some(own), Some(found)) if own.len() == found.len() => {
                let entry = array_entry(CORRECT, name);
                for (row, (own, found)) in own.iter().zip(found).enumerate() {
                    tally.compared += 1;
                    if own != found {
                        tally.differs(format!("{entry} sample {row}"), u8::from(*own), u8::from(*found));
                    }
                }
            }
            (own, found) => {
                let text = |flags: Option<&Vec<bool>>| {
                    flags.map_or("none".into(), |f| format!("{} samples", f.len()))
                };
                tally.differs(array_entry(CORRECT, name), text(own), text(found));
            }
        }
    }
    compare_scores(&mut tally, held, (caches, &held.detectors), |_| TOLERANCE)?;
    Ok(tally)
}

/// The scores that detectors give to the caches against those of the bundle.
fn compare_scores(
    tally: &mut Tally,
    held: &Held,
    (caches, detectors): (&Caches, &Detectors),
    allowed: impl Fn(&str) -> f64,
) -> Result<()> {
    let mut compare = |entry: &str, own: &Scores, found: &Scores| {
        for (name, own) in own {
            match found.get(name) {
                Some(found) => tally.rows(&format!("{entry} {name}"), "sample", (own, found), allowed(name)),
                None => tally.differs(format!("{entry} {name}"), "scores", "none"),
            }
        }
    };
    for (name, set) in caches.tested() {
        compare(&scores_entry(name), &held.scores[name], &detectors.score(set)?);
    }
    if let (Some(own), Some(train)) = (&held.known.training, &caches.train) {
        let found = sanity::score_training(&mut OnCpu, detectors, train)?;
        compare(TRAINING_SCORES, own, &found);
    }
    Ok(())
}

/// Level 4: a new fit against the one of the bundle, by what it found, its tensors, and the scores that it gives.
///
/// # Errors
/// Nothing can be fitted on the caches.
pub(super) fn fit_from_caches(bundle: &Bundle, held: &Held, caches: &Caches) -> Result<(Tally, String)> {
    let (mut tally, own) = (Tally::default(), &held.detectors);
    let options = &bundle.manifest.parameters.options;
    let head = own.head();
    let fitted = match &caches.train {
        Some(train) => Detectors::fit_on(&mut OnCpu, (train, caches.calibration.as_ref()), head, options)?,
        None => Detectors::untrained(head, options, caches.id.meta().checkpoint.clone())?,
    };
    let names = |detectors: &Detectors| detectors.names().join(", ");
    tally.same(&format!("{FIT} scores"), &names(own), &names(&fitted));
    let allowed = |score: &str| {
        let condition = fitted.fits().get(score).and_then(|fit| fit.condition).unwrap_or(1.0);
        TOLERANCE.max(ROUNDING * condition)
    };
    let warnings = |detectors: &Detectors| detectors.warnings().join("; ");
    tally.same(&format!("{FIT} warnings"), &warnings(own), &warnings(&fitted));
    compare_summaries(&mut tally, own.fits(), fitted.fits(), allowed);
    let tensors = compare_tensors(&mut tally, own, &fitted);
    compare_scores(&mut tally, held, (caches, &fitted), allowed)?;
    let tuned = choose_again(&mut tally, bundle, held, caches)?;
    Ok((tally, tensors + &tuned))
}

/// Constants that were chosen on classes held out of the fits are chosen again. Returns in words what was done.
fn choose_again(tally: &mut Tally, bundle: &Bundle, held: &Held, caches: &Caches) -> Result<String> {
    let Some(recorded) = held.evaluation(bundle)?.tuning else { return Ok(String::new()) };
    let options = &bundle.manifest.parameters.options;
    match recorded.again(&mut OnCpu, caches.sets(), held.detectors.head(), options)? {
        Some(made) => {
            tally.json(&format!("{METRICS} tuning"), &as_json(&recorded)?, &as_json(&made)?, TOLERANCE);
            Ok("; constants chosen again".into())
        }
        None => Ok("; constants were chosen with other networks, which is not verified".into()),
    }
}

/// Rank, dimension, condition and constants of every fit.
fn compare_summaries(
    tally: &mut Tally,
    own: &BTreeMap<String, FitSummary>,
    found: &BTreeMap<String, FitSummary>,
    allowed: impl Fn(&str) -> f64,
) {
    let names: BTreeSet<&String> = own.keys().chain(found.keys()).collect();
    for name in names {
        let place = format!("{FIT} fit of {name}");
        let (Some(own), Some(found)) = (own.get(name), found.get(name)) else {
            let text = |fit: Option<&FitSummary>| if fit.is_some() { "one" } else { "none" };
            tally.differs(place, text(own.get(name)), text(found.get(name)));
            continue;
        };
        let whole = |value: Option<usize>| value.map_or("none".to_string(), |value| value.to_string());
        tally.same(&format!("{place}: dimension"), &whole(own.dim), &whole(found.dim));
        tally.same(&format!("{place}: rank"), &whole(own.rank), &whole(found.rank));
        match (own.condition, found.condition) {
            // The smallest eigenvalue carries the rounding of the largest.
            (Some(own), Some(found)) => {
                let place = format!("{place}: inverse of the condition");
                tally.rows(
                    &place,
                    "as a share of 1, number",
                    (&[1.0, 1.0 / own], &[1.0, 1.0 / found]),
                    TOLERANCE,
                );
            }
            (own, found) => tally.same(&format!("{place}: condition"), &own.is_some(), &found.is_some()),
        }
        let keys = |fit: &FitSummary| fit.parameters.keys().cloned().collect::<Vec<_>>().join(", ");
        tally.same(&format!("{place}: constants"), &keys(own), &keys(found));
        for (key, own) in &own.parameters {
            if let Some(found) = found.parameters.get(key) {
                tally.numbers(&format!("{place}: {key}"), *own, *found, allowed(name));
            }
        }
    }
}

/// Whether a tensor holds a basis, or stands in coordinates of one, which another fit may turn.
fn is_of_a_basis(tensor: &str) -> bool {
    [".basis", ".whitening", ".means"].iter().any(|end| tensor.ends_with(end))
}

/// Tensors of both fits. Returns in words what was found.
fn compare_tensors(tally: &mut Tally, own: &Detectors, fitted: &Detectors) -> String {
    let (own, fitted) = (own.tensors(), fitted.tensors());
    let (own, fitted) = (own.tensors(), fitted.tensors());
    let (mut same, mut turned) = (0, 0);
    for (name, (dtype, shape, bytes)) in own {
        let place = format!("{FIT} {name}");
        let form = |dtype: &dyn std::fmt::Debug, shape: &[usize]| format!("{dtype:?} of shape {shape:?}");
        let Some((other_dtype, other_shape, other_bytes)) = fitted.get(name) else {
            tally.differs(place, form(dtype, shape), "no such tensor");
            continue;
        };
        if bytes == other_bytes {
            same += 1;
            tally.compared += 1;
            continue;
        }
        if (dtype, shape) != (other_dtype, other_shape) {
            tally.differs(place, form(dtype, shape), form(other_dtype, other_shape));
        } else if is_of_a_basis(name) {
            turned += 1;
        } else {
            let (own, found) = (numbers(bytes, shape), numbers(other_bytes, shape));
            tally.rows(&place, "number", (&own, &found), TOLERANCE);
        }
    }
    for name in fitted.keys().filter(|name| !own.contains_key(*name)) {
        tally.differs(format!("{FIT} {name}"), "no such tensor", "one");
    }
    let turned = match turned {
        0 => String::new(),
        _ => format!("; {turned} of bases compared by their scores alone"),
    };
    format!("{same} of {} tensors the same bit for bit{turned}", own.len())
}

/// The numbers of a tensor of f32 or f64.
fn numbers(bytes: &[u8], shape: &[usize]) -> Vec<f64> {
    let count: usize = shape.iter().product();
    match bytes.len() == 8 * count {
        true => bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        false => bytes.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
    }
}
