//! The tables of the OOD section: all sets at a glance, every metric, and the same over the full spectrum.

use std::cmp::Ordering;

use minijinja::{Value, context};

use super::{shown, whole};
use crate::ood::table::{ALL, Candidate, Entry, Evaluation, OodSet, Part, p_in_words};

/// Rows of all metrics that are shown at once; more are behind a heading.
const OPEN_ROWS: usize = 60;
/// Scores of a table at a glance that is as high as they are; with more it scrolls, and the score of the best mean is first.
const MOST_UNSCROLLED: usize = 20;

/// A table of AUROC at a glance, where there are several sets, and a row of all metrics for each set and score.
pub(super) fn tables(evaluation: &Evaluation) -> Value {
    let entries = || evaluation.ood.values().flatten().map(|(_, entry)| entry);
    let rows = rows(evaluation);
    context! {
        glance => (evaluation.datasets.len() > 1).then(|| glance(evaluation)),
        is_tall => rows.len() > OPEN_ROWS,
        is_open => rows.len() <= OPEN_ROWS || evaluation.datasets.len() < 2,
        rows => rows,
        intervals => entries().any(|entry| entry.shown_interval().is_some()),
        compared => evaluation.comparison.is_some() && entries().any(|entry| entry.to_best.is_some()),
        risks => entries().any(|entry| entry.aurc.is_some()),
    }
}

/// The same with shifted ID sets on the ID side, and how each score sees the shift; `None` without such sets.
pub(super) fn full_spectrum(evaluation: &Evaluation) -> Option<Value> {
    let (spectrum, full) = (evaluation.full_spectrum.as_ref()?, evaluation.of_full_spectrum()?);
    let percent = |value: f64| format!("{:.2}", 100.0 * value);
    let sets = spectrum.shifted.iter().map(|set| {
        context! { name => shown(&set.name), samples => set.samples, accuracy => set.accuracy.map(percent) }
    });
    let against = evaluation.methods.iter().map(|method| {
        let cells = spectrum.shifted.iter().map(|set| {
            let entry = spectrum.id_versus_shifted.get(&set.name)?.get(method)?;
            let interval =
                entry.auroc_interval95.map(|[low, high]| format!("{}–{}", percent(low), percent(high)));
            Some(context! { text => percent(entry.auroc), value => entry.auroc, interval => interval })
        });
        context! { method => shown(method), cells => cells.collect::<Vec<Option<Value>>>() }
    });
    // How scores are compared is said above.
    let said = usize::from(full.comparison.is_some());
    let notes: Vec<String> = full.notes().iter().skip(said).map(|note| whole(note)).collect();
    let ties: Vec<String> = full.notes_on_ties().iter().map(|note| whole(note)).collect();
    Some(context! {
        sets => sets.collect::<Vec<Value>>(),
        against => against.collect::<Vec<Value>>(),
        is_tall => evaluation.methods.len() > MOST_UNSCROLLED,
        samples => full.id.samples,
        accuracy => full.id.accuracy.map(percent),
        tables => tables(&full),
        notes => notes,
        ties => ties,
    })
}

/// Constants that were chosen without OOD data: a row for each score with several candidates.
pub(super) fn tuning(evaluation: &Evaluation) -> Option<Value> {
    let tuning = evaluation.tuning.as_ref()?;
    let cell = |value: Option<f64>| {
        value.map(|value| context! { text => format!("{:.2}", 100.0 * value), value => value })
    };
    let compared = tuning.gain().is_some();
    let rows = tuning.tuned().map(|score| {
        let (default, chosen, best) = (score.default_candidate(), score.chosen_candidate(), score.best_on_ood());
        let held_out = [default, chosen].map(|candidate| cell(candidate.map(|candidate| candidate.auroc)));
        let on_ood = [default, chosen, best].map(|candidate| cell(candidate.and_then(Candidate::mean_on_ood)));
        context! {
            chosen => shown(&score.chosen),
            is_default => score.chosen == score.default,
            tried => score.candidates.len(),
            held_out => held_out.to_vec(),
            deviation => chosen.and_then(|candidate| candidate.auroc_std).map(|std| format!("{:.2}", 100.0 * std)),
            on_ood => if compared { on_ood.to_vec() } else { Vec::new() },
            best => best.map(|candidate| shown(&candidate.score)),
        }
    });
    Some(context! {
        heading => whole(&tuning.heading()),
        rows => rows.collect::<Vec<Value>>(),
        compared => compared,
        best => tuning.best().map(|best| context! { score => shown(&best.score), auroc => cell(Some(best.auroc)) }),
        verdict => tuning.verdict().map(|verdict| whole(&verdict)),
        notes => tuning.notes.iter().map(|note| whole(note)).collect::<Vec<String>>(),
        is_tall => tuning.tuned().count() > MOST_UNSCROLLED,
    })
}

/// AUROC of every score on every set, and its means: a row a score.
fn glance(evaluation: &Evaluation) -> Value {
    let parts = evaluation.parts();
    let titles = parts.iter().map(|part| match part {
        Part::Set(name) => context! { name => shown(name) },
        Part::Mean(group) => context! { name => format!("mean {group}"), is_mean => true },
    });
    let mut methods: Vec<&String> = evaluation.methods.iter().collect();
    let is_tall = methods.len() > MOST_UNSCROLLED;
    if is_tall {
        let mean = |method: &str| {
            let (auroc, _) = Part::Mean(ALL).rates(evaluation, method)?;
            Some(auroc)
        };
        methods.sort_by(|a, b| mean(b).partial_cmp(&mean(a)).unwrap_or(Ordering::Equal));
    }
    let rows = methods.into_iter().map(|method| {
        let cell = |part: &Part<'_>| {
            let (auroc, _) = part.rates(evaluation, method)?;
            Some(context! {
                text => format!("{:.2}", 100.0 * auroc),
                value => auroc,
                best => auroc == part.best_auroc(evaluation),
                near => part.to_best(evaluation, method).is_some_and(|to_best| to_best.within_noise),
            })
        };
        context! { method => shown(method), cells => parts.iter().map(cell).collect::<Vec<Option<Value>>>() }
    });
    context! { titles => titles.collect::<Vec<Value>>(), rows => rows.collect::<Vec<Value>>(), is_tall => is_tall }
}

/// A row for each OOD set and score.
fn rows(evaluation: &Evaluation) -> Vec<Value> {
    let mut rows = Vec::new();
    for set in &evaluation.datasets {
        let best = Part::Set(&set.name).best_auroc(evaluation);
        for method in &evaluation.methods {
            let Some(entry) = evaluation.entry(&set.name, method) else { continue };
            rows.push(row(set, method, entry, entry.metrics.auroc == best));
        }
    }
    rows
}

fn row(set: &OodSet, method: &str, entry: &Entry, best: bool) -> Value {
    let metrics = &entry.metrics;
    let cell = |value: f64| context! { text => format!("{:.2}", 100.0 * value), value => value };
    context! {
        set => shown(&set.name),
        group => set.group.map(|group| group.name()),
        method => shown(method),
        best => best,
        near => entry.to_best.is_some_and(|to_best| to_best.within_noise),
        auroc => cell(metrics.auroc),
        interval => entry.shown_interval().map(|[low, high]| format!("{:.2}–{:.2}", 100.0 * low, 100.0 * high)),
        to_best => entry.to_best.map(|to_best| context! {
            text => format!("{:+.2}", 100.0 * to_best.difference),
            value => to_best.difference,
            p => p_in_words(to_best.p_value),
            interval => to_best.interval95.map(|end| format!("{:+.2}", 100.0 * end)).join(" to "),
        }),
        cells => [metrics.fpr95, metrics.fpr95_id_positive, metrics.aupr_in, metrics.aupr_out].map(cell).to_vec(),
        risks => [entry.aurc, entry.augrc].map(|area| area.map(cell)).to_vec(),
    }
}
