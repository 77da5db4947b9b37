//! The scores against an independent implementation, case by case and score by score.

use std::path::{Path, PathBuf};

use residua::features::{FeatureSet, Head, Matrix, Npz};
use residua::ood::{Detectors, Dimension, Method, OnCpu, Options};

pub fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference").join(name)
}

pub fn expected(folder: &Path, array: &str) -> Option<Vec<f64>> {
    let path = folder.join("expected_scores.npz");
    let mut array = Npz::open(&path).unwrap().array(array).unwrap()?;
    array.shape = vec![1, array.shape[0]];
    let mut values = Vec::new();
    Matrix::new(array, &path, "scores").unwrap().read_f64(0..1, &mut values);
    Some(values)
}

pub fn options(dimension: usize) -> Options {
    Options { vim_dim: Dimension::Count((dimension / 2).clamp(1, 64)), ..Options::default() }
}

/// Labelled ID samples outside training.
pub fn calibration(folder: &Path) -> FeatureSet {
    FeatureSet::open(&folder.join("cal.npz")).unwrap()
}

/// How far a score may be off, relative to its mean: a tenth of what an f32 engine is allowed, as statistics are f64.
pub fn tolerance(method: Method) -> f64 {
    match method {
        Method::Mahalanobis | Method::Rmds | Method::MdsPp | Method::RmdsPp | Method::Ssd => 1e-5,
        _ => 1e-6,
    }
}

fn check_case(name: &str, absent: &[Method]) {
    let folder = case(name);
    let head = Head::open(&folder.join("head.npz")).unwrap();
    let train = FeatureSet::open(&folder.join("train.npz")).unwrap();
    let (cal, options) = (calibration(&folder), options(head.dimension()));
    let detectors = Detectors::fit_on(&mut OnCpu, (&train, Some(&cal)), &head, &options).unwrap();
    // Saved and loaded detectors must give the same scores bit for bit.
    let saved = tempfile::tempdir().unwrap();
    let path = saved.path().join("fit.safetensors");
    detectors.save(&path).unwrap();
    let loaded = Detectors::load(&path).unwrap();
    assert_eq!(loaded, detectors);
    for side in ["id", "ood"] {
        let set = FeatureSet::open(&folder.join(side).with_extension("npz")).unwrap();
        let scores = detectors.score(&set).unwrap();
        assert_eq!(loaded.score(&set).unwrap(), scores);
        for &method in Method::ALL {
            if absent.contains(&method) {
                assert!(!scores.contains_key(method.name()), "{name}: {method} is constant");
                continue;
            }
            let expected = expected(&folder, &format!("{method}_{side}")).unwrap();
            let found = &scores[method.name()];
            assert_eq!(found.len(), expected.len());
            let mean = expected.iter().map(|x| x.abs()).sum::<f64>() / expected.len() as f64;
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(
                worst / mean <= tolerance(method),
                "{name} {method} {side}: off by {:e} of the mean",
                worst / mean
            );
        }
    }
}

#[test]
fn every_score_meets_the_reference_in_the_tiny_case() {
    check_case("tiny", &[]);
}

#[test]
fn every_score_meets_the_reference_in_the_small_case() {
    check_case("small", &[]);
}

#[test]
fn every_score_meets_the_reference_on_collapsed_features() {
    check_case("collapsed", &[]);
}

#[test]
fn every_score_meets_the_reference_on_features_of_both_signs() {
    check_case("gauss", &[]);
}

#[test]
fn every_score_meets_the_reference_with_fewer_samples_than_dimensions() {
    check_case("rank_deficient", &[]);
}

#[test]
fn constant_presets_are_left_out_with_a_warning_where_classes_outnumber_dimensions() {
    let constant = [Method::NecoFormula, Method::NecoClassMeans, Method::NecoOfficial];
    check_case("more_classes_than_dim", &constant);
    let folder = case("more_classes_than_dim");
    let head = Head::open(&folder.join("head.npz")).unwrap();
    let train = FeatureSet::open(&folder.join("train.npz")).unwrap();
    let detectors = Detectors::fit(&train, &head, &options(head.dimension())).unwrap();
    for preset in constant {
        let named = |warning: &&String| warning.starts_with(&format!("{preset} is left out"));
        assert_eq!(detectors.warnings().iter().filter(named).count(), 1, "{preset}");
    }
}

#[test]
fn scores_and_fits_are_the_same_bit_for_bit_with_one_and_three_threads() {
    let folder = case("small");
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let head = Head::open(&folder.join("head.npz")).unwrap();
            let train = FeatureSet::open(&folder.join("train.npz")).unwrap();
            let detectors = Detectors::fit(&train, &head, &options(64)).unwrap();
            let scores = detectors.score(&FeatureSet::open(&folder.join("ood.npz")).unwrap()).unwrap();
            (detectors, scores)
        })
    };
    assert!(with(1) == with(3));
}

#[test]
fn logits_are_computed_by_the_head_where_a_cache_has_none() {
    let folder = case("tiny");
    let head = Head::open(&folder.join("head.npz")).unwrap();
    let train = FeatureSet::open(&folder.join("train.npz")).unwrap();
    let options = Options::of(&[Method::Energy]);
    let detectors = Detectors::fit(&train, &head, &options).unwrap();
    let id = FeatureSet::open(&folder.join("id.npz")).unwrap();
    let bare = FeatureSet::from_parts("bare", id.features().clone(), None, None).unwrap();
    let (stored, computed) = (detectors.score(&id).unwrap(), detectors.score(&bare).unwrap());
    for (a, b) in stored["energy"].iter().zip(&computed["energy"]) {
        assert!((a - b).abs() < 1e-5, "{a} against {b}");
    }
}

#[test]
fn a_vim_dimension_that_leaves_no_residual_is_an_error() {
    let folder = case("tiny");
    let head = Head::open(&folder.join("head.npz")).unwrap();
    let train = FeatureSet::open(&folder.join("train.npz")).unwrap();
    let fit = |vim_dim| {
        let options = Options { vim_dim, ..Options::of(&[Method::Vim]) };
        Detectors::fit(&train, &head, &options)
    };
    for dimension in [16, 17, usize::MAX] {
        let message = fit(Dimension::Count(dimension)).unwrap_err().to_string();
        assert!(message.contains("choose 1 to 15"), "{message}");
    }
    assert_eq!(fit(Dimension::Rule).unwrap().fits()["vim"].dim, Some(8));
    let share = fit(Dimension::Variance(0.9)).unwrap().fits()["vim"].dim.unwrap();
    assert!((1..16).contains(&share));
}
