use super::*;
use crate::features::{Element, NpyArray};
use crate::ood::OnCpu;

/// A head of `classes` whose features are its logits.
fn identity(classes: usize, novel: Option<usize>) -> (Head, HeadClasses) {
    let weight = (0..classes * classes).map(|i| if i % (classes + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let indices = (0..classes as i64).map(|class| 10 * class).collect();
    let names = (0..classes).map(|class| format!("class {class}")).collect();
    let meaning = HeadClasses { indices, novel, ..HeadClasses::single(names) };
    (Head::new(weight, vec![0.0; classes], classes).unwrap(), meaning)
}

fn set(rows: &[&[f64]], labels: Option<Vec<i64>>) -> FeatureSet {
    let features = Matrix::from_f64(rows.concat(), rows[0].len(), "features").unwrap();
    FeatureSet::from_parts("test", features, None, labels).unwrap()
}

fn scores(score: &str, temperature: f64, novel: Option<usize>, rows: &[&[f64]]) -> Vec<Scored> {
    let (head, meaning) = identity(rows[0].len(), novel);
    let scorer = Scorer::new(&mut OnCpu, score.parse().unwrap(), temperature, head, meaning, None).unwrap();
    scorer.samples(&mut OnCpu, &set(rows, None)).unwrap()
}

#[test]
fn an_outlier_class_does_not_count_as_confidence() {
    // Notebook A, trap A8: on outliers the trained `novel` class has probability 1, which its own way of scoring takes
    // for the surest of all samples.
    let (outlier, seen): (&[f64], &[f64]) = (&[1.0, 0.0, 20.0], &[6.0, 1.0, 0.0]);
    let by_notebook = scores("notebook-msp", 1.0, Some(2), &[outlier, seen]);
    assert!(by_notebook[0].score > by_notebook[1].score, "the notebook's order");
    let e =
        |rows: &[f64], index: usize| rows[index].exp() / rows.iter().map(|logit| logit.exp()).sum::<f64>();
    let known = scores("msp", 1.0, Some(2), &[outlier, seen]);
    assert!((known[0].score - e(outlier, 0)).abs() < 1e-15 && (known[1].score - e(seen, 0)).abs() < 1e-15);
    let not_novel = scores("novel-probability", 1.0, Some(2), &[outlier, seen]);
    assert!((not_novel[0].score - e(outlier, 0) - e(outlier, 1)).abs() < 1e-15);
    assert!(not_novel[0].score > 0.0 && not_novel[0].score < 1e-7);
    // The class is given by its index in the files, and the outlier is flagged whatever the threshold.
    assert_eq!((known[0].predicted, known[1].predicted), (None, Some(0)));
    assert_eq!(known[0].flagging_order(), f64::NEG_INFINITY);
}

#[test]
fn other_scores_are_those_of_the_known_classes_alone() {
    let rows: [&[f64]; 2] = [&[1.0, 9.0, 0.5, -2.0], &[0.0, -1.0, 3.0, 2.0]];
    let reduced: Vec<Vec<f64>> = rows.iter().map(|row| vec![row[0], row[2], row[3]]).collect();
    let reduced: Vec<&[f64]> = reduced.iter().map(Vec::as_slice).collect();
    for score in ["mls", "energy", "gen"] {
        let of = |samples: Vec<Scored>| samples.iter().map(|sample| sample.score).collect::<Vec<_>>();
        assert_eq!(of(scores(score, 2.0, Some(1), &rows)), of(scores(score, 2.0, None, &reduced)), "{score}");
    }
}

#[test]
fn a_temperature_divides_the_logits() {
    let row: &[f64] = &[3.0, 1.0, -2.0];
    let halved: Vec<f64> = row.iter().map(|logit| logit / 2.0).collect();
    for (score, novel) in
        [("msp", None), ("msp", Some(2)), ("notebook-msp", Some(2)), ("novel-probability", Some(2))]
    {
        let (with, without) = (scores(score, 2.0, novel, &[row]), scores(score, 1.0, novel, &[&halved]));
        assert!((with[0].score - without[0].score).abs() < 1e-15, "{score}");
    }
    let (head, meaning) = identity(3, None);
    let error = Scorer::new(&mut OnCpu, Score::from(Method::Msp), 0.0, head, meaning, None).unwrap_err();
    assert!(error.to_string().contains("--temperature: expected a number above 0"), "{error}");
}

#[test]
fn a_fitted_score_sees_neither_the_outliers_nor_their_logit() {
    let stream = crate::rng::Stream::for_purpose(2, crate::rng::Purpose::Synthetic, &[9]);
    let mut rows: Vec<Vec<f64>> = Vec::new();
    let mut labels = Vec::new();
    for i in 0..60u64 {
        let label = (i % 3) as usize;
        let centre = |d: u64| if d as usize == label { 4.0 } else { 0.0 };
        rows.push((0..3).map(|d| f64::from((stream.normal(3 * i + d) + centre(d)) as f32)).collect());
        labels.push(label as i64);
    }
    let all: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
    let (head, meaning) = identity(3, Some(1));
    let training = set(&all, Some(labels.clone()));
    let scorer =
        Scorer::new(&mut OnCpu, Score::from(Method::Mahalanobis), 1.0, head, meaning, Some(&training))
            .unwrap();
    // By hand: only classes 0 and 2, with a head of their two rows.
    let kept: Vec<usize> = (0..60).filter(|&row| labels[row] != 1).collect();
    let rows_kept: Vec<&[f64]> = kept.iter().map(|&row| all[row]).collect();
    let labels_kept = kept.iter().map(|&row| labels[row] / 2).collect();
    let two = Head::new(vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0], vec![0.0; 2], 3).unwrap();
    let options = Options::of(&[Method::Mahalanobis]);
    let by_hand = Detectors::fit(&set(&rows_kept, Some(labels_kept)), &two, &options).unwrap();
    let expected = by_hand.score(&set(&all, None)).unwrap().remove("mahalanobis").unwrap();
    let found: Vec<f64> =
        scorer.samples(&mut OnCpu, &training).unwrap().iter().map(|sample| sample.score).collect();
    assert_eq!(found, expected);
    // The saved fit gives the same; without it there is no score.
    let (head, meaning) = identity(3, Some(1));
    let again =
        |fit| Scorer::with_fit(Score::from(Method::Mahalanobis), 1.0, head.clone(), meaning.clone(), fit);
    assert_eq!(
        again(scorer.detectors().cloned()).unwrap().samples(&mut OnCpu, &training).unwrap()[5].score,
        expected[5]
    );
    assert!(again(None).unwrap_err().to_string().contains("keep the files together"));
    let error = Scorer::new(&mut OnCpu, Score::from(Method::Knn), 1.0, head, meaning, None).unwrap_err();
    assert!(error.to_string().contains("--fit DATA"), "{error}");
}

#[test]
fn stored_logits_are_used_where_there_are_any() {
    let (head, meaning) = identity(2, None);
    let logits = NpyArray::from_vec(vec![5.0f64, 1.0], Element::F64, vec![1, 2]);
    let logits = Matrix::new(logits, std::path::Path::new("test"), "logits").unwrap();
    let features = Matrix::from_f64(vec![0.0, 0.0], 2, "features").unwrap();
    let cache = FeatureSet::from_parts("test", features, Some(logits), None).unwrap();
    let scorer = Scorer::new(&mut OnCpu, Score::from(Method::Mls), 1.0, head, meaning, None).unwrap();
    assert_eq!(scorer.samples(&mut OnCpu, &cache).unwrap()[0].score, 5.0);
}

#[test]
fn an_unknown_score_and_a_head_without_novel_logit_are_told() {
    let error = "softmax".parse::<Score>().unwrap_err().to_string();
    assert!(error.contains("no score is named `softmax`") && error.contains("notebook-msp"), "{error}");
    let (head, meaning) = identity(2, None);
    let error =
        Scorer::new(&mut OnCpu, Score::NovelProbability, 1.0, head, meaning, None).unwrap_err().to_string();
    assert!(error.contains("outliers as a class of their own"), "{error}");
}
