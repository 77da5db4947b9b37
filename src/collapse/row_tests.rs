use super::*;

pub fn row(epoch: u64, nc1: f64) -> CollapseRow {
    CollapseRow {
        checkpoint: format!("epoch_{epoch:04}"),
        epoch: Some(epoch),
        samples: 100,
        classes: 2,
        dimension: 3,
        train_accuracy: 0.875,
        test_accuracy: None,
        nc1,
        nc1_trace_ratio: 0.1,
        nc1_cdnv: None,
        nc1_rank: 1,
        nc1_condition: 1.0,
        nc2_equinorm: 1.0 / 3.0,
        nc2_equinorm_ddof1: 0.2,
        nc2_equiangular: 0.3,
        nc2_cosine_mean: -1.0,
        nc2_cosine_std: 0.0,
        nc2_etf_frobenius: 0.4,
        nc2_equinorm_weights: 0.5,
        nc2_equinorm_ddof1_weights: 0.6,
        nc2_equiangular_weights: 0.7,
        nc2_cosine_mean_weights: -1.0,
        nc2_cosine_std_weights: 0.0,
        nc2_etf_frobenius_weights: 0.8,
        nc3: 0.9,
        nc3_frobenius: 0.5,
        nc3_frobenius_sq: 0.25,
        nc3_one_minus_cosine: 0.05,
        nc4: 0.125,
        nc4_test: None,
        nc5: None,
        nc5_uncentered: None,
        nc5_by_ood: BTreeMap::new(),
        nc5_uncentered_by_ood: BTreeMap::new(),
    }
}

fn report() -> CollapseReport {
    let mut later = row(20, 0.5);
    later.nc5 = Some(0.1);
    later.nc5_by_ood.insert("svhn, test".into(), 0.1);
    let skipped = vec![Skipped { checkpoint: "epoch_0030".into(), reason: "truncated".into() }];
    CollapseReport {
        checkpoints: vec![row(10, 1.5), later],
        global_mean: GlobalMean::ClassMeans,
        skipped,
        warnings: vec!["epoch_0010: half precision".into()],
    }
}

#[test]
fn collapse_json_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collapse.json");
    report().write_json(&path).unwrap();
    assert_eq!(CollapseReport::read_json(&path).unwrap(), report());
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(json["checkpoints"][0]["nc1"], 1.5);
    assert_eq!(json["checkpoints"][1]["nc5_by_ood"]["svhn, test"], 0.1);
    assert!(json["checkpoints"][0]["nc5"].is_null());
}

#[test]
fn malformed_json_names_the_file_and_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collapse.json");
    for text in ["", "{}", "{\"checkpoints\": [{\"nc1\": 1}]}", "[1", "\u{0}"] {
        std::fs::write(&path, text).unwrap();
        let message = CollapseReport::read_json(&path).unwrap_err().to_string();
        assert!(
            message.contains("collapse.json") && message.contains("expected collapse metrics"),
            "{message}"
        );
    }
}

#[test]
fn the_csv_has_a_column_per_number_and_ood_set() {
    let text = report().csv().unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let column = |name: &str| headers.iter().position(|header| header == name).expect(name);
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.unwrap()).collect();
    assert_eq!(
        (&rows[0][0], &rows[0][column("epoch")], &rows[1][column("nc1")]),
        ("epoch_0010", "10", "0.5")
    );
    let nc5 = column("nc5_by_ood/svhn, test");
    assert_eq!((&rows[0][nc5], &rows[1][nc5]), ("", "0.1"));
}

#[test]
fn the_summary_has_a_line_per_checkpoint_and_says_what_was_skipped() {
    let text = report().summary();
    assert!(text.lines().any(|line| line.starts_with("epoch_0020") && line.contains("0.5000")), "{text}");
    let end = "skipped epoch_0030: truncated\nwarning: epoch_0010: half precision\n";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn cosines_are_a_square_npy_of_doubles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cosines.npy");
    write_cosines(&[1.0, -0.5, -0.25, 1.0], 2, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let array = npyz::NpyFile::new(bytes.as_slice()).unwrap();
    assert_eq!((array.shape(), array.order()), ([2, 2].as_slice(), npyz::Order::C));
    assert_eq!(array.into_vec::<f64>().unwrap(), [1.0, -0.5, -0.25, 1.0]);
    assert!(write_cosines(&[1.0], 2, &path).is_err());
}
