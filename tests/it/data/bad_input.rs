//! Damaged and hostile data files: each gives a message with the file, the place, what was expected and what was
//! found; none gives a panic or a large allocation.

use std::path::Path;

use crate::support::data_files::{cifar_record, fixture, gzip, idx, open_named, pixels, png, put, zip};

/// Opening `name` fails with exit code 1 and a message that holds every one of `parts`.
fn refused(name: &str, parts: &[&str]) {
    let error = open_named(name).map(|set| set.len()).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.exit_code(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "{name}: `{part}` is not in: {text}");
    }
}

#[test]
fn cifar_files_that_are_cut_empty_missing_or_of_another_set_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let name = format!("cifar10:{}", root.path().display());
    refused(&name, &["test files of CIFAR-10", "none of them"]);
    refused("cifar10:/nowhere/at/all", &["/nowhere/at/all", "cannot open"]);
    put(root.path(), "test_batch.bin", []);
    refused(&name, &["test_batch.bin", "whole records of 3073 bytes", "an empty file"]);
    let record = cifar_record(&[1], 0);
    put(root.path(), "test_batch.bin", [&record[..], &record[..3000]].concat());
    refused(&name, &["at byte 3073", "6073 bytes in all"]);
    put(root.path(), "test_batch.bin", [record, cifar_record(&[10], 0)].concat());
    refused(&name, &["row 1", "a label below 10", "found 10"]);
    put(root.path(), "test_batch.bin", cifar_record(&[1], 0));
    put(root.path(), "batches.meta.txt", "one\ntwo\n");
    refused(&name, &["batches.meta.txt", "10 class names", "2 lines"]);
    std::fs::remove_file(root.path().join("batches.meta.txt")).unwrap();
    refused(&format!("{name}?split=train"), &["train files of CIFAR-10", "none of them"]);
}

#[test]
fn pickles_that_lie_or_want_to_run_something_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let name = format!("cifar10:{}", root.path().display());
    put(root.path(), "test_batch", []);
    refused(&name, &["test_batch", "byte 0"]);
    put(root.path(), "test_batch", b"cos\nsystem\n(S'touch /tmp/never'\ntR.");
    refused(&name, &["test_batch", "system"]);
    put(root.path(), "test_batch", b"\x80\x02}.");
    refused(&name, &["a pickled dictionary with `data`"]);
    let batch = std::fs::read(fixture("cifar-10-batches-py/test_batch")).unwrap();
    put(root.path(), "test_batch", &batch[..batch.len() / 2]);
    refused(&name, &["test_batch", "byte"]);
    let labels = batch.windows(6).position(|window| window == b"](K\x03K\x00").unwrap();
    let mut changed = batch.clone();
    changed[labels + 3] = 77;
    put(root.path(), "test_batch", &changed);
    refused(&name, &["labels[0]", "a label below 10", "77"]);
    let mut fewer = batch;
    fewer.drain(labels + 2..labels + 4);
    put(root.path(), "test_batch", &fewer);
    refused(&name, &["a list of 3 labels"]);
}

#[test]
fn idx_files_that_are_cut_mixed_up_or_bombs_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let name = |file: &str| format!("idx:{}", root.path().join(file).display());
    put(root.path(), "empty", []);
    refused(&name("empty"), &["empty", "magic number 0x00000803", "0 bytes"]);
    put(root.path(), "labels", idx(0x801, &[3], &[0, 1, 2]));
    refused(&name("labels"), &["byte 0", "0x00000803", "an idx file of labels"]);
    put(root.path(), "short", idx(0x803, &[3, 4, 5], &pixels(0, 59)));
    refused(&name("short"), &["byte 75", "76 bytes, as the header says", "75 bytes"]);
    put(root.path(), "long", idx(0x803, &[3, 4, 5], &pixels(0, 61)));
    refused(&name("long"), &["byte 76", "77 bytes"]);
    put(root.path(), "header", &idx(0x803, &[3], &[])[..]);
    refused(&name("header"), &["byte 8", "an extent of four bytes"]);
    put(root.path(), "huge", idx(0x803, &[u32::MAX; 3], &[0; 8]));
    refused(&name("huge"), &["beyond 64 bits"]);
    put(root.path(), "wide", idx(0x803, &[0, 1 << 20, 1 << 20], &[]));
    refused(&name("wide"), &["64 megapixels", "1048576 rows"]);
    put(root.path(), "none", idx(0x803, &[0, 4, 5], &[]));
    refused(&name("none"), &["at least one image"]);
    put(root.path(), "ok", idx(0x803, &[3, 4, 5], &pixels(0, 60)));
    put(root.path(), "two", idx(0x801, &[2], &[0, 1]));
    refused(
        &format!("{},{}", name("ok"), root.path().join("two").display()),
        &["two", "3 labels", "found 2"],
    );
}

#[test]
fn a_gzip_that_declares_more_than_deflate_can_hold_is_refused_before_inflating() {
    let root = tempfile::tempdir().unwrap();
    let name = |file: &str| format!("idx:{}", root.path().join(file).display());
    put(root.path(), "bomb.gz", gzip(&idx(0x803, &[60_000_000, 28, 28], &[0; 100])));
    refused(&name("bomb.gz"), &["at most 1032 times", "a declared size of 47040000000"]);
    put(root.path(), "short.gz", gzip(&idx(0x803, &[3, 4, 5], &[0; 59])));
    refused(&name("short.gz"), &["1 more bytes", "the end of the stream"]);
    put(root.path(), "long.gz", gzip(&idx(0x803, &[3, 4, 5], &[0; 61])));
    refused(&name("long.gz"), &["the end of the data", "more bytes"]);
    let whole = gzip(&idx(0x803, &[3, 4, 5], &pixels(0, 60)));
    put(root.path(), "cut.gz", &whole[..whole.len() - 6]);
    refused(&name("cut.gz"), &["cut.gz", "compressed data that inflates"]);
    let mut flipped = whole;
    let checksum = flipped.len() - 8;
    flipped[checksum] ^= 1;
    put(root.path(), "flipped.gz", flipped);
    refused(&name("flipped.gz"), &["compressed data that inflates"]);
}

#[test]
fn mat_files_that_are_cut_of_another_version_or_of_other_shapes_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let name = format!("svhn:{}", root.path().join("t.mat").display());
    let plain = std::fs::read(fixture("svhn_plain.mat")).unwrap();
    let packed = std::fs::read(fixture("svhn_compressed.mat")).unwrap();
    let with = |bytes: &[u8], parts: &[&str]| {
        put(root.path(), "t.mat", bytes);
        refused(&name, parts);
    };
    with(b"", &["t.mat", "version 5", "0 bytes"]);
    with(b"\x89HDF\r\n\x1a\n", &["7.3 (HDF5)", "-v7"]);
    with(&[0; 128], &["version 5", "the bytes 00 00"]);
    with(&plain[..128], &["an array `X`", "none of that name"]);
    with(&plain[..132], &["byte 128", "the end of the file"]);
    with(&plain[..4000], &["byte 128", "bytes left"]);
    with(&packed[..packed.len() - 40], &["bytes left"]);
    // A compressed array that declares 4 GB.
    let mut bomb = packed[..128].to_vec();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    let header = std::io::Write::write_all(
        &mut encoder,
        &[&14u32.to_le_bytes()[..], &u32::MAX.to_le_bytes(), &plain[136..2000]].concat(),
    );
    header.unwrap();
    let stream = encoder.finish().unwrap();
    bomb.extend(15u32.to_le_bytes());
    bomb.extend((stream.len() as u32).to_le_bytes());
    bomb.extend(stream);
    with(&bomb, &["at most 1032 times"]);
    // The first of X's extents changed; the numbers no longer fill them.
    let extents = plain.windows(8).position(|window| window == [32, 0, 0, 0, 32, 0, 0, 0]).unwrap();
    let mut wrong = plain.clone();
    wrong[extents] = 31;
    with(&wrong, &["`X`", "32 x 32 x 3 x N", "[31, 32, 3, 4]"]);
    wrong[extents..extents + 4].copy_from_slice(&(-32i32).to_le_bytes());
    with(&wrong, &["flags, extents and a name"]);
    // The labels lie in the tag of the last element: 10, 1, 9, 10.
    let labels = plain.windows(4).rposition(|window| window == [10, 1, 9, 10]).unwrap();
    let mut wrong = plain;
    wrong[labels + 2] = 11;
    with(&wrong, &["`y(3)`", "from 1 to 10", "11"]);
}

#[test]
fn names_in_tables_lists_and_zips_may_not_leave_their_folder() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "secret.png", png(1, 1, [1; 3]));
    put(root.path(), "d/ok.png", png(1, 1, [1; 3]));
    let images = root.path().join("d");
    for bad in ["../secret.png", "/etc/passwd", "a/../../secret.png"] {
        let table = put(root.path(), "t.csv", format!("image,subclass_index\nok.png,0\n{bad},0\n"));
        refused(
            &format!("csv:{},images={}", table.display(), images.display()),
            &["t.csv line 3", "inside the folder", bad],
        );
        let list = put(root.path(), "l.txt", format!("ok.png 0\n{bad} 0\n"));
        refused(&format!("list:{},root={}", list.display(), images.display()), &["l.txt line 2", bad]);
        let archive = put(root.path(), "z.zip", zip(&[(bad, png(1, 1, [0; 3]))]));
        if bad != "/etc/passwd" {
            refused(&format!("images:{}", archive.display()), &["z.zip", bad]);
        }
    }
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let secret = put(root.path(), "secret.png", png(1, 1, [1; 3]));
    put(root.path(), "d/ok.png", png(1, 1, [1; 3]));
    std::os::unix::fs::symlink(secret, root.path().join("d/link.png")).unwrap();
    std::os::unix::fs::symlink(root.path().join("d/ok.png"), root.path().join("d/inside.png")).unwrap();
    let table = put(root.path(), "t.csv", "image\nok.png\nlink.png\ninside.png\n");
    let images = root.path().join("d");
    let set = open_named(&format!("csv:{},images={}", table.display(), images.display())).unwrap();
    assert!(set.image(0).is_ok() && set.image(2).is_ok());
    let text = set.image(1).unwrap_err().to_string();
    assert!(text.contains("link.png") && text.contains("a link to"), "{text}");
}

#[test]
fn tables_and_lists_name_the_line_that_is_wrong() {
    let root = tempfile::tempdir().unwrap();
    let table = |text: &str| {
        let path = put(root.path(), "t.csv", text);
        format!("csv:{},images={}", path.display(), root.path().display())
    };
    refused(&table(""), &["t.csv line 1", "a column `image`"]);
    refused(&table("file,label\na,1\n"), &["a column `image`", "file, label"]);
    refused(&table("image,subclass_index\n"), &["t.csv", "at least one image", "found none"]);
    refused(&table("image,subclass_index\na.png,1\nb.png\n"), &["line 3", "as many fields"]);
    refused(&table("image,subclass_index\na.png,x\n"), &["line 2", "a class index", "`x`"]);
    refused(&table("image,subclass_index\na.png,99999999999\n"), &["line 2", "from 0 to 65535"]);
    refused(&table("image,subclass_index\n,1\n"), &["line 2", "a file name"]);
    refused(&format!("{}?labels=superclass", table("image\na.png\n")), &["`superclass_index`"]);
    refused("csv:/nowhere.csv,images=/tmp", &["/nowhere.csv"]);
    let list = put(root.path(), "l.txt", "alone\n");
    refused(
        &format!("list:{},root={}", list.display(), root.path().display()),
        &["l.txt line 1", "a blank and a label"],
    );
}

#[test]
fn unreadable_images_are_named_with_folder_or_archive() {
    let root = tempfile::tempdir().unwrap();
    let whole = png(20, 20, [3; 3]);
    let image = |bytes: &[u8]| {
        put(root.path(), "d/1.png", bytes);
        let set = open_named(&format!("images:{}", root.path().join("d").display())).unwrap();
        set.image(0).unwrap_err().to_string()
    };
    assert!(image(b"").contains("an empty file"));
    assert!(image(b"hello").contains("d/1.png"));
    assert!(image(&whole[..whole.len() / 2]).contains("an image"));
    let table = put(root.path(), "t.csv", "image\n1.png\n");
    let archive = put(root.path(), "z.zip", zip(&[("1.png", b"no image".to_vec())]));
    let set = open_named(&format!("csv:{},images={}", table.display(), archive.display())).unwrap();
    assert!(set.image(0).unwrap_err().to_string().contains("z.zip in `1.png`"));
}

#[test]
fn zips_and_folders_that_are_no_image_sets_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).display().to_string();
    put(root.path(), "bad.zip", b"PK\x03\x04 and nothing more");
    refused(&format!("images:{}", path("bad.zip")), &["bad.zip", "a zip archive"]);
    put(root.path(), "empty.zip", []);
    refused(&format!("images:{}", path("empty.zip")), &["empty.zip"]);
    put(root.path(), "none.zip", zip(&[("readme.txt", vec![1])]));
    refused(&format!("images:{}", path("none.zip")), &["expected images", "none"]);
    refused(&format!("images:{}", path("absent")), &["absent"]);
    refused(&format!("folder:{}", path("absent")), &["absent"]);
    refused(&format!("folder:{}", root.path().display()), &["a folder for each class"]);
    std::fs::create_dir(root.path().join("class")).unwrap();
    refused(&format!("folder:{}", root.path().display()), &["class", "images of a class", "none"]);
}

#[test]
fn a_zip_member_that_declares_more_than_it_can_hold_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut bytes = zip(&[("1.png", png(1, 1, [0; 3]))]);
    // The uncompressed size stands 24 bytes into the central directory's entry (PK 01 02).
    let entry = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    bytes[entry + 24..entry + 28].copy_from_slice(&300_000_000u32.to_le_bytes());
    let path = put(root.path(), "bomb.zip", bytes);
    let text = first_image_error(&path);
    assert!(text.contains("bomb.zip in `1.png`") && text.contains("1032 times"), "{text}");
}

#[test]
fn damaged_pixels_behind_a_checksum_are_noticed() {
    let root = tempfile::tempdir().unwrap();
    let mut bytes = zip(&[("1.bmp", b"stored".to_vec())]);
    // The checksum stands 16 bytes into the central directory's entry.
    let entry = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    bytes[entry + 16] ^= 1;
    let path = put(root.path(), "z.zip", bytes);
    assert!(first_image_error(&path).to_lowercase().contains("checksum"), "{}", first_image_error(&path));
    let mut packed = std::fs::read(fixture("svhn_compressed.mat")).unwrap();
    // The end of the first stream: its checksum.
    let size = u32::from_le_bytes(packed[132..136].try_into().unwrap()) as usize;
    packed[136 + size - 1] ^= 1;
    let path = put(root.path(), "t.mat", packed);
    refused(&format!("svhn:{}", path.display()), &["t.mat", "compressed data that inflates"]);
}

fn first_image_error(path: &Path) -> String {
    match open_named(&format!("images:{}", path.display())) {
        Ok(set) => set.image(0).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}
