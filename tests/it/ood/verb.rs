//! The verb `ood` from the command line: what it writes, what it prints, how it fails.

use std::path::Path;

use residua::features::{FeatureSet, Matrix, Npz, write_npz};
use residua::ood::Detectors;
use residua::ood::metrics::OodMetrics;
use residua::ood::table::Evaluation;

use crate::ood::scores::case;
use crate::support::program::residua;

fn run_ood(arguments: &[&str]) -> assert_cmd::assert::Assert {
    residua(["ood"]).args(arguments).assert()
}

fn inputs(folder: &Path) -> Vec<String> {
    let file = |name: &str| folder.join(name).with_extension("npz").display().to_string();
    vec!["--train".into(), file("train"), "--id".into(), file("id"), "--head".into(), file("head")]
}

fn scores(path: &Path, name: &str) -> Vec<f64> {
    let mut array = Npz::open(path).unwrap().array(name).unwrap().unwrap();
    array.shape = vec![1, array.shape[0]];
    let mut values = Vec::new();
    Matrix::new(array, path, name).unwrap().read_f64(0..1, &mut values);
    values
}

#[test]
fn one_command_writes_fits_scores_and_metrics_of_every_ood_set() {
    let (folder, out) = (case("tiny"), tempfile::tempdir().unwrap());
    let ood = folder.join("ood.npz");
    let mut arguments = inputs(&folder);
    arguments.extend(["--ood".into(), format!("near:a={}", ood.display())]);
    arguments.extend(["--ood".into(), format!("b={}", folder.join("id.npz").display())]);
    arguments.extend(["--out".into(), out.path().display().to_string(), "--vim-dim".into(), "8".into()]);
    arguments.extend(["--bootstrap".into(), "20".into(), "--balance".into()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run_ood(&arguments).success().stdout(predicates::str::contains("mahalanobis"));
    let read = Evaluation::read_json(&out.path().join("metrics.json")).unwrap();
    assert_eq!(read.methods.len(), 46);
    let entry = read.entry("a", "vim").unwrap();
    assert_eq!((entry.metrics.n_id, entry.metrics.n_ood), (60, 60), "balanced");
    assert!(entry.interval95.is_some() && entry.oscr.is_some());
    // The ID set against itself: no score can tell them apart.
    for method in &read.methods {
        assert_eq!(read.entry("b", method).unwrap().metrics.auroc, 0.5, "{method}");
        assert!(read.sanity.train_versus_test_auroc.contains_key(method));
        assert!(read.sanity.half_versus_half_auroc.contains_key(method));
    }
    assert!(read.groups["near"].contains_key("knn"));
    assert_eq!(read.fits["mahalanobis"].rank, Some(16));
    let csv = std::fs::read_to_string(out.path().join("metrics.csv")).unwrap();
    assert!(csv.starts_with("method,dataset,FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC") && csv.contains("nearood"));
    let detectors = Detectors::load(&out.path().join("fit.safetensors")).unwrap();
    assert_eq!(detectors.specs().len(), 46);
    for name in ["id", "a", "b"] {
        let path = out.path().join("scores").join(name).with_extension("npz");
        assert_eq!(Npz::open(&path).unwrap().names().len(), 46);
    }
    // The other orientation only turns the sign of what is written.
    let confidence = scores(&out.path().join("scores/a.npz"), "energy");
    let mut novelty = arguments.clone();
    novelty.extend(["--orientation", "novelty", "--methods", "energy", "--json"]);
    let printed = run_ood(&novelty).success().get_output().stdout.clone();
    let printed: serde_json::Value = serde_json::from_slice(&printed).unwrap();
    assert_eq!(printed["ood"]["a"]["energy"]["auroc"], read.entry("a", "energy").unwrap().metrics.auroc);
    let turned = scores(&out.path().join("scores/a.npz"), "energy");
    assert!(confidence.iter().zip(&turned).all(|(a, b)| *a == -*b));
}

#[test]
fn errors_and_areas_in_the_file_are_those_of_an_independent_program() {
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(case("measures.json")).unwrap()).unwrap();
    for (name, expected) in expected.as_object().unwrap() {
        let (folder, out) = (case(name), tempfile::tempdir().unwrap());
        let mut arguments = inputs(&folder);
        let ood = format!("a={}", folder.join("ood.npz").display());
        let out_text = out.path().display().to_string();
        arguments.extend(["--ood", &ood, "--methods", "msp,mls", "--plots", "none"].map(String::from));
        arguments.extend(["--out".to_string(), out_text]);
        run_ood(&arguments.iter().map(String::as_str).collect::<Vec<&str>>()).success();
        let text = std::fs::read(out.path().join("metrics.json")).unwrap();
        let found: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for score in ["msp", "mls"] {
            let (entry, risk) = (&found["ood"]["a"][score], &found["id_risk"][score]);
            for (key, value) in [
                ("auroc", &entry["auroc"]),
                ("auroc_se", &entry["auroc_se"]),
                ("aurc", &entry["aurc"]),
                ("augrc", &entry["augrc"]),
                ("aurc_id", &risk["aurc"]),
                ("augrc_id", &risk["augrc"]),
            ] {
                let (value, want) = (value.as_f64().unwrap(), expected[score][key].as_f64().unwrap());
                assert!((value - want).abs() < 1e-9, "{name} {score} {key}: {value} {want}");
            }
        }
    }
}

#[test]
fn a_page_of_all_scores_draws_the_ten_best_and_links_the_others() {
    let (folder, out) = (case("tiny"), tempfile::tempdir().unwrap());
    let mut arguments = inputs(&folder);
    for (flag, value) in [
        ("--ood", format!("near:a={}", folder.join("ood.npz").display())),
        ("--ood", format!("far:b={}", folder.join("id.npz").display())),
        ("--vim-dim", "8".into()),
        ("--plots", "none".into()),
        ("--out", out.path().display().to_string()),
    ] {
        arguments.extend([flag.to_string(), value]);
    }
    run_ood(&arguments.iter().map(String::as_str).collect::<Vec<&str>>()).success();
    assert!(residua(["report", &out.path().display().to_string()]).output().unwrap().status.success());
    let page = std::fs::read_to_string(out.path().join("report.html")).unwrap();
    assert_eq!(page.matches(r#"<div class="column">"#).count(), 2 * 10);
    for part in [
        "The 10 best scores side by side, and the others",
        "The other 36 scores",
        "scroll tall",
        "<summary>The 46 scores</summary>",
        "<dt>within noise of the best</dt>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let links: Vec<&str> =
        page.split(r#"<a href="plots/"#).skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links.len(), 2 * 36);
    assert!(links.iter().all(|link| out.path().join("plots").join(link).is_file()), "{links:?}");
}

#[test]
fn kernels_write_the_scores_and_fits_that_the_cpu_writes() {
    let (folder, out) = (case("tiny"), tempfile::tempdir().unwrap());
    let ood = format!("a={}", folder.join("ood.npz").display());
    let evaluate = |device: &str, precision: &str| {
        let place = out.path().join(format!("{device}-{precision}"));
        let place_text = place.display().to_string();
        let mut arguments = inputs(&folder);
        arguments.extend(
            ["--ood", &ood, "--vim-dim", "8", "--device", device, "--out", &place_text].map(String::from),
        );
        arguments.extend(["--rows-precision".to_string(), precision.to_string()]);
        run_ood(&arguments.iter().map(String::as_str).collect::<Vec<&str>>()).success();
        let read =
            |set: &str, name: &str| scores(&place.join("scores").join(set).with_extension("npz"), name);
        let evaluation = Evaluation::read_json(&place.join("metrics.json")).unwrap();
        // A result says what it was made with.
        let told = |warning: &String| warning.contains("--rows-precision f32");
        assert_eq!(evaluation.sanity.warnings.iter().any(told), precision == "f32");
        evaluation
            .methods
            .into_iter()
            .map(|method| ["id", "a"].map(|set| (format!("{method} of {set}"), read(set, &method))))
            .collect::<Vec<_>>()
            .concat()
    };
    let (cpu, kernels) = (evaluate("cpu", "f64"), evaluate("emulator", "f64"));
    for ((name, exact), (_, single)) in kernels.iter().zip(evaluate("emulator", "f32")) {
        assert_eq!(*exact == single, !name.starts_with("knn"), "{name}");
    }
    assert_eq!(cpu.len(), 2 * 46);
    for ((name, cpu), (_, kernels)) in cpu.iter().zip(&kernels) {
        let size = cpu.iter().map(|score| score.abs()).fold(0.0, f64::max);
        let worst = cpu.iter().zip(kernels).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= 1e-9 * size, "{name}: {worst:e} of {size:e}");
    }
}

#[test]
fn shifted_sets_join_the_id_side_of_results_of_their_own() {
    let (folder, out) = (case("tiny"), tempfile::tempdir().unwrap());
    let file = |name: &str| folder.join(name).display().to_string();
    // A set without labels, as anybody may have.
    let unlabelled = out.path().join("unlabelled.npz");
    let arrays = ["features", "logits"]
        .map(|name| (name, Npz::open(&folder.join("ood.npz")).unwrap().array(name).unwrap().unwrap()));
    write_npz(&unlabelled, &[(arrays[0].0, &arrays[0].1), (arrays[1].0, &arrays[1].1)]).unwrap();
    let run = |shifted: &[String], name: &str| {
        let place = out.path().join(name);
        let mut arguments = inputs(&folder);
        for (flag, value) in [
            ("--ood", format!("near:a={}", file("ood.npz"))),
            ("--ood", format!("far:b={}", file("ood.npz"))),
            ("--methods", "msp,energy,knn".into()),
            ("--out", place.display().to_string()),
        ] {
            arguments.extend([flag.to_string(), value]);
        }
        shifted.iter().for_each(|set| arguments.extend(["--shifted".to_string(), set.clone()]));
        arguments.push("--compact".into());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let text = String::from_utf8(run_ood(&arguments).success().get_output().stdout.clone()).unwrap();
        assert!(text.lines().all(|line| line.starts_with("warning") || line.chars().count() <= 80), "{text}");
        let csv = std::fs::read_to_string(place.join("metrics.csv")).unwrap();
        (Evaluation::read_json(&place.join("metrics.json")).unwrap(), csv, text, place)
    };
    let labelled = format!("dim={}", file("train.npz"));
    let (plain, plain_csv, ..) = run(&[], "plain");
    let (found, csv, text, place) = run(std::slice::from_ref(&labelled), "shifted");
    assert_eq!(
        (&plain.ood, &plain.groups),
        (&found.ood, &found.groups),
        "the plain results stay as they are"
    );
    assert!(plain.full_spectrum.is_none() && csv.starts_with(&plain_csv));
    for row in ["knn,fsood/a,", "knn,fsood/nearood,", "knn,fsood/farood,"] {
        assert!(csv.contains(row), "{row} {csv}");
    }
    assert!(
        text.contains("Full spectrum: the ID side is") && text.contains("AUROC, full spectrum"),
        "{text}"
    );
    let full = found.full_spectrum.unwrap();
    let [dim] = &full.shifted[..] else { panic!("{:?}", full.shifted) };
    assert_eq!((dim.name.as_str(), dim.samples, full.id.samples), ("dim", 100, 180));
    let pooled = (80.0 * found.id.accuracy.unwrap() + 100.0 * dim.accuracy.unwrap()) / 180.0;
    assert!((full.id.accuracy.unwrap() - pooled).abs() < 1e-12);
    for method in ["msp", "energy", "knn"] {
        let read = |name: &str| scores(&place.join("scores").join(name).with_extension("npz"), method);
        let (id, dim, ood) = (read("id"), read("dim"), read("a"));
        let metrics = OodMetrics::evaluate(&[id.clone(), dim.clone()].concat(), &ood).unwrap();
        assert_eq!(full.ood["a"][method].metrics, metrics, "{method}");
        assert!(full.ood["a"][method].to_best.is_some() && full.groups["all"][method].to_best.is_some());
        let against = full.id_versus_shifted["dim"][method];
        assert_eq!(against.auroc, OodMetrics::evaluate(&id, &dim).unwrap().auroc, "{method}");
        let [low, high] = against.auroc_interval95.unwrap();
        assert!(low < against.auroc && against.auroc < high);
    }
    // Without labels there is no accuracy of all, and no risk, but everything else.
    let (found, csv, ..) = run(&[labelled, format!("strange={}", unlabelled.display())], "both");
    let full = found.full_spectrum.unwrap();
    assert_eq!((full.shifted[1].accuracy, full.id.accuracy), (None, None));
    assert!(
        full.shifted[0].accuracy.is_some() && full.ood["a"]["msp"].aurc.is_none() && full.id_risk.is_empty()
    );
    let row = csv.lines().find(|line| line.starts_with("msp,fsood/a,")).unwrap();
    assert!(row.ends_with(','), "{row}");
    // The page has tables of all of that, and explains the words in them.
    let page = residua(["report", &place.display().to_string()]).output().unwrap();
    assert!(page.status.success());
    let page = std::fs::read_to_string(place.join("report.html")).unwrap();
    for part in [
        "AUROC at a glance",
        "Full spectrum",
        "mean near",
        "vs best",
        "Hsu",
        "<dt>within noise of the best</dt>",
        "<dt>full spectrum</dt>",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn constants_sweeps_and_calibration_samples_are_taken_from_the_command_line() {
    let (folder, out) = (case("tiny"), tempfile::tempdir().unwrap());
    let evaluate = |place: &str, more: &[&str]| {
        let (place, ood) = (out.path().join(place), format!("a={}", folder.join("ood.npz").display()));
        let place_text = place.display().to_string();
        let mut arguments = inputs(&folder);
        arguments.extend(["--ood", &ood, "--out", &place_text].map(String::from));
        arguments.extend(more.iter().map(|text| text.to_string()));
        run_ood(&arguments.iter().map(String::as_str).collect::<Vec<&str>>()).success();
        (Evaluation::read_json(&place.join("metrics.json")).unwrap(), place)
    };
    let list = "msp,tempscale,klm,knn:k=1|5,vim:dim=4|8:origin=mean";
    let (without, _) = evaluate("without", &["--methods", list]);
    assert_eq!(
        without.methods,
        ["msp", "vim:dim=4:origin=mean", "vim:dim=8:origin=mean", "knn:k=1", "knn:k=5", "tempscale", "klm"]
    );
    let told = |evaluation: &Evaluation| {
        evaluation.sanity.warnings.iter().any(|warning| warning.contains("with --calibration"))
    };
    assert!(told(&without), "{:?}", without.sanity.warnings);
    assert_eq!(without.fits["knn:k=5"].parameters["k"], 5.0);
    let calibration = folder.join("cal.npz").display().to_string();
    let (with, place) = evaluate("with", &["--methods", list, "--calibration", &calibration]);
    assert!(!told(&with), "{:?}", with.sanity.warnings);
    assert_ne!(with.fits["tempscale"], without.fits["tempscale"]);
    assert!(place.join("plots/a_knn-k-5.svg").is_file());
    // The detectors come back with their constants.
    let detectors = Detectors::load(&place.join("fit.safetensors")).unwrap();
    let id = FeatureSet::open(&folder.join("id.npz")).unwrap();
    assert_eq!(detectors.score(&id).unwrap()["knn:k=5"], scores(&place.join("scores/id.npz"), "knn:k=5"));
    // Nothing is fitted for these.
    let args = ["--id", "--head"].map(|flag| format!("{}.npz", folder.join(&flag[2..]).display()));
    let ood = format!("a={}", folder.join("ood.npz").display());
    let place = out.path().join("untrained").display().to_string();
    let untrained = "ash_s:percentile=65|95,scale,gradnorm,fdbd_norm,entropy";
    run_ood(&["--id", &args[0], "--head", &args[1], "--ood", &ood, "--methods", untrained, "--out", &place])
        .success();
    run_ood(&["--id", &args[0], "--head", &args[1], "--ood", &ood, "--methods", "dice", "--out", &place])
        .code(2)
        .stderr(predicates::str::contains("dice is fitted on a training set"));
}

#[test]
fn wrong_use_exits_with_two_and_says_what_to_write() {
    let (folder, out) = (case("tiny"), tempfile::tempdir().unwrap());
    let ood = folder.join("ood.npz");
    for (flags, message) in [
        (vec!["--ood", "id=x.npz"], "reserved"),
        (vec!["--ood", "middle:a=x.npz"], "near"),
        (vec!["--ood", "x.npz"], "NAME=CACHE"),
        (vec!["--ood", "../a=x.npz"], "cannot name"),
        (vec!["--ood", "a=x.npz", "--shifted", "a=x.npz"], "two sets are named `a`"),
        (vec!["--ood", "a=x.npz", "--shifted", "id=x.npz"], "reserved"),
        (vec!["--ood", "a=x.npz", "--shifted", "x.npz"], "NAME=CACHE"),
        (vec!["--ood", "a=x.npz", "--methods", "msp,mdm"], "mdm"),
        (vec!["--ood", "a=x.npz", "--methods", "knn:kk=3"], "it has k, bank"),
        (vec!["--ood", "a=x.npz", "--methods", "knn:k=0"], "expected a whole number of at least 1"),
        (vec!["--ood", "a=x.npz", "--vim-dim", "0"], "at least 1"),
        (vec!["--ood", "a=x.npz", "--vim-dim", "1.5"], "0.9"),
        (vec!["--ood", "a=x.npz", "--react-percentile", "101"], "from 0 to 100"),
        (vec!["--ood", "a=x.npz", "--temperature", "0"], "above 0"),
        (vec!["--ood", "a=x.npz", "--rows-precision", "f32", "--device", "cpu"], "add --device cuda"),
        (vec!["--ood", "a=x.npz", "--rows-precision", "f16"], "f64"),
    ] {
        let mut arguments = inputs(&folder);
        arguments.extend(flags.iter().map(|flag| flag.replace("x.npz", &ood.display().to_string())));
        arguments.extend(["--out".into(), out.path().join("out").display().to_string()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_ood(&arguments).code(2).stderr(predicates::str::contains(message));
    }
    assert!(!out.path().join("out").exists(), "nothing is written by a wrong use");
}

#[test]
fn caches_that_do_not_fit_exit_with_one_and_both_numbers() {
    let out = tempfile::tempdir().unwrap();
    let mut arguments = inputs(&case("tiny"));
    arguments.extend(["--ood".into(), format!("a={}", case("small").join("ood.npz").display())]);
    arguments.extend(["--out".into(), out.path().display().to_string()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let message = predicates::str::is_match("expected 16 features per sample.*found 64").unwrap();
    run_ood(&arguments).code(1).stderr(message);
}
