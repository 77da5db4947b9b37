use super::*;
use crate::data::{Concatenated, InMemory, Level, Taxonomy};

const FINE: [&str; 4] = ["bee", "lizard", "apple", "tank"];

/// A folder of class folders with `each` images of each class, which differ in their pixels.
fn put_source(root: &Path, each: u8) -> OutlierOptions {
    for (class, name) in (0u8..).zip(FINE) {
        let folder = root.join("images").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..each {
            // A plain PPM: size, largest value, red, green, blue.
            let text = format!("P3 2 3 255 {}", format!("{class} {number} 7 ").repeat(6));
            std::fs::write(folder.join(format!("{number}.ppm")), text).unwrap();
        }
    }
    OutlierOptions {
        data: "folder:images".parse().unwrap(),
        classes: vec![],
        exclude: vec!["lizard".to_owned()],
        count: OutlierCount::Number(9),
        seed: 42,
        match_seen: false,
    }
}

fn seen() -> SharedDataset {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let taxonomy = Taxonomy {
        superclasses: names(&["dog", "novel"]),
        subclasses: names(&["beagle", "novel", "pug"]),
        parents: vec![Some(0), Some(1), Some(0)],
    };
    let set = InMemory::from_grey(1, 1, &[1, 2], vec![0, 2], taxonomy.subclasses.clone()).unwrap();
    Arc::new(set.with_taxonomy(taxonomy).unwrap())
}

fn message(options: &OutlierOptions, root: &Path) -> String {
    build(options, Some(root), &*seen()).unwrap_err().to_string()
}

#[test]
fn outliers_are_of_the_allowed_classes_named_by_source_and_labelled_novel() {
    let root = tempfile::tempdir().unwrap();
    let options = put_source(root.path(), 5);
    let outliers = build(&options, Some(root.path()), &*seen()).unwrap().unwrap();
    let (dataset, manifest) = (&outliers.dataset, &outliers.manifest);
    assert_eq!((dataset.len(), manifest.count, manifest.seed), (9, 9, 42));
    assert_eq!((manifest.source.as_str(), outliers.degrade), ("folder:images", None));
    assert_eq!(manifest.classes, ["apple", "bee", "tank"]);
    for (position, outlier) in manifest.outliers.iter().enumerate() {
        // Class folders are sorted: apple 0..5, bee 5..10, lizard, tank 15..20; red tells the class.
        let image = dataset.image(position).unwrap();
        assert_eq!(FINE[usize::from(image.pixels[0])], outlier.class);
        assert_eq!(outlier.index % 5, u32::from(image.pixels[1]));
        assert_eq!(outlier.blake3, digest(&image).to_hex().to_string());
        assert_eq!(dataset.sample_name(position), format!("folder/{}_{}", outlier.index, outlier.class));
        assert_eq!((dataset.label(position), outlier.position), (1, position));
    }
    let together = Concatenated::new(vec![seen(), dataset.clone()]).unwrap();
    assert_eq!(
        (together.len(), together.taxonomy().unwrap().label(Level::Coarse, together.label(10))),
        (11, 1)
    );
}

#[test]
fn the_same_seed_gives_the_same_manifest_and_the_small_set_begins_the_large_one() {
    // Notebook A, trap A11: its candidates came in the order of a set of strings, so its 5,000 images differed from run to run.
    let root = tempfile::tempdir().unwrap();
    let options = put_source(root.path(), 5);
    let manifest =
        |options: &OutlierOptions| build(options, Some(root.path()), &*seen()).unwrap().unwrap().manifest;
    let first = manifest(&options);
    assert_eq!(first, manifest(&options));
    // The order in which classes are listed changes nothing.
    for classes in [["tank", "bee", "apple"], ["apple", "tank", "bee"]] {
        let classes = classes.map(str::to_owned).to_vec();
        assert_eq!(manifest(&OutlierOptions { classes, exclude: vec![], ..options.clone() }), first);
    }
    let small = manifest(&OutlierOptions { count: OutlierCount::Number(3), ..options.clone() });
    assert_eq!(small.outliers, first.outliers[..3]);
    let other = manifest(&OutlierOptions { seed: 43, ..options.clone() });
    assert_ne!(other.outliers, first.outliers);
    assert_ne!(other.hash, first.hash);
    // By hand: apple, bee and tank in this order, permuted.
    let order = Stream::new(42, &[Purpose::Outliers as u64]).permutation(15);
    let candidates: Vec<u32> = (0..10).chain(15..20).collect();
    let expected: Vec<u32> = order[..9].iter().map(|&position| candidates[position as usize]).collect();
    assert_eq!(first.outliers.iter().map(|outlier| outlier.index).collect::<Vec<_>>(), expected);
    let path = root.path().join("run/outliers.json");
    first.write(&path).unwrap();
    let read: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!((&read["hash"], read["outliers"].as_array().unwrap().len()), (&first.hash.as_str().into(), 9));
    // The hash repeated by hand.
    let lines: String =
        first.outliers.iter().map(|o| format!("{},{},{}\n", o.index, o.class, o.blake3)).collect();
    assert_eq!(first.hash, blake3::hash(lines.as_bytes()).to_hex().to_string());
}

#[test]
fn seen_images_can_be_degraded_to_the_size_of_the_outliers() {
    let root = tempfile::tempdir().unwrap();
    let options = OutlierOptions { match_seen: true, ..put_source(root.path(), 3) };
    let outliers = build(&options, Some(root.path()), &*seen()).unwrap().unwrap();
    assert_eq!(outliers.degrade, Some(3));
}

#[test]
fn what_cannot_be_drawn_is_refused_with_what_there_is() {
    let root = tempfile::tempdir().unwrap();
    let options = put_source(root.path(), 5);
    let with = |change: &dyn Fn(&mut OutlierOptions)| {
        let mut changed = options.clone();
        change(&mut changed);
        message(&changed, root.path())
    };
    let text = with(&|options| options.exclude = vec!["snake".to_owned()]);
    assert!(text.contains("`snake` is no class of folder:images; its classes are apple, bee"), "{text}");
    let text = with(&|options| options.count = OutlierCount::Large);
    assert!(text.contains("5000 outliers are asked for") && text.contains("15 images"), "{text}");
    assert!(with(&|options| options.classes = vec!["bee".to_owned()]).contains("not both"));
    assert!(with(&|options| options.data = "images:images".parse().unwrap()).contains("a labelled data set"));
    let no_novel = InMemory::from_grey(1, 1, &[1], vec![0], vec!["pug".to_owned()]).unwrap();
    let text = build(&options, Some(root.path()), &no_novel).unwrap_err().to_string();
    assert!(text.contains("none of the 1 classes of the data is named `novel`"), "{text}");
    let none = OutlierOptions { count: OutlierCount::None, ..options };
    assert!(build(&none, Some(root.path()), &no_novel).unwrap().is_none());
}

#[test]
fn options_are_read_as_a_recipe_writes_them() {
    let read = |text: &str| toml::from_str::<OutlierOptions>(&format!("data = \"cifar100:d\"\n{text}"));
    assert_eq!(read("").unwrap().count, OutlierCount::Large);
    for (text, number) in
        [("\"none\"", 0), ("\"small\"", 1000), ("\"large\"", 5000), ("17", 17), ("\"17\"", 17)]
    {
        let options = read(&format!("count = {text}")).unwrap();
        assert_eq!(options.count.number(), number);
        let again: OutlierOptions = toml::from_str(&toml::to_string(&options).unwrap()).unwrap();
        assert_eq!(again, options);
    }
    for (text, part) in
        [("count = \"many\"", "`many`"), ("count = -1", "a number of outliers"), ("cuont = 3", "cuont")]
    {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
