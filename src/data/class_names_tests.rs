use super::*;
use crate::data::InMemory;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn matched(known: &[String], others: &[String]) -> ClassMatch {
    let places: Vec<i64> = (0..known.len() as i64).collect();
    ClassMatch::new(KnownClasses { names: known, numbers: &places, numbered: known.len() }, others)
}

fn set(labels: &[i64], classes: &[&str]) -> SharedDataset {
    let grey = vec![7; labels.len()];
    Arc::new(InMemory::from_grey(1, 1, &grey, labels.to_vec(), names(classes)).unwrap())
}

#[test]
fn names_decide_which_classes_are_the_same_wherever_they_stand() {
    let known = names(&["cat", "deer", "dog"]);
    let found = matched(&known, &names(&["dog", "cat", "owl"]));
    assert_eq!((found.places, found.basis), (vec![Some(2), Some(0), None], Basis::Names));
    // Equal counts of other classes are no reason to take one for the other.
    let others = matched(&known, &names(&["owl", "robin", "wren"]));
    assert!(matches!(others.basis, Basis::Others(_)) && others.known() == 0);
    // Folders of digits sort as text: `10` comes before `2`.
    let digits = matched(&numbers(11), &names(&["0", "1", "10", "2"]));
    assert_eq!((digits.places, digits.basis), (vec![Some(0), Some(1), Some(10), Some(2)], Basis::Names));
}

#[test]
fn a_name_that_two_known_classes_have_means_the_one_of_its_number_or_none() {
    let known = names(&["pug", "spaniel", "spaniel"]);
    assert_eq!(matched(&known, &known).places, [Some(0), Some(1), Some(2)]);
    assert_eq!(matched(&known, &names(&["spaniel", "pug"])).places, [None, Some(0)]);
}

#[test]
fn where_names_say_nothing_only_equal_counts_are_taken_for_the_same_classes() {
    let nameless = |count: usize, others: &[String]| {
        let places: Vec<i64> = (0..count as i64).collect();
        ClassMatch::new(KnownClasses { names: &[], numbers: &places, numbered: count }, others)
    };
    let cats = names(&["cat", "dog"]);
    assert!(matches!(nameless(2, &cats).basis, Basis::Numbers(_)) && nameless(2, &cats).known() == 2);
    assert!(matches!(nameless(3, &cats).basis, Basis::Others(_)) && nameless(3, &cats).known() == 0);
    assert!(matches!(nameless(100, &numbers(10)).basis, Basis::Others(_)));
    // SVHN's digits through a network that knows names are other classes, even where their number is equal.
    assert!(matches!(matched(&cats, &numbers(2)).basis, Basis::Others(_)));
    assert!(matches!(matched(&numbers(2), &cats).basis, Basis::Numbers(_)));
    assert!(matches!(matched(&numbers(2), &numbers(2)).basis, Basis::Numbers(_)));
    assert!(matches!(matched(&numbers(100), &numbers(10)).basis, Basis::Others(_)));
}

#[test]
fn a_set_that_lacks_a_class_is_renumbered_and_one_that_has_another_is_refused_by_name() {
    let training = set(&[0, 1, 2], &["cat", "deer", "dog"]);
    let (same, note) = in_numbering_of(&training, set(&[2, 0], &["cat", "deer", "dog"]), "it").unwrap();
    assert_eq!((same.label(0), note), (2, None));
    let (fewer, note) = in_numbering_of(&training, set(&[0, 1, -1], &["cat", "dog"]), "it").unwrap();
    assert_eq!([0, 1, 2].map(|index| fewer.label(index)), [0, 2, UNKNOWN_LABEL]);
    assert_eq!(fewer.class_names(), training.class_names());
    assert!(note.unwrap().contains("by the names of classes (2 of 3"));
    let told = |other| in_numbering_of(&training, other, "it").unwrap_err().to_string();
    let text = told(set(&[0, 1], &["cat", "owl"]));
    assert!(text.contains("`owl` are none of `cat`, `deer`, `dog`"), "{text}");
    let text = told(set(&[0, 1, 2], &["owl", "robin", "wren"]));
    assert!(text.contains("`owl`, `robin`, `wren`"), "{text}");
    // A class without a sample does no harm.
    assert!(in_numbering_of(&training, set(&[0], &["cat", "owl"]), "it").is_ok());
}

#[test]
fn a_subclass_lies_in_the_same_superclass_in_both_sets() {
    let levels = |parents: [usize; 2], labels: &[i64]| -> SharedDataset {
        let taxonomy = Taxonomy {
            superclasses: names(&["bird", "dog"]),
            subclasses: names(&["owl", "pug"]),
            parents: parents.map(Some).to_vec(),
        };
        let grey = vec![7; labels.len()];
        let data = InMemory::from_grey(1, 1, &grey, labels.to_vec(), names(&["owl", "pug"])).unwrap();
        Arc::new(data.with_taxonomy(taxonomy).unwrap())
    };
    let training = levels([0, 1], &[0, 1]);
    let text = in_numbering_of(&training, levels([0, 0], &[0, 1]), "it").unwrap_err().to_string();
    assert!(text.contains("`pug` lies in superclass `dog`") && text.contains("`bird` in it"), "{text}");
    let text = in_numbering_of(&training, set(&[0], &["owl"]), "it").unwrap_err().to_string();
    assert!(text.contains("it does not; both need labels=both"), "{text}");
}
