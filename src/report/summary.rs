//! The top of the page: the run and its results, in words a reader needs no glossary for.

use minijinja::{Value, context};

use super::novelty::Novelty;
use super::run::{Run, median};
use super::{percent, shown, whole};
use crate::ood::table::{Entry, Evaluation, Group, OodSet, Part};
use crate::train::{RunRecord, Session};
use crate::values::significant;

/// Scores within noise of the best that a sentence names.
const LISTED: usize = 6;
/// Keys of the recipe's `[train]` table (or of its top level) that say what was run.
const FACTS: [(&str, &str); 5] = [
    ("data", "data"),
    ("arch", "network"),
    ("epochs", "epochs"),
    ("optimizer", "optimizer"),
    ("seed", "seed"),
];

/// Name and value of what the recipe says about the run, and of what its training took. Values that depend on the clock
/// are marked, since they differ between equal runs.
pub(super) fn facts(run: &Run) -> Vec<Value> {
    let mut facts = run.recipe.as_ref().map_or_else(Vec::new, |recipe| recipe_facts(&recipe.table));
    let fact = |name: &str, value: String, is_clocked: bool| {
        context! { name => name, value => whole(&value), is_clocked => is_clocked }
    };
    let networks = || run.novelty.iter().flat_map(Novelty::networks);
    let records: Vec<&RunRecord> =
        run.record.iter().chain(networks().filter_map(|network| network.record.as_ref())).collect();
    let sessions = || records.iter().flat_map(|record| &record.sessions);
    let all = |text: fn(&Session) -> &String| {
        let mut texts: Vec<&str> = Vec::new();
        for session in sessions() {
            if !texts.contains(&text(session).as_str()) {
                texts.push(text(session));
            }
        }
        (!texts.is_empty()).then(|| texts.join("; "))
    };
    facts.extend(all(|session| &session.device).map(|text| fact("device", text, false)));
    facts.extend(all(|session| &session.precision).map(|text| fact("precision", text, false)));
    let seconds: f64 = records.iter().map(|record| record.seconds()).sum();
    if seconds > 0.0 {
        let name = if records.len() > 1 {
            format!("training of {} networks", records.len())
        } else {
            "training".into()
        };
        facts.push(fact(&name, duration(seconds), true));
    }
    let of_networks = networks().filter_map(|network| network.log.images_per_second).collect();
    if let Some(speed) = run.images_per_second.or_else(|| median(of_networks)) {
        facts.push(fact("images/s", significant(speed, 3), true));
    }
    facts.extend(all(|session| &session.program).map(|text| fact("program", text, false)));
    facts
}

/// `8 min 12 s`: the two largest units.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

fn recipe_facts(table: &toml::Table) -> Vec<Value> {
    let train = table.get("train").and_then(toml::Value::as_table);
    let named = table.get("data").and_then(toml::Value::as_table);
    let find = |key: &str| {
        let written = |value: &&toml::Value| value.as_str() != Some("");
        let own = train.and_then(|table| table.get(key)).filter(written).or_else(|| table.get(key));
        // A recipe with two levels of classes has a table of data sets.
        if key == "data" { named.map_or(own, |named| named.get("train")) } else { own }
    };
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        _ => None,
    };
    FACTS
        .iter()
        .filter_map(|(key, name)| {
            let value = find(key).and_then(text)?;
            Some(context! { name => *name, value => whole(&value) })
        })
        .collect()
}

/// The numbers in large type.
pub(super) fn cards(run: &Run) -> Vec<Value> {
    let mut cards = run.novelty.as_ref().map_or_else(Vec::new, Novelty::cards);
    if let Some((accuracy, whose)) = accuracy(run) {
        cards.push(context! { value => percent(accuracy), name => "accuracy", note => whose });
    }
    if let Some(evaluation) = &run.evaluation {
        for (set, method, entry) in best_of_each(evaluation).into_iter().take(4) {
            cards.push(context! {
                value => percent(entry.metrics.auroc),
                name => format!("AUROC on {}", shown(&set.name)),
                note => format!("best score: {}", shown(method)),
            });
        }
    }
    if let Some(nc1) = run.collapse.checkpoints.iter().rev().find_map(|row| row.measures()[0]) {
        cards.push(
            context! { value => number(nc1), name => "NC1", note => "last checkpoint; 0 is full collapse" },
        );
    }
    cards
}

/// The results, a sentence each.
pub(super) fn sentences(run: &Run) -> Vec<String> {
    let mut sentences = run.novelty.as_ref().map_or_else(Vec::new, Novelty::sentences);
    if let Some((accuracy, whose)) = accuracy(run) {
        sentences
            .push(format!("The network classifies {} of the {whose} images correctly.", percent(accuracy)));
    }
    if let Some(evaluation) = &run.evaluation {
        for (set, method, entry) in best_of_each(evaluation) {
            sentences.push(best_sentence(set, method, entry) + &noise_sentence(evaluation, set, method));
        }
        let below = evaluation.ood.values().flatten().filter(|(_, entry)| entry.metrics.auroc < 0.5).count();
        if below > 0 {
            sentences.push(format!(
                "{below} of the {} results lie below an AUROC of 50 %: there the score ranks OOD images as more \
                 familiar than ID ones.",
                evaluation.ood.values().map(|by_method| by_method.len()).sum::<usize>()
            ));
        }
    }
    if run.novelty.is_none() {
        let entries = run.thresholds.iter().flat_map(|file| &file.levels);
        sentences.extend(entries.map(|entry| entry.in_words()));
    }
    sentences.extend(collapse_sentence(run));
    sentences
}

fn best_sentence(set: &OodSet, method: &str, entry: &Entry) -> String {
    let group = match set.group {
        Some(Group::Near) => " (near)",
        Some(Group::Far) => " (far)",
        None => "",
    };
    format!(
        "{}{group}: {} separates best. Its AUROC is {}; catching 95 % of the OOD images flags {} of the ID images, and \
         keeping 95 % of the ID images lets {} of the OOD images through.",
        shown(&set.name),
        shown(method),
        percent(entry.metrics.auroc),
        percent(entry.metrics.fpr95),
        percent(entry.metrics.fpr95_id_positive)
    )
}

/// The other scores that may be the best one; nothing where scores were not compared.
fn noise_sentence(evaluation: &Evaluation, set: &OodSet, best: &str) -> String {
    if evaluation.comparison.is_none() {
        return String::new();
    }
    let others = evaluation.within_noise(Part::Set(&set.name));
    let others: Vec<String> = others.into_iter().filter(|other| *other != best).map(shown).collect();
    match others.len() {
        0 => " No other score is within noise of it.".into(),
        1..=LISTED => format!(" Within noise of it: {}.", others.join(", ")),
        more => format!(" Within noise of it: {} and {} more.", others[..LISTED].join(", "), more - LISTED),
    }
}

fn collapse_sentence(run: &Run) -> Option<String> {
    let values: Vec<(f64, f64)> = run
        .collapse
        .checkpoints
        .iter()
        .enumerate()
        .filter_map(|(index, row)| Some((row.curves(index).epoch, row.measures()[0]?)))
        .collect();
    let ((first_epoch, first), (last_epoch, last)) = (*values.first()?, *values.last()?);
    if values.len() < 2 {
        return None;
    }
    let verb = if last < first { "fell" } else { "rose" };
    Some(format!(
        "Neural collapse: NC1, the spread within classes against the spread between them, {verb} from {} at epoch {} to \
         {} at epoch {}.",
        number(first),
        number(first_epoch),
        number(last),
        number(last_epoch)
    ))
}

/// Accuracy and what it was measured on: the evaluation's ID set, or the last evaluation during training.
pub(super) fn accuracy(run: &Run) -> Option<(f64, &'static str)> {
    if let Some(accuracy) = run.evaluation.as_ref().and_then(|evaluation| evaluation.id.accuracy) {
        return Some((accuracy, "ID test"));
    }
    let last = |split: &str| {
        run.training.iter().rev().find_map(|point| point.accuracy.filter(|_| point.split == split))
    };
    last("test").map(|a| (a, "test")).or_else(|| last("val").map(|a| (a, "validation")))
}

/// The score of highest AUROC for each OOD set, in the order of the sets.
pub(super) fn best_of_each(evaluation: &Evaluation) -> Vec<(&OodSet, &str, &Entry)> {
    evaluation
        .datasets
        .iter()
        .filter_map(|set| {
            let (method, entry) = evaluation
                .ood
                .get(&set.name)?
                .iter()
                .max_by(|a, b| a.1.metrics.auroc.total_cmp(&b.1.metrics.auroc))?;
            Some((set, method.as_str(), entry))
        })
        .collect()
}

/// A number in three significant digits.
pub(super) fn number(value: f64) -> String {
    super::plots::short(super::plots::three_digits(value))
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_in_units_that_suit_them() {
        let texts = [0.04, 9.96, 59.4, 61.0, 7384.0, 200_000.0].map(duration);
        assert_eq!(texts, ["0.0 s", "10.0 s", "59 s", "1 min 1 s", "2 h 3 min", "2 d 7 h"]);
    }
}
