//! `monitor` from the command line: its lines, how it stops and goes on, what it refuses.

mod simulation;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use predicates::prelude::*;
use predicates::str::contains;
use residua::data::{self, DataSpec, Split};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::program::residua;

/// A small network, its thresholds, and files of images that it knows and of others.
struct Bench {
    folder: TempDir,
    /// Paths of the images, a line each.
    paths: Vec<String>,
}

const KNOWN: &str = "demo:fashion-mnist?split=test,limit=60";

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench { folder, paths: Vec::new() };
        let run = bench.text("run");
        quietly(&[
            "train",
            "--data",
            "demo:fashion-mnist?limit=200",
            "--arch",
            "resnet20",
            "--width",
            "0.25",
        ])
        .args(["--batch-size", "20", "--max-steps", "6", "--out", &run])
        .assert()
        .success();
        quietly(&[
            "calibrate",
            "--checkpoint",
            &run,
            "--seen",
            "demo:fashion-mnist?split=test,sample=120,seed=1",
        ])
        .args(["--score", "energy", "--rule", "conformal:0.2", "--out", &bench.text("t/thresholds.toml")])
        .assert()
        .success();
        for (name, images) in [("known", KNOWN), ("digits", "demo:digits?limit=25")] {
            let images = data::open(&images.parse::<DataSpec>().unwrap(), Split::Test).unwrap();
            fs::create_dir(bench.path(name)).unwrap();
            for index in 0..images.len() {
                let path = bench.path(name).join(format!("{index}.png"));
                let image = images.image(index).unwrap();
                image::RgbImage::from_raw(image.width, image.height, image.pixels)
                    .unwrap()
                    .save(&path)
                    .unwrap();
                bench.paths.push(path.display().to_string());
            }
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `monitor` with these thresholds and further flags.
    fn monitor(&self, more: &[&str]) -> assert_cmd::Command {
        let mut command = residua(["monitor", "--thresholds", &self.text("t/thresholds.toml")]);
        command.args(more);
        command
    }

    /// The same for images.
    fn of_images(&self, data: &str, more: &[&str]) -> assert_cmd::Command {
        let mut command =
            self.monitor(&["--checkpoint", &self.text("run"), "--device", "cpu", "--data", data]);
        command.args(more);
        command
    }
}

fn quietly(arguments: &[&str]) -> assert_cmd::Command {
    let mut command = residua(arguments);
    command.args(["--device", "cpu", "--quiet"]);
    command
}

fn output(mut command: assert_cmd::Command) -> String {
    let done = command.assert().success();
    String::from_utf8(done.get_output().stdout.clone()).unwrap()
}

fn values(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(values: &[Value], key: &str) -> Vec<f64> {
    values.iter().map(|value| value[key].as_f64().unwrap_or_else(|| panic!("{key} of {value}"))).collect()
}

/// Everything on one network.
#[test]
fn a_stream_is_answered_stopped_and_gone_on_with() {
    let bench = Bench::new();
    lines_are_those_of_predict_and_of_plain_loops(&bench);
    a_stream_in_two_parts_has_the_lines_of_one(&bench);
    a_line_that_is_no_image_is_answered_by_an_error(&bench);
    rows_of_features_have_the_answers_of_their_images(&bench);
    a_line_is_answered_before_the_next_one_comes_and_a_signal_keeps_the_state(&bench);
    what_does_not_fit_is_refused(&bench);
}

fn lines_are_those_of_predict_and_of_plain_loops(bench: &Bench) {
    let known = format!("images:{}", bench.text("known"));
    let csv = bench.text("p.csv");
    quietly(&[
        "predict",
        "--checkpoint",
        &bench.text("run"),
        "--thresholds",
        &bench.text("t/thresholds.toml"),
    ])
    .args(["--data", &known, "--with-scores", "--p-values", "--batch-size", "1", "--out", &csv])
    .assert()
    .success();
    let lines = values(&output(bench.of_images(&known, &["--alpha", "0.6", "--horizon", "100"])));
    let table = fs::read_to_string(csv).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|row| row.split(',').collect()).collect();
    assert_eq!(lines.len(), rows.len());
    let (sum, mut discoveries) = ((1..=100).map(|t| 1.0 / f64::from(t)).sum::<f64>(), 0.0);
    for (row, (line, expected)) in lines.iter().zip(&rows).enumerate() {
        // image, class_index, class, class_score, class_flagged, class_p_value
        assert_eq!((line["row"].as_u64(), line["image"].as_str()), (Some(row as u64), Some(expected[0])));
        assert_eq!(line["score"].as_f64().unwrap(), expected[3].parse::<f64>().unwrap());
        assert_eq!(line["novel"].as_bool().unwrap(), expected[4] == "1");
        assert_eq!(line["p_value"].as_f64().unwrap(), expected[5].parse::<f64>().unwrap());
        assert!(line["novel"] == true || line["class"] == expected[2], "{line} {expected:?}");
        let level = 0.6 * (discoveries + 1.0) / ((row + 1) as f64 * sum);
        assert!((line["level"].as_f64().unwrap() - level).abs() < 1e-12);
        let is_discovery = line["p_value"].as_f64().unwrap() <= level;
        assert_eq!(line["discovery"].as_bool().unwrap(), is_discovery);
        discoveries += f64::from(u8::from(is_discovery));
    }
    assert!(numbers(&lines, "martingale").iter().all(|log10| log10.is_finite()));
}

fn a_stream_in_two_parts_has_the_lines_of_one(bench: &Bench) {
    let all = bench.paths.join("\n");
    let whole = output({
        let mut command = bench.of_images("-", &["--quiet", "--seed", "4"]);
        command.write_stdin(all.clone());
        command
    });
    assert_eq!(values(&whole).len(), 85);
    assert!(values(&whole)[84]["alarm"].is_boolean());
    let (state, out) = (bench.text("state"), bench.text("out/lines.jsonl"));
    let files = ["--quiet", "--state", &state, "--out", &out, "--state-every", "7"];
    for (part, more) in [(&bench.paths[..33], &["--seed", "4"][..]), (&bench.paths[33..], &[])] {
        bench.of_images("-", &files).args(more).write_stdin(part.join("\n")).assert().success();
    }
    assert_eq!(fs::read_to_string(&out).unwrap(), whole, "paths, then a state, then the other paths");
    // The same images as named data, and the whole input once more with what is answered passed over.
    fs::remove_file(&state).unwrap();
    let named = format!("images:{}", bench.text("known"));
    let first = output(bench.of_images(&named, &["--quiet", "--seed", "4", "--state", &state]));
    let again = output({
        let mut command = bench.of_images("-", &["--quiet", "--state", &state, "--skip-answered"]);
        command.write_stdin(all);
        command
    });
    let without_names = |lines: &str| -> Vec<Value> {
        let mut values = values(lines);
        values.iter_mut().for_each(|value| value["image"] = Value::Null);
        values
    };
    assert_eq!(without_names(&(first + &again)), without_names(&whole));
    // An input that is shorter than what was answered is another one.
    bench
        .of_images("-", &["--quiet", "--state", &state, "--skip-answered"])
        .write_stdin("a\nb\n")
        .assert()
        .code(1)
        .stderr(contains("the input ends after 2 rows, and the state has answered 85"));
}

fn a_line_that_is_no_image_is_answered_by_an_error(bench: &Bench) {
    fs::write(bench.path("broken.png"), b"\x89PNG\r\n\x1a\nand then something else").unwrap();
    let good = &bench.paths[0];
    let lines = [
        good,
        "nothing.png",
        "",
        &bench.text("broken.png"),
        &bench.text("known"),
        &"x".repeat(2 << 20),
        good,
    ];
    let mut command = bench.of_images("-", &["--quiet"]);
    command.write_stdin(lines.join("\n"));
    let lines = values(&output(command));
    assert_eq!(lines.len(), 7);
    let errors =
        ["nothing.png", "an empty line", "broken.png", "a folder where an image", "more than 1048576 bytes"];
    for (row, error) in (1..6).zip(errors) {
        assert_eq!(lines[row]["row"], row);
        assert!(lines[row]["error"].as_str().unwrap().contains(error), "{}", lines[row]);
        assert!(lines[row].get("score").is_none());
    }
    assert_eq!((&lines[6]["row"], &lines[6]["score"]), (&Value::from(6), &lines[0]["score"]));
    // The second test, not the seventh.
    let levels = numbers(&[lines[0].clone(), lines[6].clone()], "level");
    assert!((levels[0] / levels[1] - 2.0).abs() < 1e-12);
}

fn rows_of_features_have_the_answers_of_their_images(bench: &Bench) {
    let cache = bench.text("cache");
    quietly(&[
        "extract",
        "--checkpoint",
        &bench.text("run"),
        "--data",
        KNOWN,
        "--batch-size",
        "1",
        "--out",
        &cache,
    ])
    .assert()
    .success();
    let images = values(&output(bench.of_images(KNOWN, &["--quiet"])));
    let rows = values(&output(bench.monitor(&["--rows", &cache])));
    for key in ["score", "p_value", "level", "martingale"] {
        assert_eq!(numbers(&rows, key), numbers(&images, key), "{key}");
    }
    assert!(rows[0].get("image").is_none());
    let features = residua::features::FeatureSet::open(Path::new(&cache)).unwrap();
    let json = (0..features.len()).map(|row| {
        let mut values = Vec::new();
        features.features().read_f64(row..row + 1, &mut values);
        serde_json::to_string(&values).unwrap()
    });
    let input = json.chain(["[1, 2]".to_string(), "no".into()]).collect::<Vec<_>>().join("\n");
    let head = bench.text("cache/head.npz");
    let mut command = bench.monitor(&["--rows", "-", "--head", &head]);
    let done = command.write_stdin(input).assert().success().stderr(contains("nothing says which network"));
    let lines = values(&String::from_utf8_lossy(&done.get_output().stdout));
    for (line, row) in lines.iter().zip(&rows) {
        let difference = line["score"].as_f64().unwrap() - row["score"].as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "logits of the head, not those of the device");
    }
    for line in &lines[60..] {
        let error = line["error"].as_str().unwrap();
        assert!(
            error.contains(&format!("a JSON array of {} finite numbers", features.dimension())),
            "{error}"
        );
    }
    bench.monitor(&["--rows", "-"]).assert().code(2).stderr(contains("--head"));
}

#[cfg(unix)]
fn a_line_is_answered_before_the_next_one_comes_and_a_signal_keeps_the_state(bench: &Bench) {
    let state = bench.text("signalled");
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_residua"))
        .args([
            "monitor",
            "--thresholds",
            &bench.text("t/thresholds.toml"),
            "--checkpoint",
            &bench.text("run"),
        ])
        .args(["--data", "-", "--device", "cpu", "--quiet", "--state", &state])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = program.stdin.take().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    for row in 0..3 {
        writeln!(input, "{}", bench.paths[row]).unwrap();
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["row"], row);
    }
    // The input stays open: the program waits for a line that does not come.
    let id = program.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let done = program.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(143), "{said}");
    assert!(said.contains("3 rows are answered") && said.contains("goes on with row 3"), "{said}");
    drop(input);
    let mut command = bench.of_images("-", &["--quiet", "--state", &state]);
    command.write_stdin(bench.paths[3].clone());
    assert_eq!(values(&output(command))[0]["row"], 3);
}

#[cfg(not(unix))]
fn a_line_is_answered_before_the_next_one_comes_and_a_signal_keeps_the_state(_: &Bench) {}

fn what_does_not_fit_is_refused(bench: &Bench) {
    let (cache, state) = (bench.text("cache"), bench.text("kept"));
    let rows = |more: &[&str]| {
        let mut command = bench.monitor(&["--rows", &cache, "--quiet"]);
        command.args(more);
        command.assert()
    };
    rows(&["--state", &state]).success();
    rows(&["--state", &state, "--alpha", "0.2"]).code(2).stderr(contains("was begun with 0.05"));
    let whole = fs::read(&state).unwrap();
    fs::write(&state, &whole[..whole.len() - 9]).unwrap();
    rows(&["--state", &state])
        .code(1)
        .stderr(contains("cut off or damaged").and(contains("another --state")));
    assert_eq!(fs::read(&state).unwrap(), whole[..whole.len() - 9], "a state that is refused is left alone");
    fs::write(&state, &whole).unwrap();
    // Thresholds that were chosen anew are others.
    let thresholds = bench.path("t/thresholds.toml");
    let old = fs::read_to_string(&thresholds).unwrap();
    fs::write(&thresholds, format!("{old}\n")).unwrap();
    rows(&["--state", &state]).code(1).stderr(contains("the state of a stream with other thresholds"));
    fs::write(&thresholds, old).unwrap();
    fs::write(bench.path("mine.jsonl"), "mine\n").unwrap();
    rows(&["--out", &bench.text("mine.jsonl")]).code(2).stderr(contains("holds no lines of this stream"));
    assert_eq!(fs::read_to_string(bench.path("mine.jsonl")).unwrap(), "mine\n");
    rows(&["--level", "subclass"]).code(2).stderr(contains("no thresholds of that level; there is class"));
    rows(&["--state", &bench.text("same"), "--out", &bench.text("same")])
        .code(2)
        .stderr(contains("no file of its own"));
    rows(&["--alpha", "0.001"])
        .success()
        .stderr(contains("no discovery is possible: of 120 calibration samples"));
    let meta = bench.path("cache/meta.json");
    let other = fs::read_to_string(&meta).unwrap().replace("\"checkpoint\": \"", "\"checkpoint\": \"0");
    fs::write(meta, other).unwrap();
    rows(&[]).code(1).stderr(contains("extract the rows with that one"));
    bench.monitor(&["--data", "-"]).assert().code(2).stderr(contains("--checkpoint"));
}
