//! `residua data inspect|verify` as a user calls it: output, JSON, exit codes.

use predicates::str::contains;

use crate::support::data_files::{fixture, idx, pixels, png, put};
use crate::support::program::residua;

fn data(arguments: &[&str]) -> assert_cmd::assert::Assert {
    residua(["data"]).args(arguments).assert()
}

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_slice(&data(arguments).success().get_output().stdout).unwrap()
}

#[test]
fn inspect_says_what_a_set_holds_and_the_checksum_is_that_of_its_content() {
    let plain = format!("svhn:{}", fixture("svhn_plain.mat").display());
    let packed = format!("svhn:{}", fixture("svhn_compressed.mat").display());
    data(&["inspect", &plain])
        .success()
        .stdout(contains("samples     4"))
        .stdout(contains("10, with 0 to 2 samples"))
        .stdout(contains("32 x 32 (4)"));
    let found = json(&["inspect", &plain, &packed, "--json"]);
    assert_eq!(found["sets"][0]["checksum"], found["sets"][1]["checksum"]);
    assert_eq!(found["sets"][0]["classes"][0]["count"], 2);
    assert_eq!(found["shared"][0]["samples"].as_array().unwrap().len(), 4);
    let checksum = found["sets"][0]["checksum"].as_str().unwrap();
    data(&["verify", &packed, "--expect", checksum]).success();
    data(&["verify", &packed, "--expect", "00"]).code(1).stderr(contains("expected the checksum 00"));
}

#[test]
fn inspect_counts_superclasses_and_subclasses() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().display();
    put(root.path(), "t.csv", "image,superclass_index,subclass_index\n1.png,1,0\n2.png,0,1\n3.png,1,2\n");
    put(root.path(), "superclass_mapping.csv", "index,class\n0,bird\n1,dog\n2,novel\n");
    put(root.path(), "subclass_mapping.csv", "index,class\n0,beagle\n1,finch\n2,pug\n3,novel\n");
    for index in 1..4 {
        put(root.path(), &format!("{index}.png"), png(1, 1, [index; 3]));
    }
    let name = format!("csv:{place}/t.csv,images={place}?labels=both");
    data(&["inspect", &name])
        .success()
        .stdout(contains("beagle 1, finch 1, pug 1, novel 0"))
        .stdout(contains("superclass  3, of which"))
        .stdout(contains("bird 1 (1 subclasses), dog 2 (2 subclasses), novel 0 (1 subclasses)"));
    let found = json(&["inspect", &name, "--json"]);
    let dog = serde_json::json!({"name": "dog", "count": 2, "subclasses": 2});
    assert_eq!(found["sets"][0]["superclasses"][1], dog);
    std::fs::remove_file(root.path().join("3.png")).unwrap();
    data(&["verify", &name]).code(1).stderr(contains("t.csv line 4")).stderr(contains("`3.png`"));
}

#[test]
fn images_cut_short_with_an_end_marker_behind_are_counted_and_named() {
    let root = tempfile::tempdir().unwrap();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images/jpeg_420_baseline.jpg");
    let whole = std::fs::read(fixture).unwrap();
    put(root.path(), "1.jpg", &whole);
    put(root.path(), "2.jpg", [&whole[..whole.len() - 300], &[0xff, 0xd9]].concat());
    let name = format!("images:{}", root.path().display());
    for verb in ["inspect", "verify"] {
        data(&[verb, &name])
            .success()
            .stdout(contains("unreadable  0"))
            .stdout(contains(
                "damaged     1; they are decoded, as Pillow decodes them, but parts are made up",
            ))
            .stdout(contains("2.jpg: Corrupt JPEG data: premature end of data segment"));
    }
    let found = json(&["inspect", &name, "--json"]);
    assert_eq!(found["sets"][0]["damaged"][0]["index"], 1);
    put(root.path(), "2.jpg", &whole[..whole.len() - 300]);
    data(&["verify", &name]).code(1).stderr(contains("a JPEG that is cut short after"));
}

#[test]
fn verify_fails_on_unreadable_images_and_inspect_lists_them() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "1.png", png(3, 2, [1; 3]));
    put(root.path(), "2.png", png(3, 2, [1; 3]));
    put(root.path(), "3.png", b"nothing");
    let name = format!("images:{}", root.path().display());
    let found = json(&["inspect", &name, "--json", "--quiet"]);
    assert_eq!(found["sets"][0]["unreadable"][0]["name"], "3.png");
    assert_eq!(found["sets"][0]["duplicates"], serde_json::json!([[0, 1]]));
    data(&["inspect", &name]).success().stdout(contains("unreadable  1")).stdout(contains("3.png"));
    data(&["verify", &name]).code(1).stderr(contains("1 of 3 images cannot be read"));
}

#[test]
fn wrong_names_and_missing_files_have_their_exit_codes() {
    let root = tempfile::tempdir().unwrap();
    let path = put(root.path(), "i", idx(0x803, &[2, 3, 5], &pixels(0, 30)));
    let name = format!("idx:{}", path.display());
    data(&["verify", &name]).success();
    data(&["verify", &format!("{name}?limti=1")]).code(2).stderr(contains("unknown option `limti`"));
    data(&["verify", "mnist:x"]).code(2).stderr(contains("there are cifar10"));
    data(&["verify", &name, &name, "--expect", "0"]).code(2).stderr(contains("name one"));
    data(&["inspect"]).code(2);
    data(&["inspect", "idx:/nowhere"]).code(1).stderr(contains("/nowhere"));
}
