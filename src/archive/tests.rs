//! Promises of opening zips: archives of Python's zipfile, Info-ZIP and PyTorch give their members or a reason by name.

use std::path::PathBuf;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Contents of `text.txt` in the archives of `make_archives.py`.
fn text() -> Vec<u8> {
    b"residua\n".repeat(100)
}

fn read(name: &str, member: &str) -> Result<Vec<u8>> {
    let path = fixture(name);
    let mut archive = open(&path, SharedMap::open(&path)?, "a zip archive")?;
    let index = archive.index_for_name(member).expect("the member");
    read_member(&path, &Position::Member(member.into()), &mut archive, index)
}

fn message(name: &str) -> String {
    read(name, "text.txt").unwrap_err().to_string()
}

#[test]
fn archives_of_zipfile_and_info_zip_open_with_zip64_records_comments_and_data_before_them() {
    for name in [
        "zipfile",
        "comment",
        "prepended",
        "prepended_adjusted",
        "infozip",
        "infozip_zip64",
        "infozip_zip64_prepended",
    ] {
        assert_eq!(read(&format!("archives/{name}.zip"), "text.txt").unwrap(), text(), "{name}");
    }
}

/// PyTorch writes zip64 records always, 76 bytes of them, and here the first header of the directory is as long.
#[test]
fn an_archive_of_pytorch_opens_whatever_the_length_of_its_name() {
    let name = "resnet18_cifar10_best";
    let byte_order = read(&format!("weights/{name}.pth"), &format!("{name}/byteorder")).unwrap();
    assert_eq!(byte_order, b"little");
    let bytes = std::fs::read(fixture("weights/resnet18_cifar10_best.pth")).unwrap();
    let moved = [b"#!/bin/sh\n".repeat(50), bytes.clone()].concat();
    for (bytes, offset) in [(bytes, 0), (moved, 500)] {
        let archive = open(Path::new("x"), bytes, "a zip archive").unwrap();
        assert_eq!(archive.offset(), offset);
    }
}

#[test]
fn a_method_that_is_not_read_is_named_with_what_to_do() {
    for (name, method) in
        [("lzma", "LZMA (compression method 14)"), ("bzip2", "bzip2 (compression method 12)")]
    {
        let message = message(&format!("archives/{name}.zip"));
        assert!(message.contains(method) && message.contains("pack it again with `zip -r`"), "{message}");
    }
    for (number, name) in [(9, "Deflate64"), (93, "Zstandard"), (95, "XZ"), (98, "PPMd"), (77, "unknown")] {
        #[allow(deprecated)]
        let text = method_name(CompressionMethod::Unsupported(number));
        assert!(text.contains(name) && text.contains(&number.to_string()), "{text}");
    }
}

#[test]
fn an_encrypted_member_is_called_encrypted() {
    let message = message("archives/infozip_encrypted.zip");
    assert!(message.contains("an encrypted one") && message.contains("with its password"), "{message}");
}

#[test]
fn two_members_of_one_name_are_refused_by_that_name() {
    let message = message("archives/twice.zip");
    assert!(message.contains("`a_name_that_is_of_30_bytes.txt` twice"), "{message}");
}

#[test]
fn a_member_that_was_changed_or_cut_is_damaged() {
    let path = fixture("archives/zipfile.zip");
    let bytes = std::fs::read(&path).unwrap();
    let data = bytes.windows(8).position(|window| window == b"text.txt").unwrap() + 8;
    for at in data..data + 17 {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        let mut archive = open(&path, bytes, "a zip archive").unwrap();
        let read = read_member(&path, &Position::File, &mut archive, 0);
        assert!(read.is_err_and(|error| error.to_string().contains("800 intact bytes")), "byte {at}");
    }
    for length in 0..bytes.len() {
        assert!(open(&path, &bytes[..length], "a zip archive").is_err(), "cut to {length} bytes");
    }
}
