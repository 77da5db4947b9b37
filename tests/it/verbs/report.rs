//! The report of a run: what is on the page, and how it behaves in a browser.

use std::fs;
use std::path::{Path, PathBuf};

use residua::features::{Element, NpyArray, write_npz};
use residua::ood::metrics::Curves;
use residua::ood::table::{Entry, Evaluation, Group, IdSet, OodSet};
use residua::report;
use residua::rng::{Purpose, Stream};

use crate::support::browser::{chromium, probe};
use crate::support::program::residua;

/// How far each score's ID and OOD means lie apart, near set and far set.
const SCORES: [(&str, f64, f64); 6] = [
    ("msp", 0.9, 1.4),
    ("mls", 1.0, 1.7),
    ("energy", 1.0, 1.8),
    ("mahalanobis", 0.4, 2.6),
    ("vim", 0.7, 2.4),
    ("neco", 0.8, 2.0),
];

fn normals(stream: u64, n: u64, mean: f64) -> Vec<f64> {
    let stream = Stream::for_purpose(11, Purpose::Synthetic, &[stream]);
    (0..n).map(|i| stream.normal(i) + mean).collect()
}

fn write(path: PathBuf, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A run folder such as a whole experiment leaves behind, filled with made-up numbers.
fn run_folder(root: &Path, near: &str) -> PathBuf {
    let run = root.join("fashion-ood");
    write(
        run.join("recipe.toml"),
        "[train]\ndata = \"fashion-mnist: 8 of 10 classes\"\narch = \"resnet18\"\nepochs = 20\noptimizer = \"sgd\"\n\
         lr = 0.05\nmomentum = 0.9\nweight_decay = 5e-4\nseed = 0\n",
    );
    write(run.join("metrics.jsonl"), training_log());
    write_evaluation(&run, near);
    write_collapse(&run);
    run
}

fn training_log() -> String {
    let mut log = String::new();
    for epoch in 1..=20 {
        let decay = (-f64::from(epoch) / 6.0).exp();
        for (split, floor) in [("train", 0.03), ("test", 0.28)] {
            log += &serde_json::json!({
                "step": epoch * 47, "epoch": epoch, "split": split, "loss": floor + 1.6 * decay,
                "accuracy": 0.99 - 0.3 * floor - 0.5 * decay, "lr": 0.05 * (1.0 - f64::from(epoch) / 20.0),
                "images_per_second": 900.0,
            })
            .to_string();
            log.push('\n');
        }
    }
    log
}

fn write_evaluation(run: &Path, near: &str) {
    let sets = [(near, Group::Near, 1000), ("uci-digits", Group::Far, 1797)];
    let mut evaluation = Evaluation::new(IdSet { samples: 2000, accuracy: Some(0.9135) });
    let column = |values: Vec<f64>| {
        let shape = vec![values.len()];
        NpyArray::from_vec(values, Element::F64, shape)
    };
    let save = |name: &str, arrays: &[(&str, NpyArray)]| {
        let arrays: Vec<(&str, &NpyArray)> = arrays.iter().map(|(name, array)| (*name, array)).collect();
        write_npz(&run.join("ood/scores").join(format!("{name}.npz")), &arrays).unwrap();
    };
    let id: Vec<(&str, Vec<f64>)> =
        SCORES.iter().enumerate().map(|(i, (name, ..))| (*name, normals(i as u64, 2000, 0.0))).collect();
    for (index, (set, group, samples)) in sets.into_iter().enumerate() {
        let mut results = Vec::new();
        let mut arrays = Vec::new();
        for (i, (name, near_gap, far_gap)) in SCORES.iter().enumerate() {
            let gap = if group == Group::Near { near_gap } else { far_gap };
            let ood = normals(100 + (10 * index + i) as u64, samples, -gap);
            let curves = Curves::new(&id[i].1, &ood).unwrap();
            let interval95 = Some(curves.bootstrap(50, 1).unwrap());
            results.push((name.to_string(), Entry { interval95, ..curves.metrics().into() }));
            arrays.push((*name, column(ood)));
        }
        if !set.contains(['<', '/']) {
            save(set, &arrays);
        }
        evaluation.add(OodSet { name: set.to_string(), group: Some(group), samples }, results).unwrap();
    }
    evaluation.sanity.warnings.push("msp: 31 % of the ID scores are tied".to_string());
    let id: Vec<(&str, NpyArray)> = id.into_iter().map(|(name, values)| (name, column(values))).collect();
    save("id", &id);
    evaluation.write_json(&run.join("ood/metrics.json")).unwrap();
}

fn write_collapse(run: &Path) {
    let rows: Vec<serde_json::Value> = (1..=10)
        .map(|k| {
            let left = (-f64::from(k) / 3.0).exp();
            serde_json::json!({
                "checkpoint": format!("epoch_{:04}", 2 * k), "epoch": 2 * k, "nc1": 9.0 * left + 0.2,
                "nc1_cdnv": 0.1, "nc2_equinorm": 0.2 * left + 0.03, "nc2_equiangular": 0.3 * left + 0.02,
                "nc3": 0.9 * left + 0.15, "nc4": 0.1 * left, "nc5": 0.3 * left + 0.09,
            })
        })
        .collect();
    write(run.join("collapse/collapse.json"), serde_json::json!({ "checkpoints": rows }).to_string());
    let classes = 8;
    let noise = normals(77, 64, 0.0);
    let cosine = |cell: usize| {
        let (low, high) = ((cell / 8).min(cell % 8), (cell / 8).max(cell % 8));
        if low == high { 1.0 } else { -1.0 / 7.0 + 0.1 * noise[8 * low + high] }
    };
    let cosines: Vec<f64> = (0..classes * classes).map(cosine).collect();
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    let mut header = "{'descr': '<f8', 'fortran_order': False, 'shape': (8, 8), }".to_string();
    header += &" ".repeat(127 - 10 - header.len());
    header.push('\n');
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    npy.extend(cosines.iter().flat_map(|value| value.to_le_bytes()));
    write(run.join("collapse/cosines.npy"), npy);
}

#[test]
fn a_whole_run_becomes_one_page_that_needs_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let run = run_folder(root.path(), "held-out classes");
    let page = report::build(&run).unwrap();
    assert_eq!(page, run.join("report.html"));
    let html = fs::read_to_string(&page).unwrap();
    for part in
        ["id=\"ood\"", "id=\"training\"", "id=\"collapse\"", "id=\"recipe\"", "91.3 %", "held-out classes"]
    {
        assert!(html.contains(part), "the page lacks {part}");
    }
    for outside in ["http://", "https://", "@import", "url(", " src=", "<link rel=\"stylesheet"] {
        assert!(!html.contains(outside), "the page refers to {outside}");
    }
    assert!(html.len() < 1_500_000, "{} bytes", html.len());
    for name in ["training_loss", "ood_uci-digits_comparison", "ood_held-out_classes_vim", "collapse_nc5"] {
        let svg = run.join("plots").join(format!("{name}.svg"));
        assert!(fs::read_to_string(&svg).unwrap().starts_with("<svg"), "{}", svg.display());
    }
    assert!(!run.join("plots/training_loss.png").exists());
}

#[test]
fn the_page_says_what_a_training_took_explains_its_terms_and_links_its_files() {
    let root = tempfile::tempdir().unwrap();
    let run = run_folder(root.path(), "held-out classes");
    let session = |seconds: f64| {
        serde_json::json!({"program": "residua 0.1.0", "device": "a <fast> card", "precision": "bf16",
            "first_step": 0, "last_step": 1, "seconds": seconds})
    };
    write(
        run.join("run.json"),
        serde_json::json!({ "sessions": [session(100.0), session(25.4)] }).to_string(),
    );
    let html = fs::read_to_string(report::build(&run).unwrap()).unwrap();
    for fact in [
        "<dt>device</dt><dd>a &lt;fast&gt; card</dd>",
        "<dt>precision</dt><dd>bf16</dd>",
        "<dt>training</dt><dd>2 min 5 s</dd>",
        "<dt>images/s</dt><dd>900</dd>",
        "<dt>program</dt><dd>residua 0.1.0</dd>",
    ] {
        let fact = fact.replace("s/s", "s&#x2f;s");
        assert!(html.contains(&fact) || html.contains(&fact.replace("&#x2f;", "/")), "the page lacks {fact}");
    }
    for term in ["AUROC", "FPR95 (ID positive)", "AUPR-in, AUPR-out", "NC5", "vim", "neco", "95 % interval"] {
        assert!(html.contains(&format!("<dt>{term}</dt>")), "{term} is not explained");
    }
    for absent in ["ECE", "knn", "p-value", "youden"] {
        assert!(!html.contains(&format!("<dt>{absent}</dt>")), "{absent} is explained and not there");
    }
    for link in
        ["metrics.jsonl", "run.json", "ood/metrics.json", "ood/scores/held-out%20classes.npz", "plots"]
    {
        assert!(html.contains(&format!("href=\"{link}\"")), "no link to {link}");
        let path = run.join(link.replace("%20", " "));
        assert!(path.exists(), "{} is linked and not there", path.display());
    }
    write(run.join("run.json"), "{\"sessions\": [1]}");
    let message = report::build(&run).unwrap_err().to_string();
    assert!(message.contains("run.json line 1"), "{message}");
}

#[test]
fn the_page_is_the_same_however_often_it_is_built() {
    let root = tempfile::tempdir().unwrap();
    let run = run_folder(root.path(), "near");
    let first = fs::read(report::build(&run).unwrap()).unwrap();
    let second = fs::read(report::build(&run).unwrap()).unwrap();
    assert!(first == second, "building twice gave different pages");
}

#[test]
fn names_from_files_stay_text() {
    let root = tempfile::tempdir().unwrap();
    let run = run_folder(root.path(), "near");
    let hostile = "<img src=x onerror=alert(1)>\u{1b}[31m\u{202e}";
    write(run.join("recipe.toml"), format!("[train]\ndata = '''{}'''\n", hostile.replace('\u{1b}', "")));
    let json = fs::read_to_string(run.join("ood/metrics.json")).unwrap();
    let quoted = serde_json::to_string(hostile).unwrap();
    write(run.join("ood/metrics.json"), json.replace("\"msp\"", &quoted));
    let html = fs::read_to_string(report::build(&run).unwrap()).unwrap();
    assert!(!html.contains("<img") && html.contains("&lt;img"));
    assert!(!html.contains(['\u{1b}', '\u{202e}']));
}

#[test]
fn parts_that_are_missing_are_left_out() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("only-training");
    write(run.join("metrics.jsonl"), training_log());
    let html = fs::read_to_string(report::build(&run).unwrap()).unwrap();
    assert!(
        html.contains("id=\"training\"") && !html.contains("id=\"ood\"") && !html.contains("id=\"collapse\"")
    );

    let whole = run_folder(root.path(), "near");
    fs::remove_dir_all(whole.join("ood/scores")).unwrap();
    let html = fs::read_to_string(report::build(&whole).unwrap()).unwrap();
    assert!(html.contains("id=\"ood\"") && !html.contains("side by side"));
}

#[test]
fn a_folder_with_nothing_to_report_says_what_it_looked_for() {
    let root = tempfile::tempdir().unwrap();
    let message = report::build(root.path()).unwrap_err().to_string();
    assert!(message.contains("metrics.jsonl") && message.contains("is it the folder of a run?"), "{message}");
    let message = report::build(&root.path().join("absent")).unwrap_err().to_string();
    assert!(message.contains("is not a folder"), "{message}");
}

#[test]
fn a_damaged_file_is_named_and_the_old_page_survives() {
    let cases: [(&str, &[u8], &str); 9] = [
        ("recipe.toml", b"[train]\nepochs = = 2", "recipe.toml line 2"),
        ("metrics.jsonl", b"{\"epoch\": 1, \"split\": \"train\"}\n{\"epoch\": ", "metrics.jsonl line 2"),
        ("ood/metrics.json", b"{\"ood\": 3}", "metrics.json line 1"),
        ("collapse/collapse.json", b"{\"checkpoints\": {}}", "collapse.json line 1"),
        ("collapse/collapse.json", b"\xff\xfe", "collapse.json"),
        ("collapse/cosines.npy", b"\x93NUMPY\x01\x00\xff", "cosines.npy"),
        ("ood/scores/id.npz", b"PK\x03\x04 no archive", "id.npz"),
        ("ood/scores/uci-digits.npz", b"", "uci-digits.npz"),
        ("metrics.jsonl", b"[1, 2]", "metrics.jsonl line 1"),
    ];
    for (name, bytes, expected) in cases {
        let root = tempfile::tempdir().unwrap();
        let run = run_folder(root.path(), "near");
        write(run.join("report.html"), "the old page");
        write(run.join(name), bytes);
        let message = report::build(&run).unwrap_err().to_string();
        assert!(message.contains(expected), "{name}: {message}");
        assert_eq!(fs::read_to_string(run.join("report.html")).unwrap(), "the old page");
    }
}

#[test]
fn a_data_set_cannot_name_a_file_outside_the_run() {
    for name in ["../../secret", "/etc/passwd", "..", "a\\b"] {
        let root = tempfile::tempdir().unwrap();
        let run = run_folder(root.path(), "near");
        let json = fs::read_to_string(run.join("ood/metrics.json")).unwrap();
        let quoted = serde_json::to_string(name).unwrap();
        write(
            run.join("ood/metrics.json"),
            json.replace("\"near\"", &quoted).replace(&format!("\"group\": {quoted}"), "\"group\": \"near\""),
        );
        let message = report::build(&run).unwrap_err().to_string();
        assert!(message.contains("names that can be file names"), "{message}");
    }
}

#[test]
fn stored_scores_that_contradict_the_metrics_are_reported() {
    let root = tempfile::tempdir().unwrap();
    let run = run_folder(root.path(), "near");
    let mut evaluation = Evaluation::read_json(&run.join("ood/metrics.json")).unwrap();
    evaluation.ood.get_mut("near").unwrap().get_mut("vim").unwrap().metrics.auroc = 0.999;
    evaluation.write_json(&run.join("ood/metrics.json")).unwrap();
    let html = fs::read_to_string(report::build(&run).unwrap()).unwrap();
    assert!(html.contains("metrics.json says 99.9 %"));
}

#[test]
fn scores_exported_as_novelties_are_drawn_as_confidences() {
    let root = tempfile::tempdir().unwrap();
    let run = run_folder(root.path(), "near");
    report::build(&run).unwrap();
    let confidences = fs::read_to_string(run.join("plots/ood_near_vim.svg")).unwrap();
    for (file, stream, n, mean) in [("id", 4, 2000, 0.0), ("near", 104, 1000, -0.7)] {
        let values: Vec<f64> = normals(stream, n, mean).into_iter().map(|score| -score).collect();
        let vim = NpyArray::from_vec(values, Element::F64, vec![n as usize]);
        write_npz(&run.join(format!("ood/scores/{file}.npz")), &[("vim", &vim)]).unwrap();
    }
    fs::remove_file(run.join("ood/scores/uci-digits.npz")).unwrap();
    let html = fs::read_to_string(report::build(&run).unwrap()).unwrap();
    assert!(!html.contains("run `residua ood` again"), "the same scores, only reversed");
    assert_eq!(fs::read_to_string(run.join("plots/ood_near_vim.svg")).unwrap(), confidences);
}

#[test]
fn the_verb_prints_the_page_and_writes_png_on_request() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    write(run.join("metrics.jsonl"), training_log());
    let output = residua(["report", "--png"]).arg(&run).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), run.join("report.html").display().to_string());
    let png = image::open(run.join("plots/training_loss.png")).unwrap();
    assert_eq!((png.width(), png.height()), (800, 620));
    let failed = residua(["report", "nowhere"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).starts_with("error: nowhere is not a folder"));
}

/// Opens everything, sorts, measures.
const PROBE: &str = "(() => { \
    document.querySelectorAll('details').forEach((part) => (part.open = true)); \
    const table = document.querySelector('#ood table.wide'); \
    const column = (n) => [...table.tBodies[0].rows].map((row) => row.cells[n].textContent); \
    const press = (n) => table.querySelectorAll('th')[n].querySelector('button').click(); \
    press(2); const down = column(2); const state = table.querySelectorAll('th')[2].getAttribute('aria-sort'); \
    press(2); const up = column(2); press(1); const names = column(1); \
    const curve = document.querySelector('svg.figure polyline[stroke=\"#0B66B0\"]'); \
    done({ down, up, names, state, \
        buttons: document.querySelectorAll('th button').length, headings: document.querySelectorAll('table.sortable th').length, \
        figures: document.querySelectorAll('svg.figure').length, \
        tiny: [...document.querySelectorAll('.figures svg.figure')].filter((f) => f.getBoundingClientRect().height < 150).length, \
        stretched: [...document.querySelectorAll('.cards, .figures')].filter((grid) => { \
            const widths = [...grid.children].map((child) => child.getBoundingClientRect().width); \
            return Math.max(...widths) - Math.min(...widths) > 2 || Math.max(...widths) > 620; }).length, \
        stroke: getComputedStyle(curve).stroke, paper: getComputedStyle(document.body).backgroundColor }); })();";

#[test]
fn the_page_works_in_a_browser_wide_and_narrow_light_and_dark() {
    let Some(browser) = chromium() else {
        println!("skipped: no Chromium on this machine (set CHROME to the path of one)");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let run = run_folder(root.path(), "near-held-out-classes-with-a-long-name-that-must-not-widen-the-page");
    let page = report::build(&run).unwrap();
    for (width, dark) in [(1280, false), (390, true), (390, false)] {
        let Some(result) = probe(&browser, &page, PROBE, width, dark) else { return };
        check_in_browser(&result, width, dark);
    }
}

fn check_in_browser(result: &serde_json::Value, width: u32, dark: bool) {
    let at = format!("{width} pixels, dark {dark}");
    assert_eq!(result["problems"], serde_json::json!([]), "{at}");
    let (inner, scroll) = (result["inner"].as_u64().unwrap(), result["scroll"].as_u64().unwrap());
    assert!(
        inner <= u64::from(width) && scroll <= inner,
        "{at}: {scroll} pixels wide in a window of {inner}"
    );
    let texts = |key: &str| -> Vec<String> {
        result[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
    };
    let numbers = |key: &str| -> Vec<f64> { texts(key).iter().map(|text| text.parse().unwrap()).collect() };
    let (down, up, names) = (numbers("down"), numbers("up"), texts("names"));
    assert_eq!(down.len(), 2 * SCORES.len(), "{at}");
    assert!(down.is_sorted_by(|a, b| a >= b) && down[0] > down[11], "{at}: {down:?}");
    assert!(up.is_sorted() && names.is_sorted() && result["state"] == "descending", "{at}: {up:?} {names:?}");
    // Every heading but that of the interval sorts, in all tables.
    assert_eq!(result["buttons"].as_u64().unwrap() + 1, result["headings"].as_u64().unwrap(), "{at}");
    // Training 3, collapse 5 + 2, and for each of two sets 4 + 4 a score.
    assert_eq!(result["figures"], 10 + 2 * (4 + 4 * SCORES.len()), "{at}");
    assert_eq!(result["tiny"], 0, "{at}: figures too small to read");
    assert_eq!(result["stretched"], 0, "{at}: a card or a figure is wider than the others beside it");
    let (stroke, paper) = if dark {
        ("rgb(95, 178, 242)", "rgb(14, 17, 21)")
    } else {
        ("rgb(11, 102, 176)", "rgb(245, 246, 248)")
    };
    assert_eq!((result["stroke"].as_str(), result["paper"].as_str()), (Some(stroke), Some(paper)), "{at}");
}

#[test]
fn what_ood_and_collapse_wrote_alone_becomes_a_page() {
    let root = tempfile::tempdir().unwrap();
    let run = run_folder(root.path(), "near");
    for (part, section, other) in
        [("ood", "id=\"ood\"", "id=\"collapse\""), ("collapse", "id=\"collapse\"", "id=\"ood\"")]
    {
        let html = fs::read_to_string(report::build(&run.join(part)).unwrap()).unwrap();
        assert!(html.contains(section) && !html.contains(other), "{part}");
    }
    let html = fs::read_to_string(run.join("ood/report.html")).unwrap();
    assert!(html.contains("side by side"), "the scores beside it are drawn");
}

#[test]
fn warnings_and_facts_are_shown_whole_however_long() {
    let root = tempfile::tempdir().unwrap();
    let run = run_folder(root.path(), "near");
    let warning = format!("near: {} and this is what to do about it", "a long story, ".repeat(30));
    let data = format!("csv:{}train.csv?labels=both", "a/long/path/".repeat(20));
    let mut evaluation = Evaluation::read_json(&run.join("ood/metrics.json")).unwrap();
    evaluation.sanity.warnings.push(warning.clone());
    evaluation.write_json(&run.join("ood/metrics.json")).unwrap();
    write(run.join("recipe.toml"), format!("[train]\ndata = \"{data}\"\n"));
    let html = fs::read_to_string(report::build(&run).unwrap()).unwrap();
    assert!(html.contains(&warning), "the warning is cut");
    assert!(html.contains(&format!("<dd>{}</dd>", data.replace('/', "&#x2f;"))), "the data's name is cut");
}
