//! What `bench`, `doctor --full` and `benches/gpu.sh` promise: every row of a plan with its floors, comparisons by name, a wrong
//! kernel is found, and the script for the GPU runs from beginning to end without one.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::program;

const TOY: &str = "resnet18-cifar.8.w0.0625";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bench(batch: &str, more: &[&str]) -> Output {
    let mut arguments =
        vec!["bench", "--device", "cpu", "--threads", "1", "--arch", TOY, "--batch-size", batch];
    arguments.extend(["--seconds", "0", "--repeats", "1", "--quiet"]);
    arguments.extend(more);
    program::run(&arguments)
}

#[test]
fn a_step_is_told_call_by_call_those_that_take_most_first() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a.json");
    let run = bench("2", &["--calls", "--out", out.to_str().unwrap()]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let results = read(&out);
    let rows = results["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "whole steps only");
    for row in rows {
        assert!(row["cpu_seconds"].as_f64().unwrap() > 0.0, "{row}");
        let calls = row["calls"].as_array().unwrap();
        let seconds: Vec<f64> = calls.iter().map(|call| call["seconds"].as_f64().unwrap()).collect();
        assert!(seconds.is_sorted_by(|a, b| a >= b) && seconds.iter().all(|&seconds| seconds > 0.0));
        let sum = |key: &str| calls.iter().map(|call| call[key].as_f64().unwrap()).sum::<f64>();
        for key in ["flop", "bytes"] {
            let whole = row[key].as_f64().unwrap();
            assert!((sum(key) - whole).abs() < 1e-9 * whole, "{key}: the calls are the whole step");
        }
        // ResNet-18 has twenty convolutions, which are more than one call each in training.
        assert!(sum("count") > 20.0, "{row}");
        assert!(text(&run.stdout).contains(&format!("{}, call by call", row["name"].as_str().unwrap())));
    }
}

#[test]
fn bench_measures_the_operations_of_a_plan_and_whole_steps_with_their_floors() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a.json");
    let run = bench("2", &["--out", out.to_str().unwrap()]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let results = read(&out);
    let rows = results["rows"].as_array().unwrap();
    // Operations, and what is fused into them.
    let operations = [
        ("conv2d_fprop.", "-statistics.f32"),
        ("conv2d_wgrad.", ".f32"),
        ("batch_norm_reduce.", ".f32"),
        ("sgd.", ".f32"),
        ("conv2d_fprop.", "-bias-residual-relu.f32"),
        ("pool_head.", ".f32"),
    ];
    for (operation, fused) in operations {
        let wanted = |name: &str| name.starts_with(operation) && name.ends_with(fused);
        let row = rows.iter().find(|row| wanted(row["name"].as_str().unwrap()));
        let row = row.unwrap_or_else(|| panic!("no {operation}*{fused}"));
        assert!(
            row["seconds"].as_f64().unwrap() > 0.0 && row["floor_seconds"].as_f64().unwrap() > 0.0,
            "{row}"
        );
        assert!(row["name"].as_str().unwrap().ends_with(".f32"), "{row}");
    }
    for step in ["train", "extract"] {
        let name = format!("{step}.{TOY}.b2.f32");
        assert!(results["summary"][&name]["images_per_second"].as_f64().unwrap() > 0.0);
        assert!(text(&run.stdout).contains(&name));
    }

    // Rows that were not asked for are not missed; those of another shape are.
    let compare =
        |batch| text(&bench(batch, &["--compare", out.to_str().unwrap(), "--only", "pool_head."]).stdout);
    let same = compare("2");
    assert!(same.contains("geometric mean of 1 rows") && !same.contains("only in"), "{same}");
    let other = compare("3");
    assert!(other.contains("only in the earlier run: pool_head.2x"), "{other}");
    assert!(other.contains("only in this run: pool_head.3x"), "{other}");
}

#[test]
fn bench_says_what_is_wrong_with_its_flags() {
    for (arguments, message) in [
        (&["--only", "no-such-row"][..], "no row is called like that"),
        (&["--merge", "/no/such/folder"], "unexpected argument"),
        (&["--arch", "resnet18"], "names no network"),
        (&["--compare", "Cargo.toml"], "the JSON that `residua bench --out` writes"),
    ] {
        let run = bench("2", arguments);
        let shown = text(&run.stderr);
        if message != "unexpected argument" {
            assert!(!run.status.success() && shown.contains(message), "{arguments:?}: {shown}");
        } else {
            assert_eq!(run.status.code(), Some(2), "{shown}");
        }
    }
}

#[test]
fn doctor_finds_the_cpu_right_and_tells_each_error() {
    let run = program::run(&[
        "doctor",
        "--full",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--arch",
        TOY,
        "--batch-size",
        "2",
        "--json",
        "--quiet",
        "--only",
        "*2d*",
    ]);
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
    let checks: Value = serde_json::from_slice(&run.stdout).unwrap();
    let checks = checks[0]["checks"].as_array().unwrap();
    assert!(checks.len() > 80, "{} checks", checks.len());
    for check in checks {
        assert!(check["passed"].as_bool().unwrap() && check["error"].as_f64().unwrap() <= 1e-5, "{check}");
    }
}

#[test]
fn doctor_finds_a_wrong_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/elementwise/pointwise.cu");
    let right = std::fs::read_to_string(kernels).unwrap();
    let wrong = right.replace("return a + b;", "return a - b;");
    assert_ne!(right, wrong, "the planted error must hit the sum of elementwise/pointwise.cu");
    std::fs::create_dir(folder.path().join("elementwise")).unwrap();
    std::fs::write(folder.path().join("elementwise/pointwise.cu"), wrong).unwrap();
    let check = |kernels: &[&str]| {
        let mut arguments =
            vec!["doctor", "--full", "--device", "emulator", "--precision", "f32", "--arch", TOY];
        arguments.extend(["--only", "add.*", "--quiet"]);
        arguments.extend(kernels);
        program::run(&arguments)
    };
    let run = check(&[]);
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
    let run = check(&["--kernels", folder.path().to_str().unwrap()]);
    let shown = text(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{shown}");
    assert!(shown.contains("WRONG") && shown.contains("`y` is off by"), "{shown}");
    assert!(text(&run.stderr).contains("wrong on this device"));
}

#[test]
fn a_card_file_holds_what_was_measured_and_predictions_are_made_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("card.json");
    let (path, emulator) =
        (file.to_str().unwrap(), ["--device", "emulator", "--seconds", "0", "--repeats", "1"]);
    let run = program::run(&[&["bench", "--calibrate", path][..], &emulator].concat());
    let told = text(&run.stderr);
    assert!(run.status.success() && text(&run.stdout).contains("assumed"), "{told}");
    // A hang would have a name, and what came before it would be there.
    for name in ["copy", "read", "cache.40MB", "launch.serial", "wgmma.2x128.consumers-2", "tma.im2col"] {
        let (begins, found) = (format!("calibrating: {name}\n"), format!("calibrating: {name}: "));
        assert!(told.find(&begins).unwrap() < told.find(&found).unwrap(), "{name}: {told}");
    }
    let whole = std::fs::read_to_string(&file).unwrap();
    let calibration = read(&file);
    let (card, measured) = (&calibration["card"], calibration["measurements"].as_array().unwrap());
    let value = |name: &str| {
        let of_name = measured.iter().find(|measurement| measurement["name"] == name);
        of_name.unwrap_or_else(|| panic!("{name}"))["value"].as_f64().unwrap()
    };
    assert_eq!(card["rates"]["bandwidth"], value("copy"));
    assert_eq!(card["read_rate"], value("read"));
    assert_eq!(card["cache_rate"], value("cache.4MB"));
    assert_eq!(
        card["seconds_by_launches"],
        serde_json::json!([value("launch.overlapped"), value("launch.serial")])
    );
    assert_eq!(card["im2col_rate"], value("tma.im2col"));
    assert_eq!(card["wgmma_rates"].as_array().unwrap().len(), 10);
    assert!(card["rates"]["source"].as_str().unwrap().starts_with("25 numbers measured on the emulator"));

    let model = |card: &str, launches: &str| {
        let out = folder.path().join("model.json");
        let run = program::run(&[
            "bench",
            "--model",
            "--card",
            card,
            "--precision",
            "bf16",
            "--arch",
            TOY,
            "--batch-size",
            "4",
            "--launches",
            launches,
            "--out",
            out.to_str().unwrap(),
        ]);
        (run.status.code(), text(&run.stderr), if run.status.success() { read(&out) } else { Value::Null })
    };
    for (launches, name) in [("overlapped", "launch.overlapped"), ("serial", "launch.serial")] {
        let (code, told, predicted) = model(path, launches);
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(predicted["card"]["launch_seconds"], value(name));
        assert_eq!(predicted["card"]["rates"], card["rates"]);
    }
    // A file that was damaged, or is another program's, is refused with what is wrong.
    for (old, new, expected) in [
        ("\"format\": 1", "\"format\": 7", "expected format 1, found format 7"),
        ("\"clock\": ", "\"clock\": -", "`clock` of its card is -"),
        (
            "\"multiprocessors\": 4",
            "\"multiprocessors\": 4000000000",
            "4000000000 SMs; 1 to 4096 are believed",
        ),
        ("\"sm_90a\"", "\"sm_80\"", "of compute capability 9.0, and kernels for sm_80 do not run there"),
        ("\"card\"", "\"cart\"", "the card file that `residua bench --calibrate` writes"),
    ] {
        assert!(whole.contains(old), "{old}");
        std::fs::write(&file, whole.replacen(old, new, 1)).unwrap();
        let (code, told, _) = model(path, "serial");
        assert!(code == Some(1) && told.contains(expected), "{told}");
    }
    // Where there is no time, the card is what is assumed of it, and the file says what is missing.
    let run = program::run(&[&["bench", "--calibrate", path, "--budget", "0"][..], &emulator].concat());
    assert!(run.status.success() && text(&run.stdout).contains("no time left: copy, read, cache.4MB"));
    let cut = read(&file);
    assert_eq!(
        (cut["cut"].as_array().unwrap().len(), cut["measurements"].as_array().unwrap().len()),
        (25, 0)
    );
    assert!(
        cut["card"].get("calibrated").is_none()
            && cut["card"]["rates"]["bandwidth"] != card["rates"]["bandwidth"]
    );
    let run = program::run(&["bench", "--calibrate", path, "--device", "cpu"]);
    assert!(run.status.code() == Some(2) && text(&run.stderr).contains("which the CPU does not run"));
    let (code, told, _) = model("no/such/card.json", "serial");
    assert!(code == Some(1) && told.contains("no/such/card.json"), "{told}");
}

#[test]
fn predictions_are_recorded_and_set_beside_what_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let script = |arguments: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/predictions.py");
        Command::new("python3").arg(script).args(arguments).output()
    };
    if script(&["--help"]).is_err() {
        println!("no python3, so benches/predictions.py was not tried");
        return;
    }
    let (predicted, calibrated, measured, record) =
        (place("predicted.json"), place("calibrated.json"), place("measured.json"), place("record.json"));
    let card = place("card.json");
    let toy = ["--precision", "bf16", "--arch", TOY, "--batch-size", "4"];
    let emulator = ["--device", "emulator", "--seconds", "0", "--repeats", "1"];
    let bench = |flags: &[&str]| {
        let run = program::run(&[&["bench"][..], flags].concat());
        assert!(run.status.success(), "{}", text(&run.stderr));
    };
    bench(&[&["--calibrate", &card][..], &emulator].concat());
    bench(&[&["--model", "--card", "H200", "--out", &predicted][..], &toy].concat());
    bench(&[&["--model", "--card", &card, "--out", &calibrated][..], &toy].concat());
    bench(&[&["--steps", "--calls", "--out", &measured][..], &emulator, &toy].concat());

    let run = script(&["record", &record, &predicted]).unwrap();
    assert!(run.status.success(), "{}", text(&run.stderr));
    // The record has the same numbers, and is read like the file it was made of.
    let (kept, whole) = (read(Path::new(&record)), read(Path::new(&predicted)));
    assert_eq!(
        (&kept["card"], &kept["date"], &kept["program"]),
        (&whole["card"], &whole["date"], &whole["program"])
    );
    assert_eq!(kept["steps"][0]["predicted_seconds"], whole["steps"][0]["predicted_seconds"]);
    let run = script(&["compare", &record, &calibrated, &measured]).unwrap();
    let shown = text(&run.stdout);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(
        shown.contains("| predicted, NVIDIA H200, µs | calibrated, emulator, µs | measured, emulator, µs |"),
        "{shown}"
    );
    let results = read(Path::new(&measured));
    let row = &results["rows"].as_array().unwrap()[0];
    let step = row["name"].as_str().unwrap();
    let line = shown.lines().find(|line| line.starts_with(&format!("| `{step}` |"))).unwrap();
    let cell =
        |number: usize| line.split('|').nth(number).unwrap().trim().replace(',', "").parse::<f64>().unwrap();
    let seconds = |model: &Value| 1e6 * model["steps"][0]["predicted_seconds"].as_f64().unwrap();
    let near = |shown: f64, value: f64| assert!((shown - value).abs() <= 0.01 * value, "{shown} {value}");
    near(cell(2), seconds(&whole));
    near(cell(3), seconds(&read(Path::new(&calibrated))));
    near(cell(4), 1e6 * row["seconds"].as_f64().unwrap());
    // Calls stand beside each other by their names.
    assert!(shown.contains("conv2d_fprop 4x8x8x"), "{shown}");
    let run = script(&["compare", &record]).unwrap();
    assert!(!run.status.success() && text(&run.stderr).contains("no step in common"));
    let run = script(&["compare", &record, &card]).unwrap();
    assert!(
        !run.status.success() && text(&run.stderr).contains("is neither a record"),
        "{}",
        text(&run.stderr)
    );
}

#[test]
fn a_folder_of_kernels_that_nothing_would_read_is_refused_and_what_was_taken_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let right = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/elementwise/pointwise.cu");
    let model = ["bench", "--model", "--device", "cpu", "--card", "A100", "--arch", TOY, "--batch-size", "2"];
    let with = |more: &[&str]| {
        let run = program::run(&[&model[..], more].concat());
        (run.status.code(), text(&run.stdout), text(&run.stderr))
    };
    let (code, _, told) = with(&["--kernels", path]);
    assert!(code == Some(2) && told.contains("holds no kernel source"), "{told}");
    let (code, _, told) = with(&["--kernels", "no/such/folder"]);
    assert!(code == Some(1) && told.contains("no/such/folder"), "{told}");

    std::fs::copy(&right, folder.path().join("pointwize.cu")).unwrap();
    for on in [&["--kernels", path][..], &[]] {
        let mut command = program::residua(["doctor", "--full", "--device", "emulator", "--only", "add.*"]);
        let run = match on {
            [] => command.env("RESIDUA_KERNELS", path),
            flag => command.args(flag),
        };
        let run = run.output().unwrap();
        let told = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{told}");
        assert!(
            told.contains("pointwize.cu") && told.contains("did you mean `elementwise/pointwise.cu`?"),
            "{told}"
        );
    }
    std::fs::remove_file(folder.path().join("pointwize.cu")).unwrap();

    // A model of steps knows no arithmetic, and says so.
    let edited = std::fs::read_to_string(&right).unwrap().replace("return a + b;", "return a - b;");
    std::fs::create_dir(folder.path().join("elementwise")).unwrap();
    std::fs::write(folder.path().join("elementwise/pointwise.cu"), edited).unwrap();
    std::fs::create_dir(folder.path().join("loss")).unwrap();
    let same = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/loss/energy.cu");
    std::fs::copy(same, folder.path().join("loss/energy.cu")).unwrap();
    let (code, shown, told) = with(&["--kernels", path]);
    assert_eq!(code, Some(0), "{told}");
    let taken = "2 files, of which differ from the binary's: elementwise/pointwise.cu";
    assert!(told.contains(taken) && shown.contains(taken), "{told}{shown}");
    assert!(shown.contains("(the model sees"), "{shown}");
    let (_, shown, told) = with(&["--kernels", path, "--quiet", "--json"]);
    let model: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(model["kernels"]["changed"], serde_json::json!(["elementwise/pointwise.cu"]), "{shown}");
    assert!(
        model["kernels_note"].as_str().unwrap().starts_with("the model sees") && told.is_empty(),
        "{told}"
    );

    // The CPU runs no kernels.
    let (code, _) = program::said(&["bench", "--device", "cpu", "--only", "x", "--kernels", path]);
    assert_eq!(code, Some(2));
}

#[test]
fn passes_over_rows_are_checked_and_measured_with_their_floors_work() {
    let emulator = |verb: &[&str]| {
        let run = program::run(&[verb, &["--device", "emulator", "--only", "row_*", "--quiet"]].concat());
        (run.status.code(), text(&run.stdout), text(&run.stderr))
    };
    let doctor = ["doctor", "--full", "--precision", "f32", "--json"];
    let (code, shown, told) = emulator(&doctor);
    assert_eq!(code, Some(0), "{shown}{told}");
    let checks: Value = serde_json::from_str(&shown).unwrap();
    let checks = checks[0]["checks"].as_array().unwrap();
    // Of one class, all are the largest third.
    assert_eq!(checks.len(), 4 * 36 - 1);
    for check in checks {
        let name = check["name"].as_str().unwrap();
        let single = ["row_normalise.", "row_nearest_f32."].iter().any(|start| name.starts_with(start));
        let (precision, limit) = if single { ("f32", 1e-5) } else { ("f64", 1e-12) };
        assert!(check["precision"] == precision && check["error"].as_f64().unwrap() <= limit, "{check}");
    }

    let folder = tempfile::tempdir().unwrap();
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/rows/scores.cu");
    let right = std::fs::read_to_string(kernels).unwrap();
    let wrong = right.replace("store(p.mls + row, largest);", "store(p.mls + row, largest * 1.0000001);");
    assert_ne!(right, wrong, "the planted error must hit the largest logit of rows/scores.cu");
    std::fs::create_dir(folder.path().join("rows")).unwrap();
    std::fs::write(folder.path().join("rows/scores.cu"), wrong).unwrap();
    let (code, shown, _) = emulator(&[&doctor[..], &["--kernels", folder.path().to_str().unwrap()]].concat());
    let checks: Value = serde_json::from_str(&shown).unwrap();
    let wrong = |check: &&Value| !check["passed"].as_bool().unwrap();
    let found: Vec<&Value> = checks[0]["checks"].as_array().unwrap().iter().filter(wrong).collect();
    assert!(code == Some(1) && found.len() == 8, "{found:?}");
    assert!(found.iter().all(|check| check["operand"] == "mls"), "{found:?}");

    let (code, shown, told) = emulator(&["bench", "--seconds", "0", "--repeats", "1", "--json"]);
    assert_eq!(code, Some(0), "{shown}{told}");
    let results: Value = serde_json::from_str(&shown).unwrap();
    let rows = results["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 37);
    assert!(rows.iter().all(|row| row["bytes"].as_f64() > Some(0.0) && row["seconds"].as_f64() > Some(0.0)));
    let named = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(named("row_project.70x33-k5.f64")["flop"], 2.0 * 70.0 * 33.0 * 5.0);
    assert!(named("row_scores.70x33-k5.f64")["flop"].as_f64() > Some(2.0 * 70.0 * 33.0 * 33.0));
}

#[test]
fn the_script_for_the_gpu_runs_dry_from_check_to_merge() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let script = |parts: &[&str]| {
        Command::new("bash")
            .arg(root.join("benches/gpu.sh"))
            .args([env!("CARGO_BIN_EXE_residua").as_ref(), folder.path()])
            .args(parts)
            .env("DEVICE", "emulator")
            .env("NETWORKS", TOY)
            .env("PRECISIONS", "bf16")
            .env("DATA", root.join("tests/fixtures/data/cifar-100-python"))
            .output()
            .unwrap()
    };
    let run = script(&["check", "tune", "model", "ours", "fuse", "train", "merge"]);
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
    let results = read(&folder.path().join("results.json"));
    assert!(results["summary"][format!("train.{TOY}.b2.bf16")]["images_per_second"].as_f64().unwrap() > 0.0);
    assert!(results["first_step_seconds"][format!("warm.train.{TOY}.b2.bf16")].as_f64().unwrap() > 0.0);
    assert!(results["rows"].as_array().unwrap().len() > 30);
    assert!(results["checks"][0][0]["checks"].as_array().unwrap().len() > 100);
    let model = read(&folder.path().join(format!("model-predicted-{TOY}.json")));
    assert_eq!(model["steps"][0]["name"], format!("train.{TOY}.b2.bf16"));
    for fusions in ["none", "masks", "all", "all-serial"] {
        let fused = read(&folder.path().join(format!("fuse-{TOY}-{fusions}.json")));
        assert!(fused["rows"][0]["images_per_second"].as_f64().unwrap() > 0.0, "{fused}");
    }
    let table = std::fs::read_to_string(folder.path().join("kernels.toml")).unwrap();
    assert!(table.contains("weight-gradient") && table.contains("a rehearsal"), "{table}");
    assert_eq!(results["training"][0]["steps"], 1);
    assert_eq!(results["cut"].as_array().unwrap().len(), 0);

    // Called again, a part goes on with what is missing, and here nothing is.
    let shown = text(&script(&["ours"]).stderr);
    assert!(shown.contains("first-step-warm is there already") && !shown.contains("no time left"), "{shown}");
}

#[test]
fn the_script_for_the_gpu_knows_its_parts() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/gpu.sh");
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new("bash")
        .arg(&script)
        .args([env!("CARGO_BIN_EXE_residua").as_ref(), folder.path()])
        .arg("pear")
        .output()
        .unwrap();
    assert!(run.status.code() == Some(2) && text(&run.stderr).contains("no part is called pear"));
    let help = Command::new("bash").arg(&script).output().unwrap();
    assert!(help.status.code() == Some(2) && text(&help.stdout).contains("BUDGET"));
    let first = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/first_contact.sh");
    let help = Command::new("bash").arg(&first).output().unwrap();
    assert!(help.status.code() == Some(2) && text(&help.stdout).contains("KERNEL_CACHE"));
    // With no time at all every part is cut, and says so.
    let binary = env!("CARGO_BIN_EXE_residua");
    let mut cut = Command::new("bash");
    cut.arg(&first).args([binary.as_ref(), folder.path()]).envs([("BUDGET", "0"), ("DEVICE", "emulator")]);
    let log = text(&cut.output().unwrap().stderr);
    assert!(log.matches("cut, no time left").count() >= 6 && log.trim_end().ends_with("done"), "{log}");
}
