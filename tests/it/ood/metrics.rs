//! OOD metrics against scikit-learn, on every reference case.

use residua::ood::metrics::{OodMetrics, oscr};

use crate::support::synthetic::{Case, Samples, cases, expected};

type Score = fn(&[f64]) -> f64;

const SCORES: [(&str, Score); 3] = [("msp", softmax_maximum), ("mls", largest), ("energy", log_sum_exp)];

fn largest(logits: &[f64]) -> f64 {
    logits.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn log_sum_exp(logits: &[f64]) -> f64 {
    let top = largest(logits);
    logits.iter().map(|logit| (logit - top).exp()).sum::<f64>().ln() + top
}

fn softmax_maximum(logits: &[f64]) -> f64 {
    let top = largest(logits);
    1.0 / logits.iter().map(|logit| (logit - top).exp()).sum::<f64>()
}

fn score(case: &Case, samples: &Samples, score: Score) -> Vec<f64> {
    let rows = samples.logits.chunks(case.classes);
    rows.map(|row| score(&row.iter().map(|&logit| f64::from(logit)).collect::<Vec<_>>())).collect()
}

fn correct(case: &Case) -> Vec<bool> {
    let rows = case.id.logits.chunks(case.classes).zip(&case.id.labels);
    let decided = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
    rows.map(|(row, label)| decided(row) as i64 == *label).collect()
}

#[test]
fn every_convention_agrees_with_scikit_learn() {
    for case in cases() {
        let expected = expected(&case);
        for (name, function) in SCORES {
            let (id, ood) = (score(&case, &case.id, function), score(&case, &case.ood, function));
            let got = OodMetrics::evaluate(&id, &ood).unwrap();
            let oscr = oscr(&id, &correct(&case), &ood).unwrap();
            let want = |key: &str| expected["ood"][name][key].as_f64().unwrap();
            let near = |key: &str, got: f64, tolerance: f64| {
                let want = want(key);
                assert!((got - want).abs() <= tolerance, "{} {name} {key}: {got} {want}", case.name);
            };
            // One sample more or less on either side of a threshold is rounding.
            let steps = 2.0 / id.len().min(ood.len()) as f64;
            near("auroc", got.auroc, 1e-5);
            near("aupr_in", got.aupr_in, 1e-5);
            near("aupr_out", got.aupr_out, 1e-5);
            near("aupr_in_trapezoid", got.aupr_in_trapezoid, 1e-5);
            near("aupr_out_trapezoid", got.aupr_out_trapezoid, 1e-5);
            near("oscr", oscr, 1e-5);
            near("fpr95", got.fpr95, steps);
            near("fpr95_id_positive", got.fpr95_id_positive, steps);
            near("detection_error", got.detection_error, steps);
        }
    }
}

#[test]
fn saturated_softmax_is_reported_as_ties() {
    let case = cases().find(|case| case.name == "saturated").unwrap();
    let tied = |function| {
        let (id, ood) = (score(&case, &case.id, function), score(&case, &case.ood, function));
        OodMetrics::evaluate(&id, &ood).unwrap().tied_share
    };
    assert!(tied(softmax_maximum) > 0.25, "{}", tied(softmax_maximum));
    assert!(tied(largest) < 0.01, "{}", tied(largest));
}
