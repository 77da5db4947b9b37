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
    Entry { metrics, oscr: None, interval95: None }
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

#[test]
fn metrics_json_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.json");
    let mut written = evaluation(1.0 / 30.0);
    written.fits.insert("vim".into(), FitSummary { dim: Some(64), ..FitSummary::default() });
    written.sanity.warnings.push("neco_formula is constant".into());
    let curves = super::super::metrics::Curves::new(&[3.0, 1.0, 0.3], &[0.5, 0.1]).unwrap();
    let measured = Entry {
        metrics: curves.metrics(),
        oscr: Some(0.25),
        interval95: Some(curves.bootstrap(20, 1).unwrap()),
    };
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
