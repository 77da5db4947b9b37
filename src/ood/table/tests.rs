use super::*;

fn entry(auroc: f64, fpr95: f64) -> Entry {
    let metrics = OodMetrics {
        auroc,
        fpr95,
        fpr95_id_positive: fpr95 + 0.1,
        aupr_in: auroc + 0.02,
        aupr_out: auroc - 0.02,
        aupr_in_trapezoid: auroc + 0.01,
        aupr_out_trapezoid: auroc - 0.01,
        detection_error: 0.2,
        fpr95_threshold: 0.5,
        fpr95_id_positive_threshold: 0.25,
        tied_share: 0.0,
        n_id: 100,
        n_ood: 50,
        ood_prevalence: 1.0 / 3.0,
    };
    metrics.into()
}

/// Two near sets and a far one; `energy` has a result on one near set only.
pub(in crate::ood::table) fn evaluation(better: f64) -> Evaluation {
    let mut evaluation = Evaluation::new(IdSet { samples: 100, accuracy: Some(0.7725) });
    let set = |name: &str, group| OodSet { name: name.into(), group: Some(group), samples: 50 };
    let one = |auroc: f64, fpr: f64| entry(auroc + better, fpr + better);
    evaluation.add(set("cifar10", Group::Near), [("msp".into(), one(0.8, 0.4))]).unwrap();
    let both = [("msp".into(), one(0.7, 0.5)), ("energy".into(), one(0.7, 0.5))];
    evaluation.add(set("tin", Group::Near), both).unwrap();
    evaluation.add(set("svhn", Group::Far), [("msp".into(), one(0.9, 0.3))]).unwrap();
    evaluation
}

/// Scores of falling AUROC on several sets, near and far in turn, with everything a full evaluation has. The second one is within noise of
/// the first, the third one has ties.
pub(in crate::ood::table) fn crowded(scores: usize, sets: usize) -> Evaluation {
    let to_best = |score: usize| ToBest {
        difference: -0.001 * score as f64,
        interval95: [-0.01, if score < 2 { 0.005 } else { 0.0 }],
        p_value: if score < 2 { 0.4 } else { 0.0001 },
        within_noise: score < 2,
    };
    let fill = |evaluation: &mut Evaluation| {
        for set in 0..sets {
            let results = (0..scores).map(|score| {
                let mut own = entry(0.9 - 0.001 * score as f64 - 0.01 * set as f64, 0.4);
                own.auroc_interval95 = Some([0.8, 0.95]);
                own.set_ties(if score == 2 { 0.04 } else { 0.0 });
                own.to_best = Some(to_best(score));
                (own.aurc, own.augrc) = (Some(0.2), Some(0.1));
                (format!("score_{score}"), own)
            });
            let group = if set % 2 == 0 { Group::Near } else { Group::Far };
            let set = OodSet { name: format!("set_{set}"), group: Some(group), samples: 50 };
            evaluation.add(set, results.collect::<Vec<_>>()).unwrap();
        }
        for means in evaluation.groups.values_mut() {
            for (score, mean) in means {
                mean.to_best = Some(to_best(score["score_".len()..].parse().unwrap()));
            }
        }
    };
    let mut evaluation = Evaluation::new(IdSet { samples: 100, accuracy: Some(0.7725) });
    fill(&mut evaluation);
    let mut pooled = Evaluation::new(IdSet { samples: 160, accuracy: None });
    fill(&mut pooled);
    let shifted = ShiftedSet { name: "blurred".into(), samples: 60, accuracy: Some(0.5) };
    let own = ShiftedEntry { auroc: 0.55, auroc_se: Some(0.01), auroc_interval95: Some([0.53, 0.57]) };
    let against = evaluation.methods.iter().map(|method| (method.clone(), own)).collect();
    let against = BTreeMap::from([(shifted.name.clone(), against)]);
    evaluation.full_spectrum = Some(FullSpectrum::new(pooled, vec![shifted], against));
    evaluation.comparison = Some(Comparison::default());
    evaluation
}

#[test]
fn everything_of_a_full_evaluation_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.json");
    let mut written = crowded(4, 3);
    written.id_risk.insert("score_0".into(), IdRisk { aurc: 1.0 / 3.0, augrc: 0.1 });
    written.write_json(&path).unwrap();
    assert_eq!(Evaluation::read_json(&path).unwrap(), written);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(json["full_spectrum"]["shifted"][0]["name"], "blurred");
    assert_eq!(json["full_spectrum"]["ood"]["set_0"]["score_1"]["to_best"]["within_noise"], true);
    assert_eq!(json["full_spectrum"]["id_versus_shifted"]["blurred"]["score_1"]["auroc"], 0.55);
    assert_eq!(json["groups"]["all"]["score_2"]["to_best"]["p_value"], 0.0001);
    assert!(json["ood"]["set_0"]["score_0"].get("auroc_if_ties_broken").is_none());
    assert!(json["ood"]["set_0"]["score_2"]["auroc_if_ties_broken"].is_array());
}

#[test]
fn metrics_json_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.json");
    let mut written = evaluation(1.0 / 30.0);
    written.fits.insert("vim".into(), FitSummary { dim: Some(64), ..FitSummary::default() });
    written.sanity.warnings.push("neco_formula is constant".into());
    let curves = super::super::metrics::Curves::new(&[3.0, 1.0, 0.3], &[0.5, 0.1]).unwrap();
    let mut measured = Entry::from(curves.metrics());
    measured.oscr = Some(0.25);
    measured.interval95 = Some(curves.bootstrap(20, 1).unwrap());
    measured.set_ties(0.25);
    measured.to_best =
        Some(ToBest { difference: -0.1, interval95: [-0.2, 0.0], p_value: 0.01, within_noise: false });
    let set = OodSet { name: "mnist".into(), group: None, samples: 2 };
    written.add(set, [("gen".into(), measured)]).unwrap();
    written.write_json(&path).unwrap();
    assert_eq!(Evaluation::read_json(&path).unwrap(), written);
    // The nesting other programs read: data set, then score, then fractions.
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(json["ood"]["svhn"]["msp"]["auroc"], 0.9 + 1.0 / 30.0);
    assert_eq!(json["ood"]["mnist"]["gen"]["interval95"]["replicates"], 20);
    assert!(json["groups"]["near"]["msp"]["fpr95"].is_number());
    assert!(json["groups"]["near"].get("energy").is_none());
}

#[test]
fn a_file_with_only_the_ood_part_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.json");
    let entry = serde_json::to_value(entry(0.8, 0.4)).unwrap();
    let json = serde_json::json!({ "ood": { "svhn": { "msp": entry } } });
    std::fs::write(&path, json.to_string()).unwrap();
    let read = Evaluation::read_json(&path).unwrap();
    assert_eq!(
        (read.datasets[0].name.as_str(), read.methods.as_slice()),
        ("svhn", ["msp".to_string()].as_slice())
    );
    assert_eq!(read.datasets[0].samples, 50);
}

#[test]
fn malformed_json_names_the_file_and_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.json");
    for text in ["", "{", "[]", "{\"ood\": 3}", "{\"ood\": {\"a\": {\"msp\": {\"auroc\": \"x\"}}}}", "\u{0}"]
    {
        std::fs::write(&path, text).unwrap();
        let message = Evaluation::read_json(&path).unwrap_err().to_string();
        assert!(message.contains("metrics.json") && message.contains("expected the metrics"), "{message}");
    }
}

#[test]
fn a_reserved_or_repeated_name_is_refused() {
    let mut evaluation = evaluation(0.0);
    let set = |name: &str| OodSet { name: name.into(), group: None, samples: 1 };
    assert!(evaluation.add(set("id"), []).unwrap_err().to_string().contains("reserved"));
    assert!(evaluation.add(set("tin"), []).unwrap_err().to_string().contains("two OOD sets are named `tin`"));
}
