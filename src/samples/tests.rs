use std::sync::Arc;

use super::*;
use crate::data::InMemory;
use crate::features::{Element, Matrix, NpyArray};
use crate::ood::Scores;

const CLASSES: usize = 4;
const DIMENSION: usize = 6;

fn matrix(values: Vec<f32>, rows: usize) -> Matrix {
    let columns = values.len() / rows;
    Matrix::new(NpyArray::from_vec(values, Element::F32, vec![rows, columns]), "memory".as_ref(), "values")
        .unwrap()
}

fn head() -> Head {
    let weight =
        (0..CLASSES * DIMENSION).map(|i| if i % DIMENSION == i / DIMENSION { 5.0 } else { 0.0 }).collect();
    Head::new(weight, vec![0.0; CLASSES], DIMENSION).unwrap()
}

/// A set whose features point at their class, with some that point elsewhere.
fn set(rows: usize, stream: u64) -> (FeatureSet, Scores, SharedDataset) {
    let random = Stream::for_purpose(1, Purpose::Synthetic, &[stream]);
    let labels: Vec<i64> = (0..rows as i64).map(|row| row % CLASSES as i64).collect();
    let features = (0..rows).flat_map(|row| {
        let points_at = if row % 9 == 0 { (row + 1) % CLASSES } else { row % CLASSES };
        (0..DIMENSION).map(move |column| {
            let noise = random.normal((row * DIMENSION + column) as u64) as f32;
            f32::from(u8::from(column == points_at)) + 0.3 * noise
        })
    });
    let features = matrix(features.collect(), rows);
    let cache = FeatureSet::from_parts("memory", features, None, Some(labels.clone())).unwrap();
    let scores = ["msp", "energy"].map(|name| {
        let shift = name.len() as u64 * 10_000;
        (name.to_string(), (0..rows as u64).map(|row| random.normal(shift + row)).collect())
    });
    let pixels = (0..rows * 27).map(|i| (i % 251) as u8).collect();
    let names = (0..CLASSES).map(|class| format!("class {class}")).collect();
    let data = InMemory::new(3, 3, pixels, labels, names).unwrap();
    (cache, scores.into_iter().collect(), Arc::new(data))
}

fn file(rows: [usize; 2], options: Options, open: bool) -> (SampleFile, [Scores; 2]) {
    let (id, id_scores, id_data) = set(rows[0], 3);
    let (ood, ood_scores, ood_data) = set(rows[1], 4);
    let images = |data: SharedDataset| if open { Images::Open(data) } else { Images::Absent("gone".into()) };
    let names: Vec<String> = (0..CLASSES).map(|class| format!("class {class}")).collect();
    let head = head();
    let subject = Subject {
        class_names: &names,
        head: &head,
        sets: vec![
            SubjectSet { name: "id", cache: &id, scores: &id_scores, images: images(id_data) },
            SubjectSet { name: "far", cache: &ood, scores: &ood_scores, images: images(ood_data) },
        ],
        threshold: None,
        best: Some("energy".into()),
    };
    (SampleFile::new(&subject, options).unwrap(), [id_scores, ood_scores])
}

fn list<'a>(file: &'a SampleFile, kind: ListKind, set: usize, score: Option<&str>) -> &'a List {
    let own = |list: &&List| list.kind == kind && list.set == set && list.score.as_deref() == score;
    file.lists.iter().find(own).unwrap()
}

#[test]
fn the_ends_of_every_score_of_every_set_are_shown() {
    let (file, scores) = file([200, 90], Options::default(), true);
    for (set, scores) in scores.iter().enumerate() {
        for (name, values) in scores {
            let mut sorted = values.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let values_of = |kind| -> Vec<f64> {
                let list = list(&file, kind, set, Some(name));
                assert_eq!((list.of, list.samples.len()), (values.len() as u64, 12));
                list.samples.iter().map(|place| values[file.shown[*place].row]).collect()
            };
            assert_eq!(values_of(ListKind::MostFamiliar), sorted[..12]);
            sorted.reverse();
            assert_eq!(values_of(ListKind::LeastFamiliar), sorted[..12]);
        }
    }
}

#[test]
fn mistakes_are_wrong_and_the_surest_and_false_alarms_lie_below_the_threshold() {
    let (file, scores) = file([200, 90], Options::default(), true);
    let mistakes = list(&file, ListKind::Mistakes, 0, None);
    assert!(mistakes.of >= 20, "{}", mistakes.of);
    let shown: Vec<&Shown> = mistakes.samples.iter().map(|place| &file.shown[*place]).collect();
    assert!(shown.iter().all(|sample| sample.label != Some(sample.predicted as i64)));
    assert!(shown.is_sorted_by(|a, b| a.confidence >= b.confidence));
    let threshold = file.threshold.clone().unwrap();
    assert_eq!((threshold.score.as_str(), threshold.calibrated), ("energy", false));
    let alarms = list(&file, ListKind::FalseAlarms, 0, Some("energy"));
    // 95 % of 200 are kept.
    assert_eq!((alarms.of, alarms.samples.len()), (10, 10));
    let score = |place: &usize| scores[0]["energy"][file.shown[*place].row];
    assert!(alarms.samples.iter().all(|place| score(place) < threshold.tau));
}

#[test]
fn the_budget_holds_and_lists_go_before_the_map() {
    for budget in [0, 5, 60, 600] {
        let (file, _) = file([2000, 700], Options { budget, seed: 1 }, true);
        assert!(file.thumbnails.len() <= budget, "{} of {budget}", file.thumbnails.len());
        if budget >= 60 {
            let listed = file.lists.iter().flat_map(|list| &list.samples);
            assert!(listed.clone().all(|place| file.shown[*place].thumbnail.is_some()));
            assert_eq!(file.thumbnails.len(), budget);
        }
        // The map is a sample of both sets, whatever the budget.
        let on_map = |set: usize| {
            file.shown.iter().filter(|sample| sample.set == set && !sample.at.is_empty()).count()
        };
        assert_eq!([on_map(0), on_map(1)], [1500, 700]);
        assert_eq!(file.maps.iter().map(|map| map.name.as_str()).collect::<Vec<_>>(), ["pca", "class_means"]);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_for_any_number_of_threads() {
    let with = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            serde_json::to_string(&file([2000, 700], Options { budget: 50, seed }, true).0).unwrap()
        })
    };
    assert_eq!(with(1, 5), with(3, 5));
    assert_ne!(with(1, 5), with(1, 6));
}

#[test]
fn a_file_is_read_as_it_was_written_and_nothing_but_images_enters_its_style_sheet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(SAMPLES_FILE);
    let (written, _) = file([50, 20], Options::default(), true);
    written.write(&path).unwrap();
    assert_eq!(SampleFile::read(&path).unwrap(), written);
    let refused = |change: &dyn Fn(&mut SampleFile)| {
        let mut changed = written.clone();
        change(&mut changed);
        changed.write(&path).unwrap();
        SampleFile::read(&path).unwrap_err().to_string()
    };
    for address in
        ["http://example.org/x.png", "data:image/png;base64,AA)}body{", "data:image/svg+xml;base64,AA", ""]
    {
        let message = refused(&|file| file.thumbnails[3] = address.to_string());
        assert!(message.contains("samples.json") && message.contains("place 3"), "{message}");
    }
    for change in [
        &(|file: &mut SampleFile| file.shown[0].set = 2) as &dyn Fn(&mut SampleFile),
        &|file| file.shown[0].thumbnail = Some(100_000),
        &|file| file.lists[0].samples = vec![9999],
        &|file| file.lists[0].set = 7,
        &|file| file.maps.truncate(1),
    ] {
        assert!(refused(change).contains("samples.json"));
    }
    std::fs::write(&path, "{\"shown\": 3}").unwrap();
    assert!(SampleFile::read(&path).unwrap_err().to_string().contains("samples.json"));
}

#[test]
fn images_that_are_not_at_hand_are_said_and_everything_else_is_shown() {
    let (file, _) = file([50, 20], Options::default(), false);
    assert_eq!(file.sets[1].absent.as_deref(), Some("gone"));
    assert!(file.thumbnails.is_empty() && !file.lists.is_empty() && !file.maps.is_empty());
}

#[test]
fn images_are_those_of_the_data_that_a_cache_names_whichever_part_it_is() {
    let is_absent = |images: Images, part: &str| match images {
        Images::Absent(why) => assert!(why.contains(part), "{why}"),
        Images::Open(_) => panic!("expected {part}"),
    };
    // A cache of somebody else names no data.
    is_absent(Images::of_cache(&set(30, 8).0), "does not say which images");
    is_absent(Images::named("cifar10:/nowhere", 30, None), "cannot be opened");
    for part in ["train", "test"] {
        let named = format!("demo:fashion-mnist?split={part}");
        let data = data::open(&named.parse().unwrap(), Split::Train).unwrap();
        let labels: Vec<i64> = (0..data.len()).map(|row| data.label(row)).collect();
        // Without its part: the number of images and their classes tell which it is.
        for named in ["demo:fashion-mnist", "demo:fashion-mnist (labels by name)"] {
            let Images::Open(found) = Images::named(named, labels.len(), Some(&labels)) else {
                panic!("{part}")
            };
            assert!((0..labels.len()).all(|row| found.label(row) == labels[row]));
        }
        is_absent(Images::named(&named, labels.len() - 1, None), "the data has changed since");
        let turned: Vec<i64> = labels.iter().rev().copied().collect();
        is_absent(Images::named(&named, labels.len(), Some(&turned)), "other classes");
        // Another numbering of the same classes is no other order.
        let renumbered: Vec<i64> = labels.iter().map(|label| 7 - label).collect();
        assert!(matches!(Images::named(&named, labels.len(), Some(&renumbered)), Images::Open(_)));
    }
}

#[test]
fn few_samples_and_few_dimensions_have_as_many_maps_as_they_span() {
    let (one, _) = file([1, 1], Options::default(), true);
    assert!(one.maps.is_empty() && one.shown.len() == 2);
    let (two_classes, _) = file([2, 3], Options::default(), true);
    assert!(two_classes.maps.is_empty());
    let (some, _) = file([7, 1], Options::default(), true);
    assert_eq!(some.maps.len(), 2);
}
