//! The page over several seeds of one experiment: means and deviations of every number, and a link to the page of each seed.

use std::path::{Path, PathBuf};

use minijinja::{Value, context};

use super::novelty::{NOTEBOOK, Novelty, measured};
use super::run::Run;
use super::summary::{accuracy, facts, number};
use super::{shown, whole};
use crate::error::Result;
use crate::files;
use crate::novelty::Row;
use crate::ood::metrics::OodMetrics;
use crate::ood::table::{Group, OodSet, sample_deviation};

/// Name of a seed's folder under `run --seeds`, before its number.
const PREFIX: &str = "seed_";
/// Seeds that anybody trains.
const MOST_SEEDS: usize = 1000;

/// A seed and its run folder, by number.
pub(super) type SeedFolder = (u64, PathBuf);

/// The seeds' folders in a folder that is no run itself; none where it is one.
///
/// # Errors
/// The folder cannot be listed.
pub(super) fn folders(folder: &Path) -> Result<Vec<SeedFolder>> {
    let own = ["recipe.toml", "metrics.jsonl", "dashboard.json"];
    if !folder.is_dir() || own.iter().any(|name| folder.join(name).exists()) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for path in files::list(folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let seed = name.strip_prefix(PREFIX).and_then(|number| number.parse::<u64>().ok());
        if let Some(seed) = seed.filter(|_| path.join("recipe.toml").is_file() && found.len() < MOST_SEEDS) {
            found.push((seed, path));
        }
    }
    found.sort();
    Ok(found)
}

/// One seed's results.
struct Seed {
    seed: u64,
    run: Run,
}

/// Mean and deviation of a number over the seeds that have it.
#[derive(Debug, Clone, Copy)]
struct Spread {
    mean: f64,
    deviation: Option<f64>,
    count: usize,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Spread> {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        (count > 0).then(|| Spread { mean, deviation: sample_deviation(values), count })
    }

    /// `81.32 ± 0.41` of fractions, in percent.
    fn in_percent(&self, digits: usize) -> String {
        let percent = |share: f64| format!("{:.digits$}", 100.0 * share);
        match self.deviation {
            Some(deviation) => format!("{} ± {}", percent(self.mean), percent(deviation)),
            None => percent(self.mean),
        }
    }

    fn cell(&self) -> Value {
        context! { text => self.in_percent(2), value => self.mean }
    }
}

/// Values of the template for the page over seeds.
pub(super) struct Overview {
    pub name: Option<String>,
    pub facts: Vec<Value>,
    pub cards: Vec<Value>,
    pub sentences: Vec<String>,
    pub warnings: Vec<String>,
    pub section: Value,
    /// The scores in it.
    pub scores: Vec<String>,
}

/// Reads every seed's run and lays out the parts that all of them have.
///
/// # Errors
/// A file of a run is damaged; the message names it.
pub(super) fn overview(folders: &[SeedFolder]) -> Result<Overview> {
    let read = |(seed, path): &SeedFolder| Ok(Seed { seed: *seed, run: Run::read(path)? });
    let seeds: Vec<Seed> = folders.iter().map(read).collect::<Result<_>>()?;
    let numbers: Vec<String> = seeds.iter().map(|seed| seed.seed.to_string()).collect();
    let numbers = numbers.join(", ");
    let mut facts: Vec<Value> = seeds.first().map_or_else(Vec::new, |first| facts(&first.run));
    // Of the first seed alone; so is its time.
    let is_own = |fact: &Value| {
        fact.get_attr("name").is_ok_and(|name| name.as_str() == Some("seed"))
            || fact.get_attr("is_clocked").is_ok_and(|clocked| clocked.is_true())
    };
    facts.retain(|fact| !is_own(fact));
    facts.push(context! { name => "seeds", value => numbers.clone() });
    let table = ood_table(&seeds);
    let novelty = novelty_rows(&seeds);
    let (cards, sentences) = headline(&seeds, &table);
    let section = context! {
        count => seeds.len(),
        numbers => numbers,
        rows => table.iter().map(OodRow::value).collect::<Vec<Value>>(),
        novelty => novelty,
        columns => best(&table).iter().map(|row| format!("AUROC of {} on {}", shown(&row.method), shown(&row.set.name))).collect::<Vec<_>>(),
        seeds => seeds.iter().map(|seed| seed_row(seed, &best(&table))).collect::<Vec<Value>>(),
    };
    let name = seeds.first().and_then(|first| first.run.name());
    let mut scores: Vec<String> = Vec::new();
    for row in &table {
        if !scores.contains(&row.method) {
            scores.push(row.method.clone());
        }
    }
    Ok(Overview { name, facts, cards, sentences, warnings: warnings(&seeds), section, scores })
}

/// One score on one OOD set over the seeds that have it.
struct OodRow {
    set: OodSet,
    method: String,
    is_best: bool,
    /// AUROC, both FPR95, both average precisions.
    spreads: [Spread; 5],
}

impl OodRow {
    fn value(&self) -> Value {
        context! {
            set => shown(&self.set.name),
            group => self.set.group.map(Group::name),
            method => shown(&self.method),
            best => self.is_best,
            seeds => self.spreads[0].count,
            cells => self.spreads.iter().map(Spread::cell).collect::<Vec<Value>>(),
        }
    }
}

/// A row for each OOD set and score, in the order of the first seed that has them.
fn ood_table(seeds: &[Seed]) -> Vec<OodRow> {
    let evaluations = || seeds.iter().filter_map(|seed| seed.run.evaluation.as_ref());
    let (mut sets, mut methods): (Vec<OodSet>, Vec<String>) = (Vec::new(), Vec::new());
    for evaluation in evaluations() {
        for set in &evaluation.datasets {
            if !sets.iter().any(|other| other.name == set.name) {
                sets.push(set.clone());
            }
        }
        for method in &evaluation.methods {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
    }
    const METRICS: [fn(&OodMetrics) -> f64; 5] =
        [|m| m.auroc, |m| m.fpr95, |m| m.fpr95_id_positive, |m| m.aupr_in, |m| m.aupr_out];
    let mut table = Vec::new();
    for set in sets {
        let first = table.len();
        for method in &methods {
            let metrics: Vec<&OodMetrics> = evaluations()
                .filter_map(|evaluation| Some(&evaluation.entry(&set.name, method)?.metrics))
                .collect();
            let spread = |metric: fn(&OodMetrics) -> f64| {
                Spread::of(&metrics.iter().map(|metrics| metric(metrics)).collect::<Vec<f64>>())
            };
            if let [Some(a), Some(b), Some(c), Some(d), Some(e)] = METRICS.map(spread) {
                let (set, method) = (set.clone(), method.clone());
                table.push(OodRow { set, method, is_best: false, spreads: [a, b, c, d, e] });
            }
        }
        let auroc = |row: &&mut OodRow| row.spreads[0].mean;
        if let Some(best) = table[first..].iter_mut().max_by(|a, b| auroc(a).total_cmp(&auroc(b))) {
            best.is_best = true;
        }
    }
    table
}

fn best(table: &[OodRow]) -> Vec<&OodRow> {
    table.iter().filter(|row| row.is_best).collect()
}

/// Numbers in large type, and a sentence each.
fn headline(seeds: &[Seed], table: &[OodRow]) -> (Vec<Value>, Vec<String>) {
    let (mut cards, mut sentences) = (Vec::new(), Vec::new());
    sentences.push(format!(
        "{} trainings of one recipe that differ in nothing but the seed. Numbers behind ± are standard deviations of the \
         sample (dividing by n − 1) over the seeds: how much of a difference is luck.",
        seeds.len()
    ));
    let accuracies: Vec<(f64, &'static str)> = seeds.iter().filter_map(|seed| accuracy(&seed.run)).collect();
    let values: Vec<f64> = accuracies.iter().map(|(accuracy, _)| *accuracy).collect();
    if let (Some(spread), Some((_, whose))) = (Spread::of(&values), accuracies.first()) {
        cards.push(
            context! { value => format!("{} %", spread.in_percent(1)), name => "accuracy", note => *whose },
        );
    }
    for row in best(table) {
        let auroc = row.spreads[0].in_percent(1);
        cards.push(context! {
            value => format!("{auroc} %"),
            name => format!("AUROC on {}", shown(&row.set.name)),
            note => format!("best score: {}", shown(&row.method)),
        });
        sentences.push(format!(
            "{}: {} separates best on average, with an AUROC of {auroc} %.",
            shown(&row.set.name),
            shown(&row.method)
        ));
    }
    let collapse: Vec<f64> = seeds.iter().filter_map(|seed| nc1(&seed.run)).collect();
    if let Some(spread) = Spread::of(&collapse) {
        let deviation =
            spread.deviation.map_or(String::new(), |deviation| format!(" ± {}", number(deviation)));
        let note = "last checkpoint; 0 is full collapse";
        cards.push(
            context! { value => format!("{}{deviation}", number(spread.mean)), name => "NC1", note => note },
        );
    }
    (cards, sentences)
}

fn nc1(run: &Run) -> Option<f64> {
    run.collapse.checkpoints.iter().rev().find_map(|row| row.measures()[0])
}

/// A line of the table of seeds, with the link to its page.
fn seed_row(seed: &Seed, best: &[&OodRow]) -> Value {
    let percent = |value: Option<f64>| {
        context! { text => value.map_or("–".to_string(), |value| format!("{:.2}", 100.0 * value)), value => value }
    };
    let mut cells = vec![percent(accuracy(&seed.run).map(|(accuracy, _)| accuracy))];
    for row in best {
        let entry = seed.run.evaluation.as_ref().and_then(|e| e.entry(&row.set.name, &row.method));
        cells.push(percent(entry.map(|entry| entry.metrics.auroc)));
    }
    // Of a number there is nothing to escape.
    let page = Value::from_safe_string(format!("{PREFIX}{}/report.html", seed.seed));
    context! { seed => seed.seed, page => page, cells => cells }
}

/// The numbers of the dashboards of an experiment on two levels.
fn novelty_rows(seeds: &[Seed]) -> Vec<Value> {
    let rows = |seed: &Seed| {
        let rows = seed.run.novelty.as_ref().map_or(&[][..], Novelty::rows);
        let rows = measured(rows).into_iter().filter(|row| !row.metric.starts_with(NOTEBOOK));
        rows.cloned().collect::<Vec<Row>>()
    };
    let all: Vec<Vec<Row>> = seeds.iter().map(rows).collect();
    let mut seen: Vec<&Row> = Vec::new();
    for row in all.iter().flatten().filter(|row| row.value.as_f64().is_some()) {
        if !seen.iter().any(|other| is_same(other, row)) {
            seen.push(row);
        }
    }
    let spread = |row: &Row| {
        let own = |rows: &Vec<Row>| rows.iter().find(|other| is_same(other, row))?.value.as_f64();
        Spread::of(&all.iter().filter_map(own).collect::<Vec<f64>>())
    };
    seen.iter()
        .filter_map(|row| {
            let spread = spread(row)?;
            Some(context! {
                split => shown(&row.split), head => shown(&row.head), metric => shown(&row.metric.replace('_', " ")),
                meaning => whole(&row.meaning), cell => spread.cell(), seeds => spread.count,
            })
        })
        .collect()
}

fn is_same(a: &Row, b: &Row) -> bool {
    (&a.split, &a.head, &a.metric) == (&b.split, &b.head, &b.metric)
}

/// Seeds that are not finished, and what one of them was warned of.
fn warnings(seeds: &[Seed]) -> Vec<String> {
    let mut warnings = Vec::new();
    let scored = seeds.iter().filter(|seed| seed.run.evaluation.is_some()).count();
    if scored > 0 && scored < seeds.len() {
        let missing: Vec<String> = seeds
            .iter()
            .filter(|seed| seed.run.evaluation.is_none())
            .map(|seed| seed.seed.to_string())
            .collect();
        warnings.push(format!(
            "Seeds {} have no scores yet, so means are over the other {scored}; `residua run` with the same --seeds goes on",
            missing.join(", ")
        ));
    }
    for seed in seeds {
        let own = seed.run.evaluation.iter().flat_map(|evaluation| &evaluation.sanity.warnings);
        warnings.extend(own.map(|warning| format!("seed {}: {warning}", seed.seed)));
    }
    warnings
}
