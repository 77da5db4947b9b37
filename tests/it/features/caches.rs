//! Feature caches that other programs wrote (`tests/fixtures/make_caches.py`): what is read, what is refused, and that logits,
//! labels and head mean what they are taken for.

use std::path::{Path, PathBuf};

use residua::features::{
    Agreement, Extent, FeatureSet, ForeignLogits, Head, Matrix, check_logits, choose_head,
};
use residua::ood::table::Evaluation;

use crate::support::data_files::write_images;
use crate::support::program::{residua, said};

const ROWS: usize = 48;
const CLASSES: usize = 6;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/caches").join(name)
}

fn open(name: &str) -> FeatureSet {
    FeatureSet::open(&fixture(&format!("{name}.npz"))).unwrap()
}

fn head(name: &str) -> Head {
    Head::open(&fixture(&format!("{name}.npz"))).unwrap()
}

fn feature(i: usize, j: usize) -> f64 {
    1.5 * f64::from(u8::from(j == i % CLASSES)) + ((7 * i + 3 * j) % 8) as f64 / 16.0
}

fn weight(c: usize, j: usize) -> f64 {
    if c == j { 1.0 } else { -(((c + 2 * j) % 4) as f64) / 8.0 }
}

/// Features and logits as the script computes them; every number is exact.
fn expected() -> (Vec<f64>, Vec<f64>) {
    let features: Vec<f64> = (0..ROWS).flat_map(|i| (0..CLASSES).map(move |j| feature(i, j))).collect();
    let logit = |i: usize, c: usize| {
        (0..CLASSES).map(|j| feature(i, j) * weight(c, j)).sum::<f64>() + (c as f64 - 2.0) / 8.0
    };
    (features, (0..ROWS).flat_map(|i| (0..CLASSES).map(move |c| logit(i, c))).collect())
}

fn values(matrix: &Matrix) -> Vec<f64> {
    let mut values = Vec::new();
    matrix.read_f64(0..matrix.rows(), &mut values);
    values
}

#[test]
fn every_cache_that_numpy_writes_reads_as_the_same_numbers() {
    let (features, logits) = expected();
    let labels: Vec<i64> = (0..ROWS as i64).map(|i| i % CLASSES as i64).collect();
    let mut seen = 0;
    for entry in std::fs::read_dir(fixture("")).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("read_") {
            continue;
        }
        let set = FeatureSet::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(values(set.features()), features, "{}", path.display());
        assert_eq!(values(set.logits().unwrap()), logits, "{}", path.display());
        assert_eq!(set.labels().unwrap(), labels, "{}", path.display());
        seen += 1;
    }
    // Three types in two orders and two byte orders, eleven types of labels in three shapes, and the odd ones.
    assert_eq!(seen, 12 + 11 + 2 + 4);
    let own = open("read_own_head").own_head().unwrap().expect("W and b lie in the archive");
    assert_eq!((own.class_weight(1)[2], own.bias()[5]), (weight(1, 2), 0.375));
}

#[test]
fn what_cannot_be_read_is_refused_by_name_with_what_to_save_instead() {
    for (name, found) in [
        (
            "refused_objects.npz",
            "in `features` at byte `10`: expected an array of f16, f32, f64 or integers, found elements",
        ),
        ("refused_objects.npz", "Python objects, pickled, which are never executed"),
        ("refused_object_labels.npz", "in `labels"),
        ("refused_records.npz", "save each field as an array of its own"),
        ("refused_bool_labels.npz", "booleans; save `array.astype('int64')`"),
        ("refused_float_labels.npz", "save `labels.astype('int64')`"),
        ("refused_one_hot_labels.npz", "save `labels.argmax(1)`"),
        ("refused_text_labels.npz", "texts; save numbers"),
        ("refused_complex.npz", "complex numbers"),
        ("refused_integers.npz", "save `features.astype('float32')`"),
        ("refused_long_doubles.npz", "long doubles; save `array.astype('float64')`"),
        ("refused_nan.npz", "row 3: expected finite numbers in `features`"),
        ("refused_unnamed.npz", "arrays named arr_0, arr_1, arr_2 (`numpy.savez(file, features=…"),
        ("refused_dictionary.npy", "Python objects, pickled"),
        ("refused_sparse.npz", "a sparse matrix of SciPy; save its dense form"),
        ("refused_torch.pt", "a file of torch.save; save `numpy.savez(file, features=features.numpy()"),
        ("refused_pickle.pkl", "a Python pickle, which is never executed"),
        ("refused_gzip.npz.gz", "gzip; decompress it with gunzip"),
    ] {
        let message = FeatureSet::open(&fixture(name)).unwrap_err().to_string();
        assert!(message.contains(found) && message.contains(name), "{name}: {message}");
    }
}

fn refusal(set: &str, head_name: &str) -> String {
    let (set, head) = (open(set), head(head_name));
    let message = check_logits(&set, &head, Extent::Sample, ForeignLogits::Refuse).unwrap_err().to_string();
    // Allowed foreign logits are said all the same.
    let allowed = check_logits(&set, &head, Extent::All, ForeignLogits::Allow).unwrap().unwrap();
    assert!(allowed.contains("the stored logits count"), "{allowed}");
    message
}

#[test]
fn logits_that_are_not_the_heads_are_refused_with_the_likely_cause() {
    for (set, head, cause) in [
        ("logits_softmax", "head", "softmax probabilities are stored in their place"),
        ("logits_log_softmax", "head", "log-softmax values are stored in their place"),
        ("logits_temperature", "head", "they are 0.5000 times as large"),
        ("features_normalised", "head", "were the features normalised to length 1"),
        ("rows_reordered", "head", "rows of features and logits in different orders?"),
        ("read_C_little_f4", "head_other", "the head of another network or epoch"),
        ("read_C_little_f4", "head_transposed", "W is transposed"),
        ("read_C_little_f4", "head_without_bias", "the bias b is another one"),
        ("read_C_little_f4", "head_reordered", "the classes of the head are in another order"),
    ] {
        let message = refusal(set, head);
        assert!(
            message.contains(cause) && message.contains("--allow-foreign-logits"),
            "{set}, {head}: {message}"
        );
        assert!(message.contains("are not W f + b") && message.contains("of 48 rows"), "{message}");
    }
    // Logits without the bias that the head has.
    let (features, mut logits) = expected();
    logits.iter_mut().enumerate().for_each(|(index, logit)| *logit -= ((index % CLASSES) as f64 - 2.0) / 8.0);
    let matrix = |values, name: &str| Matrix::from_f64(values, CLASSES, name).unwrap();
    let set = FeatureSet::from_parts("s", matrix(features, "f"), Some(matrix(logits, "l")), None).unwrap();
    let message =
        check_logits(&set, &head("head"), Extent::Sample, ForeignLogits::Refuse).unwrap_err().to_string();
    assert!(message.contains("W f without the bias b"), "{message}");
}

#[test]
fn the_right_head_in_any_precision_is_no_reason_for_a_word() {
    for set in ["read_C_little_f2", "read_F_big_f4", "read_C_little_f8", "read_own_head"] {
        for name in ["head", "head_double"] {
            let said = check_logits(&open(set), &head(name), Extent::All, ForeignLogits::Refuse).unwrap();
            assert_eq!(said, None, "{set} {name}");
        }
    }
    // Half precision that rounds: never refused, whatever is said.
    let agreement = Agreement::of(&open("logits_half"), &head("head"), Extent::All).unwrap().unwrap();
    assert!(agreement.deviation() > 1e-5 && agreement.deviation() < 1e-3, "{agreement:?}");
    assert!(check_logits(&open("logits_half"), &head("head"), Extent::All, ForeignLogits::Refuse).is_ok());
}

#[test]
fn logits_that_are_nearly_the_heads_are_worth_a_warning() {
    let set = open("read_C_little_f4");
    let said =
        check_logits(&set, &head("head_nearly"), Extent::Sample, ForeignLogits::Refuse).unwrap().unwrap();
    assert!(said.contains("0.99 %") && said.contains("with other weights?"), "{said}");
}

/// The script's features over and over, with the head's logits but in the rows of `odd`.
fn long(rows: usize, odd: &[usize]) -> FeatureSet {
    let (features, logits) = expected();
    let repeat =
        |values: &[f64]| -> Vec<f64> { values.iter().copied().cycle().take(rows * CLASSES).collect() };
    let mut logits = repeat(&logits);
    for &row in odd {
        logits[row * CLASSES..(row + 1) * CLASSES].reverse();
    }
    let matrix = |values, name: &str| Matrix::from_f64(values, CLASSES, name).unwrap();
    FeatureSet::from_parts("long", matrix(repeat(&features), "f"), Some(matrix(logits, "l")), None).unwrap()
}

#[test]
fn one_foreign_row_among_thousands_is_found_where_all_rows_are_read() {
    let (set, head) = (long(9_000, &[4_001]), head("head"));
    let sampled = Agreement::of(&set, &head, Extent::Sample).unwrap().unwrap();
    assert_eq!((sampled.rows, sampled.decisions, sampled.deviation()), (1024, 0, 0.0));
    let all = Agreement::of(&set, &head, Extent::All).unwrap().unwrap();
    assert_eq!((all.rows, all.decisions, all.worst.0), (9_000, 1, 4_001));
    assert!(all.is_worth_a_warning() && !all.is_foreign(), "{all:?}");
    // Of the first and the last row, both are looked at from the start.
    for odd in [0, 8_999] {
        let sampled = Agreement::of(&long(9_000, &[odd]), &head, Extent::Sample).unwrap().unwrap();
        assert_eq!((sampled.decisions, sampled.worst.0), (1, odd as u64));
    }
}

#[test]
fn the_comparison_gives_the_same_bits_with_one_thread_and_three() {
    let (set, head) = (long(5_000, &[7, 99, 1_500]), head("head_nearly"));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Agreement::of(&set, &head, Extent::All).unwrap().unwrap())
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn labels_that_count_from_one_or_are_of_other_classes_are_refused_with_what_to_save() {
    for (name, found) in [
        ("labels_from_one", "the labels count from 1 to 6: save `labels - 1`"),
        (
            "labels_from_one_without_the_last",
            "the labels count from 1, the head's classes count from 0; save `labels - 1`",
        ),
        ("labels_of_a_background_class", "the labels leave out the head's class 0"),
        ("labels_of_other_classes", "the labels go from 0 to 500"),
    ] {
        let message = open(name).check_numbering(&head("head")).unwrap_err().to_string();
        assert!(message.contains(found), "{name}: {message}");
    }
    for name in ["labels_without_class_zero", "labels_partly_unknown", "without_labels", "read_C_little_f4"] {
        assert_eq!(open(name).check_numbering(&head("head")).unwrap(), None, "{name}");
    }
    let message = open("labels_from_one").training_labels(CLASSES).unwrap_err().to_string();
    assert!(message.contains("save `labels - 1`"), "{message}");
    let message = open("labels_from_one_without_the_last").training_labels(CLASSES).unwrap_err().to_string();
    assert!(message.contains("none of class 0; do the labels count from 1?"), "{message}");
    let message = open("labels_partly_unknown").training_labels(CLASSES).unwrap_err().to_string();
    assert!(message.contains("row 0") && message.contains("label -1 (unknown)"), "{message}");
}

/// `ood` on fixtures: exit code and everything it said.
fn ood(
    train: Option<&str>,
    id: &str,
    head: Option<&str>,
    more: &[&str],
    out: &Path,
) -> (Option<i32>, String) {
    let text = |name: &str| fixture(&format!("{name}.npz")).display().to_string();
    let mut arguments = vec!["ood".to_string(), "--id".into(), text(id)];
    arguments.extend(["--ood".into(), format!("far={}", text("read_C_little_f8"))]);
    arguments.extend(["--out".into(), out.display().to_string()]);
    for (flag, name) in [("--train", train), ("--head", head)] {
        arguments.extend(name.iter().flat_map(|name| [flag.to_string(), text(name)]));
    }
    arguments.extend(more.iter().map(|more| more.to_string()));
    said(&arguments.iter().map(String::as_str).collect::<Vec<&str>>())
}

#[test]
fn ood_refuses_foreign_logits_and_numberings_before_it_writes_anything() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let train = Some("read_C_little_f4");
    for (id, head, found) in [
        ("logits_softmax", "head", "softmax probabilities"),
        ("read_C_little_f4", "head_other", "another network"),
        ("labels_from_one", "head", "save `labels - 1`"),
        ("labels_from_one_without_the_last", "head", "save `labels - 1`"),
        ("labels_of_other_classes", "head", "the labels go from 0 to 500"),
    ] {
        let (code, text) = ood(train, id, Some(head), &["--methods", "msp,mahalanobis"], &out);
        assert!(code == Some(1) && text.contains(found), "{id}: {code:?} {text}");
        assert!(!out.exists(), "{id}");
    }
    let (code, text) =
        ood(train, "logits_softmax", Some("head"), &["--methods", "msp", "--allow-foreign-logits"], &out);
    assert!(
        code == Some(0) && text.contains("warning:") && text.contains("the stored logits count"),
        "{text}"
    );
    let written = Evaluation::read_json(&out.join("metrics.json")).unwrap();
    assert!(written.sanity.warnings.iter().any(|warning| warning.contains("softmax")));
}

#[test]
fn a_legitimate_set_without_class_zero_and_unknown_labels_are_scored_and_the_second_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let train = Some("read_C_little_f4");
    let (code, text) =
        ood(train, "labels_without_class_zero", Some("head"), &["--methods", "msp"], folder.path());
    assert!(code == Some(0) && text.contains("accuracy 100.00 %") && !text.contains("count from"), "{text}");
    let (code, text) =
        ood(train, "labels_partly_unknown", Some("head"), &["--methods", "msp"], folder.path());
    assert!(code == Some(0) && text.contains("10 of 48 labels are unknown (-1), so accuracy"), "{text}");
}

#[test]
fn scores_of_logits_alone_need_no_training_set_and_no_labels() {
    let folder = tempfile::tempdir().unwrap();
    let logits_only = ["--methods", "msp,mls,energy,gen", "--json"];
    let (code, text) = ood(None, "without_labels", Some("head"), &logits_only, &folder.path().join("none"));
    assert_eq!(code, Some(0), "{text}");
    let read = |name: &str| Evaluation::read_json(&folder.path().join(name).join("metrics.json")).unwrap();
    assert!(read("none").sanity.train_versus_test_auroc.is_empty());
    let (code, text) = ood(
        Some("without_labels"),
        "without_labels",
        Some("head"),
        &logits_only,
        &folder.path().join("with"),
    );
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(read("with").ood, read("none").ood);
    let (code, text) = ood(
        Some("without_labels"),
        "without_labels",
        Some("head"),
        &["--methods", "knn,react"],
        folder.path(),
    );
    assert_eq!(code, Some(0), "neighbours and clipped features need no classes: {text}");
    // A score that is fitted says what is missing.
    let (code, text) = ood(None, "without_labels", Some("head"), &[], folder.path());
    assert!(code == Some(2) && text.contains("mahalanobis is fitted on a training set"), "{text}");
    let (code, text) =
        ood(Some("without_labels"), "without_labels", Some("head"), &["--methods", "she"], folder.path());
    assert!(code == Some(1) && text.contains("features without labels"), "{text}");
}

#[test]
fn a_dimension_that_leaves_nothing_is_refused_before_any_fit() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let train = Some("read_C_little_f4");
    let (code, text) = ood(train, "read_C_little_f4", Some("head"), &["--vim-dim", "6"], &out);
    assert!(
        code == Some(2) && text.contains("vim-dim 6 leaves no residual of 6 features; choose 1 to 5"),
        "{text}"
    );
    assert!(!out.exists());
    // Where no score has a use for it, it does not matter.
    let (code, text) =
        ood(train, "read_C_little_f4", Some("head"), &["--vim-dim", "6", "--methods", "msp"], &out);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn collapse_refuses_foreign_logits_and_numberings_and_goes_on_where_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let collapse = |train: &str, test: &str, head: &str, more: &[&str]| {
        let text = |name: &str| fixture(&format!("{name}.npz")).display().to_string();
        let (train, test, head) = (text(train), text(test), text(head));
        let arguments = ["collapse", "--train", &train, "--test", &test, "--head", &head, "--out"];
        let out = folder.path().join("out").display().to_string();
        said(&[&arguments[..], &[out.as_str()], more].concat())
    };
    let (code, text) = collapse("logits_softmax", "read_C_little_f4", "head", &[]);
    assert!(code == Some(1) && text.contains("softmax probabilities"), "{text}");
    let (code, text) = collapse("read_C_little_f4", "labels_from_one_without_the_last", "head", &[]);
    assert!(code == Some(1) && text.contains("save `labels - 1`"), "{text}");
    let (code, text) = collapse("logits_softmax", "read_C_little_f4", "head", &["--allow-foreign-logits"]);
    assert!(
        code == Some(0) && text.contains("warning:") && text.contains("the stored logits count"),
        "{text}"
    );
    let (code, text) = collapse("read_own_head", "read_C_little_f4", "head", &["--quiet"]);
    assert!(code == Some(0) && !text.contains("warning:"), "{text}");
}

/// Copies a fixture as the cache `folder/name` of a checkpoint, without a head.
fn cache(folder: &Path, name: &str, set: &str, checkpoint: &str) -> PathBuf {
    let (set, path) = (open(set), folder.join(name));
    let meta = residua::features::CacheMeta { checkpoint: Some(checkpoint.into()), ..Default::default() };
    let mut writer = residua::features::CacheWriter::create(&path, CLASSES, CLASSES, meta).unwrap();
    let narrow = |matrix: &Matrix| values(matrix).iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let labels = set.labels().map_or(vec![-1; set.len()], <[i64]>::to_vec);
    writer.append(&narrow(set.features()), &narrow(set.logits().unwrap()), &labels).unwrap();
    writer.finish().unwrap();
    path
}

#[test]
fn the_head_inside_a_cache_serves_and_one_that_is_given_is_compared_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (train, id) =
        (cache(root, "train", "read_C_little_f4", "a"), cache(root, "id", "read_C_little_f8", "a"));
    std::fs::copy(fixture("head.npz"), train.join("head.npz")).unwrap();
    // The head beside it is another network's, as it was left by earlier versions.
    std::fs::copy(fixture("head_other.npz"), root.join("head.npz")).unwrap();
    let sets = [FeatureSet::open(&train).unwrap(), FeatureSet::open(&id).unwrap()];
    let both: Vec<&FeatureSet> = sets.iter().collect();
    let chosen = choose_head(None, &both).unwrap();
    assert_eq!((chosen.path, chosen.notes.len()), (train.join("head.npz"), 0));
    assert_eq!(chosen.head, head("head"));
    let chosen = choose_head(Some(&fixture("head_nearly.npz")), &both).unwrap();
    assert!(
        chosen.notes[0].contains("is not the head inside") && chosen.notes[0].contains("0.99 %"),
        "{:?}",
        chosen.notes
    );
    assert!(choose_head(Some(&fixture("head_double.npz")), &both).unwrap().notes.is_empty());
    // The same checkpoint, said twice, cannot have two heads.
    std::fs::copy(fixture("head_other.npz"), id.join("head.npz")).unwrap();
    let sets = [FeatureSet::open(&train).unwrap(), FeatureSet::open(&id).unwrap()];
    let message = choose_head(None, &[&sets[0], &sets[1]]).unwrap_err().to_string();
    assert!(message.contains("hold the heads of different networks"), "{message}");
}

#[test]
fn a_head_beside_older_caches_serves_where_it_gives_their_logits() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let paths = [cache(root, "train", "read_C_little_f4", "a"), cache(root, "id", "read_C_little_f8", "a")];
    let texts = paths.each_ref().map(|path| path.display().to_string());
    let run = |out: &str| {
        let far = format!("far={}", texts[1]);
        let out = root.join(out).display().to_string();
        said(&[
            "ood",
            "--train",
            &texts[0],
            "--id",
            &texts[1],
            "--ood",
            &far,
            "--out",
            &out,
            "--methods",
            "msp,nci",
        ])
    };
    let (code, text) = run("none");
    assert!(code == Some(2) && text.contains("holds no head; name one with --head"), "{text}");
    std::fs::copy(fixture("head.npz"), root.join("head.npz")).unwrap();
    let (code, text) = run("right");
    assert!(code == Some(0) && text.contains("beside the caches as earlier versions wrote it"), "{text}");
    // Another network was extracted into the same folder, and took its place.
    for other in ["head_other.npz", "head_nearly.npz"] {
        std::fs::copy(fixture(other), root.join("head.npz")).unwrap();
        let (code, text) = run("wrong");
        assert!(code == Some(1) && text.contains("does not give its logits"), "{other}: {text}");
        assert!(!root.join("wrong").exists());
    }
}

#[test]
fn caches_of_different_checkpoints_in_one_call_are_an_error_whatever_their_heads() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let paths =
        [cache(root, "train", "read_C_little_f4", "one"), cache(root, "id", "read_C_little_f8", "two")];
    let [train, id] = paths.each_ref().map(|path| path.display().to_string());
    let (far, out) = (format!("far={id}"), root.join("out").display().to_string());
    let given = fixture("head.npz").display().to_string();
    for head in [&["--head", given.as_str()][..], &[]] {
        let arguments = ["ood", "--train", &train, "--id", &id, "--ood", &far, "--out", &out];
        let (code, text) = said(&[&arguments[..], head].concat());
        assert!(code == Some(1) && text.contains("different checkpoints (one and two)"), "{text}");
    }
    residua(["collapse", "--train", &train, "--test", &id, "--out", &out]).assert().failure().code(1);
}

/// Runs the program in a folder, and expects it to succeed.
fn succeed(folder: &Path, line: &str) -> String {
    let output = residua(line.split(' ')).current_dir(folder).output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{line}: {text}");
    text
}

#[test]
fn another_network_extracted_beside_a_cache_changes_none_of_its_scores() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    write_images(folder, "train", 30, 0);
    write_images(folder, "test", 14, 3);
    write_images(folder, "odd", 12, 29);
    let extract = |run: &str, set: &str| {
        let data = format!("idx:{set}-images,{set}-labels");
        succeed(
            folder,
            &format!("extract --checkpoint {run} --data {data} --out caches/{run}_{set} --quiet"),
        );
    };
    let score = |out: &str| {
        let sets = "--train caches/a_train --id caches/a_test --ood odd=caches/a_odd";
        let text = succeed(folder, &format!("ood {sets} --methods msp,nci,react --out {out}"));
        assert!(!text.contains("head") && !text.contains("logits"), "{text}");
        std::fs::read(folder.join(out).join("scores/odd.npz")).unwrap()
    };
    for (run, seed) in [("a", 1), ("b", 2)] {
        let network = "--arch resnet20 --width 0.25 --normalize 0.5/0.25 --augment none --batch-size 10";
        let data = "--data idx:train-images,train-labels";
        succeed(folder, &format!("train {data} {network} --epochs 1 --seed {seed} --quiet --out {run}"));
    }
    ["train", "test", "odd"].iter().for_each(|set| extract("a", set));
    assert!(folder.join("caches/a_train/head.npz").is_file() && !folder.join("caches/head.npz").exists());
    let before = score("before");
    extract("b", "test");
    assert_eq!(score("after"), before);
    // The other network's head does not pass for this one's.
    let sets = ["--train", "caches/a_train", "--id", "caches/a_test", "--ood", "odd=caches/a_odd"];
    let other = ["--head", "caches/b_test/head.npz", "--out", "other"];
    let output = residua(["ood"]).args(sets).args(other).current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("are not W f + b of the head"), "{text}");
    assert!(text.contains("is not the head inside caches/a_train"), "{text}");
}
