use super::*;
use crate::data::InMemory;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Birds (robin, owl), dogs (poodle, pug), and `novel` on both levels; the owl is held out.
fn taxonomy() -> Taxonomy {
    Taxonomy {
        superclasses: names(&["bird", "dog", "novel"]),
        subclasses: names(&["robin", "owl", "poodle", "pug", "novel"]),
        parents: vec![Some(0), Some(0), Some(1), Some(1), Some(2)],
    }
}

fn head(level: Level, classes: &[&str]) -> HeadClasses {
    let all = taxonomy().names(level).to_vec();
    let index = |class: &&str| all.iter().position(|name| name == class).unwrap() as i64;
    HeadClasses {
        level: Some(level),
        indices: classes.iter().map(index).collect(),
        ..HeadClasses::single(names(classes))
    }
}

fn fine() -> HeadClasses {
    head(Level::Fine, &["robin", "poodle", "pug"])
}

fn set(labels: &[i64], classes: &[&str]) -> InMemory {
    InMemory::from_grey(1, 1, &vec![0; labels.len()], labels.to_vec(), names(classes)).unwrap()
}

fn logits(head: &HeadClasses, data: &dyn Dataset) -> (Vec<i64>, HeadLabels) {
    let labels = HeadLabels::of(head, Some(&taxonomy()), data, LabelsBy::Names);
    ((0..data.len()).map(|index| labels.logit(data.label(index))).collect(), labels)
}

#[test]
fn a_class_that_was_held_out_has_no_logit_and_is_no_foreign_one() {
    let data = set(&[0, 1, 2, 3, 4, -1], &["robin", "owl", "poodle", "pug", "novel"]);
    let data = data.with_taxonomy(taxonomy()).unwrap();
    let (found, labels) = logits(&fine(), &data);
    assert_eq!(found, [0, -1, 1, 2, -1, -1]);
    assert!(labels.require_known("it").is_ok() && !labels.are_renumbered());
    assert!(labels.note("it").unwrap().contains("without `owl`, `novel`: 2 samples"));
    let (found, labels) = logits(&head(Level::Coarse, &["bird", "dog", "novel"]), &data);
    assert_eq!((found, labels.note("it")), (vec![0, 0, 1, 1, 2, -1], None));
}

#[test]
fn labels_of_subclasses_say_superclasses_by_the_networks_own_taxonomy() {
    // Without one of the subclasses, so that the numbers are others.
    let data = set(&[0, 1, 2], &["owl", "poodle", "robin"]);
    let mut coarse = head(Level::Coarse, &["bird", "dog", "novel"]);
    for name in [SUPERCLASS_HEAD, "fc"] {
        coarse.name = name.into();
        assert_eq!(logits(&coarse, &data).0, [0, 1, 0], "{name}");
    }
    assert_eq!(logits(&fine(), &data).0, [-1, 1, 0]);
    // Labels of superclasses are read as such.
    let data = set(&[0, 1], &["dog", "bird"]);
    assert_eq!(logits(&coarse, &data).0, [1, 0]);
    let (found, labels) = logits(&fine(), &data);
    assert!(found == [-1, -1] && labels.are_others());
    let text = labels.require_known("`it`").unwrap_err().to_string();
    assert!(text.contains("the labels of `it` (`dog`, `bird`) are of other classes"), "{text}");
}

#[test]
fn a_class_that_nobody_knows_is_named_and_numbers_are_taken_where_asked() {
    let data = set(&[0, 1, 1], &["pug", "lynx"]);
    let (found, labels) = logits(&fine(), &data);
    assert_eq!(found, [2, -1, -1]);
    assert!(labels.are_renumbered());
    let text = labels.require_known("it").unwrap_err().to_string();
    assert!(text.contains("2 samples of it (`lynx`) are of other classes"), "{text}");
    let labels = HeadLabels::of(&fine(), Some(&taxonomy()), &data, LabelsBy::Numbers);
    assert_eq!((labels.logit(0), labels.logit(1), labels.logit(7)), (0, -1, -1));
    assert!(labels.note("it").unwrap().contains("as asked for"));
}
