//! The section on samples: lists of images, the map of the features, and the threshold slider.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use minijinja::{Value, context};
use serde_json::{Value as Json, json};

use super::run::{Run, Scores};
use super::sections::as_confidences;
use super::slider::{ScoredSets, Slider, six_digits};
use super::{shown, whole};
use crate::error::Result;
use crate::ood::table::Evaluation;
use crate::samples::{List, ListKind, SAMPLES_FILE, SampleFile, Shown};

/// A file of samples, and what it is of.
pub(super) struct KeptSamples {
    key: &'static str,
    title: &'static str,
    file: SampleFile,
    /// Scores that lie beside it; those of `ood/` are read with the evaluation.
    scores: SetScores,
}

/// Reads the samples of a run folder whose scores lie in `ood`.
///
/// # Errors
/// A file is damaged; the message names it.
pub(super) fn read(folder: &Path, ood: &Path) -> Result<Vec<KeptSamples>> {
    let places = [
        ("images", "Images", ood.to_path_buf()),
        ("superclass-images", "Images, superclasses", folder.join("novelty/superclass")),
        ("subclass-images", "Images, subclasses", folder.join("novelty/subclass")),
        ("class-images", "Images and thresholds", folder.join("novelty/class")),
        ("eval-images", "Images, labelled", folder.join("eval")),
        // What `eval --out` wrote is all there is of a run.
        (
            "eval-images",
            "Images, labelled",
            if ood == folder { PathBuf::new() } else { folder.to_path_buf() },
        ),
    ];
    let mut kept = Vec::new();
    for (key, title, place) in places {
        let path = place.join(SAMPLES_FILE);
        if !place.as_os_str().is_empty() && path.exists() {
            let file = SampleFile::read(&path)?;
            let scores = if key == "images" { SetScores::new() } else { scores_beside(&place, &file)? };
            kept.push(KeptSamples { key, title, file, scores });
        }
    }
    Ok(kept)
}

/// The scores of each set by which its samples are ranked, from `scores/SET.npz`; those of other samples are left out.
fn scores_beside(folder: &Path, file: &SampleFile) -> Result<SetScores> {
    let ranking: BTreeSet<&String> = file.lists.iter().filter_map(|list| list.score.as_ref()).collect();
    let mut found = SetScores::new();
    for set in file.sets.iter().filter(|set| Run::is_plain_name(&set.name)) {
        let Some(scores) = Scores::open(&folder.join("scores").join(format!("{}.npz", set.name)))? else {
            continue;
        };
        for score in &ranking {
            if let Some(values) = scores.of(score)?.filter(|values| values.len() as u64 == set.samples) {
                found.entry(set.name.clone()).or_default().insert((*score).clone(), values);
            }
        }
    }
    Ok(found)
}

/// The sections on samples, and the style sheet of their thumbnails.
///
/// # Errors
/// Stored scores are damaged.
pub(super) fn sections(run: &Run) -> Result<(Vec<Value>, String)> {
    let (mut sections, mut style) = (Vec::new(), String::new());
    let scores = ood_scores(run)?;
    let mut has_ood = false;
    for KeptSamples { key, title, file, scores: own_scores } in &run.samples {
        let is_ood = *key == "images";
        has_ood |= is_ood;
        let in_lists = || {
            let named: BTreeSet<&String> = file.lists.iter().filter_map(|list| list.score.as_ref()).collect();
            named.into_iter().cloned().collect::<Vec<String>>()
        };
        let methods = match &run.evaluation {
            Some(evaluation) if is_ood => evaluation.methods.clone(),
            _ => in_lists(),
        };
        let own = |name: &String| if is_ood && name == "id" { "ID test".to_string() } else { name.clone() };
        let part = Samples {
            key,
            title: (*title).to_string(),
            file: Some(file),
            sets: file.sets.iter().map(|set| own(&set.name)).collect(),
            first: first_score(run, file, &methods),
            methods,
            scores: if is_ood { &scores } else { own_scores },
        };
        style += &part.style();
        sections.push(part.section());
    }
    if let Some(evaluation) = run.evaluation.as_ref().filter(|_| !has_ood && !scores.is_empty()) {
        let sets: Vec<String> = ["id".to_string()]
            .into_iter()
            .chain(evaluation.datasets.iter().map(|set| set.name.clone()))
            .collect();
        let part = Samples {
            key: "images",
            title: "Thresholds".to_string(),
            file: None,
            sets,
            methods: evaluation.methods.clone(),
            scores: &scores,
            first: evaluation.best_method(),
        };
        sections.push(part.section());
    }
    Ok((sections, style))
}

/// The score of the threshold, or that of the highest mean AUROC.
fn first_score(run: &Run, file: &SampleFile, methods: &[String]) -> Option<String> {
    let of_threshold = file.threshold.as_ref().map(|threshold| threshold.score.clone());
    let best = run.evaluation.as_ref().and_then(Evaluation::best_method);
    [of_threshold, best]
        .into_iter()
        .flatten()
        .find(|score| methods.contains(score))
        .or_else(|| methods.first().cloned())
}

/// The stored scores of every set, larger = more familiar; empty where the run kept none.
fn ood_scores(run: &Run) -> Result<SetScores> {
    let mut found = SetScores::new();
    let (Some(evaluation), Some(id)) = (&run.evaluation, run.scores("id")?) else { return Ok(found) };
    for set in &evaluation.datasets {
        let Some(scores) = run.scores(&set.name)? else { continue };
        for method in &evaluation.methods {
            let (Some(own), Some(other)) = (id.of(method)?, scores.of(method)?) else { continue };
            let Some(entry) = evaluation.entry(&set.name, method) else { continue };
            // The warnings are those of the figures, which say them.
            let (own, other) = as_confidences(own, other, method, set, entry, &mut Vec::new())?;
            found.entry("id".to_string()).or_default().insert(method.clone(), own);
            found.entry(set.name.clone()).or_default().insert(method.clone(), other);
        }
    }
    Ok(found)
}

/// Scores of sets by name: of each set by score.
pub(super) type SetScores = BTreeMap<String, BTreeMap<String, Vec<f64>>>;

/// The samples of one head, with their scores.
pub(super) struct Samples<'a> {
    /// Tells its thumbnails and places from those of other parts of the page.
    pub key: &'a str,
    /// The title of the section.
    pub title: String,
    /// What was kept of the samples; `None` where only scores were.
    pub file: Option<&'a SampleFile>,
    /// Names of the sets for people, the one of known classes first.
    pub sets: Vec<String>,
    /// Scores in the order they are shown.
    pub methods: Vec<String>,
    /// Their values, where they are kept; larger = more familiar.
    pub scores: &'a SetScores,
    /// The score that is shown first.
    pub first: Option<String>,
}

impl Samples<'_> {
    /// The values of the section's template.
    pub fn section(&self) -> Value {
        let sliders: Vec<Slider> = self.methods.iter().filter_map(|method| self.slider(method)).collect();
        let data = json!({
            "key": self.key,
            "sets": self.sets.iter().map(|name| shown(name)).collect::<Vec<String>>(),
            "first": self.first,
            "methods": self.methods.iter().map(|name| shown(name)).collect::<Vec<String>>(),
            "classes": self.file.map_or_else(Vec::new, |file| file.classes.iter().map(|name| shown(name)).collect()),
            "maps": self.file.map_or_else(Vec::new, |file| file.maps.iter().map(|map| json!([map.name, map.explained])).collect()),
            "samples": self.file.map_or_else(Vec::new, |file| file.shown.iter().map(|s| self.sample(s)).collect()),
            "sliders": sliders,
        });
        let has_map = self.file.is_some_and(|file| !file.maps.is_empty());
        context! {
            key => self.key,
            title => &self.title,
            notes => self.notes(),
            fixed => self.fixed_lists(),
            scores => self.lists_by_score(),
            has_map => has_map,
            has_slider => !sliders.is_empty(),
            data => Value::from_safe_string(in_script(&data)),
        }
    }

    /// Rules of a style sheet: an image a thumbnail.
    pub fn style(&self) -> String {
        let thumbnails = self.file.iter().flat_map(|file| file.thumbnails.iter().enumerate());
        // Checked when the file was read: nothing but an image.
        thumbnails
            .map(|(place, address)| format!(".{}{place}{{background-image:url({address})}}\n", self.key))
            .collect()
    }

    /// [set, label, predicted, confidence, thumbnail, name, class, places, scores], as short as it can be.
    fn sample(&self, sample: &Shown) -> Json {
        let scores = self.file.and_then(|file| self.scores.get(&file.sets[sample.set].name));
        // The places of samples without an image are all that is looked at.
        let of = |method: &String| scores?.get(method)?.get(sample.row).map(|score| six_digits(*score));
        let scores: Vec<Option<f64>> =
            if sample.thumbnail.is_some() { self.methods.iter().map(of).collect() } else { Vec::new() };
        json!([
            sample.set,
            sample.label,
            sample.predicted,
            (sample.confidence * 1e4).round() / 1e4,
            sample.thumbnail,
            sample.name.as_deref().map(shown),
            sample.class.as_deref().map(shown),
            sample.at,
            scores,
        ])
    }

    fn slider(&self, method: &str) -> Option<Slider> {
        let file_sets: Vec<&String> = match self.file {
            Some(file) => file.sets.iter().map(|set| &set.name).collect(),
            None => self.sets.iter().collect(),
        };
        let of = |set: &&String| self.scores.get(*set)?.get(method).cloned();
        let sets: Option<Vec<Vec<f64>>> = file_sets.iter().map(of).collect();
        Slider::new(&ScoredSets { score: method, sets: sets? })
    }

    /// What is not shown, and what was drawn at random.
    fn notes(&self) -> Vec<String> {
        let Some(file) = self.file else { return Vec::new() };
        let mut notes = vec![format!(
            "{} thumbnails of at most {}; where more samples than fit would belong on the map or in a list of false alarms, they are drawn \
             at random (seed {}).",
            file.thumbnails.len(),
            file.budget,
            file.seed
        )];
        for (set, name) in file.sets.iter().zip(&self.sets) {
            if let Some(why) = &set.absent {
                notes.push(format!("{}: no images, since {}.", shown(name), whole(why)));
            }
            if set.unreadable > 0 {
                notes.push(format!("{}: {} chosen images could not be read.", shown(name), set.unreadable));
            }
        }
        notes
    }

    /// Lists that do not hang on the score that is looked at.
    fn fixed_lists(&self) -> Vec<Value> {
        let Some(file) = self.file else { return Vec::new() };
        let lists =
            file.lists.iter().filter(|list| matches!(list.kind, ListKind::Mistakes | ListKind::FalseAlarms));
        lists
            .filter(|list| list.kind == ListKind::FalseAlarms || !list.samples.is_empty())
            .map(|list| self.list(file, list))
            .collect()
    }

    /// A block a score, in it the ends of every set.
    fn lists_by_score(&self) -> Vec<Value> {
        let Some(file) = self.file else { return Vec::new() };
        let of = |method: &String| {
            let own = |list: &&List| {
                list.score.as_ref() == Some(method)
                    && matches!(list.kind, ListKind::MostFamiliar | ListKind::LeastFamiliar)
            };
            let lists: Vec<Value> = file.lists.iter().filter(own).map(|list| self.list(file, list)).collect();
            let is_first = self.first.as_ref() == Some(method);
            (!lists.is_empty())
                .then(|| context! { score => shown(method), first => is_first, lists => lists })
        };
        self.methods.iter().filter_map(of).collect()
    }

    fn list(&self, file: &SampleFile, list: &List) -> Value {
        let set = self.sets.get(list.set).map_or("", String::as_str);
        let (count, of) = (list.samples.len() as u64, list.of);
        let title = match list.kind {
            ListKind::Mistakes => format!("Confident mistakes on {set}"),
            ListKind::FalseAlarms => format!("False alarms on {set}"),
            ListKind::MostFamiliar if list.set == 0 => format!("{set}: most familiar"),
            ListKind::MostFamiliar => format!("{set}: most familiar, so hardest to tell"),
            ListKind::LeastFamiliar => format!("{set}: least familiar"),
        };
        let note = match (list.kind, &file.threshold) {
            (ListKind::Mistakes, _) => format!("the {count} surest of {of} wrong answers"),
            (ListKind::FalseAlarms, Some(threshold)) => format!(
                "{of} known images lie below {} of {}, {}{}",
                six_digits(threshold.tau),
                shown(&threshold.score),
                if threshold.calibrated { "the calibrated threshold" } else { "which keeps 95 % of them" },
                if of > count { format!("; {count} of them at random") } else { String::new() }
            ),
            _ => format!("{count} of {of}"),
        };
        let samples = list.samples.iter().map(|place| self.tile(file, *place, list));
        context! { title => shown(&title), note => note, samples => samples.collect::<Vec<Value>>() }
    }

    /// A thumbnail with its words.
    fn tile(&self, file: &SampleFile, place: usize, list: &List) -> Value {
        let sample = &file.shown[place];
        let class = |class: usize| {
            file.classes.get(class).map_or_else(|| format!("class {class}"), |name| shown(name))
        };
        let predicted = class(sample.predicted);
        let label = match (&sample.class, sample.label) {
            (Some(class), _) => Some(shown(class)),
            (None, Some(label)) => usize::try_from(label).ok().map(class),
            _ => None,
        };
        let name = sample.name.as_deref().map_or_else(|| format!("sample {}", sample.row), shown);
        let confidence = format!("{:.0}\u{a0}%", 100.0 * sample.confidence);
        let caption = match (list.kind, &label) {
            (ListKind::Mistakes, Some(label)) => format!("{label} → {predicted} {confidence}"),
            _ => format!("{predicted} {confidence}"),
        };
        context! {
            place => place,
            class => sample.thumbnail.map(|thumbnail| format!("{}{thumbnail}", self.key)),
            caption => caption,
            words => format!("{name}, {}taken for {predicted} at {confidence}", label.map_or_else(String::new, |label| format!("{label}, "))),
            name => name,
        }
    }
}

/// JSON that ends no script and opens no tag.
fn in_script(data: &Json) -> String {
    let mut text = String::new();
    for c in data.to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text += &format!("\\u{:04x}", c as u32),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_files_cannot_leave_the_data_of_the_script() {
        let text = in_script(&json!({ "name": "</script><script>alert(1)</script>\u{2028}&amp;" }));
        assert!(!text.contains(['<', '>', '&', '\u{2028}']), "{text}");
        let read: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(read["name"], "</script><script>alert(1)</script>\u{2028}&amp;");
    }
}
