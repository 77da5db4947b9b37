use std::path::Path;

use super::*;
use crate::features::{Matrix, Npz};
use crate::ood::metrics::normal_quantile;
use crate::ood::table::IdSet;
use crate::rng::{Purpose, Stream};

/// AUROC of normal confidences at a distance d: Φ(d / √2).
fn auroc(distance: f64) -> f64 {
    0.5 * statrs::function::erf::erfc(-distance / 2.0)
}

/// Scores `a`, `b`, … of a set at these distances; what all scores see in common of a sample is 0.7 of their variance.
fn scores(repetition: u64, set: u64, samples: u64, distances: &[f64]) -> Scores {
    let stream = |word: u64| Stream::for_purpose(5, Purpose::Synthetic, &[repetition, set, word]);
    let common = stream(0);
    let one = |(index, distance): (usize, &f64)| {
        let own = stream(1 + index as u64);
        let value = |i| 0.7_f64.sqrt() * common.normal(i) + 0.3_f64.sqrt() * own.normal(i) + distance;
        (char::from(b'a' + index as u8).to_string(), (0..samples).map(value).collect())
    };
    distances.iter().enumerate().map(one).collect()
}

/// An evaluation of scores at these distances against three sets, the last one shifted by `away`.
fn evaluation(repetition: u64, distances: &[f64], away: f64, options: &RunOptions) -> Evaluation {
    let id = scores(repetition, 0, 90, distances);
    let ood: Vec<Scores> = [(1, 60, 0.0), (2, 120, 0.0), (3, 70, -away)]
        .map(|(set, samples, at)| scores(repetition, set, samples, &vec![at; distances.len()]))
        .into();
    let described = [("first", Some(Group::Near)), ("second", Some(Group::Near)), ("third", None)];
    let sets = described.into_iter().zip(&ood).map(|((name, group), scores)| {
        (OodSet { name: name.into(), group, samples: scores["a"].len() as u64 }, scores)
    });
    let correct: Vec<bool> = (0..90).map(|i| i % 7 != 0).collect();
    let mut evaluation = Evaluation::new(IdSet { samples: 90, accuracy: Some(0.8) });
    let names: Vec<String> = id.keys().cloned().collect();
    let side = IdSide { scores: &id, correct: Some(&correct) };
    measure(&mut evaluation, &names, &side, sets.collect(), options).unwrap();
    evaluation
}

/// Sides of stored scores that an independent program measured (`tests/fixtures/reference/make_expected.py`): the ID set's, and the OOD set's at
/// every `step`-th sample from `first`.
fn stored(folder: &Path, names: &[String], side: &str, (first, step): (usize, usize)) -> Scores {
    let path = folder.join("expected_scores.npz");
    let file = Npz::open(&path).unwrap();
    let one = |name: &String| {
        let mut array = file.array(&format!("{name}_{side}")).unwrap().unwrap();
        array.shape = vec![1, array.shape[0]];
        let mut values = Vec::new();
        Matrix::new(array, &path, name).unwrap().read_f64(0..1, &mut values);
        (name.clone(), values.into_iter().skip(first).step_by(step).collect())
    };
    names.iter().map(one).collect()
}

#[test]
fn every_measure_of_stored_scores_is_that_of_an_independent_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference");
    let text = std::fs::read_to_string(root.join("measures.json")).unwrap();
    let cases: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 5);
    for (case, expected) in &cases {
        let folder = root.join(case);
        let names: Vec<String> = expected.as_object().unwrap().keys().cloned().collect();
        let id = stored(&folder, &names, "id", (0, 1));
        let set = crate::features::FeatureSet::open(&folder.join("id.npz")).unwrap();
        let head = crate::features::Head::open(&folder.join("head.npz")).unwrap();
        let predicted = crate::features::predictions(&set, &head);
        let labels = set.labels().unwrap();
        let correct: Vec<bool> = predicted.iter().zip(labels).map(|(a, b)| i64::from(*a) == *b).collect();
        let side = IdSide { scores: &id, correct: Some(&correct) };
        let whole = stored(&folder, &names, "ood", (0, 1));
        let halves = [0, 1].map(|first| stored(&folder, &names, "ood", (first, 2)));
        let described = |name: &str, scores: &Scores| OodSet {
            name: name.into(),
            group: Some(Group::Near),
            samples: scores[&names[0]].len() as u64,
        };
        let measured = |sets: Vec<(OodSet, &Scores)>| {
            let samples = correct.len() as u64;
            let mut evaluation = Evaluation::new(IdSet { samples, accuracy: None });
            measure(&mut evaluation, &names, &side, sets, &RunOptions::default()).unwrap();
            evaluation
        };
        let found = measured(vec![(described("whole", &whole), &whole)]);
        let of_halves = measured(vec![
            (described("even", &halves[0]), &halves[0]),
            (described("odd", &halves[1]), &halves[1]),
        ]);
        // Errors of differences, which the comparison with the best is made of.
        let ordered: Vec<Ordered> = names.iter().map(|name| Ordered::new(&id[name], "ID").unwrap()).collect();
        let covariances = |scores: &Scores| {
            let samples = scores[&names[0]].len() as u64;
            of_set(&names, (&side, &ordered), (scores, samples), &RunOptions::default()).unwrap().1
        };
        let (once, mut mean) =
            (covariances(&whole), Mean { group: ALL, sets: 1, sum: covariances(&halves[0]) });
        mean.add(&covariances(&halves[1]));
        let base = names.iter().position(|name| name == "msp").unwrap();
        let error = |matrix: &[f64], i: usize| {
            let at = |a: usize, b: usize| matrix[a * names.len() + b];
            (at(i, i) + at(base, base) - 2.0 * at(i, base)).max(0.0).sqrt()
        };
        let (differences, mean_differences) = (once.matrix(), mean.sum.over(2).matrix());
        for (i, name) in names.iter().enumerate() {
            let (entry, risk) = (found.entry("whole", name).unwrap(), found.id_risk[name]);
            for (key, value) in [
                ("auroc", Some(entry.metrics.auroc)),
                ("auroc_se", entry.auroc_se),
                ("tied_pairs", entry.tied_pairs),
                ("oscr", entry.oscr),
                ("aurc", entry.aurc),
                ("augrc", entry.augrc),
                ("aurc_id", Some(risk.aurc)),
                ("augrc_id", Some(risk.augrc)),
                ("mean_se", of_halves.groups[ALL][name].auroc_se),
            ] {
                let (value, want) = (value.unwrap(), expected[name][key].as_f64().unwrap());
                assert!((value - want).abs() < 1e-12, "{case} {name} {key}: {value} {want}");
            }
            for (key, value) in [
                ("difference_se", error(&differences, i)),
                ("mean_difference_se", error(&mean_differences, i)),
            ] {
                let want = expected[name][key].as_f64().unwrap();
                assert!((value - want).abs() < 1e-9, "{case} {name} {key}: {value} {want}");
            }
        }
    }
}

#[test]
fn intervals_of_a_mean_over_sets_cover_it_since_the_id_samples_they_share_are_counted() {
    const REPETITIONS: u64 = 1000;
    let truth = auroc(1.0);
    let name = ["a".to_string()];
    let (mut covered, mut apart) = (0, 0);
    for repetition in 0..REPETITIONS {
        let id = scores(repetition, 0, 90, &[1.0]);
        let ordered = [Ordered::new(&id["a"], "ID").unwrap()];
        let side = IdSide { scores: &id, correct: None };
        let sets = [(1, 60), (2, 120), (3, 70)].map(|(set, samples)| {
            let ood = scores(repetition, set, samples, &[0.0]);
            of_set(&name, (&side, &ordered), (&ood, samples), &RunOptions::default()).unwrap().1
        });
        let mut mean = Mean { group: ALL, sets: 1, sum: sets[0].clone() };
        sets[1..].iter().for_each(|set| mean.add(set));
        let found = mean.sum.over(3).estimates()[0];
        let [low, high] = found.interval();
        covered += u64::from(low <= truth && truth <= high);
        // As if each set had ID samples of its own.
        let error = sets.iter().map(|set| set.estimates()[0].error.powi(2)).sum::<f64>().sqrt() / 3.0;
        apart += u64::from((found.value - truth).abs() <= normal_quantile() * error);
    }
    let share = |count: u64| count as f64 / REPETITIONS as f64;
    assert!((0.93..=0.97).contains(&share(covered)), "{}", share(covered));
    assert!(share(apart) < 0.9, "the sets' errors are not independent: {}", share(apart));
}

#[test]
fn everything_is_there_and_marks_agree_with_p_values() {
    let found = evaluation(1, &[1.5, 1.4, 0.2], 1.0, &RunOptions::default());
    assert_eq!(found.methods, ["a", "b", "c"]);
    assert_eq!(found.groups.keys().collect::<Vec<_>>(), ["all", "near"]);
    for (set, by_method) in &found.ood {
        let best = by_method.values().map(|entry| entry.metrics.auroc).fold(0.0, f64::max);
        for entry in by_method.values() {
            let to_best = entry.to_best.unwrap();
            assert_eq!(to_best.within_noise, to_best.p_value > 0.05, "{set}");
            assert!((entry.metrics.auroc == best) == (to_best.difference > 0.0), "{set}");
            let [low, high] = entry.auroc_interval95.unwrap();
            assert!(low < entry.metrics.auroc && entry.metrics.auroc < high, "{set}");
            assert!(entry.aurc.unwrap() > entry.augrc.unwrap() && entry.oscr.is_some(), "{set}");
            assert_eq!((entry.tied_pairs, entry.auroc_if_ties_broken), (Some(0.0), None));
        }
        assert!(!by_method["c"].to_best.unwrap().within_noise, "{set}");
    }
    assert!(found.id_risk["a"].aurc > 0.0 && found.comparison.is_some());
    let near = found.groups["near"]["a"];
    let two = ["first", "second"].map(|set| found.entry(set, "a").unwrap());
    assert!((near.aurc.unwrap() - (two[0].aurc.unwrap() + two[1].aurc.unwrap()) / 2.0).abs() < 1e-15);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            evaluation(3, &[1.5, 1.4, 0.2], 1.0, &RunOptions { balance: true, ..RunOptions::default() })
        })
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn a_balanced_mean_has_the_errors_of_the_samples_it_is_of() {
    // Of the sets `first` and `third` the ID side is a subset each, and the mean's error counts what the subsets share.
    let balanced = RunOptions { balance: true, ..RunOptions::default() };
    let found = evaluation(4, &[1.0, 0.5], 0.0, &balanced);
    let entry = |set: &str| found.entry(set, "a").unwrap();
    assert_eq!(["first", "second", "third"].map(|set| entry(set).metrics.n_id), [60, 90, 70]);
    let mean = found.groups[ALL]["a"].auroc_se.unwrap();
    let errors = ["first", "second", "third"].map(|set| entry(set).auroc_se.unwrap());
    let apart = errors.iter().map(|error| error * error).sum::<f64>().sqrt() / 3.0;
    let together = errors.iter().sum::<f64>() / 3.0;
    assert!(apart < mean && mean < together, "{apart} {mean} {together}");
}

#[test]
fn one_sample_a_side_has_no_error_and_one_score_has_nothing_to_be_compared_with() {
    let id = Scores::from([("a".to_string(), vec![1.0, 2.0]), ("b".to_string(), vec![1.0, 1.0])]);
    let ood = Scores::from([("a".to_string(), vec![1.0]), ("b".to_string(), vec![1.0])]);
    let measured = |names: &[&str]| {
        let set = OodSet { name: "x".into(), group: None, samples: 1 };
        let mut evaluation = Evaluation::new(IdSet { samples: 2, accuracy: None });
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let side = IdSide { scores: &id, correct: None };
        measure(&mut evaluation, &names, &side, vec![(set, &ood)], &RunOptions::default()).unwrap();
        evaluation
    };
    let found = measured(&["a", "b"]);
    let entry = found.entry("x", "a").unwrap();
    assert_eq!((entry.auroc_se, entry.to_best, entry.aurc), (None, None, None));
    // One pair of two is tied: 0.75, or 0.5 or 1 as it is counted.
    assert_eq!((entry.tied_pairs, entry.auroc_if_ties_broken), (Some(0.5), Some([0.5, 1.0])));
    assert_eq!(found.entry("x", "b").unwrap().auroc_if_ties_broken, Some([0.0, 1.0]));
    assert!(measured(&["a"]).comparison.is_none());
}

#[test]
fn a_score_that_does_not_see_a_shift_is_near_a_half() {
    let [id, same, shifted] = [(0, 0.0), (1, 0.0), (2, -1.0)].map(|(set, at)| scores(1, set, 400, &[at]));
    let (even, error) = auroc_against(&id["a"], &same["a"]).unwrap();
    assert!((even - 0.5).abs() < 3.0 * error.unwrap());
    let (seen, error) = auroc_against(&id["a"], &shifted["a"]).unwrap();
    assert!((seen - auroc(1.0)).abs() < 3.0 * error.unwrap() && error.unwrap() < 0.03);
    assert_eq!(auroc_against(&[1.0], &[0.0]).unwrap(), (1.0, None));
}
