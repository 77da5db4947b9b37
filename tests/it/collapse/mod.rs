//! Neural collapse against numpy, on every reference case.

mod verb;

use residua::collapse::{Options, Subject, measure};
use residua::features::FeatureSet;

use crate::support::synthetic::{Case, cases, expected, tiny};

fn subject(case: &Case) -> Subject {
    Subject {
        train: case.set(&case.train),
        test: Some(case.set(&case.id)),
        head: case.head(),
        ood: vec![("ood".into(), case.set(&case.ood))],
        notes: Vec::new(),
    }
}

#[test]
fn every_metric_agrees_with_numpy() {
    for case in cases() {
        let measured = measure(&subject(&case), &Options::default()).unwrap();
        let got = serde_json::to_value(&measured.row).unwrap();
        for (key, want) in expected(&case)["collapse"].as_object().unwrap() {
            let (got, want) = (got[key].as_f64().unwrap_or(f64::NAN), want.as_f64().unwrap());
            let tolerance = match key.as_str() {
                "nc1" | "nc1_trace_ratio" | "nc1_cdnv" => 1e-4 * want,
                "nc1_rank" => 0.0,
                // Counts of samples: nothing here is so close that rounding decides.
                "nc4" | "nc4_test" | "train_accuracy" | "test_accuracy" => 1e-12,
                _ => 1e-5,
            };
            assert!((got - want).abs() <= tolerance, "{} {key}: {got} {want}", case.name);
        }
        assert_eq!(measured.cosines.len(), case.classes * case.classes);
    }
}

#[test]
fn logits_that_a_cache_lacks_come_from_the_head() {
    let case = tiny();
    let full = subject(&case);
    let mut bare = subject(&case);
    let labels = Some(case.train.labels.clone());
    bare.train = FeatureSet::from_parts("bare", full.train.features().clone(), None, labels).unwrap();
    let options = Options::default();
    assert_eq!(measure(&full, &options).unwrap().row, measure(&bare, &options).unwrap().row);
}
