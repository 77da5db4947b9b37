//! The section on novelty: how well unknown classes are told, where the thresholds lie, how each network trained.

use std::path::{Path, PathBuf};

use minijinja::{Value, context};

use super::plots::{ScoreAxis, TrainingPoint, accuracy_curves, loss_curves, threshold_histogram};
use super::run::{Run, read_log};
use super::summary::number;
use super::{Plots, percent, shown, whole};
use crate::error::Result;
use crate::files;
use crate::novelty::{
    CalibrationRecord, Dashboard, Row, Summary, ThresholdFile, calibrate_level, candidates, level_name,
};

/// Folds times levels; a run has a handful.
const MOST_NETWORKS: usize = 200;

/// The files of an experiment on two levels that a run folder holds.
pub(super) struct Novelty {
    dashboard: Dashboard,
    records: Vec<CalibrationRecord>,
    networks: Vec<(String, Vec<TrainingPoint>)>,
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
        for (name, points) in self.networks.iter().filter(|(_, points)| !points.is_empty()) {
            let file = name.replace([' ', ','], "_");
            let figures = vec![
                plots.write(&format!("novelty_{file}_accuracy"), &accuracy_curves(points).figure()?)?,
                plots.write(&format!("novelty_{file}_loss"), &loss_curves(points).figure()?)?,
            ];
            networks.push(context! { name => shown(name), figures => figures });
        }
        let (settings, rows): (Vec<&Row>, Vec<&Row>) =
            self.dashboard.rows.iter().partition(|row| row.split == "config");
        let (notebook, rows): (Vec<&Row>, Vec<&Row>) =
            rows.into_iter().partition(|row| row.metric.starts_with("notebook_"));
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
        let figure = threshold_histogram(samples, &all, &chosen, *axis)?;
        figures.push(plots.write(&format!("novelty_{name}_{suffix}"), &figure)?);
    }
    let groups = [("seen", samples.seen_scores()), ("novel", samples.novel_scores())];
    let statistics = groups.iter().filter_map(|(group, scores)| {
        let summary = Summary::of(scores)?;
        let cells: Vec<String> = [summary.mean, summary.standard_deviation]
            .into_iter()
            .chain(summary.percentiles)
            .map(|value| format!("{value:.4}"))
            .collect();
        Some(context! { group => *group, count => summary.count, cells => cells })
    });
    let rates = all.iter().map(|candidate| {
        context! {
            rule => candidate.rule.to_string(),
            tau => candidate.tau.to_string(),
            false_novel => percent(candidate.false_novel.rate),
            caught => candidate.caught_novel.map_or_else(|| "–".to_string(), |caught| percent(caught.rate)),
        }
    });
    Ok(context! {
        name => name,
        score => samples.score.to_string(),
        rule => record.rule.to_string(),
        tau => chosen.tau.to_string(),
        own => own.filter(|own| *own != chosen.tau).map(|own| own.to_string()),
        guarantee => chosen.guarantee(),
        figures => figures,
        statistics => statistics.collect::<Vec<Value>>(),
        candidates => rates.collect::<Vec<Value>>(),
    })
}

fn table_row(row: &Row) -> Value {
    let text = match (row.value.as_str(), row.value.as_f64()) {
        (Some(text), _) => whole(text),
        (None, Some(value)) if row.split != "config" => format!("{:.2}", 100.0 * value),
        (None, Some(value)) => number(value),
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

/// The training of each network below `models/`: `fold 1, superclass` and its curves.
fn networks(models: &Path) -> Result<Vec<(String, Vec<TrainingPoint>)>> {
    let mut found = Vec::new();
    for fold in folders(models)? {
        for level in folders(&models.join(&fold))? {
            let log = models.join(&fold).join(&level).join("metrics.jsonl");
            if log.exists() && found.len() < MOST_NETWORKS {
                found.push((format!("{}, {level}", fold.replace('_', " ")), read_log(&log)?));
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
