//! Data with superclasses and subclasses: what is read, and that whatever contradicts itself is refused with the row.

use std::path::Path;

use residua::data::{DataSpec, Level, Split, UNKNOWN_LABEL, open};

use crate::support::data_files::{cifar_record, cifar_sized_image, fixture, open_named, png, put, zip};

const SUPERCLASSES: &str = "index,class\n0,bird\n1,dog\n2,novel\n";
const SUBCLASSES: &str = "index,class\n0,beagle\n1,\"finch, bullfinch\"\n2,pug\n3,novel\n";
const ROWS: &str =
    "image,superclass_index,subclass_index\n0.png,1,0\n1.png,0,1\n2.png,1,0\n3.png,2,3\n4.png,,\n";

/// A table with mappings and a zip of its images; the name of both levels of it.
fn put_set(root: &Path, rows: &str, superclasses: &str, subclasses: &str) -> String {
    let table = put(root, "t.csv", rows);
    put(root, "superclass_mapping.csv", superclasses);
    put(root, "subclass_mapping.csv", subclasses);
    let names: Vec<String> = (0..5).map(|index| format!("images/{index}.png")).collect();
    let members: Vec<_> =
        (0u8..).zip(&names).map(|(index, name)| (name.as_str(), png(2, 2, [index; 3]))).collect();
    let images = put(root, "images.zip", zip(&members));
    format!("csv:{},images={}?labels=both", table.display(), images.display())
}

fn refused(name: &str, parts: &[&str]) {
    let error = open_named(name).map(|set| set.len()).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.exit_code(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn a_table_with_both_levels_has_a_taxonomy_with_novel_classes_known_by_name() {
    let root = tempfile::tempdir().unwrap();
    let set = open_named(&put_set(root.path(), ROWS, SUPERCLASSES, SUBCLASSES)).unwrap();
    let labels: Vec<i64> = (0..5).map(|index| set.label(index)).collect();
    assert_eq!(labels, [0, 1, 0, 3, UNKNOWN_LABEL]);
    let taxonomy = set.taxonomy().unwrap();
    assert_eq!(taxonomy.superclasses, ["bird", "dog", "novel"]);
    assert_eq!(taxonomy.parents, [Some(1), Some(0), None, Some(2)]);
    assert_eq!((taxonomy.novel(Level::Coarse), taxonomy.novel(Level::Fine)), (Some(2), Some(3)));
    let superclasses: Vec<i64> =
        labels.iter().map(|&subclass| taxonomy.label(Level::Coarse, subclass)).collect();
    assert_eq!(superclasses, [1, 0, 1, 2, UNKNOWN_LABEL]);
    assert_eq!(set.class_names()[1], "finch, bullfinch");
    // Sets made of this one keep it.
    let name = put_set(root.path(), ROWS, SUPERCLASSES, SUBCLASSES);
    for options in [",limit=3", ",size=7"] {
        assert_eq!(open_named(&format!("{name}{options}")).unwrap().taxonomy(), Some(taxonomy), "{options}");
    }
}

#[test]
fn without_mapping_files_the_rows_say_which_classes_there_are() {
    let root = tempfile::tempdir().unwrap();
    put_set(root.path(), ROWS, SUPERCLASSES, SUBCLASSES);
    for file in ["superclass_mapping.csv", "subclass_mapping.csv"] {
        std::fs::remove_file(root.path().join(file)).unwrap();
    }
    let place = root.path().display();
    let set = open_named(&format!("csv:{place}/t.csv,images={place}/images.zip?labels=both")).unwrap();
    let taxonomy = set.taxonomy().unwrap();
    assert_eq!(taxonomy.superclasses, ["0", "1", "2"]);
    assert_eq!(taxonomy.parents, [Some(1), Some(0), None, Some(2)]);
    assert_eq!(taxonomy.novel(Level::Fine), None);
}

#[test]
fn a_novel_subclass_without_an_image_belongs_to_the_novel_superclass() {
    let root = tempfile::tempdir().unwrap();
    let rows = "image,superclass_index,subclass_index\n0.png,1,0\n";
    let set = open_named(&put_set(root.path(), rows, SUPERCLASSES, SUBCLASSES)).unwrap();
    assert_eq!(set.taxonomy().unwrap().parents, [Some(1), None, None, Some(2)]);
}

#[test]
fn cifar100_has_both_levels_in_the_binary_and_the_python_version() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "test.bin", [cifar_record(&[19, 99], 0), cifar_record(&[4, 0], 1)].concat());
    let coarse: String = (0..20).map(|i| format!("group{i}\n")).collect();
    put(folder.path(), "coarse_label_names.txt", coarse);
    let set = open_named(&format!("cifar100:{}?labels=both", folder.path().display())).unwrap();
    let taxonomy = set.taxonomy().unwrap();
    assert_eq!(
        (set.label(0), taxonomy.label(Level::Coarse, 99), &*taxonomy.superclasses[4]),
        (99, 19, "group4")
    );
    assert_eq!((taxonomy.parents[0], taxonomy.parents[1]), (Some(4), None));
    assert_eq!(set.image(1).unwrap(), cifar_sized_image(1));
    let spec: DataSpec = format!("cifar100:{}?labels=both", fixture("").display()).parse().unwrap();
    let pickled = open(&spec, Split::Train).unwrap();
    let taxonomy = pickled.taxonomy().unwrap();
    let pairs: Vec<(i64, i64)> =
        (0..3).map(|i| (pickled.label(i), taxonomy.label(Level::Coarse, pickled.label(i)))).collect();
    assert_eq!(pairs, [(99, 19), (0, 0), (50, 7)]);
}

#[test]
fn cifar100_records_that_contradict_each_other_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let name = format!("cifar100:{}?labels=both", root.path().display());
    let records = |labels: [[u8; 2]; 3]| labels.map(|labels| cifar_record(&labels, 0)).concat();
    put(root.path(), "test.bin", records([[4, 0], [1, 1], [5, 0]]));
    refused(&name, &["test.bin row 2", "superclass 5", "subclass 0", "row 0 has under superclass 4"]);
    put(root.path(), "test.bin", records([[4, 0], [20, 1], [4, 0]]));
    refused(&name, &["test.bin row 1", "a coarse label below 20", "found 20"]);
}

#[test]
fn rows_that_contradict_each_other_or_the_mapping_name_the_row() {
    let root = tempfile::tempdir().unwrap();
    let rows = |rows: &str| {
        let rows = format!("image,superclass_index,subclass_index\n{rows}");
        put_set(root.path(), &rows, SUPERCLASSES, SUBCLASSES)
    };
    refused(
        &rows("0.png,1,0\n1.png,0,0\n"),
        &[
            "t.csv line 3",
            "superclass 0 `bird` with subclass 0 `beagle`",
            "line 2 has under superclass 1 `dog`",
        ],
    );
    refused(
        &rows("0.png,1,4\n"),
        &["t.csv line 2", "subclass_mapping.csv, which has 0 to 3", "unknown class 4"],
    );
    refused(&rows("0.png,3,0\n"), &["t.csv line 2", "superclass_mapping.csv, which has 0 to 2", "class 3"]);
    refused(&rows("0.png,2,0\n"), &["t.csv line 2", "superclass 2 `novel` with subclass 0 `beagle`"]);
    refused(&rows("0.png,1,3\n"), &["t.csv line 2", "subclass 3 `novel`", "labels=subclass"]);
    refused(&rows("0.png,1,\n"), &["t.csv line 2", "superclass 1 without a subclass", "labels=superclass"]);
    refused(&rows("0.png,dog,0\n"), &["t.csv line 2", "a class index", "`dog`"]);
    refused(&rows("0.png,1,0\n1.png,0,1\n./0.png,1,0\n"), &["t.csv line 4", "`0.png` again, after line 2"]);
    for column in ["superclass_index", "subclass_index"] {
        let name = put_set(root.path(), &format!("image,{column}\n0.png,0\n"), SUPERCLASSES, SUBCLASSES);
        let missing = if column == "subclass_index" { "`superclass_index`" } else { "`subclass_index`" };
        refused(&name, &["t.csv line 1", "a column", missing]);
    }
}

#[test]
fn a_row_without_its_image_is_named_when_the_table_is_opened() {
    let root = tempfile::tempdir().unwrap();
    let rows = format!("{ROWS}gone.png,1,0\n6.png,0,1\n7.png,0,1\n");
    let name = put_set(root.path(), &rows, SUPERCLASSES, SUBCLASSES);
    refused(&name, &["t.csv line 7", "images.zip", "`gone.png`", "2 more rows"]);
    put(root.path(), "d/0.png", png(2, 2, [0; 3]));
    std::fs::create_dir_all(root.path().join("d/1.png")).unwrap();
    let place = root.path().display();
    refused(&format!("csv:{place}/t.csv,images={place}/d"), &["t.csv line 3", "`1.png`", "6 more rows"]);
    put(root.path(), "l.txt", "0.png 3\n1.png 2\n");
    refused(
        &format!("list:{place}/l.txt,root={place}/d"),
        &["l.txt line 2", "`1.png`, which is not there; add"],
    );
}

#[test]
fn mapping_files_with_gaps_doubles_or_no_names_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let with = |subclasses: &str| put_set(root.path(), ROWS, SUPERCLASSES, subclasses);
    let file = "subclass_mapping.csv";
    refused(&with("index,class\n0,a\n2,c\n3,d\n"), &[file, "each of the indices 0 to 3", "none for 1"]);
    refused(&with("index,class\n0,a\n1,b\n0,c\n"), &["subclass_mapping.csv line 4", "0 again, after line 2"]);
    refused(&with("index,class\n0,a\nb,c\n"), &["subclass_mapping.csv line 3", "a class index", "`b`"]);
    refused(&with("index,class\n0,a\n-1,c\n"), &["subclass_mapping.csv line 3", "`-1`"]);
    refused(&with("index,class\n0,a\n1,\n"), &["subclass_mapping.csv line 3", "the name of a class"]);
    refused(&with("index,class\n0,novel\n1,Novel\n"), &["line 3", "one class named `novel`", "in line 2"]);
    refused(&with("index,name\n0,a\n"), &["subclass_mapping.csv line 1", "a column `class`", "index, name"]);
    refused(&with("index,class\n"), &["subclass_mapping.csv line 2", "no row"]);
    refused(&with(""), &["subclass_mapping.csv line 1", "a column `index`"]);
    refused(&with("index,class\n0,a\n1\n"), &["subclass_mapping.csv line 3", "as many fields"]);
    refused(&with("index,class\n99999999999,a\n"), &["subclass_mapping.csv line 2", "from 0 to 65535"]);
}
