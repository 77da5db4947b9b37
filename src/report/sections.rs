//! The parts of the page: each from one part of the run folder, or absent.

use std::collections::BTreeMap;

use minijinja::{Value, context};

use super::plots::{
    CollapseRow, ScoredPair, accuracy_curves, angle_histogram, collapse_panels, comparison_sheet,
    cosine_heat_map, learning_rate_curve, loss_curves, score_sheet,
};
use super::run::{Run, Scores};
use super::summary::{best_of_each, number};
use super::{Plots, embedded, ood_tables, percent, shown, whole};
use crate::error::{Error, Result};
use crate::ood::table::{Entry, Evaluation, OodSet};

/// AUROC in `metrics.json` and of the stored scores may differ by rounding only.
const SAME_AUROC: f64 = 1e-9;
/// Scores that are drawn side by side for one OOD set: the page stays small however many there are.
const MOST_DRAWN: usize = 10;

/// The OOD section and what a reader should be warned of.
pub(super) struct Ood {
    pub(super) section: Option<Value>,
    pub(super) warnings: Vec<String>,
}

/// Table, figures and warnings of the OOD evaluation.
pub(super) fn ood(run: &Run, plots: &mut Plots) -> Result<Ood> {
    let Some(evaluation) = &run.evaluation else { return Ok(Ood { section: None, warnings: Vec::new() }) };
    let mut warnings: Vec<String> = evaluation.sanity.warnings.iter().map(|warning| whole(warning)).collect();
    let id = run.scores("id")?;
    let mut sets = Vec::new();
    for (set, best, _) in best_of_each(evaluation) {
        let figures = match (&id, run.scores(&set.name)?) {
            (Some(id), Some(scores)) => {
                score_figures(evaluation, set, best, id, &scores, plots, &mut warnings)?
            }
            _ => None,
        };
        sets.push(context! {
            name => shown(&set.name),
            group => set.group.map(|group| group.name()),
            samples => set.samples,
            best => shown(best),
            figures => figures,
        });
    }
    let section = context! {
        tables => ood_tables::tables(evaluation),
        full => ood_tables::full_spectrum(evaluation),
        tuning => ood_tables::tuning(evaluation),
        notes => evaluation.notes().iter().map(|note| whole(note)).collect::<Vec<String>>(),
        ties => evaluation.notes_on_ties().iter().map(|note| whole(note)).collect::<Vec<String>>(),
        sets => sets,
        id_samples => evaluation.id.samples,
    };
    Ok(Ood { section: Some(section), warnings })
}

/// A sheet a score, and a comparison over the scores of the highest AUROC, [`MOST_DRAWN`] at most; the page shows the comparison's panels and
/// the best score's sheet, and links the sheets of the others.
fn score_figures(
    evaluation: &Evaluation,
    set: &OodSet,
    best: &str,
    id: &Scores,
    ood: &Scores,
    plots: &mut Plots,
    warnings: &mut Vec<String>,
) -> Result<Option<Value>> {
    let mut stored = Vec::new();
    for method in &evaluation.methods {
        let (Some(id), Some(ood)) = (id.of(method)?, ood.of(method)?) else { continue };
        let entry = evaluation.entry(&set.name, method);
        let (id, ood) = match entry {
            Some(entry) => as_confidences(id, ood, method, set, entry, warnings)?,
            None => (id, ood),
        };
        stored.push((method.as_str(), id, ood));
    }
    let mut pairs: Vec<ScoredPair<'_>> =
        stored.iter().map(|(method, id, ood)| scored(method, id, ood, set)).collect::<Result<_>>()?;
    if pairs.is_empty() {
        return Ok(None);
    }
    // Of the highest AUROC first; of equal ones in the order of the tables.
    pairs.sort_by(|a, b| b.auroc().total_cmp(&a.auroc()));
    let (drawn, others) = pairs.split_at(pairs.len().min(MOST_DRAWN));
    let title = if others.is_empty() {
        format!("Scores on {}", set.name)
    } else {
        format!("The {} best of {} scores on {}", drawn.len(), pairs.len(), set.name)
    };
    plots.write_file(&format!("ood_{}_comparison", set.name), &comparison_sheet(&title, drawn)?)?;
    let mut sheets = BTreeMap::new();
    for pair in &pairs {
        let sheet = score_sheet(&format!("{} on {}", pair.name(), set.name), pair)?;
        sheets.insert(pair.name(), plots.write_file(&format!("ood_{}_{}", set.name, pair.name()), &sheet)?);
    }
    let (mut columns, mut best_panels) = (Vec::new(), Vec::new());
    for pair in drawn {
        let panels = pair.panels();
        if pair.name() == best {
            best_panels =
                panels.iter().map(|panel| Ok(embedded(&panel.figure()?))).collect::<Result<Vec<Value>>>()?;
        }
        let small = panels.iter().map(|panel| Ok(embedded(&panel.small_figure()?)));
        columns
            .push(context! { name => shown(pair.name()), panels => small.collect::<Result<Vec<Value>>>()? });
    }
    // File names of figures hold nothing that HTML could read as markup.
    let others = others.iter().map(|pair| {
        let link = Value::from_safe_string(format!("plots/{}.svg", sheets[pair.name()]));
        context! { name => shown(pair.name()), link => link, auroc => percent(pair.auroc()) }
    });
    let others: Vec<Value> = others.collect();
    Ok(Some(context! { best_panels => best_panels, columns => columns, others => others }))
}

fn scored<'a>(method: &'a str, id: &'a [f64], ood: &'a [f64], set: &OodSet) -> Result<ScoredPair<'a>> {
    ScoredPair::new(method, id, ood)
        .map_err(|error| Error::invalid(format!("scores of {method} on {}: {error}", set.name)))
}

/// Stored ID and OOD scores as confidences: scores may have been exported the other way round (larger = more novel),
/// which their AUROC tells. Warns where they are not the scores that the metrics were computed from.
pub(super) fn as_confidences(
    mut id: Vec<f64>,
    mut ood: Vec<f64>,
    method: &str,
    set: &OodSet,
    entry: &Entry,
    warnings: &mut Vec<String>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (found, stated) = (scored(method, &id, &ood, set)?.auroc(), entry.metrics.auroc);
    let reversed = (1.0 - found - stated).abs() < (found - stated).abs();
    if reversed {
        id.iter_mut().chain(&mut ood).for_each(|score| *score = 0.0 - *score);
    }
    let confidence = if reversed { 1.0 - found } else { found };
    // A balanced evaluation measures a subset of the stored scores.
    let whole = entry.metrics.n_id == id.len() as u64 && entry.metrics.n_ood == ood.len() as u64;
    if whole && (confidence - stated).abs() > SAME_AUROC {
        warnings.push(format!(
            "{} on {}: the stored scores have an AUROC of {}, metrics.json says {}; run `residua ood` again",
            shown(method),
            shown(&set.name),
            percent(confidence),
            percent(stated)
        ));
    }
    Ok((id, ood))
}

/// Accuracy, loss and learning rate over epochs.
pub(super) fn training(run: &Run, plots: &mut Plots) -> Result<Option<Value>> {
    if run.training.is_empty() {
        return Ok(None);
    }
    let mut figures = vec![
        plots.write("training_accuracy", &accuracy_curves(&run.training).figure()?)?,
        plots.write("training_loss", &loss_curves(&run.training).figure()?)?,
    ];
    if let Some(panel) = learning_rate_curve(&run.training) {
        figures.push(plots.write("training_learning_rate", &panel.figure()?)?);
    }
    Ok(Some(context! { figures => figures }))
}

/// Measures over checkpoints, their table, and the geometry of the class means.
pub(super) fn collapse(run: &Run, plots: &mut Plots) -> Result<Option<Value>> {
    if run.collapse.checkpoints.is_empty() && run.cosines.is_none() {
        return Ok(None);
    }
    let curves: Vec<CollapseRow> =
        run.collapse.checkpoints.iter().enumerate().map(|(index, row)| row.curves(index)).collect();
    let mut figures = Vec::new();
    for panel in collapse_panels(&curves) {
        let (name, _) = panel.title().split_once(':').unwrap_or((panel.title(), ""));
        figures.push(plots.write(&format!("collapse_{}", name.to_lowercase()), &panel.figure()?)?);
    }
    let mut geometry = Vec::new();
    if let Some(cosines) = run.cosines.as_ref().filter(|cosines| cosines.classes > 0) {
        let heat_map = cosine_heat_map(&cosines.values, cosines.classes, &cosines.names).figure()?;
        geometry.push(plots.write("collapse_nc2_cosines", &heat_map)?);
        if let Some(panel) = angle_histogram(&cosines.values, cosines.classes) {
            geometry.push(plots.write("collapse_nc2_angles", &panel.figure()?)?);
        }
    }
    let rows: Vec<Value> = run
        .collapse
        .checkpoints
        .iter()
        .zip(&curves)
        .map(|(row, curve)| {
            let cells = row.measures().map(|value| context! {
                text => value.map_or("–".to_string(), number),
                value => value,
            });
            context! { checkpoint => shown(&row.checkpoint), epoch => number(curve.epoch), epoch_value => curve.epoch, cells => cells.to_vec() }
        })
        .collect();
    let skipped: Vec<String> = run
        .collapse
        .skipped
        .iter()
        .map(|skipped| format!("{}: {}", shown(&skipped.checkpoint), whole(&skipped.reason)))
        .collect();
    Ok(Some(context! { figures => figures, geometry => geometry, rows => rows, skipped => skipped }))
}
