//! Result bundles: `ood --bundle` writes one, `verify` names every level and whatever is not as it should be.

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use residua::features::{FeatureSet, Npz, write_npz};
use residua::ood::bundle::{Report, State, verify};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::ood::scores::case;
use crate::support::program::{residua, said};

mod hostile;
mod tuned;

type Entries = Vec<(String, Vec<u8>)>;

/// Evaluates the tiny case and writes a bundle.
fn made(out: &Path, file: &str, more: &[&str]) -> PathBuf {
    made_on("train", out, file, more)
}

fn made_on(train: &str, out: &Path, file: &str, more: &[&str]) -> PathBuf {
    let input = |name: &str| case("tiny").join(name).with_extension("npz").display().to_string();
    let (bundle, folder) = (out.join(file), out.join(file).with_extension("out"));
    let ood = format!("near:a={}", input("ood"));
    let output = residua(["ood", "--train", &input(train), "--id", &input("id"), "--head", &input("head")])
        .args(["--ood", &ood, "--plots", "none", "--quiet", "--out"])
        .arg(folder)
        .arg("--bundle")
        .arg(&bundle)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bundle
}

/// A bundle of two scores, with a shifted set.
fn small(out: &Path) -> PathBuf {
    let shifted = format!("dim={}", case("tiny").join("cal.npz").display());
    made(out, "small.zip", &["--methods", "msp,mahalanobis", "--shifted", &shifted])
}

fn entries(bundle: &Path) -> Entries {
    let mut archive = zip::ZipArchive::new(Cursor::new(fs::read(bundle).unwrap())).unwrap();
    let count = archive.len();
    let entry = |index| {
        let mut file = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        (file.name().unwrap().to_string(), content)
    };
    (0..count).map(entry).collect()
}

/// How one entry is packed otherwise.
#[derive(Default, Clone, Copy)]
struct Odd {
    flags: u16,
    method: u16,
    mode: Option<u32>,
}

/// A zip of stored entries, by a writer that shares nothing with the program's.
fn packed(entries: &Entries, odd: impl Fn(&str) -> Odd) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let Odd { flags, method, mode } = odd(name);
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let size = (content.len() as u32).to_le_bytes();
        let mut common = Vec::new();
        common.extend(20u16.to_le_bytes());
        common.extend([flags.to_le_bytes(), method.to_le_bytes(), [0, 0], [0x21, 0]].concat());
        common.extend([crc.sum().to_le_bytes(), size, size].concat());
        common.extend([(name.len() as u16).to_le_bytes(), [0, 0]].concat());
        let start = out.len() as u32;
        out.extend([b"PK\x03\x04", common.as_slice(), name.as_bytes(), content].concat());
        let attributes = (mode.unwrap_or(0o100_644) << 16).to_le_bytes();
        directory.extend([b"PK\x01\x02\x14\x03", common.as_slice(), &[0; 6], &attributes].concat());
        directory.extend([&start.to_le_bytes(), name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (size, start) = ((directory.len() as u32).to_le_bytes(), (out.len() as u32).to_le_bytes());
    out.extend(directory);
    out.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &size, &start, &[0, 0]].concat());
    out
}

fn plain(_: &str) -> Odd {
    Odd::default()
}

fn content<'a>(entries: &'a mut Entries, name: &str) -> &'a mut Vec<u8> {
    &mut entries.iter_mut().find(|(own, _)| own == name).unwrap().1
}

/// Changes the manifest.
fn edit(entries: &mut Entries, change: impl FnOnce(&mut Value)) {
    let text = content(entries, "manifest.json");
    let mut manifest: Value = serde_json::from_slice(text).unwrap();
    change(&mut manifest);
    *text = (serde_json::to_string_pretty(&manifest).unwrap() + "\n").into_bytes();
}

/// Makes sizes and hashes of the manifest those of the entries, as a forger does.
fn rehash(entries: &mut Entries) {
    let known: Vec<(String, usize, String)> = entries
        .iter()
        .map(|(name, content)| {
            let hash = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
            (name.clone(), content.len(), hash)
        })
        .collect();
    edit(entries, |manifest| {
        for record in manifest["entries"].as_array_mut().unwrap() {
            let (_, size, hash) = known.iter().find(|(name, ..)| record["name"] == **name).unwrap();
            (record["size"], record["sha256"]) = (Value::from(*size), Value::from(hash.clone()));
        }
    });
}

/// Verifies a forged bundle.
fn forged(out: &Path, entries: &Entries, caches: Option<&Path>) -> residua::Result<Report> {
    let file = out.join("forged.zip");
    fs::write(&file, packed(entries, plain)).unwrap();
    verify(&file, caches)
}

fn states(report: &Report) -> Vec<State> {
    report.levels.iter().map(|level| level.state).collect()
}

/// Places of the differences of a level, and what stopped it.
fn places(report: &Report, level: usize) -> String {
    let level = &report.levels[level - 1];
    let places: Vec<&str> = level.list.iter().map(|difference| difference.place.as_str()).collect();
    format!("{} {}", places.join("\n"), level.note)
}

const HOLDS: State = State::Holds;
const DIFFERS: State = State::Differs;
const NOT_DONE: State = State::NotDone;

#[test]
fn a_bundle_of_every_score_holds_at_all_four_levels_and_has_the_same_bytes_again() {
    let out = tempfile::tempdir().unwrap();
    let input = |name: &str| case("tiny").join(name).with_extension("npz").display().to_string();
    let (shifted, far) = (format!("dim={}", input("cal")), format!("far:b={}", input("train")));
    let more = ["--vim-dim", "8", "--bootstrap", "5", "--balance", "--seed", "7", "--orientation", "novelty"];
    let calibration = input("cal");
    let more = [&more[..], &["--shifted", &shifted, "--ood", &far, "--calibration", &calibration]].concat();
    let bundle = made(out.path(), "first.zip", &more);
    let again = made(out.path(), "second.zip", &[&more[..], &["--threads", "1"]].concat());
    assert_eq!(fs::read(&bundle).unwrap(), fs::read(again).unwrap());
    // Another program's zip of the same entries is the same file.
    assert_eq!(fs::read(&bundle).unwrap(), packed(&entries(&bundle), plain));
    let caches = case("tiny").display().to_string();
    let file = bundle.display().to_string();
    let output = residua(["verify", &file, "--caches", &caches, "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report:#}");
    assert_eq!((&report["holds"], &report["scores"]), (&Value::from(true), &Value::from(46)));
    for level in report["levels"].as_array().unwrap() {
        assert_eq!(level["state"], "holds", "{level:#}");
        assert!(level["compared"].as_u64().unwrap() > 5);
    }
    for level in 1..4 {
        let share = &report["levels"][level]["largest_difference"]["share"];
        assert!(share.as_f64().unwrap() <= 1e-9, "{share}");
    }
    let taken: Vec<&str> =
        report["caches"].as_array().unwrap().iter().map(|cache| cache["input"].as_str().unwrap()).collect();
    assert_eq!(taken, ["train", "calibration", "id", "shifted dim", "ood a", "ood b"]);
    // The printed hash is that of the file.
    let hash: String =
        Sha256::digest(fs::read(&bundle).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(report["sha256"], hash);
}

#[test]
fn a_bundle_names_inputs_by_role_with_the_hashes_of_their_arrays() {
    let out = tempfile::tempdir().unwrap();
    let mut held = entries(&small(out.path()));
    let manifest: Value = serde_json::from_slice(content(&mut held, "manifest.json")).unwrap();
    let roles: Vec<&str> =
        manifest["inputs"].as_array().unwrap().iter().map(|input| input["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["train", "id", "shifted", "ood"]);
    let ood = &manifest["inputs"][3];
    assert_eq!(
        (&ood["name"], &ood["group"], &ood["cache"]),
        (&"a".into(), &"near".into(), &"ood.npz".into())
    );
    // The hash of an array is that of its elements in the file.
    let features = Npz::open(&case("tiny").join("ood.npz")).unwrap().array("features").unwrap().unwrap();
    let hash: String = Sha256::digest(features.elements()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ood["arrays"][0]["sha256"], hash);
    assert_eq!(manifest["parameters"]["constants"]["msp"]["temperature"], "1", "{manifest:#}");
    let names: Vec<&str> = held.iter().map(|(name, _)| name.as_str()).collect();
    let expected = "manifest.json fit.safetensors scores/id.npz scores/dim.npz scores/a.npz correct/id.npy \
                    correct/dim.npy checks/train.npz metrics.json metrics.csv";
    assert_eq!(names, expected.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8(content(&mut held, "manifest.json").clone()).unwrap();
    assert!(!text.contains(&case("tiny").display().to_string()), "no folder of the machine is told");
}

#[test]
fn levels_that_need_caches_are_not_done_without_them_and_the_output_says_so() {
    let out = tempfile::tempdir().unwrap();
    let bundle = small(out.path());
    let (code, text) = said(&["verify", &bundle.display().to_string()]);
    assert_eq!(code, Some(0), "{text}");
    for part in ["hashes of entries", "not done", "--caches DIR", "integrity, not authorship", "SHA-256"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        text.trim_end().ends_with("verdict: the bundle holds at levels 1 and 2; levels 3 and 4 not done"),
        "{text}"
    );
    let report = verify(&bundle, None).unwrap();
    assert_eq!(states(&report), [HOLDS, HOLDS, NOT_DONE, NOT_DONE]);
    assert!(report.levels[1].compared > 100, "{:?}", report.levels[1]);
}

#[test]
fn a_change_of_any_entry_is_named_and_fails() {
    let out = tempfile::tempdir().unwrap();
    let bundle = small(out.path());
    let held = entries(&bundle);
    for (index, (name, content)) in held.iter().enumerate() {
        let mut changed = held.clone();
        changed[index].1[content.len() / 2] ^= 1;
        let file = out.path().join("changed.zip");
        // Once as a flipped byte on a disk, once packed anew.
        let mut bytes = fs::read(&bundle).unwrap();
        let at = bytes.windows(content.len()).position(|window| window == content).unwrap();
        bytes[at + content.len() / 2] ^= 1;
        for bytes in [bytes, packed(&changed, plain)] {
            fs::write(&file, bytes).unwrap();
            let (code, text) = said(&["verify", &file.display().to_string()]);
            assert_eq!(code, Some(1), "{name}: {text}");
            assert!(text.contains(name.as_str()), "{name}: {text}");
        }
    }
}

#[test]
fn every_byte_counts_and_none_makes_verify_panic() {
    let out = tempfile::tempdir().unwrap();
    let bytes = fs::read(small(out.path())).unwrap();
    let file = out.path().join("damaged.zip");
    let mut step = 0;
    let mut at = 0;
    while at < bytes.len() {
        for (what, damaged) in [
            ("flipped", {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << (step % 8);
                bytes
            }),
            ("cut", bytes[..at].to_vec()),
        ] {
            fs::write(&file, damaged).unwrap();
            match verify(&file, None) {
                Err(error) => {
                    let text = error.to_string();
                    let is_placed = text.contains(" in `") || text.contains("at byte") || at < 4;
                    assert!(is_placed, "{what} {at}: {text}");
                }
                Ok(report) => {
                    assert!(!report.holds, "{what} {at}: {}", report.summary());
                    assert_eq!(report.levels[0].state, DIFFERS, "{what} {at}");
                    assert_eq!(report.levels[0].differences, 1, "{what} {at}: the entry is named");
                }
            }
        }
        step += 1;
        // Densely at both ends, where headers are, and in steps that meet every kind of byte between.
        let dense = at < 100 || at + 200 > bytes.len();
        at += if dense { 1 } else { bytes.len() / 150 + step % 7 };
    }
    assert!(step > 300, "{step}");
}

#[test]
fn numbers_that_do_not_follow_are_found_though_all_hashes_fit() {
    let out = tempfile::tempdir().unwrap();
    let honest = entries(&small(out.path()));
    let caches = case("tiny");
    // A better AUROC in the tables.
    let mut lied = honest.clone();
    let metrics = content(&mut lied, "metrics.json");
    let mut tables: Value = serde_json::from_slice(metrics).unwrap();
    tables["ood"]["a"]["msp"]["auroc"] = Value::from(0.999);
    *metrics = (serde_json::to_string_pretty(&tables).unwrap() + "\n").into_bytes();
    rehash(&mut lied);
    let report = forged(out.path(), &lied, None).unwrap();
    assert_eq!(states(&report), [HOLDS, DIFFERS, NOT_DONE, NOT_DONE]);
    assert!(places(&report, 2).contains("metrics.json ood a msp auroc"), "{}", report.summary());
    // A line of the CSV.
    let mut lied = honest.clone();
    let csv = content(&mut lied, "metrics.csv");
    *csv = String::from_utf8(csv.clone()).unwrap().replacen("msp,a,", "msp,a,0", 1).into_bytes();
    rehash(&mut lied);
    let report = forged(out.path(), &lied, None).unwrap();
    assert!(places(&report, 2).contains("metrics.csv line 2"), "{}", report.summary());
    // A predicted class.
    let mut lied = honest.clone();
    *content(&mut lied, "correct/id.npy").last_mut().unwrap() ^= 1;
    rehash(&mut lied);
    let report = forged(out.path(), &lied, Some(&caches)).unwrap();
    assert_eq!(states(&report), [HOLDS, DIFFERS, DIFFERS, HOLDS]);
    assert!(places(&report, 2).contains("metrics.json id accuracy"), "{}", report.summary());
    assert!(places(&report, 3).contains("correct/id.npy sample 79"), "{}", report.summary());
    // A parameter that the tables were not made with.
    let mut lied = honest.clone();
    edit(&mut lied, |manifest| manifest["parameters"]["bootstrap"] = 10.into());
    let report = forged(out.path(), &lied, None).unwrap();
    assert!(places(&report, 2).contains("interval95"), "{}", report.summary());
}

/// Multiplies one number of an `.npz` entry.
fn scaled(entries: &mut Entries, entry: &str, array: &str, factor: f64, out: &Path) {
    let file = out.join("entry.npz");
    fs::write(&file, content(entries, entry)).unwrap();
    let archive = Npz::open(&file).unwrap();
    let arrays: Vec<_> = archive
        .names()
        .into_iter()
        .map(|name| {
            let found = archive.array(name).unwrap().unwrap();
            let mut values: Vec<f64> =
                found.elements().chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
            if name == array {
                let largest = (0..values.len()).max_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs()));
                values[largest.unwrap()] *= factor;
            }
            let shape = vec![values.len()];
            let element = residua::features::Element::F64;
            (name.to_string(), residua::features::NpyArray::from_vec(values, element, shape))
        })
        .collect();
    let named: Vec<_> = arrays.iter().map(|(name, array)| (name.as_str(), array)).collect();
    let changed = out.join("changed.npz");
    write_npz(&changed, &named).unwrap();
    *content(entries, entry) = fs::read(changed).unwrap();
    rehash(entries);
}

#[test]
fn scores_may_differ_by_the_tolerance_and_not_by_more() {
    let out = tempfile::tempdir().unwrap();
    let honest = entries(&small(out.path()));
    for (share, state) in [(0.5e-9, HOLDS), (2e-9, DIFFERS)] {
        // The lowest of the Mahalanobis scores gets a little lower, which changes no rank and so no table.
        let mut changed = honest.clone();
        scaled(&mut changed, "scores/a.npz", "mahalanobis", 1.0 + share, out.path());
        let report = forged(out.path(), &changed, Some(&case("tiny"))).unwrap();
        assert_eq!(states(&report), [HOLDS, HOLDS, state, state], "{}", report.summary());
        let largest = report.levels[2].largest_difference.clone().unwrap();
        assert!((largest.share / share - 1.0).abs() < 1e-3, "{largest:?}");
        assert!(largest.place.starts_with("scores/a.npz mahalanobis sample"), "{largest:?}");
    }
}

#[test]
fn a_fit_on_other_samples_is_found_when_it_is_fitted_again() {
    let out = tempfile::tempdir().unwrap();
    let methods = ["--methods", "msp,mahalanobis"];
    let mut honest = entries(&made(out.path(), "honest.zip", &methods));
    let claimed: Value = serde_json::from_slice(content(&mut honest, "manifest.json")).unwrap();
    // Fitted on other samples, said to be fitted on these.
    let mut lied = entries(&made_on("cal", out.path(), "lied.zip", &methods));
    edit(&mut lied, |manifest| manifest["inputs"] = claimed["inputs"].clone());
    let report = forged(out.path(), &lied, Some(&case("tiny"))).unwrap();
    assert_eq!(states(&report)[..2], [HOLDS, HOLDS], "{}", report.summary());
    assert_eq!(report.levels[3].state, DIFFERS);
    let places = places(&report, 4);
    for place in ["fit.safetensors fit of mahalanobis", "scores/id.npz mahalanobis sample"] {
        assert!(places.contains(place), "{places}");
    }
    assert!(!places.contains("scores/id.npz msp"), "{places}");
}

#[test]
fn caches_are_found_by_content_and_another_one_is_named_with_its_array() {
    let out = tempfile::tempdir().unwrap();
    let bundle = made(out.path(), "small.zip", &["--methods", "msp,knn"]);
    let folder = out.path().join("caches/deep");
    fs::create_dir_all(&folder).unwrap();
    for (from, to) in [("train", "one"), ("id", "two"), ("ood", "ood")] {
        fs::copy(case("tiny").join(from).with_extension("npz"), folder.join(to).with_extension("npz"))
            .unwrap();
    }
    let report = verify(&bundle, Some(&out.path().join("caches"))).unwrap();
    assert_eq!(states(&report), [HOLDS; 4], "{}", report.summary());
    let by: Vec<&str> = report.caches.iter().map(|cache| cache.found_by).collect();
    assert_eq!(by, ["hashes", "hashes", "name and hashes"]);
    // One number of one array.
    let set = FeatureSet::open(&case("tiny").join("ood.npz")).unwrap();
    let mut features = Vec::new();
    set.features().read_f32(0..set.len(), &mut features);
    features[5] += 0.5;
    let shape = vec![set.len(), set.dimension()];
    let element = residua::features::Element::F32;
    let changed = residua::features::NpyArray::from_vec(features, element, shape);
    let own = Npz::open(&case("tiny").join("ood.npz")).unwrap();
    let [logits, labels] = ["logits", "labels"].map(|name| own.array(name).unwrap().unwrap());
    write_npz(&folder.join("ood.npz"), &[("features", &changed), ("logits", &logits), ("labels", &labels)])
        .unwrap();
    let caches = out.path().join("caches").display().to_string();
    let (code, text) = said(&["verify", &bundle.display().to_string(), "--caches", &caches]);
    assert_eq!(code, Some(1), "{text}");
    for part in
        ["cache of ood a", "ood.npz", "array `features`", "expected", "levels 1 and 2", "level 4 not done"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    // None at all.
    let empty = tempfile::tempdir().unwrap();
    let report = verify(&bundle, Some(empty.path())).unwrap();
    assert!(places(&report, 3).contains("cache of train: expected `train.npz`"), "{}", report.summary());
    let (code, text) = said(&["verify", &bundle.display().to_string(), "--caches", "/nowhere"]);
    assert!(code == Some(2) && text.contains("expected a folder"), "{text}");
}

#[test]
fn a_bundle_that_could_not_be_verified_is_refused_before_the_work() {
    let out = tempfile::tempdir().unwrap();
    let input = |name: &str| case("tiny").join(name).with_extension("npz").display().to_string();
    let (id, ood, head) = (input("id"), format!("a={}", input("ood")), input("head"));
    let folder = out.path().join("out").display().to_string();
    let file = out.path().join("b.zip").display().to_string();
    for (bundle, more, part) in [
        (file.as_str(), ["--bootstrap", "200000"], "at most --bootstrap 100000"),
        (&id, ["--bootstrap", "0"], "is an input"),
        ("-", ["--bootstrap", "0"], "the name of a file"),
        (&out.path().display().to_string(), ["--bootstrap", "0"], "is a folder"),
    ] {
        let flags =
            ["ood", "--id", &id, "--ood", &ood, "--head", &head, "--methods", "msp", "--out", &folder];
        let (code, text) = said(&[&flags[..], &["--bundle", bundle], &more].concat());
        assert!(code == Some(2) && text.contains(part), "{part}: {text}");
    }
    assert!(!Path::new(&folder).exists());
    // Scores that nothing is fitted for have a bundle too.
    let flags = ["ood", "--id", &id, "--ood", &ood, "--head", &head, "--methods", "msp", "--out", &folder];
    let (code, text) = said(&[&flags[..], &["--bundle", &file]].concat());
    assert!(code == Some(0) && text.contains("residua verify"), "{text}");
    let report = verify(Path::new(&file), Some(&case("tiny"))).unwrap();
    assert_eq!(states(&report), [HOLDS; 4], "{}", report.summary());
}
