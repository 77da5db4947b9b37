//! The section on novelty: how well unknown classes are told, where the thresholds lie, how each network trained.

use std::path::{Path, PathBuf};

use minijinja::{Value, context};

use super::plots::{ScoreAxis, accuracy_curves, loss_curves, numbered, threshold_histogram};
use super::run::{Log, Run, read_log};
use super::{Plots, embedded, percent, shown, whole};
use crate::error::Result;
use crate::files;
use crate::novelty::{
    CalibrationRecord, Dashboard, Row, Rule, Summary, ThresholdFile, calibrate_level, candidates, level_name,
};
use crate::train::{RUN_FILE, RunRecord};
use crate::values::{shown_apart, significant};

/// The beginning of the names of rows that are counted as the notebook does.
pub(super) const NOTEBOOK: &str = "notebook_";
/// Folds times levels; a run has a handful.
const MOST_NETWORKS: usize = 200;

/// The files of an experiment on two levels that a run folder holds.
pub(super) struct Novelty {
    dashboard: Dashboard,
    records: Vec<CalibrationRecord>,
    networks: Vec<Network>,
}

/// One network of the experiment.
pub(super) struct Network {
    /// `fold 1, superclass`.
    name: String,
    pub(super) log: Log,
    pub(super) record: Option<RunRecord>,
}

impl Novelty {
    /// Reads it; `None` if the run is of another kind.
    pub(super) fn read(folder: &Path) -> Result<Option<Novelty>> {
        let path = folder.join("dashboard.json");
        if !path.exists() {
            return Ok(None);
        }
        let records = folder.join("novelty");
        Ok(Some(Novelty {
            dashboard: Dashboard::read(&path)?,
            records: if records.exists() { CalibrationRecord::read(&records)? } else { Vec::new() },
            networks: networks(&folder.join("models"))?,
        }))
    }

    /// The rows of the dashboard.
    pub(super) fn rows(&self) -> &[Row] {
        &self.dashboard.rows
    }

    /// The networks, in the order in which they are trained.
    pub(super) fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// The scores that are thresholded.
    pub(super) fn scores(&self) -> Vec<String> {
        self.records.iter().map(|record| record.samples.score.to_string()).collect()
    }

    /// The rules in the tables, those that were chosen last where they have other constants than usual.
    pub(super) fn rules(&self) -> Vec<Rule> {
        if self.records.is_empty() {
            return Vec::new();
        }
        let mut rules = Rule::DEFAULTS.to_vec();
        for record in &self.records {
            if !rules.contains(&record.rule) {
                rules.push(record.rule);
            }
        }
        rules
    }

    /// The number of one row of the dashboard.
    fn value(&self, split: &str, head: &str, metric: &str) -> Option<f64> {
        let row = |row: &&Row| {
            (row.split.as_str(), row.head.as_str(), row.metric.as_str()) == (split, head, metric)
        };
        self.dashboard.rows.iter().find(row)?.value.as_f64()
    }

    /// The numbers in large type.
    pub(super) fn cards(&self) -> Vec<Value> {
        let wanted = [
            (
                "report",
                "superclass",
                "seen_accuracy",
                "superclass accuracy",
                "seen classes, novelty threshold applied",
            ),
            (
                "report",
                "subclass",
                "seen_accuracy",
                "subclass accuracy",
                "seen classes, novelty threshold applied",
            ),
            ("report", "subclass", "false_novel_rate", "false novel", "seen subclasses called novel"),
            (
                "pseudo_novel",
                "subclass",
                "pseudo_novel_flagged",
                "novel caught",
                "images of classes held out",
            ),
            ("pseudo_novel", "subclass", "auroc_unseen", "AUROC", "seen against held-out subclasses"),
        ];
        let card = |&(split, head, metric, name, note): &(&str, &str, &str, &str, &str)| {
            let value = self.value(split, head, metric)?;
            Some(context! { value => percent(value), name => name, note => note })
        };
        wanted.iter().filter_map(card).collect()
    }

    /// The results, a sentence each.
    pub(super) fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        let caught = self.value("pseudo_novel", "subclass", "pseudo_novel_flagged");
        let alarms = self.value("report", "subclass", "false_novel_rate");
        if let (Some(caught), Some(alarms)) = (caught, alarms) {
            sentences.push(format!(
                "Of images of subclasses that neither the networks nor the thresholds have met, {} are called novel; so are {} \
                 of the images of known subclasses.",
                percent(caught),
                percent(alarms)
            ));
        }
        let heads = ["superclass", "subclass"].map(|head| {
            let seen = self.value("final", head, "seen_accuracy")?;
            Some(format!("{} of the {head}es", percent(seen)))
        });
        if let [Some(superclass), Some(subclass)] = heads {
            sentences.push(format!(
                "The networks that predict name {superclass} and {subclass} of held-back images of known classes correctly, \
                 thresholds applied."
            ));
        }
        sentences
    }

    /// The section.
    fn section(&self, thresholds: Option<&ThresholdFile>, plots: &mut Plots) -> Result<Value> {
        let levels = self.records.iter().map(|record| {
            let mut entries = thresholds.iter().flat_map(|file| &file.levels);
            let own = entries.find(|entry| entry.classes.level == record.samples.level);
            level(record, own.map(|entry| entry.threshold.tau), plots)
        });
        let levels = levels.collect::<Result<Vec<_>>>()?;
        let mut networks = Vec::new();
        for Network { name, log, .. } in self.networks.iter().filter(|network| !network.log.points.is_empty())
        {
            let (file, points) = (name.replace([' ', ','], "_"), &log.points);
            let figures = vec![
                plots.write(&format!("novelty_{file}_accuracy"), &accuracy_curves(points).figure()?)?,
                plots.write(&format!("novelty_{file}_loss"), &loss_curves(points).figure()?)?,
            ];
            networks.push(context! { name => shown(name), figures => figures });
        }
        let settings = self.dashboard.rows.iter().filter(|row| row.split == "config").collect();
        let (mut notebook, rows): (Vec<&Row>, Vec<&Row>) =
            measured(&self.dashboard.rows).into_iter().partition(|row| row.metric.starts_with(NOTEBOOK));
        if self.networks.is_empty() {
            // Thresholds for a network of one's own have no notebook to be compared with.
            notebook.clear();
        }
        let (last, rows): (Vec<&Row>, Vec<&Row>) = rows.into_iter().partition(|row| row.split == "final");
        let shown_rows = |rows: Vec<&Row>| rows.into_iter().map(table_row).collect::<Vec<Value>>();
        Ok(context! {
            levels => levels,
            rows => shown_rows(rows),
            last => shown_rows(last),
            notebook => shown_rows(notebook),
            settings => shown_rows(settings),
            networks => networks,
        })
    }
}

/// The rows that are no settings, each meaning once: where there are no novel samples, all samples are the seen ones; and most of
/// the notebook's numbers are those of other rows, or what these lack to 1.
pub(super) fn measured(rows: &[Row]) -> Vec<&Row> {
    let of = |row: &Row, metric: &str| {
        let is_other =
            |other: &&Row| (&other.split, &other.head) == (&row.split, &row.head) && other.metric == metric;
        rows.iter().find(is_other).and_then(|other| other.value.as_f64())
    };
    let is_again = |row: &Row| {
        let value = row.value.as_f64();
        let same = |metric: &str| value.is_some() && of(row, metric) == value;
        match row.metric.as_str() {
            "overall_accuracy" => of(row, "novel_accuracy").is_none() && same("seen_accuracy"),
            "notebook_pseudo_novel_rate" => same("pseudo_novel_flagged"),
            "notebook_pseudo_novel_false_seen" => of(row, "notebook_pseudo_novel_rate").is_some(),
            metric => metric.strip_prefix(NOTEBOOK).is_some_and(same),
        }
    };
    rows.iter().filter(|row| row.split != "config" && !is_again(row)).collect()
}

/// Statistics and figures of one level's calibration; `own` is the threshold of the network that predicts.
fn level(record: &CalibrationRecord, own: Option<f64>, plots: &mut Plots) -> Result<Value> {
    let samples = &record.samples;
    let name = level_name(samples.level);
    let chosen = calibrate_level(samples, record.rule)?;
    let all = candidates(samples)?;
    let axes: &[(ScoreAxis, &str)] = if samples.score.is_probability() {
        &[(ScoreAxis::Value, "value"), (ScoreAxis::Logit, "logit")]
    } else {
        &[(ScoreAxis::Value, "value")]
    };
    let mut figures = Vec::new();
    for (axis, suffix) in axes {
        let both = threshold_histogram(samples, &all, &chosen, *axis)?;
        plots.write_file(&format!("novelty_{name}_{suffix}"), &both.whole)?;
        figures.push(embedded(&both.plot));
    }
    let groups = [("seen", samples.seen_scores()), ("novel", samples.novel_scores())];
    let statistics = groups.iter().filter_map(|(group, scores)| {
        let summary = Summary::of(scores)?;
        let cells: Vec<String> = [summary.mean, summary.standard_deviation]
            .into_iter()
            .chain(summary.percentiles)
            .map(|value| significant(value, 4))
            .collect();
        Some(context! { group => *group, count => summary.count, cells => cells })
    });
    let rates = numbered(&all, &chosen).into_iter().map(|candidate| {
        let threshold = candidate.threshold;
        context! {
            number => candidate.number,
            chosen => candidate.is_chosen,
            rule => threshold.rule.to_string(),
            tau => candidate.text,
            own => threshold.class_taus.len(),
            false_novel => percent(threshold.false_novel.rate),
            caught => threshold.caught_novel.map_or_else(|| "–".to_string(), |caught| percent(caught.rate)),
        }
    });
    let pair: Vec<f64> =
        [Some(chosen.tau), own.filter(|own| *own != chosen.tau)].into_iter().flatten().collect();
    let mut texts = shown_apart(&pair).into_iter();
    Ok(context! {
        name => name,
        score => samples.score.to_string(),
        rule => record.rule.to_string(),
        tau => texts.next(),
        own => texts.next(),
        flags => chosen.tau.is_finite(),
        guarantee => chosen.guarantee(),
        figures => figures,
        statistics => statistics.collect::<Vec<Value>>(),
        candidates => rates.collect::<Vec<Value>>(),
    })
}

fn table_row(row: &Row) -> Value {
    let text = match (row.value.as_str(), row.value.as_f64()) {
        (Some(text), _) if row.metric.starts_with("rule_") => short_rule(&whole(text)),
        (Some(text), _) => whole(text),
        (None, Some(value)) if row.split != "config" => format!("{:.2}", 100.0 * value),
        (None, Some(value)) if value.fract() == 0.0 => whole(&format!("{value}")),
        (None, Some(value)) => significant(value, 5),
        (None, None) => whole(&row.value.to_string()),
    };
    context! {
        split => shown(&row.split),
        head => shown(&row.head),
        metric => shown(&row.metric.replace('_', " ")),
        meaning => whole(&row.meaning),
        text => text,
        value => row.value.as_f64(),
        bounds => row.low.zip(row.high).map(|(low, high)| format!("{:.2}–{:.2}", 100.0 * low, 100.0 * high)),
    }
}

/// A rule whose constant was computed, in four digits.
fn short_rule(rule: &str) -> String {
    const LONG: usize = 8;
    match rule
        .split_once(':')
        .and_then(|(name, constant)| Some((name, constant, constant.parse::<f64>().ok()?)))
    {
        Some((name, constant, value)) if constant.len() > LONG => format!("{name}:{}", significant(value, 4)),
        _ => rule.to_string(),
    }
}

/// The training of each network below `models/`.
fn networks(models: &Path) -> Result<Vec<Network>> {
    let mut found = Vec::new();
    for fold in folders(models)? {
        for level in folders(&models.join(&fold))? {
            let folder = models.join(&fold).join(&level);
            let (log, record) = (folder.join("metrics.jsonl"), folder.join(RUN_FILE));
            if log.exists() && found.len() < MOST_NETWORKS {
                found.push(Network {
                    name: format!("{}, {level}", fold.replace('_', " ")),
                    log: read_log(&log)?,
                    record: if record.exists() { Some(RunRecord::read(&record)?) } else { None },
                });
            }
        }
    }
    Ok(found)
}

/// Names of the folders in a folder, in the order in which they are trained; none where it is not there.
fn folders(path: &Path) -> Result<Vec<String>> {
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let folders = files::list(path)?.into_iter().filter(|path| path.is_dir());
    let name = |path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    let mut names: Vec<String> = folders.filter_map(name).collect();
    // The final networks come behind the folds, subclasses behind superclasses.
    let rank = |name: &str| {
        ["fold", "superclass", "subclass", "final"].iter().position(|part| name.starts_with(part))
    };
    names.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| files::compare_naturally(a, b)));
    Ok(names)
}

/// The novelty section of a run's page, if it has one.
pub(super) fn section(run: &Run, plots: &mut Plots) -> Result<Option<Value>> {
    run.novelty.as_ref().map(|novelty| novelty.section(run.thresholds.as_ref(), plots)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(split: &str, metric: &str, value: f64) -> Row {
        let meaning = String::new();
        let (split, head, metric) = (split.to_string(), "subclass".to_string(), metric.to_string());
        Row { split, head, metric, meaning, value: value.into(), low: None, high: None }
    }

    #[test]
    fn a_computed_constant_of_a_rule_has_the_digits_it_means() {
        let texts = ["conformal:0.046816479400749", "conformal:0.05", "cost:1,1,0.333333333333", "p5"]
            .map(short_rule);
        assert_eq!(texts, ["conformal:0.04682", "conformal:0.05", "cost:1,1,0.333333333333", "p5"]);
    }

    #[test]
    fn rows_of_one_meaning_appear_once() {
        let rows = [
            row("config", "tau_subclass", 0.5),
            row("report", "overall_accuracy", 0.75),
            row("report", "seen_accuracy", 0.75),
            row("report", "novel_accuracy", 0.75),
            row("report", "notebook_seen_accuracy", 0.75),
            row("report", "notebook_false_novel_rate", 0.25),
            row("pseudo_novel", "pseudo_novel_flagged", 0.5),
            row("pseudo_novel", "notebook_pseudo_novel_rate", 0.5),
            row("pseudo_novel", "notebook_pseudo_novel_false_seen", 0.5),
            row("held_out", "overall_accuracy", 0.5),
            row("held_out", "seen_accuracy", 0.5),
        ];
        let left: Vec<(&str, &str)> =
            measured(&rows).into_iter().map(|row| (row.split.as_str(), row.metric.as_str())).collect();
        let expected = [
            ("report", "overall_accuracy"),
            ("report", "seen_accuracy"),
            ("report", "novel_accuracy"),
            ("report", "notebook_false_novel_rate"),
            ("pseudo_novel", "pseudo_novel_flagged"),
            ("held_out", "seen_accuracy"),
        ];
        assert_eq!(left, expected);
    }
}
