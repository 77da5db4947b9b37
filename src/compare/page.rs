//! `compare.html`: one page that needs no network, with the look of the report.

use minijinja::{Value, context};

use super::rows::{COLLAPSE, Difference, Metric, Row, Section, Verdict};
use super::runs::Run;
use super::terminal::{chance, covered, interval, shown, signed};
use super::{Comparison, Disagreement, Sample};
use crate::error::Result;
use crate::report::parts::{embedded, render_page, shown_name, whole_line};
use crate::report::plots::{CollapseRow, MOST_OVERLAID, RunCurve, Scale, TrainingPoint, overlay};

const TEMPLATE: &str = include_str!("page.html");
/// Longest name of a run in a legend.
const LONGEST_NAME: usize = 28;

/// One pair of axes with a curve of each training.
#[derive(Debug, Clone)]
pub(super) struct Curves {
    section: Section,
    title: &'static str,
    axis: (&'static str, Scale),
    curves: Vec<RunCurve>,
}

/// The curves that runs have: training by split, collapse by measure.
pub(super) fn curves(runs: &[Run]) -> Vec<Curves> {
    type Value = fn(&TrainingPoint) -> Option<f64>;
    const ACCURACY: (Value, &str, Scale) =
        (|point| point.accuracy.map(|share| 100.0 * share), "accuracy (%)", Scale::Percent);
    const LOSS: (Value, &str, Scale) = (|point| point.loss, "loss (log scale)", Scale::Logarithmic);
    const TRAINING: [(&str, &str, (Value, &str, Scale)); 6] = [
        ("train", "Training accuracy", ACCURACY),
        ("val", "Validation accuracy", ACCURACY),
        ("test", "Test accuracy", ACCURACY),
        ("train", "Training loss", LOSS),
        ("val", "Validation loss", LOSS),
        ("test", "Test loss", LOSS),
    ];
    let mut found = Vec::new();
    for (split, title, (value, name, scale)) in TRAINING {
        let curves = of_trainings(runs, |training| {
            let points = training.parts.as_ref().map_or(&[][..], |parts| parts.training());
            let of_split = points.iter().filter(|point| point.split == split);
            of_split.filter_map(|point| Some((point.epoch, value(point)?))).collect()
        });
        found.push(Curves { section: Section::Training, title, axis: (name, scale), curves });
    }
    for (metric, value) in COLLAPSE {
        let scale = match metric {
            Metric::Nc3 => Scale::Linear,
            Metric::Nc4 => Scale::Percent,
            _ => Scale::Logarithmic,
        };
        let unit = if metric.is_share() { 100.0 } else { 1.0 };
        let curves = of_trainings(runs, |training| {
            let rows = training.parts.as_ref().map_or_else(Vec::new, |parts| parts.collapse());
            rows.iter().filter_map(|row: &CollapseRow| Some((row.epoch, unit * value(row)?))).collect()
        });
        let name = match (metric.is_share(), scale) {
            (true, _) => "share of samples (%)",
            (_, Scale::Logarithmic) => "log scale",
            _ => "value",
        };
        found.push(Curves { section: Section::Collapse, title: metric.name(), axis: (name, scale), curves });
    }
    found.retain(|panel| panel.curves.iter().any(|curve| !curve.points.is_empty()));
    found
}

fn of_trainings(runs: &[Run], points: impl Fn(&super::runs::Training) -> Vec<(f64, f64)>) -> Vec<RunCurve> {
    let mut curves = Vec::new();
    for (run, own) in runs.iter().enumerate() {
        let name = legend_name(&own.name);
        curves.extend(own.trainings.iter().map(|training| RunCurve {
            run,
            name: name.clone(),
            points: points(training),
        }));
    }
    curves
}

fn legend_name(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    }
}

/// The whole page.
pub(super) fn page(comparison: &Comparison) -> Result<String> {
    let names: Vec<String> = comparison.runs.iter().map(|run| shown_name(&run.name)).collect();
    let runs: Vec<Value> = comparison
        .runs
        .iter()
        .zip(&names)
        .map(|(run, name)| {
            let seeds: Vec<String> = run.seeds.iter().map(u64::to_string).collect();
            let path = whole_line(&run.path.display().to_string());
            context! { name => name, title => run.title.as_deref().map(shown_name), path => (path != *name).then_some(path),
                seeds => (!seeds.is_empty()).then(|| seeds.join(", ")) }
        })
        .collect();
    let covers: Vec<_> = comparison
        .rows
        .iter()
        .flat_map(|row| row.differences.iter().flatten())
        .map(|found| found.covers)
        .collect();
    let value = context! {
        names => names.clone(),
        runs => runs,
        covers => covered(&covers),
        notes => comparison.notes.iter().map(|note| whole_line(note)).collect::<Vec<_>>(),
        sentences => sentences(comparison, &names),
        recipe => comparison.recipe.as_ref().map(|keys| keys.iter().map(recipe_row).collect::<Vec<_>>()),
        id => table(comparison, |row| row.section == Section::Id),
        auroc => table(comparison, |row| row.metric == Metric::Auroc),
        rates => table(comparison, |row| row.section == Section::Ood && row.metric != Metric::Auroc),
        training => table(comparison, |row| row.section == Section::Training),
        collapse => table(comparison, |row| row.section == Section::Collapse),
        training_figures => figures(comparison, Section::Training)?,
        collapse_figures => figures(comparison, Section::Collapse)?,
        left_out => comparison.runs.len().saturating_sub(MOST_OVERLAID),
        disagreements => comparison.disagreements.iter().map(|found| disagreement(found, &names)).collect::<Vec<_>>(),
    };
    render_page("compare.html", TEMPLATE, value)
}

fn recipe_row(key: &super::RecipeKey) -> Value {
    let cells: Vec<Value> = key
        .values
        .iter()
        .map(|value| {
            let differs = value != &key.values[0];
            context! { text => value.as_deref().map_or("–".to_string(), shown_name), differs => differs }
        })
        .collect();
    context! { key => shown_name(&key.key), cells => cells }
}

fn figures(comparison: &Comparison, section: Section) -> Result<Vec<Value>> {
    let panels = comparison.curves.iter().filter(|panel| panel.section == section);
    let drawn = panels.filter_map(|panel| overlay(panel.title, panel.axis, &panel.curves));
    drawn.map(|panel| Ok(embedded(&panel.figure()?))).collect()
}

/// Rows of a table, or nothing if there are none; bars of all rows with one unit have one scale.
fn table(comparison: &Comparison, wanted: impl Fn(&Row) -> bool) -> Option<Value> {
    let rows: Vec<&Row> = comparison.rows.iter().filter(|row| wanted(row)).collect();
    if rows.is_empty() {
        return None;
    }
    let several = |of: fn(&Row) -> &Option<String>| rows.windows(2).any(|pair| of(pair[0]) != of(pair[1]));
    let cells: Vec<Value> = rows.iter().map(|row| table_row(row, reach(&rows, row.metric))).collect();
    let set = rows[0].set.as_deref().map(shown_name);
    Some(context! {
        rows => cells,
        sets => several(|row| &row.set) || rows[0].section == Section::Ood,
        set => set,
        scores => rows.iter().any(|row| row.score.is_some()),
        metrics => rows.iter().any(|row| row.metric != rows[0].metric),
    })
}

/// The half length of the tracks of a metric: all but the largest tenth of the bounds that share its scale lie on them, so that one large
/// difference does not make points of all others.
fn reach(rows: &[&Row], metric: Metric) -> f64 {
    let alike = |row: &&&Row| {
        row.metric.is_share() == metric.is_share() && (metric.is_share() || row.metric == metric)
    };
    let differences = rows.iter().filter(alike).flat_map(|row| row.differences.iter().flatten());
    let bounds = differences.flat_map(|found| found.interval95.unwrap_or([found.value; 2]));
    let mut bounds: Vec<f64> = bounds.map(f64::abs).filter(|bound| bound.is_finite()).collect();
    bounds.sort_unstable_by(f64::total_cmp);
    bounds.get((bounds.len() * 9 / 10).min(bounds.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

fn table_row(row: &Row, reach: f64) -> Value {
    let number = |value: Option<f64>| {
        context! { text => value.map_or("–".to_string(), |value| shown(row.metric, value)), value => value }
    };
    let runs: Vec<Value> = row
        .differences
        .iter()
        .zip(&row.values[1..])
        .map(|(found, value)| {
            context! {
                value => number(*value),
                difference => found.map(|found| context! { text => signed(row.metric, found.value), value => found.value }),
                interval => found.map(|found| interval(row.metric, &found)),
                bar => found.and_then(|found| bar(&found, reach)),
                verdict => found.map(|found| context! { word => found.verdict.word(), class => found.verdict.key() }),
                method => found.map(|found| method(&found)),
            }
        })
        .collect();
    context! {
        set => row.set.as_deref().map(shown_name),
        score => row.score.as_deref().map(shown_name),
        metric => row.metric.name(),
        base => number(row.values[0]),
        runs => runs,
    }
}

fn method(found: &Difference) -> String {
    match found.p_value {
        Some(p) if p < 0.001 => format!("{}, p < 0.001", found.method),
        Some(p) => format!("{}, p = {p:.3}", found.method),
        None => found.method.to_string(),
    }
}

/// Places of an interval on a track whose middle is 0, in percent of its length.
fn bar(found: &Difference, reach: f64) -> Option<Value> {
    let [low, high] = found.interval95?;
    let place = |value: f64| 50.0 + 48.0 * if reach > 0.0 { (value / reach).clamp(-1.0, 1.0) } else { 0.0 };
    let (left, right, at) = (place(low), place(high), place(found.value));
    Some(
        context! { left => format!("{left:.2}"), width => format!("{:.2}", right - left), at => format!("{at:.2}") },
    )
}

/// What was found about each run, in words.
fn sentences(comparison: &Comparison, names: &[String]) -> Vec<String> {
    let mut sentences = Vec::new();
    for (run, _) in comparison.others() {
        let differences = comparison.rows.iter().filter_map(|row| Some((row, row.differences[run - 1]?)));
        let (mut better, mut worse, mut noise) = (0, 0, 0);
        for (row, found) in differences.clone() {
            if matches!(row.section, Section::Id | Section::Ood) {
                match found.verdict {
                    Verdict::Better => better += 1,
                    Verdict::Worse => worse += 1,
                    Verdict::WithinNoise => noise += 1,
                    Verdict::Differs | Verdict::Unknown => {}
                }
            }
        }
        let accuracy =
            differences.clone().find(|(row, _)| (row.section, row.metric) == (Section::Id, Metric::Accuracy));
        if let Some((row, found)) = accuracy {
            let value =
                |value: Option<f64>| value.map_or("–".to_string(), |value| shown(Metric::Accuracy, value));
            sentences.push(format!(
                "{} classifies {} % of the test samples right, {} {} %: {} points, 95 % interval {}, {}.",
                names[run],
                value(row.values[run]),
                names[0],
                value(row.values[0]),
                signed(Metric::Accuracy, found.value),
                interval(Metric::Accuracy, &found),
                match found.verdict {
                    Verdict::WithinNoise => "which may be chance",
                    Verdict::Unknown => "of which nothing tells how much is chance",
                    _ => "which chance alone does not explain",
                }
            ));
        }
        if better + worse + noise > 0 {
            sentences.push(format!(
                "Of {} numbers of {} with an interval, {better} are better than those of {}, {worse} are worse, {noise} are within noise.",
                better + worse + noise,
                names[run],
                names[0]
            ));
        }
    }
    sentences
}

fn disagreement(found: &Disagreement, names: &[String]) -> Value {
    let counts = &found.counts;
    context! {
        name => names[found.run].clone(),
        base => names[0].clone(),
        seeds => found.seeds.map(|[base, own]| format!("seed {base} of {}, seed {own} of {}", names[0], names[found.run])),
        data => found.data.as_deref().map(shown_name),
        both => counts.both, first => counts.first, second => counts.second, neither => counts.neither,
        all => counts.samples(),
        one => counts.first + counts.second,
        different => found.different_answers,
        p => chance(found.mcnemar_p).replace("< ", "less than "),
        samples => found.samples.iter().map(sample).collect::<Vec<_>>(),
    }
}

fn sample(sample: &Sample) -> Value {
    let answer = |network: usize| {
        let confidence = sample.confidences[network];
        let right = sample.baseline_is_right == (network == 0);
        context! { class => shown_name(&sample.answers[network]), text => format!("{:.1}", 100.0 * confidence), value => confidence, right => right }
    };
    context! {
        row => sample.row,
        name => sample.name.as_deref().map(shown_name),
        label => shown_name(&sample.label),
        answers => vec![answer(0), answer(1)],
        picture => sample.picture.clone(),
    }
}
