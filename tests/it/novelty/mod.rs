//! `calibrate` and `predict` from the command line: what they write, what they print, what they refuse.

mod recipe;

use std::fs;
use std::path::{Path, PathBuf};

use predicates::prelude::*;
use predicates::str::contains;
use residua::checkpoint::{self, HeadClasses};
use residua::data::{Level, Taxonomy};
use residua::novelty::ThresholdFile;
use residua::rng::{Purpose, Stream};
use tempfile::TempDir;

use crate::support::program::residua;

const COLOURS: [[u8; 3]; 5] = [[170, 60, 60], [60, 170, 60], [60, 60, 170], [130, 130, 60], [60, 130, 130]];

/// A noisy image of a class's colour.
fn pixels(class: usize, number: u64) -> Vec<u8> {
    let stream = Stream::for_purpose(12, Purpose::Synthetic, &[class as u64, number]);
    (0..32 * 32 * 3).map(|i| COLOURS[class][i % 3] + stream.below(i as u64, 80) as u8).collect()
}

fn write_png(path: &Path, class: usize, number: u64) {
    image::RgbImage::from_raw(32, 32, pixels(class, number)).unwrap().save(path).unwrap();
}

/// CIFAR-10 files of classes 0 to 2 to train on.
fn write_training_data(folder: &Path) {
    fs::create_dir(folder).unwrap();
    for file in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
    {
        let mut bytes = Vec::new();
        for number in 0..12u64 {
            let class = (number % 3) as usize;
            let rgb = pixels(
                class,
                1000 * file.len() as u64 + u64::from(file.as_bytes()[file.len() - 1]) * 100 + number,
            );
            bytes.push(class as u8);
            (0..3).for_each(|channel| bytes.extend(rgb.iter().skip(channel).step_by(3)));
        }
        fs::write(folder.join(file).with_extension("bin"), bytes).unwrap();
    }
}

fn quietly(arguments: &[&str]) -> assert_cmd::assert::Assert {
    residua(arguments).args(["--device", "cpu", "--quiet"]).assert()
}

/// Trained networks and data, made once for all tests.
struct Bench {
    folder: TempDir,
}

impl Bench {
    /// Two networks (seeds 1 and 2), tables with both levels of seen samples, novel images.
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench { folder };
        write_training_data(&bench.path("cifar"));
        let data = format!("cifar10:{}", bench.text("cifar"));
        for seed in ["1", "2"] {
            let out = bench.text(&format!("run{seed}"));
            quietly(&[
                "train",
                "--data",
                &data,
                "--arch",
                "resnet20",
                "--width",
                "0.25",
                "--epochs",
                "4",
                "--batch-size",
                "12",
                "--lr",
                "0.05",
                "--seed",
                seed,
                "--out",
                &out,
            ])
            .success();
        }
        bench.declare("run1", "super", Level::Coarse);
        bench.declare("run2", "sub", Level::Fine);
        bench.write_table("seen", &[0, 1, 2], 60);
        bench.write_table("report", &[0, 1, 2], 30);
        for (name, class, count) in [("novel", 3, 20), ("other", 4, 11)] {
            fs::create_dir(bench.path(name)).unwrap();
            (0..count)
                .for_each(|number| write_png(&bench.path(name).join(format!("{number}.png")), class, number));
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Copies a run's last checkpoint, with logits that mean classes of one of two levels: the subclasses have even
    /// indices in the files, and each is of the superclass of its own number.
    fn declare(&self, run: &str, name: &str, level: Level) {
        let names = |prefix: &str, count: usize| -> Vec<String> {
            (0..count)
                .map(|class| if class == count - 1 { "novel".into() } else { format!("{prefix}{class}") })
                .collect()
        };
        let taxonomy = Taxonomy {
            superclasses: names("super", 11),
            subclasses: names("sub", 21),
            parents: (0..21).map(|class| (class < 20).then_some(class / 2)).collect(),
        };
        let mut saved = checkpoint::load(&self.path(run)).unwrap();
        let step = if level == Level::Fine { 2 } else { 1 };
        let indices: Vec<i64> = (0..10).map(|class| class * step).collect();
        let classes = indices.iter().map(|index| taxonomy.names(level)[*index as usize].clone()).collect();
        saved.meta.heads = vec![HeadClasses { level: Some(level), indices, ..HeadClasses::single(classes) }];
        // Of the superclass model, the data that it is calibrated on has to say which class is novel.
        saved.meta.taxonomy = (level == Level::Fine).then_some(taxonomy);
        checkpoint::save(&self.path(name), &saved).unwrap();
    }

    /// A folder with a table of images, their mappings, and the images, numbered so that the order of names as text is
    /// another one. Class 10 is the one named `novel`.
    fn write_table(&self, name: &str, classes: &[usize], count: u64) {
        let folder = self.path(name);
        fs::create_dir_all(folder.join("images")).unwrap();
        let mut table = "image,superclass_index,subclass_index\n".to_string();
        for number in 0..count {
            let class = classes[number as usize % classes.len()];
            table += &format!("{number}.png,{class},{}\n", 2 * class);
            let colour = class.min(3);
            write_png(&folder.join(format!("images/{number}.png")), colour, 7000 + number * 13 + count);
        }
        let mapping = |prefix: &str, count: usize| -> String {
            let row = |class: usize| match class + 1 == count {
                true => format!("{class},novel\n"),
                false => format!("{class},{prefix}{class}\n"),
            };
            "index,class\n".to_string() + &(0..count).map(row).collect::<String>()
        };
        fs::write(folder.join("table.csv"), table).unwrap();
        fs::write(folder.join("superclass_mapping.csv"), mapping("super", 11)).unwrap();
        fs::write(folder.join("subclass_mapping.csv"), mapping("sub", 21)).unwrap();
    }

    fn table(&self, name: &str) -> String {
        format!(
            "csv:{},images={}?labels=both",
            self.text(&format!("{name}/table.csv")),
            self.text(&format!("{name}/images"))
        )
    }

    fn images(&self, name: &str) -> String {
        format!("images:{}", self.text(name))
    }

    /// `calibrate` of both models.
    fn calibrate(&self, out: &str, more: &[&str]) -> assert_cmd::assert::Assert {
        let (coarse, fine, seen) = (self.text("super"), self.text("sub"), self.table("seen"));
        let (novel, out) = (self.images("novel"), self.text(out));
        let mut arguments = vec![
            "calibrate",
            "--checkpoint",
            &coarse,
            "--checkpoint",
            &fine,
            "--seen",
            &seen,
            "--novel",
            &novel,
        ];
        arguments.extend(["--out", &out]);
        arguments.extend(more);
        quietly(&arguments)
    }

    /// `predict` of both models, as rows of the CSV.
    fn predict(&self, thresholds: &str, data: &str, more: &[&str]) -> Vec<Vec<String>> {
        let (coarse, fine, out) = (self.text("super"), self.text("sub"), self.text("p.csv"));
        let thresholds = self.text(thresholds);
        let mut arguments =
            vec!["predict", "--checkpoint", &fine, "--checkpoint", &coarse, "--thresholds", &thresholds];
        arguments.extend(["--data", data, "--out", &out]);
        arguments.extend(more);
        quietly(&arguments).success();
        rows(&self.path("p.csv"))
    }
}

fn rows(csv: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(csv).unwrap();
    text.lines().map(|line| line.split(',').map(str::to_string).collect()).collect()
}

/// Everything on one set of trained networks: training them is what takes time.
#[test]
fn thresholds_are_calibrated_reported_and_used() {
    let bench = Bench::new();
    calibration_prints_and_writes_everything(&bench);
    predictions_come_in_numeric_order_with_the_files_own_indices(&bench);
    a_novel_superclass_has_a_novel_subclass(&bench);
    p_values_and_false_discovery_rate(&bench);
    a_fitted_score_keeps_its_fit_beside_the_thresholds(&bench);
    one_network_without_levels(&bench);
    two_heads_that_were_trained_on_outliers(&bench);
    what_does_not_fit_is_refused(&bench);
    images_of_one_name_in_two_folders_stay_apart(&bench);
    each_head_has_its_own_novel_samples(&bench);
    a_table_of_superclasses_needs_no_row_of_novel(&bench);
}

fn images_of_one_name_in_two_folders_stay_apart(bench: &Bench) {
    for (folder, class) in [("left", 0), ("right", 1)] {
        let folder = bench.path("twice").join(folder);
        fs::create_dir_all(&folder).unwrap();
        write_png(&folder.join("0.png"), class, 77);
    }
    let data = bench.images("twice");
    let table = bench.predict("none.toml", &data, &[]);
    assert_eq!([&table[1][0], &table[2][0]], ["left/0.png", "right/0.png"]);
    let (coarse, fine) = (bench.text("super"), bench.text("sub"));
    let (thresholds, out) = (bench.text("none.toml"), bench.text("twice.csv"));
    quietly(&["predict", "--checkpoint", &fine, "--checkpoint", &coarse, "--thresholds", &thresholds])
        .code(2)
        .stderr(contains("--data"));
    residua(["predict", "--checkpoint", &fine, "--checkpoint", &coarse, "--thresholds", &thresholds])
        .args(["--data", &data, "--out", &out, "--names", "bare", "--device", "cpu", "--quiet"])
        .assert()
        .code(1)
        .stderr(contains("two images are called `0.png`").and(contains("`left/0.png` and `right/0.png`")));
    // An image that cannot be read has no row where it may be left out.
    fs::write(bench.path("twice/left/1.tif"), b"II*\0").unwrap();
    residua(["predict", "--checkpoint", &fine, "--checkpoint", &coarse, "--thresholds", &thresholds])
        .args(["--data", &data, "--out", &out, "--device", "cpu", "--quiet"])
        .assert()
        .code(1)
        .stderr(contains("1 of 3 images are of kinds that are not decoded (1 TIFF)"));
    assert_eq!(bench.predict("none.toml", &data, &["--skip-unreadable"]), table);
}

fn each_head_has_its_own_novel_samples(bench: &Bench) {
    // Subclasses with odd numbers were held out; their superclasses are known. Class 10 is of no superclass.
    bench.write_table("held", &[0, 1, 2], 12);
    let rows = |more: &str| {
        let held: String = (0..12).map(|i| format!("{i}.png,{},{}\n", i % 3, 2 * (i % 3) + 1)).collect();
        fs::write(
            bench.path("held/table.csv"),
            format!("image,superclass_index,subclass_index\n{held}{more}"),
        )
        .unwrap();
    };
    rows("");
    let (held, other) = (bench.table("held"), bench.images("other"));
    let counts = |out: &str| {
        let file = ThresholdFile::read(&bench.path(out)).unwrap();
        file.levels.iter().map(|entry| entry.threshold.novel).collect::<Vec<u64>>()
    };
    bench
        .calibrate("own.toml", &["--novel", &held, "--rule", "youden"])
        .code(2)
        .stderr(contains("none that are novel to the superclass head").and(contains("--novel-superclass")));
    bench
        .calibrate("own.toml", &["--novel", &held, "--novel-superclass", &other, "--rule", "youden"])
        .success()
        .stdout(contains("superclass: msp").and(contains("by youden")));
    assert_eq!(counts("own.toml"), [11, 12]);
    // A report of both: each head's figures are of its own novel samples.
    let report = bench.table("report");
    let novel = bench.images("novel");
    bench
        .calibrate(
            "own.toml",
            &[
                "--novel",
                &held,
                "--novel-superclass",
                &other,
                "--rule",
                "youden",
                "--report-seen",
                &report,
                "--report-novel-superclass",
                &novel,
            ],
        )
        .success();
    let file = ThresholdFile::read(&bench.path("own.toml")).unwrap();
    let caught: Vec<Option<u64>> =
        file.levels.iter().map(|entry| entry.reported.unwrap().caught_novel.map(|rate| rate.of)).collect();
    assert_eq!(caught, [Some(20), None]);
    // One table does it as well.
    for number in 12..17 {
        write_png(&bench.path(&format!("held/images/{number}.png")), 4, number);
    }
    rows(&(12..17).map(|i| format!("{i}.png,10,20\n")).collect::<String>());
    bench.calibrate("own.toml", &["--novel", &held, "--rule", "youden"]).success();
    assert_eq!(counts("own.toml"), [5, 17]);
    let (run, seen, out) =
        (bench.text("run1"), format!("cifar10:{}", bench.text("cifar")), bench.text("x.toml"));
    quietly(&[
        "calibrate",
        "--checkpoint",
        &run,
        "--seen",
        &seen,
        "--novel-superclass",
        &other,
        "--out",
        &out,
    ])
    .code(2)
    .stderr(contains("is for a superclass head; there is only class"));
}

fn a_table_of_superclasses_needs_no_row_of_novel(bench: &Bench) {
    let only = |name: &str| bench.table(name).replace("labels=both", "labels=superclass");
    let (data, seen, run) = (only("train"), only("seen"), bench.text("coarse"));
    let mut arguments =
        vec!["train", "--data", &data, "--out", &run, "--arch", "resnet20", "--width", "0.25"];
    arguments.extend(["--epochs", "4", "--batch-size", "10", "--lr", "0.05", "--normalize", "cifar10"]);
    quietly(&arguments).success();
    let (other, out) = (bench.images("other"), bench.text("coarse.toml"));
    let novel = ["--novel", &other, "--rule", "youden", "--out", &out];
    quietly(&["calibrate", "--checkpoint", &run, "--seen", &seen]).code(2);
    residua(["calibrate", "--checkpoint", &run, "--seen", &seen, "--device", "cpu", "--quiet"])
        .args(novel)
        .assert()
        .success();
    let file = ThresholdFile::read(&bench.path("coarse.toml")).unwrap();
    let [level] = file.levels.as_slice() else { panic!("one level") };
    assert_eq!((level.name(), level.threshold.seen, level.threshold.novel), ("superclass", 60, 11));
    assert_eq!((level.novel_index, level.classes.indices.clone()), (10, vec![0, 1, 2, 10]));
}

fn calibration_prints_and_writes_everything(bench: &Bench) {
    let (report, other) = (bench.table("report"), bench.images("other"));
    let more = [
        "--report-seen",
        &report,
        "--report-novel",
        &other,
        "--rule",
        "youden",
        "--rule",
        "superclass=conformal:0.1",
        "--score",
        "subclass=energy",
        "--temperature",
        "superclass=1.5",
    ];
    bench
        .calibrate("both/thresholds.toml", &more)
        .success()
        .stdout(contains("superclass: msp at temperature 1.5, by conformal:0.1"))
        .stdout(contains("subclass: energy at temperature 1, by youden"))
        .stdout(contains("flagged with probability at most 0.1"))
        .stdout(contains("p99"))
        .stdout(contains("samples answered as novel, report split"));
    let file = ThresholdFile::read(&bench.path("both/thresholds.toml")).unwrap();
    let [coarse, fine] = file.levels.as_slice() else { panic!("two levels") };
    assert_eq!((coarse.threshold.seen, coarse.threshold.novel, coarse.novel_index), (60, 20, 10));
    assert_eq!((fine.novel_index, fine.parents[3]), (20, 3));
    let reported = fine.reported.unwrap();
    assert_eq!((reported.false_novel.unwrap().of, reported.caught_novel.unwrap().of), (30, 11));
    for figure in
        ["superclass_msp_thresholds", "superclass_msp_thresholds_logit", "subclass_energy_thresholds"]
    {
        assert!(bench.path("both/plots").join(figure).with_extension("svg").is_file(), "{figure}");
    }
    // An energy is no probability and has no logit axis.
    assert!(!bench.path("both/plots/subclass_energy_thresholds_logit.svg").exists());
    let text = fs::read_to_string(bench.path("both/dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let row = |metric: &str| {
        let rows = dashboard["rows"].as_array().unwrap();
        rows.iter().find(|row| row["metric"] == metric && row["head"] != "superclass").unwrap().clone()
    };
    assert_eq!(row("tau_subclass")["value"].as_f64(), Some(fine.threshold.tau));
    assert_eq!(row("pseudo_novel_flagged")["value"].as_f64(), Some(reported.caught_novel.unwrap().rate));
    assert_eq!(row("false_novel_rate")["split"], "report");
    assert!(bench.path("both/dashboard.csv").is_file());
    // Without a report split the rates flatter, and the command says so.
    bench.calibrate("plain.toml", &[]).success().stdout(contains("flatters them"));
}

fn predictions_come_in_numeric_order_with_the_files_own_indices(bench: &Bench) {
    // Nothing is below a probability of 0, everything below 2.
    bench.calibrate("none.toml", &["--rule", "tau:0"]).success();
    bench.calibrate("all.toml", &["--rule", "tau:2"]).success();
    let images = bench.images("report/images");
    let none = bench.predict("none.toml", &images, &[]);
    // Notebook A, trap A22: rows in the order of the numbers in the files' names, three columns.
    assert_eq!(none[0], ["image", "superclass_index", "subclass_index"]);
    let names: Vec<String> = none[1..].iter().map(|row| row[0].clone()).collect();
    assert_eq!(names, (0..30).map(|number| format!("{number}.png")).collect::<Vec<_>>());
    assert!(none[1..].iter().all(|row| row[2].parse::<i64>().unwrap() % 2 == 0 && row[1] != "10"));
    let right =
        none[1..].iter().zip(0..).filter(|(row, number)| row[2] == (2 * (number % 3)).to_string()).count();
    assert!(right >= 20, "{right} of 30 subclasses right");
    let all = bench.predict("all.toml", &images, &[]);
    assert!(all[1..].iter().all(|row| row[1] == "10" && row[2] == "20"));
    // A zip of the same images, one image, and the table give the same rows.
    let zip = bench.path("images.zip");
    let mut archive = zip::ZipWriter::new(fs::File::create(&zip).unwrap());
    for number in 0..30 {
        archive.start_file(format!("deep/{number}.png"), zip::write::SimpleFileOptions::default()).unwrap();
        let bytes = fs::read(bench.path(&format!("report/images/{number}.png"))).unwrap();
        std::io::Write::write_all(&mut archive, &bytes).unwrap();
    }
    archive.finish().unwrap();
    let zip = bench.images("images.zip");
    assert_eq!(bench.predict("none.toml", &zip, &["--names", "bare"]), none);
    let names: Vec<String> =
        bench.predict("none.toml", &zip, &[])[1..].iter().map(|row| row[0].clone()).collect();
    assert_eq!(names, (0..30).map(|number| format!("deep/{number}.png")).collect::<Vec<_>>());
    assert_eq!(bench.predict("none.toml", &bench.table("report"), &[]), none);
    assert_eq!(bench.predict("none.toml", &bench.images("report/images/7.png"), &[])[1], none[8]);
}

fn a_novel_superclass_has_a_novel_subclass(bench: &Bench) {
    // Notebook A, trap A19, from the command line: the superclass model flags everything, the subclass model nothing.
    let rules = ["--rule", "superclass=tau:2", "--rule", "subclass=tau:0"];
    let data = bench.images("novel");
    bench.calibrate("independent.toml", &rules).success();
    assert!(
        bench.predict("independent.toml", &data, &[])[1..].iter().all(|row| row[1] == "10" && row[2] != "20")
    );
    for hierarchy in ["mask", "joint"] {
        bench.calibrate("tied.toml", &[&rules[..], &["--hierarchy", hierarchy]].concat()).success();
        assert!(
            bench.predict("tied.toml", &data, &[])[1..].iter().all(|row| row[1] == "10" && row[2] == "20")
        );
        // Where nothing is flagged, the subclass is of the superclass.
        bench.calibrate("tied.toml", &["--rule", "tau:0", "--hierarchy", hierarchy]).success();
        for row in &bench.predict("tied.toml", &data, &[])[1..] {
            assert_eq!(2 * row[1].parse::<i64>().unwrap(), row[2].parse::<i64>().unwrap(), "{hierarchy}");
        }
    }
}

fn p_values_and_false_discovery_rate(bench: &Bench) {
    let table = bench.predict("none.toml", &bench.images("novel"), &["--with-scores", "--p-values"]);
    let titles = [
        "image",
        "superclass_index",
        "subclass_index",
        "superclass",
        "superclass_score",
        "superclass_flagged",
        "superclass_p_value",
        "subclass",
        "subclass_score",
        "subclass_flagged",
        "subclass_p_value",
    ];
    assert_eq!(table[0], titles);
    let file = ThresholdFile::read(&bench.path("none.toml")).unwrap();
    for row in &table[1..] {
        assert_eq!(row[3], format!("super{}", row[1]));
        assert_eq!(row[7], format!("sub{}", row[2]));
        for (level, score, p) in [(0, 4, 6), (1, 8, 10)] {
            let (score, p): (f64, f64) = (row[score].parse().unwrap(), row[p].parse().unwrap());
            let below = file.levels[level].calibration.iter().filter(|known| **known <= score).count();
            assert_eq!(p, (1 + below) as f64 / 61.0);
        }
    }
    let novel = |rate: &str| {
        let rows = bench.predict("none.toml", &bench.images("novel"), &["--fdr", rate]);
        rows[1..].iter().filter(|row| row[2] == "20").count()
    };
    let p: Vec<f64> = table[1..].iter().map(|row| row[10].parse().unwrap()).collect();
    for rate in [0.05, 0.5, 0.99] {
        let rejected =
            residua::novelty::benjamini_hochberg(&p, rate).into_iter().filter(|flag| *flag).count();
        assert_eq!(novel(&rate.to_string()), rejected, "at {rate}");
    }
}

fn a_fitted_score_keeps_its_fit_beside_the_thresholds(bench: &Bench) {
    bench
        .calibrate("fitted/t.toml", &["--score", "subclass=knn"])
        .code(2)
        .stderr(contains("the score `knn` is fitted on training samples; name them (--fit DATA)"));
    // A score is fitted on samples of the network's own classes.
    let other = format!("cifar10:{}", bench.text("cifar"));
    bench
        .calibrate("fitted/t.toml", &["--score", "subclass=knn", "--fit", &other])
        .code(1)
        .stderr(contains("`airplane`").and(contains("of other classes")));
    let fit = bench.table("report");
    bench.calibrate("fitted/t.toml", &["--score", "subclass=knn", "--fit", &fit]).success();
    let scored = |data: &str| bench.predict("fitted/t.toml", data, &["--with-scores"]);
    assert!(scored(&bench.images("novel"))[1][7].parse::<f64>().unwrap() <= 0.0, "minus a squared distance");
    let is_fit = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
    let files = fs::read_dir(bench.path("fitted")).unwrap().map(|entry| entry.unwrap().path());
    fs::remove_file(files.into_iter().find(is_fit).unwrap()).unwrap();
    assert!(ThresholdFile::read(&bench.path("fitted/t.toml")).is_err());
}

fn one_network_without_levels(bench: &Bench) {
    let (run, seen) = (bench.text("run1"), format!("cifar10:{}", bench.text("cifar")));
    let (out, csv) = (bench.text("one.toml"), bench.text("one.csv"));
    quietly(&["calibrate", "--checkpoint", &run, "--seen", &seen, "--rule", "tau:2", "--out", &out])
        .success();
    let data = bench.images("novel");
    quietly(&["predict", "--checkpoint", &run, "--thresholds", &out, "--data", &data, "--out", &csv])
        .success();
    let table = rows(&bench.path("one.csv"));
    assert_eq!(
        (table[0].clone(), table[1].clone()),
        (vec!["image".into(), "class_index".into()], vec!["0.png".to_string(), "-1".into()])
    );
}

fn two_heads_that_were_trained_on_outliers(bench: &Bench) {
    bench.write_table("train", &[0, 1, 2, 10], 80);
    bench.write_table("mixed", &[0, 1, 2, 10], 40);
    let (data, run, mixed) = (bench.table("train"), bench.text("two"), bench.table("mixed"));
    let mut arguments =
        vec!["train", "--data", &data, "--out", &run, "--arch", "resnet20", "--width", "0.25"];
    arguments.extend(["--epochs", "6", "--batch-size", "10", "--lr", "0.05", "--normalize", "cifar10"]);
    quietly(&arguments).success();
    let (out, csv, other) = (bench.text("two.toml"), bench.text("two.csv"), bench.images("other"));
    let calibrate = |more: &[&str]| {
        let mut arguments =
            vec!["calibrate", "--checkpoint", &run, "--seen", &mixed, "--novel", &other, "--out", &out];
        arguments.extend(more);
        quietly(&arguments)
    };
    // Notebook A, trap A6: the ten outliers of the mixed set are no seen samples.
    calibrate(&["--hierarchy", "mask"]).success().stdout(contains("10 seen samples are left out"));
    let file = ThresholdFile::read(&bench.path("two.toml")).unwrap();
    let [coarse, fine] = file.levels.as_slice() else { panic!("two levels") };
    assert_eq!((coarse.threshold.seen, coarse.threshold.novel, fine.threshold.seen), (30, 11, 30));
    assert_eq!((coarse.classes.indices.clone(), coarse.classes.novel), (vec![0, 1, 2, 10], Some(3)));
    assert_eq!((fine.classes.indices.clone(), fine.parents.clone()), (vec![0, 2, 4, 20], vec![0, 1, 2, 10]));
    assert_eq!((coarse.novel_index, fine.novel_index), (10, 20));
    // A rule that flags nothing by its score leaves the heads' own word; the outliers are easy enough for that.
    calibrate(&["--rule", "tau:0", "--score", "novel-probability"]).success();
    let arguments = ["predict", "--checkpoint", &run, "--thresholds", &out, "--data", &mixed, "--out", &csv];
    quietly(&arguments).success();
    let table = rows(&bench.path("two.csv"));
    let outliers: Vec<&Vec<String>> = table[1..].iter().skip(3).step_by(4).collect();
    let flagged = outliers.iter().filter(|row| row[1] == "10" && row[2] == "20").count();
    assert!(outliers.len() == 10 && flagged >= 8, "{flagged} of {} outliers", outliers.len());
    let is_index = |row: &Vec<String>| {
        ["0", "1", "2", "10"].contains(&row[1].as_str()) && ["0", "2", "4", "20"].contains(&row[2].as_str())
    };
    assert!(table[1..].iter().all(is_index), "{table:?}");
}

fn what_does_not_fit_is_refused(bench: &Bench) {
    // Notebook A, trap A9: a threshold is not reported on the samples that chose it.
    let seen = bench.table("seen");
    bench.calibrate("x.toml", &["--report-seen", &seen]).code(2).stderr(contains("report on other samples"));
    bench.calibrate("x.toml", &["--rule", "median"]).code(2).stderr(contains("no rule is named `median`"));
    bench.calibrate("x.toml", &["--score", "class=mls"]).code(2).stderr(contains("no head is of that level"));
    bench.calibrate("x.toml", &["--temperature", "0"]).code(2).stderr(contains("write a positive number"));
    let known = bench.table("report");
    bench.calibrate("x.toml", &["--novel", &known]).code(2).stderr(contains("holds no novel sample"));
    let digits = format!("cifar10:{}", bench.text("cifar"));
    bench
        .calibrate("x.toml", &["--seen", &digits])
        .code(1)
        .stderr(contains("are of other classes than those of"));
    assert!(!bench.path("x.toml").exists());
    let (fine, coarse, thresholds) = (bench.text("sub"), bench.text("super"), bench.text("none.toml"));
    let (data, out, other) = (bench.images("novel"), bench.text("x.csv"), bench.text("one.toml"));
    let predict = |checkpoint: &str, thresholds: &str| {
        let arguments = [
            "predict",
            "--checkpoint",
            checkpoint,
            "--thresholds",
            thresholds,
            "--data",
            &data,
            "--out",
            &out,
        ];
        quietly(&arguments)
    };
    predict(&fine, &thresholds).code(2).stderr(contains("holds thresholds of a superclass model as well"));
    predict(&fine, &other).code(1).stderr(contains("calibrated for another checkpoint"));
    predict(&coarse, &bench.text("nothing.toml")).code(1).stderr(contains("cannot open"));
    assert!(!bench.path("x.csv").exists());
}
