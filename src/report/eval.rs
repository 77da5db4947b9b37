//! Labelled data: figures of an evaluation, and the section on it.

use std::path::Path;

use minijinja::{Value, context};

use super::plots::{Panel, confusion_matrix, reliability_diagram, risk_coverage_curve};
use super::run::Run;
use super::{Plots, shown};
use crate::error::Result;
use crate::eval::{Confusion, EVAL_FILE, Evaluated, Results};
use crate::files;

/// A head, evaluated.
pub(super) struct Labelled {
    /// Its level where there are two, else nothing.
    pub level: &'static str,
    pub results: Results,
    pub confusion: Option<Confusion>,
}

impl Labelled {
    /// Reads the results in a folder, or in those of two levels in it.
    ///
    /// # Errors
    /// A file is damaged; the message names it.
    pub fn read(folder: &Path) -> Result<Vec<Labelled>> {
        let mut found = Vec::new();
        for (level, place) in [
            ("", folder.to_path_buf()),
            ("superclass", folder.join("superclass")),
            ("subclass", folder.join("subclass")),
        ] {
            let path = place.join(EVAL_FILE);
            if !path.exists() {
                continue;
            }
            let results = Results::read(&path)?;
            let cells = place.join("confusion.csv");
            let confusion = cells.exists().then(|| Confusion::read(&cells, results.classes)).transpose()?;
            found.push(Labelled { level, results, confusion });
        }
        Ok(found)
    }
}

/// Metrics and how they are shown: key, name, whether in percent, which way is better.
const SHOWN: [(&str, &str, bool, &str); 13] = [
    ("accuracy", "Accuracy", true, "higher"),
    ("top5", "Top-5 accuracy", true, "higher"),
    ("macro_precision", "Macro precision", true, "higher"),
    ("macro_recall", "Macro recall", true, "higher"),
    ("macro_f1", "Macro F1", true, "higher"),
    ("nll", "NLL", false, "lower"),
    ("brier", "Brier score", false, "lower"),
    ("ece", "ECE", true, "lower"),
    ("mce", "MCE", true, "lower"),
    ("classwise_ece", "Classwise ECE", true, "lower"),
    ("aurc", "AURC", true, "lower"),
    ("augrc", "AUGRC", true, "lower"),
    ("eaurc", "E-AURC", true, "lower"),
];

/// The section on labelled data: a part a head.
pub(super) fn sections(run: &Run, plots: &mut Plots) -> Result<Vec<Value>> {
    run.labelled.iter().map(|labelled| section(labelled, plots)).collect()
}

fn section(labelled: &Labelled, plots: &mut Plots) -> Result<Value> {
    let Labelled { level, results, confusion } = labelled;
    let metrics = results.metrics.named();
    let rows = SHOWN.iter().filter_map(|(key, name, in_percent, better)| {
        let (_, value) = metrics.iter().find(|(other, _)| other == key)?;
        // Of five classes or fewer the class is always among the five.
        if *key == "top5" && results.classes <= 5 {
            return None;
        }
        let shown = |value: f64| if *in_percent { format!("{:.2} %", 100.0 * value) } else { format!("{value:.4}") };
        let interval = results.interval95.of(key).map(|[low, high]| format!("{} – {}", shown(low), shown(high)));
        Some(context! { name => *name, text => shown(*value), value => *value, interval => interval, better => *better })
    });
    let suffix = if level.is_empty() { String::new() } else { format!("_{level}") };
    let mut figures = Vec::new();
    for (name, panel) in figures_of(results, confusion.as_ref()) {
        figures.push(plots.write(&format!("eval_{name}{suffix}"), &panel.figure()?)?);
    }
    let name = |class: u32| shown(&results.class_name(class));
    let share = |value: Option<f64>| {
        context! { text => value.map_or("–".to_string(), |value| format!("{:.2}", 100.0 * value)), value => value }
    };
    let classes = results.per_class.iter().map(|class| {
        let bounds =
            class.recall.map(|recall| format!("{:.1} – {:.1}", 100.0 * recall.low, 100.0 * recall.high));
        context! {
            name => name(class.class),
            samples => class.samples,
            cells => vec![
                share(class.precision.map(|share| share.rate)),
                share(class.recall.map(|share| share.rate)),
                share(class.f1),
            ],
            bounds => bounds,
        }
    });
    let confused = results.most_confused.iter().map(|cell| {
        context! { label => name(cell.label), predicted => name(cell.predicted), count => cell.count }
    });
    Ok(context! {
        level => *level,
        samples => results.samples,
        unlabelled => results.unlabelled,
        count => results.classes,
        rows => rows.collect::<Vec<Value>>(),
        figures => figures,
        classes => classes.collect::<Vec<Value>>(),
        confused => confused.collect::<Vec<Value>>(),
    })
}

fn figures_of(results: &Results, confusion: Option<&Confusion>) -> Vec<(&'static str, Panel)> {
    let mut figures =
        vec![("reliability", reliability_diagram(results)), ("risk_coverage", risk_coverage_curve(results))];
    let matrix = confusion.and_then(|confusion| confusion_matrix(results, confusion));
    figures.extend(matrix.map(|panel| ("confusion", panel)));
    figures
}

/// Writes the figures of an evaluation into a folder.
///
/// # Errors
/// A file cannot be written.
pub fn write_evaluation_figures(evaluated: &Evaluated, folder: &Path) -> Result<()> {
    for (name, panel) in figures_of(&evaluated.results, Some(&evaluated.confusion)) {
        files::write(&folder.join(format!("{name}.svg")), panel.figure()?.standalone())?;
    }
    Ok(())
}
