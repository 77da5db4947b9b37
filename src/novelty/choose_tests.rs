use super::*;
use crate::novelty::{Score, calibrate_level, candidates};
use crate::ood::Method;
use crate::rng::{Purpose, Stream};

fn samples(seen: &[f64], novel: &[f64]) -> LevelScores {
    let scored = |scores: &[f64]| -> Vec<Scored> {
        scores.iter().map(|&score| Scored { score, predicted: Some(0) }).collect()
    };
    LevelScores { level: None, score: Score::from(Method::Energy), seen: scored(seen), novel: scored(novel) }
}

fn tau(rule: &str, seen: &[f64], novel: &[f64]) -> f64 {
    calibrate_level(&samples(seen, novel), rule.parse().unwrap()).unwrap().tau
}

/// Scores with many ties, different for each case.
fn drawn(case: u64, count: u64, shift: f64) -> Vec<f64> {
    let stream = Stream::for_purpose(11, Purpose::Synthetic, &[case]);
    (0..count).map(|i| ((stream.normal(i) + shift) * 4.0).round() / 4.0).collect()
}

#[test]
fn the_conformal_threshold_is_the_kth_smallest_score() {
    let seen: Vec<f64> = (0..19).rev().map(f64::from).collect();
    // k = ⌊0.05 · 20⌋ = 1: the smallest score; with one sample less k = 0 and nothing is flagged.
    assert_eq!(tau("conformal:0.05", &seen, &[]), 0.0);
    assert_eq!(tau("conformal:0.05", &seen[1..], &[]), f64::NEG_INFINITY);
    // 0.29 · 100 is 28.999999999999996 in floating point; k is 29 all the same.
    let seen: Vec<f64> = (1..=99).map(f64::from).collect();
    assert_eq!(tau("conformal:0.29", &seen, &[]), 29.0);
    assert_eq!(tau("conformal:0.295", &seen, &[]), 29.0);
    assert_eq!(tau("conformal:1", &seen, &[]), 99.0);
    assert_eq!(tau("conformal:0", &seen, &[]), f64::NEG_INFINITY);
}

#[test]
fn a_seen_sample_is_flagged_no_more_often_than_promised() {
    // 10,000 draws of 60 calibration samples and one new one; the promise holds over both.
    let (draws, n, share) = (10_000u64, 60u64, 0.05);
    let stream = Stream::for_purpose(1, Purpose::Synthetic, &[5]);
    let (mut conformal, mut quantile, mut per_class) = (0u64, 0u64, 0u64);
    let mut p_values_below = [0u64; 20];
    for draw in 0..draws {
        let value = |i: u64| stream.normal(draw * (n + 1) + i);
        // Half of the samples are of a class with lower scores.
        let seen = (0..n)
            .map(|i| Scored { score: value(i) - 3.0 * (i % 2) as f64, predicted: Some((i % 2) as i64) });
        let whole = LevelScores { seen: seen.collect(), ..samples(&[], &[]) };
        let odd = draw % 2;
        let new = Scored { score: value(n) - 3.0 * odd as f64, predicted: Some(odd as i64) };
        let flags = |rule: Rule| u64::from(calibrate_level(&whole, rule).unwrap().flags(&new));
        conformal += flags(Rule::Conformal(share));
        quantile += flags(Rule::Quantile(share));
        per_class += flags(Rule::PerClass(share));
        let p = crate::novelty::p_values(&whole.calibration_order(), [new.score])[0];
        for (below, t) in p_values_below.iter_mut().zip(1..) {
            *below += u64::from(p <= f64::from(t) / 20.0);
        }
    }
    // Four standard deviations of a count whose mean is at most the promise.
    let most = |share: f64| share * draws as f64 + 4.0 * (share * (1.0 - share) * draws as f64).sqrt();
    assert!((conformal as f64) < most(share), "{conformal}");
    assert!((per_class as f64) < most(share), "{per_class}");
    // 3 of 61 places lie below τ: the promise is not held by flagging nothing.
    assert!(conformal as f64 > draws as f64 * 3.0 / 61.0 - 4.0 * 22.0, "{conformal}");
    assert!(per_class > 200, "{per_class}");
    // The plain quantile promises nothing, and flags more.
    assert!(quantile as f64 > most(share), "{quantile}");
    for (below, t) in p_values_below.iter().zip(1..) {
        let t = f64::from(t) / 20.0;
        assert!(*below as f64 <= most(t), "P(p <= {t}) is {below} of {draws}");
    }
}

#[test]
fn statistics_of_the_seen_scores_are_numpys() {
    // numpy 2: seen = np.sin(np.arange(23.)), novel = np.cos(np.arange(9.)) - 1
    let seen: Vec<f64> = (0..23).map(|i| f64::from(i).sin()).collect();
    let novel: Vec<f64> = (0..9).map(|i| f64::from(i).cos() - 1.0).collect();
    let expected: &[(&str, f64)] = &[
        ("quantile:0.05", -0.9611501701579149),
        ("quantile:0.37", -0.24153651175173263),
        ("p10", -0.9184999187920964),
        ("p5", -0.9611501701579149),
        ("mean-std", -0.6075106539585873),
        ("zscore:1.7", -1.0883428225802856),
        ("midpoint", -0.3862618866023936),
        ("tau:0.125", 0.125),
    ];
    for (rule, expected) in expected {
        let found = tau(rule, &seen, &novel);
        assert!((found - expected).abs() < 1e-14, "{rule}: {found} {expected}");
    }
}

#[test]
fn only_probabilities_are_clipped_as_the_notebook_does() {
    let low = [0.0, 0.0, 0.0, 0.9];
    assert!(tau("mean-std", &low, &[]) < 0.0);
    let probabilities = LevelScores { score: Score::from(Method::Msp), ..samples(&low, &[]) };
    assert_eq!(calibrate_level(&probabilities, Rule::MeanStd).unwrap().tau, 0.0);
    assert!(calibrate_level(&probabilities, Rule::ZScore(1.0)).unwrap().tau < 0.0);
}

/// The best of thresholds tried one by one: `cost` of (share of seen flagged, share of novel caught).
fn tried(seen: &[f64], novel: &[f64], cost: impl Fn(f64, f64) -> f64) -> f64 {
    let share = |scores: &[f64], tau: f64| {
        scores.iter().filter(|score| **score < tau).count() as f64 / scores.len() as f64
    };
    // The scores are multiples of 1/4.
    let thresholds = (-80..80).map(|eighth| f64::from(2 * eighth + 1) / 8.0);
    thresholds.map(|tau| cost(share(seen, tau), share(novel, tau))).fold(f64::INFINITY, f64::min)
}

#[test]
fn rules_that_weigh_errors_find_the_best_of_all_thresholds() {
    for case in 0..60 {
        let (seen, novel) = (drawn(case, 5 + case, 1.0), drawn(100 + case, 3 + case % 7, -0.5));
        let (n_seen, n_novel) = (seen.len() as f64, novel.len() as f64);
        let youden = |flagged: f64, caught: f64| flagged - caught;
        let errors = |flagged: f64, caught: f64| flagged * n_seen + (1.0 - caught) * n_novel;
        let crossing = |flagged: f64, caught: f64| (flagged - (1.0 - caught)).abs();
        let costs = |flagged: f64, caught: f64| 5.0 * 0.3 * (1.0 - caught) + 2.0 * 0.7 * flagged;
        type Cost<'a> = &'a dyn Fn(f64, f64) -> f64;
        let rules: [(&str, Cost<'_>); 4] = [
            ("youden", &youden),
            ("min-error", &errors),
            ("intersection", &crossing),
            ("cost:5,2,0.3", &costs),
        ];
        for (rule, cost) in rules {
            let found = calibrate_level(&samples(&seen, &novel), rule.parse().unwrap()).unwrap();
            let reached = cost(found.false_novel.rate, found.caught_novel.unwrap().rate);
            let best = tried(&seen, &novel, cost);
            assert!((reached - best).abs() < 1e-12, "{rule}, case {case}: {reached} {best}");
            // A threshold between scores decides nothing by rounding.
            assert!(!seen.contains(&found.tau) && !novel.contains(&found.tau), "{rule}: {}", found.tau);
        }
    }
}

#[test]
fn target_rates_are_kept_with_the_last_sample_that_fits() {
    for case in 0..60 {
        let (seen, novel) = (drawn(case, 5 + case, 1.0), drawn(100 + case, 3 + case % 7, -0.5));
        for rate in [0.01, 0.05, 0.29, 0.5, 0.95] {
            let share = |scores: &[f64], tau: f64| {
                scores.iter().filter(|score| **score < tau).count() as f64 / scores.len() as f64
            };
            let highest = tau(&format!("target-fpr:{rate}"), &seen, &novel);
            assert!(share(&seen, highest) <= rate && share(&seen, highest.next_up()) > rate);
            let lowest = tau(&format!("target-tpr:{rate}"), &seen, &novel);
            assert!(share(&novel, lowest) >= rate && share(&novel, lowest.next_down()) < rate);
        }
    }
}

#[test]
fn separated_groups_are_told_apart_and_equal_scores_are_kept() {
    for rule in ["youden", "min-error", "intersection", "cost:1,1,0.5"] {
        assert_eq!(tau(rule, &[3.0, 5.0], &[1.0, 0.0]), 2.0, "{rule}");
    }
    // Equal scores on both sides: flagging none is as good as any, and flags fewest.
    for rule in ["youden", "intersection"] {
        let found = calibrate_level(&samples(&[1.0; 4], &[1.0; 4]), rule.parse().unwrap()).unwrap();
        assert_eq!((found.tau, found.false_novel.count), (f64::NEG_INFINITY, 0), "{rule}");
    }
    // All equal, a sample at the threshold is not below it.
    for rule in ["conformal:0.5", "p10", "p5", "quantile:0.3", "mean-std", "midpoint", "target-fpr:0.3"] {
        let found = calibrate_level(&samples(&[0.75; 9], &[0.75]), rule.parse().unwrap()).unwrap();
        assert_eq!((found.tau, found.false_novel.count), (0.75, 0), "{rule}");
    }
    // Neighbouring floats: what lies between them is the upper one.
    let (low, high) = (1.0, f64::next_up(1.0));
    assert_eq!(tau("youden", &[high], &[low]), high);
    // Huge scores of both signs do not overflow on the way to their middle.
    assert_eq!(tau("youden", &[1e308], &[-1e308]), 0.0);
}

#[test]
fn one_sample_suffices_for_every_rule_or_flags_nothing() {
    for found in candidates(&samples(&[2.0], &[1.0])).unwrap() {
        assert!(found.false_novel.count == 0, "{}", found.rule);
    }
    assert_eq!(tau("conformal:0.05", &[2.0], &[]), f64::NEG_INFINITY);
    assert_eq!(tau("conformal:0.5", &[2.0], &[]), 2.0);
}

#[test]
fn a_rule_that_needs_novel_samples_says_so() {
    for rule in Rule::DEFAULTS.into_iter().filter(|rule| rule.needs_novel()) {
        let error = calibrate_level(&samples(&[1.0, 2.0], &[]), rule).unwrap_err();
        assert!(
            error.to_string().contains(&format!("the rule `{rule}` weighs seen against novel")),
            "{error}"
        );
    }
    // All others are offered without them.
    let offered = candidates(&samples(&[1.0, 2.0], &[])).unwrap();
    assert_eq!(offered.len(), Rule::DEFAULTS.iter().filter(|rule| !rule.needs_novel()).count());
    let error = calibrate_level(&samples(&[], &[1.0]), Rule::P5).unwrap_err();
    assert!(error.to_string().contains("no sample of a class that the class head knows"), "{error}");
    let error = calibrate_level(&samples(&[1.0, f64::NAN], &[]), Rule::P5).unwrap_err();
    assert!(error.to_string().contains("seen calibration sample 1 is NaN"), "{error}");
}

#[test]
fn classes_with_enough_samples_have_their_own_threshold() {
    // Of class 7 there are 19, of class 3 there are 5: at 5 % only class 7 has a k of at least 1.
    let class = |class: i64, count: i32, low: f64| {
        (0..count).map(move |i| Scored { score: low + f64::from(i), predicted: Some(class) })
    };
    let whole =
        LevelScores { seen: class(7, 19, 100.0).chain(class(3, 5, 0.0)).collect(), ..samples(&[], &[]) };
    let found = calibrate_level(&whole, "per-class:0.05".parse().unwrap()).unwrap();
    assert_eq!(found.class_taus, BTreeMap::from([(7, 100.0)]));
    // All 24 together: k = ⌊0.05 · 25⌋ = 1.
    assert_eq!(found.tau, 0.0);
    let flags = |score: f64, class: i64| found.flags(&Scored { score, predicted: Some(class) });
    assert!(flags(99.0, 7) && !flags(99.0, 3) && flags(-1.0, 3) && flags(-1.0, 12));
}

#[test]
fn a_sample_the_head_itself_calls_novel_is_flagged_and_counted() {
    // Two of 39 seen samples are called novel by the head; k = 2 is used up by them, whatever their score.
    let mut whole = samples(&(0..39).map(f64::from).collect::<Vec<_>>(), &[]);
    whole.seen[30].predicted = None;
    whole.seen[38].predicted = None;
    let found = calibrate_level(&whole, Rule::Conformal(0.05)).unwrap();
    assert_eq!((found.tau, found.false_novel.count), (f64::NEG_INFINITY, 2));
    assert!(found.guarantee().starts_with("none: the head's own logit"), "{}", found.guarantee());
    // With room for one more, that is the lowest of the others.
    let found = calibrate_level(&whole, Rule::Conformal(0.1)).unwrap();
    assert_eq!((found.tau, found.false_novel.count), (1.0, 3));
    assert!(found.guarantee().contains("at most 0.1"), "{}", found.guarantee());
    assert!(found.flags(&Scored { score: 1e9, predicted: None }));
}

#[test]
fn the_final_network_takes_the_rate_of_the_folds() {
    let folds = LevelScores::pooled([
        samples(&drawn(1, 150, 1.0), &drawn(2, 30, -1.0)),
        samples(&drawn(3, 150, 1.2), &drawn(4, 30, -1.0)),
    ])
    .unwrap();
    let pooled = calibrate_level(&folds, Rule::Youden).unwrap();
    assert_eq!((pooled.seen, pooled.novel), (300, 60));
    let own: Vec<f64> = drawn(5, 200, 3.0);
    let last = crate::novelty::LevelThreshold::at_rate(pooled.false_novel.rate, &samples(&own, &[])).unwrap();
    assert_eq!(last.tau, conformal(&sorted(&own), pooled.false_novel.rate));
    assert!(last.false_novel.rate <= pooled.false_novel.rate);
    let none = crate::novelty::LevelThreshold::at_rate(0.0, &samples(&own, &[])).unwrap();
    assert_eq!((none.tau, none.rule.to_string().parse::<Rule>().unwrap()), (f64::NEG_INFINITY, none.rule));
    let other = LevelScores { score: Score::NotebookMsp, ..samples(&[1.0], &[]) };
    assert!(LevelScores::pooled([samples(&[1.0], &[]), other]).is_err());
}
