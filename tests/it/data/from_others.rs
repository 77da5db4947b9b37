//! Folders, archives, lists and batches as other people's programs leave them (`tests/fixtures/make_names.py`).

use std::fs;
use std::path::{Path, PathBuf};

use predicates::str::contains;
use residua::data::Dataset;

use crate::support::data_files::{cifar_record, fixture, gzip, idx, open_named, png, put};
use crate::support::program::{residua, said};

fn made(name: &str) -> PathBuf {
    fixture("names").join(name)
}

/// Opening `name` fails with a message that holds every one of `parts`.
fn refused(name: &str, parts: &[&str]) {
    let text = open_named(name).map(|set| set.len()).unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part), "{name}: `{part}` is not in: {text}");
    }
}

fn names(set: &dyn Dataset) -> Vec<String> {
    (0..set.len()).map(|index| set.sample_name(index)).collect()
}

/// The red of each image, which is the number in its name.
fn reds(set: &dyn Dataset) -> Vec<u8> {
    (0..set.len()).map(|index| set.image(index).unwrap().pixels[0]).collect()
}

/// An image of [`made`], as a file.
fn unpack(archive: &str, member: &str, to: &Path) {
    let mut zip = zip::ZipArchive::new(fs::File::open(made(archive)).unwrap()).unwrap();
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::io::copy(&mut zip.by_name(member).unwrap(), &mut fs::File::create(to).unwrap()).unwrap();
}

#[test]
fn backslashes_in_a_zip_divide_folders_and_do_not_lead_out_of_it() {
    let archive = made("windows.zip");
    let set = open_named(&format!("images:{}", archive.display())).unwrap();
    assert_eq!(names(&*set), ["photos/2.png", "photos/10.jfif", "photos/more/1.jpg"]);
    let reds = reds(&*set);
    assert!(reds.iter().zip([2u8, 10, 1]).all(|(red, expected)| red.abs_diff(expected) <= 2), "{reds:?}");
    // A table and a list may write either, and leave out the folder that all members lie in.
    let root = tempfile::tempdir().unwrap();
    let table = put(root.path(), "t.csv", "image,subclass_index\nphotos\\more\\1.jpg,1\n2.png,0\n");
    let list = put(root.path(), "l.txt", "photos/10.jfif 1\n.\\photos\\2.png 0\n");
    for name in [
        format!("csv:{},images={}", table.display(), archive.display()),
        format!("list:{},root={}", list.display(), archive.display()),
    ] {
        let set = open_named(&name).unwrap();
        assert_eq!((set.len(), set.label(0), set.image(1).unwrap().pixels[0]), (2, 1, 2), "{name}");
    }
    refused(
        &format!("images:{}", made("climbs.zip").display()),
        &["climbs.zip", "inside the folder", "../../1.png"],
    );
    refused(&format!("images:{}", made("drive.zip").display()), &["drive.zip", "no drive", "C:/1.png"]);
    refused(&format!("images:{}", made("twice.zip").display()), &["twice.zip", "a/1.png", "two members"]);
    for bad in ["..\\..\\1.png", "C:\\1.png", "\\\\server\\1.png"] {
        let table = put(root.path(), "bad.csv", format!("image\n{bad}\n"));
        let name = format!("csv:{},images={}", table.display(), made("climbs.zip").display());
        refused(&name, &["bad.csv line 2", "inside the folder", bad]);
    }
}

#[test]
fn what_programs_leave_behind_is_skipped_in_zips_as_in_folders() {
    let archive = made("leftovers.zip");
    let root = tempfile::tempdir().unwrap();
    let members: Vec<String> = {
        let zip = zip::ZipArchive::new(fs::File::open(&archive).unwrap()).unwrap();
        zip.file_names().map(|name| name.unwrap().into_owned()).collect()
    };
    assert_eq!(members.len(), 7);
    members.iter().for_each(|member| unpack("leftovers.zip", member, &root.path().join(member)));
    for place in [archive.as_path(), root.path()] {
        let set = open_named(&format!("images:{}", place.display())).unwrap();
        assert_eq!(names(&*set), ["a/1.png", "a/2.png"], "{}", place.display());
        assert_eq!(reds(&*set), [1, 2]);
    }
    // Of class folders `__MACOSX` is none, and the folder that all images lie in may be left out of a table.
    let set = open_named(&format!("folder:{}", root.path().display())).unwrap();
    assert_eq!((set.class_names(), names(&*set).len()), (&["a".to_owned()][..], 2));
    let table = put(root.path(), "t.csv", "image\n2.png\n");
    let set = open_named(&format!("csv:{},images={}", table.display(), archive.display())).unwrap();
    assert_eq!(reds(&*set), [2]);
}

#[test]
fn images_of_kinds_that_are_not_decoded_are_counted_and_named_in_every_container() {
    let root = tempfile::tempdir().unwrap();
    for member in ["1.png", "2.tif", "3.TIFF", "4.jfif", "5.jp2", "readme.txt"] {
        unpack("kinds.zip", member, &root.path().join("d/class").join(member));
    }
    let folder = root.path().join("d");
    let rows = "class/1.png 0\nclass/2.tif 0\nclass/3.TIFF 0\nclass/4.jfif 0\nclass/5.jp2 0\n";
    let list = put(root.path(), "l.txt", rows);
    let table = put(root.path(), "t.csv", format!("image,subclass_index\n{}", rows.replace(' ', ",")));
    let sets = [
        format!("images:{}", made("kinds.zip").display()),
        format!("images:{}", folder.display()),
        format!("folder:{}", folder.display()),
        format!("list:{},root={}", list.display(), folder.display()),
        format!("csv:{},images={}", table.display(), folder.display()),
    ];
    for name in &sets {
        let parts =
            ["3 of 5 images", "1 JPEG 2000, 2 TIFF", "2.tif", "convert them to PNG", "--skip-unreadable"];
        refused(name, &parts);
        let (code, text) = said(&["data", "inspect", name]);
        assert_eq!(code, Some(0), "{text}");
        for part in ["samples     5", "unreadable  3", "2.tif", "3.TIFF", "5.jp2", "one of kind TIFF"] {
            assert!(text.contains(part), "{name}: `{part}` is not in: {text}");
        }
        residua(["data", "verify", name]).assert().code(1).stderr(contains("3 of 5 images cannot be read"));
    }
    refused(&format!("images:{}", folder.join("class/2.tif").display()), &["1 of 1 images", "1 TIFF"]);
    // JFIF is JPEG under another name.
    let set = open_named(&format!("images:{}", folder.join("class/4.jfif").display())).unwrap();
    assert!(set.image(0).unwrap().pixels[0].abs_diff(4) <= 2);
}

#[test]
fn lists_and_tables_may_begin_with_a_byte_order_mark_and_say_which_encoding_they_are_not_in() {
    let root = tempfile::tempdir().unwrap();
    for number in ["1", "2"] {
        unpack("leftovers.zip", &format!("a/{number}.png"), &root.path().join(format!("a/{number}.png")));
    }
    let place = root.path().display();
    let open = |file: &str| match file.ends_with("txt") {
        true => format!("list:{},root={place}", made(file).display()),
        false => format!("csv:{},images={place}", made(file).display()),
    };
    for file in ["list_bom.txt", "table_bom.csv", "list_windows.txt", "table_windows.csv"] {
        let set = open_named(&open(file)).unwrap();
        assert_eq!(
            (names(&*set), set.label(0)),
            (vec!["a/1.png".to_owned(), "a/2.png".to_owned()], 1),
            "{file}"
        );
    }
    for file in ["list_utf16.txt", "table_utf16.csv"] {
        refused(&open(file), &[file, "text in UTF-8", "UTF-16; save it as UTF-8"]);
    }
    refused(
        &open("list_latin1.txt"),
        &["list_latin1.txt line 2", "the byte fc", "n/2.png 0", "save it as UTF-8"],
    );
    refused(&open("table_latin1.csv"), &["table_latin1.csv line 3", "the byte fc"]);
    put(root.path(), "subclass_mapping.csv", b"\xef\xbb\xbfindex,class\n0,finch\n1,gr\xfcn\n");
    let table = put(root.path(), "t.csv", "image,subclass_index\na/1.png,0\n");
    refused(&format!("csv:{},images={place}", table.display()), &["subclass_mapping.csv line 3", "UTF-8"]);
    let packed = put(root.path(), "t.csv.gz", gzip(b"image\na/1.png\n"));
    refused(&format!("csv:{},images={place}", packed.display()), &["text in UTF-8", "gzip"]);
}

#[cfg(unix)]
#[test]
fn file_and_folder_names_that_are_no_utf_8_are_named() {
    use std::os::unix::ffi::OsStrExt;
    let root = tempfile::tempdir().unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"gr\xfcn");
    fs::create_dir(root.path().join(odd)).unwrap();
    put(root.path(), "a/1.png", png(1, 1, [1; 3]));
    let place = root.path().display();
    refused(&format!("folder:{place}"), &["file names in UTF-8", "gr\u{fffd}n", "rename it"]);
    refused(&format!("images:{place}"), &["file names in UTF-8", "gr\u{fffd}n"]);
}

#[test]
fn member_names_in_code_page_437_are_read_and_said() {
    let archive = made("code_page.zip");
    let set = open_named(&format!("images:{}", archive.display())).unwrap();
    assert_eq!((names(&*set), reds(&*set)), (vec!["2.png".to_owned(), "Größe_1.png".to_owned()], vec![2, 1]));
    let note = &set.notes()[0];
    assert!(note.contains("1 member names are not in UTF-8") && note.contains("`Größe_1.png`"), "{note}");
    let root = tempfile::tempdir().unwrap();
    let table = put(root.path(), "t.csv", "image\nGrosse_1.png\n");
    let name = format!("csv:{},images={}", table.display(), archive.display());
    refused(&name, &["t.csv line 2", "`Grosse_1.png`, which is not there", "code page 437"]);
}

#[test]
fn some_of_cifar_10s_training_batches_are_enough_and_how_many_is_said() {
    for version in ["cifar-10-batches-bin", "cifar-10-batches-py"] {
        let name = format!("cifar10:{}?split=train", made(version).display());
        let set = open_named(&name).unwrap();
        assert_eq!((0..set.len()).map(|index| set.label(index)).collect::<Vec<_>>(), [3, 1, 9], "{version}");
        assert_eq!(set.image(2).unwrap().pixels[..6], [9, 9, 9, 10, 10, 10]);
        let notes = set.notes();
        let [note] = &notes[..] else { panic!("one note: {notes:?}") };
        for part in
            ["2 of 5 batches", "data_batch_2", "data_batch_4", "3 of the 50000 train records of CIFAR-10"]
        {
            assert!(note.contains(part), "`{part}` is not in: {note}");
        }
        residua(["data", "inspect", &name])
            .assert()
            .success()
            .stdout(contains("note        "))
            .stdout(contains(part_of(note)));
    }
    // CIFAR-100 has a file a split; one that is short says so as well.
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "train.bin", cifar_record(&[1, 2], 0));
    let set = open_named(&format!("cifar100:{}?split=train", root.path().display())).unwrap();
    assert!(set.notes()[0].contains("1 of the 50000 train records of CIFAR-100"), "{:?}", set.notes());
}

/// The end of a note, behind what may be long.
fn part_of(note: &str) -> String {
    note.rsplit_once("), ").unwrap().1.to_owned()
}

#[test]
fn what_is_no_data_set_is_called_by_its_kind() {
    let root = tempfile::tempdir().unwrap();
    let archive = put(root.path(), "cifar-10-binary.tar.gz", gzip(b"x"));
    refused(
        &format!("cifar10:{}", archive.display()),
        &["the folder with the files of CIFAR-10", "gzip", "tar xzf"],
    );
    put(root.path(), "test_batch.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    refused(&format!("cifar10:{}", root.path().display()), &["test_batch.bin", "a Git LFS pointer"]);
    let page = put(root.path(), "page", "<!doctype html><html><head></head></html>");
    refused(&format!("idx:{}", page.display()), &["an idx file of images", "a web page"]);
    refused(&format!("svhn:{}", page.display()), &["MAT-file", "a web page"]);
    let labels = put(root.path(), "labels", idx(0x801, &[3], &[0, 1, 2]));
    refused(&format!("idx:{}", labels.display()), &["an idx file of images", "an idx file of labels"]);
}
