use super::*;
use crate::checkpoint::HeadClasses;
use crate::features::Matrix;
use crate::novelty::{LevelScores, Rule, Score, ThresholdFile, calibrate_level};
use crate::ood::{Method, OnCpu};

/// An entry whose logits mean `indices`; a sample is flagged below 0.
pub fn entry(level: Option<Level>, indices: &[i64], parents: &[i64], novel: Option<usize>) -> LevelEntry {
    let names = indices.iter().map(|index| format!("class {index}")).collect();
    let classes = HeadClasses {
        level,
        indices: indices.to_vec(),
        novel,
        name: format!("{}_head", crate::novelty::level_name(level)),
        ..HeadClasses::single(names)
    };
    let samples = LevelScores {
        level,
        score: Score::from(Method::Mls),
        seen: vec![Scored { score: 0.5, predicted: Some(indices[0]) }],
        novel: Vec::new(),
    };
    LevelEntry {
        checkpoint: "abc".into(),
        classes,
        parents: parents.to_vec(),
        novel_index: 99,
        temperature: 1.0,
        threshold: calibrate_level(&samples, Rule::Tau(0.0)).unwrap(),
        reported: None,
        calibration: samples.calibration_order(),
        detectors: None,
    }
}

/// Superclasses 0 (subclasses 10, 11) and 1 (subclass 20), and 2 whose subclasses were all held out.
fn levels() -> [LevelEntry; 2] {
    [
        entry(Some(Level::Coarse), &[0, 1, 2], &[], None),
        entry(Some(Level::Fine), &[10, 11, 20], &[0, 0, 1], None),
    ]
}

/// Answers (superclass, subclass) of one sample.
fn answer(hierarchy: Hierarchy, logits: [&[f64]; 2], flags: [bool; 2]) -> (Option<i64>, Option<i64>) {
    let entries = levels();
    let pairing = Pairing::new(hierarchy, &[&entries[0], &entries[1]]).unwrap();
    let answers = pairing.answer(&logits, &flags);
    (answers[0].known(), answers[1].known())
}

#[test]
fn independent_levels_may_contradict_each_other_and_the_others_may_not() {
    // Notebook A, trap A19: two models answer superclass 0 with subclass 20, which is of superclass 1.
    let contradiction: [&[f64]; 2] = [&[2.0, 1.0, 0.0], &[1.0, 1.5, 4.0]];
    let none = [false; 2];
    assert_eq!(answer(Hierarchy::Independent, contradiction, none), (Some(0), Some(20)));
    // The best subclass of the best superclass.
    assert_eq!(answer(Hierarchy::Mask, contradiction, none), (Some(0), Some(11)));
    // 1 + 4 of (1, 20) is more than 2 + 1.5 of (0, 11).
    assert_eq!(answer(Hierarchy::Joint, contradiction, none), (Some(1), Some(20)));
}

#[test]
fn a_novel_superclass_has_no_known_subclass() {
    let sure: [&[f64]; 2] = [&[9.0, 0.0, 0.0], &[9.0, 0.0, 0.0]];
    assert_eq!(answer(Hierarchy::Independent, sure, [true, false]), (None, Some(10)));
    for hierarchy in [Hierarchy::Mask, Hierarchy::Joint] {
        assert_eq!(answer(hierarchy, sure, [true, false]), (None, None), "{hierarchy}");
        assert_eq!(answer(hierarchy, sure, [false, true]), (Some(0), None), "{hierarchy}");
        assert_eq!(answer(hierarchy, sure, [false, false]), (Some(0), Some(10)), "{hierarchy}");
    }
}

#[test]
fn a_superclass_without_known_subclasses_has_novel_ones() {
    let third: [&[f64]; 2] = [&[0.0, 1.0, 5.0], &[1.0, 0.0, 0.0]];
    assert_eq!(answer(Hierarchy::Mask, third, [false; 2]), (Some(2), None));
    // Of the pairs that exist, (1, 20) has 1 + 0 and (0, 10) has 0 + 1: the first of equal ones.
    assert_eq!(answer(Hierarchy::Joint, third, [false; 2]), (Some(0), Some(10)));
}

#[test]
fn temperatures_weigh_the_two_levels_of_a_pair() {
    let mut entries = levels();
    let logits: [&[f64]; 2] = [&[2.0, 1.0, 0.0], &[1.0, 1.5, 4.0]];
    let superclass = |entries: &[LevelEntry; 2]| {
        let pairing = Pairing::new(Hierarchy::Joint, &[&entries[0], &entries[1]]).unwrap();
        pairing.answer(&logits, &[false; 2])[0].class
    };
    assert_eq!(superclass(&entries), 1);
    // A subclass head made ten times less sure no longer outvotes the superclass.
    entries[1].temperature = 10.0;
    assert_eq!(superclass(&entries), 0);
}

#[test]
fn the_pair_has_the_largest_product_of_probabilities() {
    let entries = levels();
    let pairing = Pairing::new(Hierarchy::Joint, &[&entries[0], &entries[1]]).unwrap();
    let stream = crate::rng::Stream::for_purpose(4, crate::rng::Purpose::Synthetic, &[8]);
    let softmax = |logits: &[f64]| -> Vec<f64> {
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        logits.iter().map(|logit| logit.exp() / total).collect()
    };
    for case in 0..200u64 {
        let draw = |i: u64| 3.0 * stream.normal(6 * case + i);
        let (above, below) = ([draw(0), draw(1), draw(2)], [draw(3), draw(4), draw(5)]);
        let (p, q) = (softmax(&above), softmax(&below));
        let products = [((0, 10), p[0] * q[0]), ((0, 11), p[0] * q[1]), ((1, 20), p[1] * q[2])];
        let best = products.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
        let answers = pairing.answer(&[&above, &below], &[false; 2]);
        assert_eq!((answers[0].class, answers[1].class), best, "case {case}");
    }
}

#[test]
fn the_logit_of_novel_samples_is_no_class() {
    // Notebook A, trap A8: logit 1 was trained on outliers.
    let entry = entry(None, &[5, 99, 6], &[], Some(1));
    let head = Head::new(vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], vec![0.0; 3], 3).unwrap();
    let features =
        Matrix::from_f64(vec![1.0, 8.0, 2.0, 3.0, 0.0, 1.0, -5.0, -9.0, -7.0], 3, "features").unwrap();
    let set = FeatureSet::from_parts("test", features, None, None).unwrap();
    let samples = entry.scorer(head.clone()).unwrap().samples(&mut OnCpu, &set).unwrap();
    let flagged: Vec<bool> = samples.iter().map(|sample| entry.threshold.flags(sample)).collect();
    // The first by its own logit, the last by its score, below 0.
    assert_eq!(flagged, [true, false, true]);
    let unflagged = [false; 3];
    let input = LevelInput { entry: &entry, head: &head, set: &set, samples: &samples, flagged: &unflagged };
    let answers = decide(Hierarchy::Independent, &[input]).unwrap().remove(0);
    let known: Vec<Option<i64>> = answers.iter().map(Answer::known).collect();
    // Whatever flags the caller gives, the head's own word stands.
    assert_eq!(known, [None, Some(5), Some(5)]);
    assert_eq!(answers[0].class, 6);
}

#[test]
fn levels_that_do_not_go_together_are_refused() {
    let [coarse, fine] = levels();
    let refused =
        |hierarchy, entries: &[&LevelEntry]| Pairing::new(hierarchy, entries).err().unwrap().to_string();
    assert!(refused(Hierarchy::Mask, &[&fine]).contains("needs a superclass and a subclass level"));
    let orphans = LevelEntry { parents: vec![-1; 3], ..fine.clone() };
    assert!(refused(Hierarchy::Joint, &[&coarse, &orphans]).contains("no subclass belongs to a superclass"));
    let twice = ThresholdFile::new(Hierarchy::Independent, vec![fine.clone(), fine.clone()]);
    assert!(twice.unwrap_err().to_string().contains("two heads are of the subclass level"));
    assert!(ThresholdFile::new(Hierarchy::Independent, Vec::new()).is_err());
    let file = ThresholdFile::new(Hierarchy::Mask, vec![fine, coarse]).unwrap();
    assert_eq!(file.levels[0].name(), "superclass");
    assert!("both".parse::<Hierarchy>().unwrap_err().to_string().contains("independent, mask and joint"));
    assert!(decide(Hierarchy::Independent, &[]).is_err());
}
