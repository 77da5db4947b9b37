use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::data::{InMemory, Taxonomy};
use crate::rng::Purpose;

/// `counts[c]` images of class c, mixed; class c lies in superclass c % superclasses, the last class is `novel`.
fn set(counts: &[usize], superclasses: usize) -> InMemory {
    let most = counts.iter().copied().max().unwrap_or(0);
    let labels: Vec<i64> = (0..most)
        .flat_map(|row| (0..counts.len()).filter(move |&class| row < counts[class]))
        .map(|class| class as i64)
        .collect();
    let novel = counts.len() - 1;
    let mut subclasses: Vec<String> = (0..novel).map(|class| format!("sub{class}")).collect();
    subclasses.push("novel".to_owned());
    let mut names: Vec<String> = (0..superclasses).map(|class| format!("super{class}")).collect();
    names.push("novel".to_owned());
    let parents = (0..novel).map(|class| Some(class % superclasses)).chain([Some(superclasses)]).collect();
    let taxonomy = Taxonomy { superclasses: names, subclasses: subclasses.clone(), parents };
    let grey = vec![0; labels.len()];
    InMemory::from_grey(1, 1, &grey, labels, subclasses).unwrap().with_taxonomy(taxonomy).unwrap()
}

fn all_parts(fold: &Fold) -> [&Vec<u32>; 6] {
    [&fold.train, &fold.select, &fold.calibrate, &fold.report, &fold.novel_calibrate, &fold.novel_report]
}

fn classes_of(set: &dyn Dataset, part: &[u32]) -> BTreeSet<usize> {
    part.iter().map(|&index| set.label(index as usize) as usize).collect()
}

/// Every promise a fold makes but the size of its parts.
fn check(set: &dyn Dataset, fold: &Fold) {
    let mut all: Vec<u32> = all_parts(fold).into_iter().flatten().copied().collect();
    assert!(all_parts(fold).iter().all(|part| part.is_sorted()));
    all.sort_unstable();
    assert_eq!(all, (0..set.len() as u32).collect::<Vec<_>>(), "every image is in exactly one part");
    let held_out: BTreeSet<usize> = fold.held_out.iter().copied().collect();
    for part in [&fold.train, &fold.select, &fold.calibrate, &fold.report] {
        assert!(classes_of(set, part).is_disjoint(&held_out));
    }
    let chosen_on = classes_of(set, &fold.novel_calibrate);
    let reported_on = classes_of(set, &fold.novel_report);
    assert!(chosen_on.is_disjoint(&reported_on));
    assert_eq!(&chosen_on | &reported_on, held_out);
}

/// The sizes of the parts of a seen class are its shares rounded down or up.
fn check_shares_of(set: &dyn Dataset, fold: &Fold, class: usize, options: &SplitOptions) {
    let of_class = |part: &[u32]| part.iter().filter(|&&i| set.label(i as usize) == class as i64).count();
    let count: usize = all_parts(fold).into_iter().map(|part| of_class(part)).sum();
    assert!(count == 0 || of_class(&fold.train) > 0, "class {class} is trained on");
    let shares = [
        (options.select, &fold.select),
        (options.calibrate, &fold.calibrate),
        (options.report, &fold.report),
    ];
    for (share, part) in shares {
        let quota = share * count as f64;
        // One image may have gone to train, which must have one.
        let least = if of_class(&fold.train) == 1 { quota - 2.0 } else { quota - 1.0 };
        let found = of_class(part) as f64;
        assert!(found > least - 1e-6 && found < quota + 1.0 + 1e-6, "class {class}: {found} of {quota}");
    }
}

fn message(set: &dyn Dataset, options: &SplitOptions) -> String {
    splits(set, options).unwrap_err().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_are_disjoint_complete_and_stratified(
        counts in prop::collection::vec(2..40usize, 4..30),
        superclasses in 1..4usize,
        shares in (0.05..0.3f64, 0.05..0.3f64, 0.05..0.3f64),
        hold_out in prop::option::of(0.1..0.5f64),
        seed in any::<u64>(),
    ) {
        let set = set(&counts, superclasses);
        let hold_out = hold_out.map_or(HoldOut::None, HoldOut::Fraction);
        let (select, calibrate, report) = shares;
        let options = SplitOptions { select, calibrate, report, hold_out, folds: 0, seed };
        // Too few classes or images is a message.
        if let Ok(folds) = splits(&set, &options) {
            prop_assert_eq!(folds.len(), 1);
            check(&set, &folds[0]);
            for class in (0..counts.len()).filter(|class| !folds[0].held_out.contains(class)) {
                check_shares_of(&set, &folds[0], class, &options);
            }
            prop_assert_eq!(&folds, &splits(&set, &options).unwrap());
        }
    }

    #[test]
    fn every_class_is_held_out_of_exactly_one_fold(
        classes in 8..40usize,
        superclasses in 1..4usize,
        folds in 2..5usize,
        seed in any::<u64>(),
    ) {
        let set = set(&vec![20; classes + 1], superclasses);
        let options = SplitOptions { folds, seed, ..SplitOptions::default() };
        let folds = splits(&set, &options).unwrap();
        prop_assert_eq!(folds.len(), options.folds);
        let mut held_out: Vec<usize> = folds.iter().flat_map(|fold| fold.held_out.clone()).collect();
        held_out.sort_unstable();
        prop_assert_eq!(held_out, (0..classes).collect::<Vec<_>>());
        let parents = &set.taxonomy().unwrap().parents;
        for fold in &folds {
            check(&set, fold);
            let seen = (0..classes).filter(|class| !fold.held_out.contains(class));
            let superclasses_seen: BTreeSet<_> = seen.map(|class| parents[class]).collect();
            prop_assert_eq!(superclasses_seen.len(), superclasses, "every superclass is trained on");
        }
        // An image that is reported on in one fold is trained on in none.
        let trained: BTreeSet<u32> = folds.iter().flat_map(|fold| fold.train.clone()).collect();
        prop_assert!(folds.iter().all(|fold| fold.report.iter().all(|index| !trained.contains(index))));
    }
}

#[test]
fn shares_of_the_whole_come_out_right_even_if_every_class_is_small() {
    // Notebook A, trap A13: a split that leaves classes to chance leaves some of them out.
    let set = set(&[3; 101], 1);
    let fold = splits(&set, &SplitOptions::default()).unwrap().swap_remove(0);
    for part in [&fold.select, &fold.calibrate, &fold.report] {
        assert!((29..=32).contains(&part.len()), "{} of 303", part.len());
    }
    assert!(classes_of(&set, &fold.train).len() == 101);
}

#[test]
fn a_given_list_is_held_out_and_outliers_are_in_every_part() {
    let set = set(&[70, 60, 50, 80, 90, 75, 400], 3);
    let options = SplitOptions { hold_out: HoldOut::Classes(vec![4, 1]), ..SplitOptions::default() };
    let fold = splits(&set, &options).unwrap().swap_remove(0);
    check(&set, &fold);
    assert_eq!(fold.held_out, [1, 4]);
    assert_eq!(fold.novel_calibrate.len() + fold.novel_report.len(), 150);
    for (part, count) in [(&fold.train, 280), (&fold.select, 40), (&fold.calibrate, 40), (&fold.report, 40)] {
        assert_eq!(part.iter().filter(|&&index| set.label(index as usize) == 6).count(), count);
    }
}

#[test]
fn a_fraction_holds_out_as_many_classes_as_the_notebook_did_of_each_superclass_alike() {
    // 87 subclasses in 3 superclasses, 15 % of them.
    let set = set(&[20; 88], 3);
    let options = SplitOptions { hold_out: HoldOut::Fraction(0.15), ..SplitOptions::default() };
    let fold = splits(&set, &options).unwrap().swap_remove(0);
    assert_eq!(fold.held_out.len(), 13);
    for superclass in 0..3 {
        let held_out = fold.held_out.iter().filter(|&&class| class % 3 == superclass).count();
        assert!((4..=5).contains(&held_out));
    }
    let other = splits(&set, &SplitOptions { seed: 1, ..options }).unwrap().swap_remove(0);
    assert_ne!(other.held_out, fold.held_out);
}

#[test]
fn images_are_dealt_by_the_documented_generator() {
    let set = set(&[10, 10, 10, 0], 1);
    let fold = splits(&set, &SplitOptions { seed: 5, ..SplitOptions::default() }).unwrap().swap_remove(0);
    // The rule repeated by hand for class 1, whose images are 1, 4, 7, …: permuted, then seven to train.
    let stream = crate::rng::Stream::new(5, &[Purpose::Split as u64, 1]);
    let mut order: Vec<u32> = (0..10).map(|row| 3 * row + 1).collect();
    for j in (1..10).rev() {
        order.swap(j, stream.below(j as u64, j as u64 + 1) as usize);
    }
    let mut expected = order[..7].to_vec();
    expected.sort_unstable();
    let trained: Vec<u32> = fold.train.iter().copied().filter(|index| index % 3 == 1).collect();
    assert_eq!(trained, expected);
    assert!(fold.select.contains(&order[7]) && fold.calibrate.contains(&order[8]));
}

#[test]
fn a_class_with_one_image_is_named_with_it_unless_it_is_held_out() {
    let set = set(&[9, 9, 1, 9, 9, 9], 1);
    let options = SplitOptions::default();
    let text = message(&set, &options);
    assert!(text.contains("class 2 `sub2` has a single image (sample 2, `2`)"), "{text}");
    assert!(text.contains("hold it out"), "{text}");
    let options = SplitOptions { hold_out: HoldOut::Classes(vec![0, 2]), ..options };
    assert_eq!(splits(&set, &options).unwrap()[0].held_out, [0, 2]);
    let whole = SplitOptions { select: 0.0, calibrate: 0.0, report: 0.0, ..SplitOptions::default() };
    assert_eq!(splits(&set, &whole).unwrap()[0].train.len(), 46);
}

#[test]
fn the_share_that_a_refusal_advises_is_accepted() {
    for (counts, superclasses) in [(&[9, 9, 9, 9, 0][..], 2), (&[9, 9, 9, 0], 2), (&[9, 9, 9, 9, 9, 9, 0], 3)]
    {
        let set = set(counts, superclasses);
        let options = SplitOptions { hold_out: HoldOut::Fraction(0.9), ..SplitOptions::default() };
        let text = message(&set, &options);
        let advice = text.split("write hold_out = ").nth(1).unwrap_or_else(|| panic!("{text}"));
        let share: f64 = advice.split([' ', ',']).next().unwrap().parse().unwrap();
        let report = if advice.contains("report = 0") { 0.0 } else { options.report };
        let advised = SplitOptions { hold_out: HoldOut::Fraction(share), report, ..options };
        splits(&set, &advised).unwrap_or_else(|error| panic!("{text}\n{error}"));
    }
}

#[test]
fn parts_that_would_be_empty_and_wrong_lists_are_refused() {
    let set = set(&[5, 5, 5, 5, 0], 2);
    let with = |hold_out| SplitOptions { hold_out, ..SplitOptions::default() };
    let text = message(&set, &SplitOptions { calibrate: 0.01, ..SplitOptions::default() });
    assert!(text.contains("`calibrate` is empty") && text.contains("0.01"), "{text}");
    assert!(
        message(&set, &SplitOptions { select: 0.9, ..with(HoldOut::None) }).contains("nothing to train on")
    );
    assert!(message(&set, &SplitOptions { report: -0.1, ..with(HoldOut::None) }).contains("report = -0.1"));
    assert!(
        message(&set, &SplitOptions { report: f64::NAN, ..with(HoldOut::None) }).contains("report = NaN")
    );
    assert!(
        message(&set, &with(HoldOut::Classes(vec![1, 5]))).contains("class 5, but there are classes 0 to 4")
    );
    assert!(message(&set, &with(HoldOut::Classes(vec![1, 1]))).contains("class 1 twice"));
    assert!(message(&set, &with(HoldOut::Classes(vec![4]))).contains("class 4 `novel`, the outliers"));
    assert!(message(&set, &with(HoldOut::Classes(vec![0, 1, 2]))).contains("which leaves 1 to train on"));
    assert!(message(&set, &with(HoldOut::Classes(vec![]))).contains("hold_out = [] names no class"));
    assert!(message(&set, &with(HoldOut::Classes(vec![3]))).contains("only class 3 `sub3` is held out"));
    assert!(message(&set, &with(HoldOut::Fraction(0.9))).contains("at most 2"));
    assert!(message(&set, &with(HoldOut::Fraction(1.5))).contains("between 0 and 1"));
    let folds = SplitOptions { folds: 2, ..with(HoldOut::Fraction(0.5)) };
    assert!(message(&set, &folds).contains("leave hold_out away"));
    let folds = SplitOptions { folds: 9_000_000_000, ..with(HoldOut::None) };
    assert!(message(&set, &folds).contains("there are only 4 classes"));
    let no_calibration = SplitOptions { calibrate: 0.0, ..with(HoldOut::Fraction(0.5)) };
    assert!(message(&set, &no_calibration).contains("calibrate = 0"));
    let unlabelled = InMemory::from_grey(1, 1, &[1, 2], vec![0, -1], vec!["a".into()]).unwrap();
    assert!(message(&unlabelled, &SplitOptions::default()).contains("sample 1 (`1`) has no label"));
}

#[test]
fn options_are_read_as_a_recipe_writes_them_and_unknown_keys_are_errors() {
    let read = |text: &str| toml::from_str::<SplitOptions>(text);
    assert_eq!(read("").unwrap(), SplitOptions::default());
    assert_eq!(read("hold_out = [1, 4]").unwrap().hold_out, HoldOut::Classes(vec![1, 4]));
    assert_eq!(read("hold_out = 0.15\nfolds = 1").unwrap().hold_out, HoldOut::Fraction(0.15));
    assert_eq!(read("hold_out = \"none\"").unwrap().hold_out, HoldOut::None);
    for (text, part) in [
        ("hold_out = \"some\"", "`some`"),
        ("hold_out = true", "a fraction"),
        ("use_psudeo = 1", "use_psudeo"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let options = SplitOptions { hold_out: HoldOut::Classes(vec![2]), ..SplitOptions::default() };
    assert_eq!(read(&toml::to_string(&options).unwrap()).unwrap(), options);
}
