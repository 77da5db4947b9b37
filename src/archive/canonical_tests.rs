//! Promises of canonical archives: other programs read them, every byte counts, zip64 fields are those of the format.

use std::io::{Cursor, Read, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::*;

const ENTRIES: [(&str, &[u8]); 3] = [("a.txt", b"first"), ("folder/b.bin", &[0; 300]), ("empty", b"")];

fn written(form: Form) -> Vec<u8> {
    let mut bytes = Vec::new();
    form.write(&mut bytes, &ENTRIES).unwrap();
    bytes
}

fn message(bytes: &[u8]) -> String {
    read(Path::new("x.zip"), bytes).unwrap_err().to_string()
}

#[test]
fn another_program_reads_the_entries_with_and_without_zip64_fields() {
    for largest_32 in [LARGEST_32, 100, 0] {
        let form = Form { largest_32 };
        let bytes = written(form);
        let mut archive = ZipArchive::new(Cursor::new(&bytes)).unwrap();
        assert_eq!(archive.len(), ENTRIES.len());
        for (index, (name, content)) in ENTRIES.iter().enumerate() {
            let mut file = archive.by_index(index).unwrap();
            let mut found = Vec::new();
            file.read_to_end(&mut found).unwrap();
            assert_eq!((&*file.name().unwrap(), found.as_slice()), (*name, *content), "{largest_32}");
            assert_eq!(file.unix_mode(), Some(MODE));
        }
        let entries = form.read(Path::new("x.zip"), &bytes).unwrap();
        for (entry, (name, content)) in entries.iter().zip(ENTRIES) {
            assert_eq!((entry.name.as_str(), &bytes[entry.content.clone()]), (name, content));
            assert_eq!(entry.stated_checksum, entry.checksum);
        }
    }
}

#[test]
fn every_changed_byte_is_noticed_and_names_an_entry_or_a_position() {
    let path = Path::new("x.zip");
    for form in [FORM, Form { largest_32: 100 }] {
        let bytes = written(form);
        let sound = form.read(path, &bytes).unwrap();
        for at in 0..bytes.len() {
            for flip in [1, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let inside = sound.iter().find(|entry| entry.content.contains(&at));
                match form.read(path, &damaged) {
                    Err(error) => {
                        let text = error.to_string();
                        assert!(inside.is_none(), "{at}: {text}");
                        assert!(text.contains(" in `") || text.contains("at byte"), "{at}: {text}");
                    }
                    Ok(found) => {
                        let changed = found.iter().find(|entry| entry.stated_checksum != entry.checksum);
                        let changed = changed.map(|entry| &entry.name);
                        assert_eq!(changed, inside.map(|entry| &entry.name), "byte {at}");
                        assert!(changed.is_some(), "byte {at}");
                    }
                }
            }
            assert!(form.read(path, &bytes[..at]).is_err(), "cut at {at}");
        }
    }
}

#[test]
fn bytes_before_between_and_behind_are_refused() {
    let bytes = written(FORM);
    assert!(message(&[b"MZ", bytes.as_slice()].concat()).contains("at byte 0"));
    assert!(message(&[bytes.as_slice(), b"x"].concat()).contains("1 more bytes"));
    let second = read(Path::new("x.zip"), &bytes).unwrap()[1].header;
    let gap = [&bytes[..second], b"gap", &bytes[second..]].concat();
    assert!(message(&gap).contains("in `a.txt`"), "{}", message(&gap));
    let mut comment = bytes.clone();
    let last = comment.len() - 2;
    comment[last] = 2;
    comment.extend(b"hi");
    assert!(message(&comment).contains("the end of the archive"), "{}", message(&comment));
}

/// An archive of the `zip` crate, as other programs write them.
fn foreign(change: impl FnOnce(&mut ZipWriter<Cursor<Vec<u8>>>)) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    change(&mut writer);
    writer.finish().unwrap().into_inner()
}

#[test]
fn entries_of_other_programs_are_refused_by_what_is_odd_about_them() {
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let named = |name: &str| {
        foreign(|zip| {
            zip.start_file(name, stored).unwrap();
            zip.write_all(b"x").unwrap();
        })
    };
    for (name, part) in [
        ("../a", "`..` in `../a`"),
        ("/etc/passwd", "an absolute path"),
        ("a\\b", "a backslash"),
        ("a//b", "an empty part"),
        ("a b", "found ` `"),
    ] {
        let text = message(&named(name));
        assert!(text.contains(part), "{name}: {text}");
    }
    let deflated = foreign(|zip| {
        let packed = stored.compression_method(CompressionMethod::Deflated);
        zip.start_file("a", packed).unwrap();
        zip.write_all(&[0; 1000]).unwrap();
    });
    assert!(message(&deflated).contains("in `a`: expected a stored entry"), "{}", message(&deflated));
    assert!(message(&deflated).contains("Deflate"), "{}", message(&deflated));
    assert!(message(&[]).contains("at byte 0"));
    assert!(message(b"PK\x03\x04").contains("the end of the file"));
}

#[test]
fn links_and_encrypted_entries_are_called_so() {
    let mut bytes = written(FORM);
    let at = bytes.windows(4).position(|window| window == HEADER).unwrap();
    bytes[at + 38..at + 42].copy_from_slice(&(0o120_777u32 << 16).to_le_bytes());
    let text = message(&bytes);
    assert!(text.contains("in `a.txt`") && text.contains("120777 (a symbolic link)"), "{text}");
    let mut bytes = written(FORM);
    bytes[6] |= 1;
    assert!(message(&bytes).contains("found an encrypted one"), "{}", message(&bytes));
}

#[test]
fn a_name_that_occurs_twice_is_refused() {
    let mut bytes = Vec::new();
    FORM.write(&mut bytes, &[("a", b"1"), ("a", b"2")]).unwrap();
    assert!(message(&bytes).contains("in `a`: expected each entry named once"), "{}", message(&bytes));
}

#[test]
fn sizes_beyond_the_file_allocate_nothing() {
    let mut bytes = written(FORM);
    bytes[18..26].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff]);
    let text = message(&bytes);
    assert!(text.contains("in `a.txt`: expected 4294967294 bytes of content"), "{text}");
}
