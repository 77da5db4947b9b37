use super::*;
use crate::novelty::decide::tests::entry;
use crate::novelty::{Rule, Score, Scored, calibrate_level};
use crate::ood::{Method, Options};
use crate::rng::{Purpose, Stream};

/// Two levels with awkward numbers: a threshold that three decimals would lose, thresholds of classes, a fit, a −∞.
fn thresholds() -> ThresholdFile {
    let stream = Stream::for_purpose(6, Purpose::Synthetic, &[1]);
    let mut coarse = entry(Some(Level::Coarse), &[0, 2, 3], &[], Some(2));
    let seen = (0..40)
        .map(|i| Scored { score: stream.uniform(i), predicted: (i != 7).then_some(2 * (i as i64 % 2)) });
    let novel = (40..55).map(|i| Scored { score: stream.uniform(i) / 2.0, predicted: Some(0) });
    let samples = LevelScores {
        level: Some(Level::Coarse),
        score: Score::from(Method::Msp),
        seen: seen.collect(),
        novel: novel.collect(),
    };
    coarse.threshold = calibrate_level(&samples, Rule::PerClass(0.07)).unwrap();
    coarse.calibration = samples.calibration_order();
    coarse.temperature = 1.3;
    coarse.reported =
        Some(Rates { false_novel: Proportion::new(3, 77), caught_novel: Proportion::new(20, 31) });
    let mut fine = entry(Some(Level::Fine), &[4, 1, 8], &[0, 0, 2], None);
    let features: Vec<f32> = (0..60).map(|i| stream.normal(100 + i) as f32).collect();
    let features = crate::features::Matrix::from_f32(features, 2, "features").unwrap();
    let labels = (0..30).map(|i| i % 3).collect();
    let training = crate::features::FeatureSet::from_parts("t", features, None, Some(labels)).unwrap();
    let head = Head::new(vec![1.0, 0.0, 0.0, 1.0, 0.5, 0.5], vec![0.0; 3], 2).unwrap();
    let options = Options::of(&[Method::Mahalanobis]);
    fine.detectors = Some(Detectors::fit(&training, &head, &options).unwrap());
    fine.threshold.score = Score::from(Method::Mahalanobis);
    fine.threshold.tau = f64::NEG_INFINITY;
    ThresholdFile::new(Hierarchy::Joint, vec![fine, coarse]).unwrap()
}

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/thresholds.toml");
    let mut written = thresholds();
    // Notebook A, trap A20: .9994 and .9990 are not the same threshold.
    written.levels[0].threshold.tau = 0.999_412_345_678_901_2;
    written.write(&path).unwrap();
    assert_eq!(ThresholdFile::read(&path).unwrap(), written);
    assert!(std::fs::read_to_string(&path).unwrap().contains("tau = 0.9994123456789012\n"));
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        3,
        "table, calibration scores, fit"
    );
}

#[test]
fn rates_count_who_is_known_apart_from_who_is_novel_and_leave_out_the_rest() {
    let answer = |novel| Answer { class: 4, flagged: false, novel };
    let truths = [
        Truth::Class(4),
        // A wrong answer is no false alarm.
        Truth::Class(7),
        Truth::Class(4),
        Truth::Outlier,
        Truth::Unseen,
        Truth::Unseen,
        Truth::Unknown,
    ];
    let answers = [false, false, true, true, true, false, true].map(answer);
    let found = Rates::of(&truths, &answers);
    let expected = Rates { false_novel: Proportion::new(1, 3), caught_novel: Proportion::new(2, 3) };
    assert_eq!(found, expected);
    // A group without samples has no rate.
    assert_eq!(Rates::of(&truths[..3], &answers[..3]).caught_novel, None);
    assert_eq!(Rates::of(&truths[6..], &answers[6..]), Rates::default());
}

#[test]
fn the_threshold_that_counts_is_the_one_in_the_file() {
    // Notebook A, trap A14: a default bound when a function was defined went on being used after the threshold changed.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let mut file = thresholds();
    let sample = Scored { score: 0.5, predicted: Some(3) };
    for tau in [0.4, 0.6] {
        file.levels[0].threshold.tau = tau;
        file.write(&path).unwrap();
        assert_eq!(ThresholdFile::read(&path).unwrap().levels[0].threshold.flags(&sample), tau > 0.5);
    }
}

#[test]
fn expected_rates_say_what_they_were_measured_on() {
    let file = thresholds();
    let (rates, on) = file.levels[0].expected();
    assert_eq!((rates.false_novel.unwrap().of, on), (77, "report split"));
    let (rates, on) = file.levels[1].expected();
    assert_eq!((rates.false_novel.unwrap().of, on), (1, "calibration split"));
}

/// The message of reading a table in which `from` was replaced by `to`.
fn mutated(from: &str, to: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    thresholds().write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    ThresholdFile::read(&path).unwrap_err().to_string()
}

#[test]
fn a_table_that_was_tampered_with_is_told_what_is_wrong() {
    let coarse = thresholds().levels[0].clone();
    let tau = format!("tau = {}", coarse.threshold.tau);
    for (from, to, part) in [
        ("version = 1", "version = 2", "a newer residua wrote them"),
        ("version = 1", "version = 0", "version 0"),
        ("version = 1", "versoin = 1", "line 1: expected thresholds as calibrate writes them"),
        ("temperature = 1.3", "temperatur = 1.3", "unknown field `temperatur`"),
        ("temperature = 1.3", "temperature = -1.3", "a positive temperature"),
        ("temperature = 1.3", "temperature = nan", "a positive temperature"),
        (&tau, "tau = nan", "a tau that is a finite number"),
        (&tau, "tau = inf", "a tau that is a finite number"),
        ("score = \"msp\"", "score = \"softmax\"", "no score is named `softmax`"),
        ("score = \"msp\"", "score = \"vim\"", "a fit where the score is fitted"),
        ("rule = \"per-class:0.07\"", "rule = \"median\"", "no rule is named `median`"),
        ("hierarchy = \"joint\"", "hierarchy = \"tree\"", "no hierarchy is called `tree`"),
        ("indices = [0, 2, 3]", "indices = [0, 2]", "3 classes, 2 indices"),
        ("indices = [0, 2, 3]", "indices = [0, 2, 2]", "a different index from 0 on"),
        ("indices = [0, 2, 3]", "indices = [-5, 2, 3]", "a different index from 0 on"),
        ("parents = [0, 0, 2]", "parents = [0, 0]", "2 parents for 3 classes"),
        ("parents = [0, 0, 2]", "parents = [5, 5, -1]", "no subclass belongs to a superclass"),
        ("parents = [0, 0, 2]", "parents = [0, 0, -7]", "parents from 0 on"),
        ("novel_logit = 2", "novel_logit = 3", "a novel_logit below"),
        ("novel_index = 99", "novel_index = -2", "a novel_index from -1 on"),
        ("seen = 40", "seen = 41", "as many calibration scores"),
        ("novel = 15", "novel = 16", "rates of all `seen` and `novel`"),
        ("count = 3", "count = 4", "a rate and the bounds of its count"),
        ("count = 3", "count = 300", "a rate and the bounds of its count"),
        ("level = \"superclass\"", "level = \"both\"", "or none"),
        ("file = \"t.", "file = \"../t.", "the name of a file in the same folder"),
        ("file = \"t.", "file = \"u.", "cannot open"),
    ] {
        let message = mutated(from, to);
        assert!(message.contains(part), "{from} -> {to}: {message}");
    }
}

#[test]
fn random_damage_is_an_error_or_changes_nothing_that_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    thresholds().write(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let stream = Stream::for_purpose(8, Purpose::Synthetic, &[2]);
    let everything = Scored { score: f64::INFINITY, predicted: Some(0) };
    for case in 0..300u64 {
        let mut bytes = whole.clone();
        let at = stream.below(3 * case, bytes.len() as u64) as usize;
        match stream.below(3 * case + 1, 3) {
            0 => bytes[at] = stream.bits(3 * case + 2) as u8,
            1 => bytes.truncate(at),
            _ => drop(bytes.remove(at)),
        }
        std::fs::write(&path, &bytes).unwrap();
        // No panic; and what is accepted can be used.
        if let Ok(file) = ThresholdFile::read(&path) {
            assert!(file.levels.iter().all(|entry| !entry.threshold.flags(&everything)), "{file:?}");
        }
    }
}

#[test]
fn files_beside_the_table_must_be_the_ones_it_was_written_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    thresholds().write(&path).unwrap();
    for extension in ["npz", "safetensors"] {
        let mut beside = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let file = beside.find(|file| file.extension().is_some_and(|found| found == extension)).unwrap();
        let whole = std::fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        let message = ThresholdFile::read(&path).unwrap_err().to_string();
        assert!(message.contains("damaged or changed since: calibrate again"), "{message}");
        std::fs::remove_file(&file).unwrap();
        assert!(ThresholdFile::read(&path).unwrap_err().to_string().contains("cannot open"));
        std::fs::write(&file, &whole).unwrap();
    }
    assert!(ThresholdFile::read(&path).is_ok());
}
