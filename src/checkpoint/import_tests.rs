//! Promises of reading weights: what real files hold comes out under torchvision's names, damage ends in a message.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Format, Imported, Values, read_weights};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights").join(name)
}

/// 0, 0.5, 1, …: what the generator of the fixtures fills float tensors with.
fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32 / 2.0).collect()
}

fn floats(imported: &Imported, name: &str, shape: &[usize]) -> Vec<f32> {
    let tensor = &imported.state[name];
    assert_eq!(tensor.shape, shape, "{name}");
    tensor.to_f32()
}

/// Writes bytes to a file and reads them as weights.
fn read_bytes(bytes: &[u8]) -> crate::Result<Imported> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    fs::write(&path, bytes).unwrap();
    read_weights(&path, None)
}

fn message(bytes: &[u8]) -> String {
    read_bytes(bytes).unwrap_err().to_string()
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(from.len()).position(|window| window == from).expect("what is to be replaced");
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn a_notebook_checkpoint_gives_weights_curves_and_epoch() {
    let imported = read_weights(&fixture("resnet_20_epoch.pth"), None).unwrap();
    assert_eq!(imported.format, Format::TorchArchive);
    assert_eq!(floats(&imported, "conv1.weight", &[1, 3, 3, 3]), ramp(27));
    assert_eq!(floats(&imported, "layer2.0.conv2.weight", &[2, 2, 3, 3]), ramp(36));
    assert_eq!(floats(&imported, "layer2.0.downsample.0.weight", &[2, 1, 1, 1]), ramp(2));
    assert_eq!(floats(&imported, "fc.weight", &[3, 2]), ramp(6));
    assert_eq!(imported.state["layer1.0.bn2.num_batches_tracked"].values, Values::I64(vec![1]));
    // conv, bn; two blocks of two conv and bn, one of them with a downsample conv and bn; fc.
    assert_eq!(imported.state.len(), 6 + 12 + 18 + 2);
    let training = &imported.training;
    assert_eq!(training.epoch(), Some(20));
    assert_eq!(training.numbers["loss"], 1.25);
    assert_eq!(training.series("train_losses"), [2.5, 1.25]);
    assert_eq!(training.series("train_accuracies"), [0.25, 0.5]);
    assert_eq!(training.series("val_losses"), [3.0, 1.5]);
    assert_eq!(training.series("val_accuracies"), [0.125, 0.375]);
}

#[test]
fn a_legacy_file_gives_views_of_shared_storages_and_transposed_tensors() {
    let imported = read_weights(&fixture("legacy.th"), None).unwrap();
    assert_eq!(imported.format, Format::TorchLegacy);
    assert_eq!(floats(&imported, "conv1.weight", &[2, 3, 3, 3]), ramp(54));
    assert_eq!(floats(&imported, "bn1.weight", &[2]), [1.0, 1.5]);
    assert_eq!(floats(&imported, "bn1.bias", &[2]), [5.0, 5.5]);
    assert_eq!(floats(&imported, "layer1.0.downsample.0.weight", &[2, 2, 1, 1]), ramp(4));
    assert_eq!(imported.stored_types["layer1.0.downsample.0.weight"].name(), "f16");
    assert_eq!(imported.state["bn1.num_batches_tracked"].values, Values::I64(vec![7]));
    assert_eq!(floats(&imported, "fc.weight", &[3, 2]), [0.0, 1.5, 0.5, 2.0, 1.0, 2.5]);
    assert_eq!(imported.training.numbers["best_prec1"], 91.75);
}

#[test]
fn every_element_type_is_read_from_both_formats() {
    for name in ["types.safetensors", "types.pth"] {
        let imported = read_weights(&fixture(name), None).unwrap();
        assert_eq!(imported.state.len(), 13, "{name}");
        for (key, tensor) in &imported.state {
            let expected = match key.as_str() {
                "float16" | "bfloat16" | "float32" => Values::F32(vec![0.0, 1.0, 1.0]),
                "float64" => Values::F64(vec![0.0, 1.0, 1.0]),
                _ => Values::I64(vec![0, 1, 1]),
            };
            assert_eq!((&tensor.shape[..], &tensor.values), (&[1, 3][..], &expected), "{key}");
        }
    }
    let imported = read_weights(&fixture("types.safetensors"), None).unwrap();
    assert_eq!(imported.training.epoch(), Some(12));
    assert_eq!(imported.training.texts["arch"], "resnet18");
}

#[test]
fn a_file_of_another_kind_is_named_for_what_it_is() {
    assert!(message(b"").contains("an empty file"));
    assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    assert!(message(b"<!DOCTYPE html>").contains("web page"));
    assert!(message(b"\x80\x02}.").contains("magic number"));
    assert!(message(b"GIF89a-and-more").contains("GIF"));
}

#[test]
fn a_truncated_file_is_an_error_at_every_length() {
    for name in ["legacy.th", "types.safetensors", "types.pth"] {
        let whole = fs::read(fixture(name)).unwrap();
        for length in (0..whole.len()).step_by(13).chain([whole.len() - 1]) {
            assert!(read_bytes(&whole[..length]).is_err(), "{name} cut to {length} bytes");
        }
    }
}

#[test]
fn a_pickle_that_wants_to_run_something_runs_nothing_and_is_named_where_tensors_were_wanted() {
    let legacy = fs::read(fixture("legacy.th")).unwrap();
    // The dictionary of parameters is made by another function now.
    let evil = replace(&legacy, b"ccollections\nOrderedDict\n", b"cnt\nsystem12345678901234\n");
    let text = message(&evil);
    assert!(text.contains("nt.system") && text.contains("nothing from a pickle is ever executed"), "{text}");
}

/// The pickle of the legacy fixture describes a tensor of shape (2, 3, 3, 3) with strides (27, 9, 3, 1).
#[test]
fn a_view_outside_its_storage_is_refused() {
    let legacy = fs::read(fixture("legacy.th")).unwrap();
    let strides = b"(K\x1bK\x09K\x03K\x01t";
    let text = message(&replace(&legacy, strides, b"(K\x1cK\x09K\x03K\x01t"));
    assert!(text.contains("`module.conv1.weight` that lies inside its storage"), "{text}");
    assert!(text.contains("[28, 9, 3, 1]"), "{text}");
    // A stride of -1 (as LONG1) in the place of (27, 9, …).
    let text = message(&replace(&legacy, strides, b"(\x8a\x01\xffK\x09K\x03t0"));
    assert!(text.contains("strides of zero or more"), "{text}");
    // Elements repeated by strides of zero make tensors of any size, up to a bound.
    let expanded = replace(&legacy, b"(K\x02K\x03K\x03K\x03t", b"(K\x7fK\x7fK\x7fK\x7ft");
    let text = message(&replace(&expanded, strides, b"(K\x00K\x00K\x00K\x00t"));
    assert!(text.contains("repeat at most") && text.contains("of 260144641 elements"), "{text}");
}

#[test]
fn a_safetensors_header_must_fit_and_name_each_tensor_once() {
    let file = |header: &str, data: &[u8]| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    let tensor = |name: &str, from: usize| {
        format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{from},{}]}}"#, from + 4)
    };
    assert!(read_bytes(&file(&format!("{{{}}}", tensor("a", 0)), &[0; 4])).is_ok());
    let text = message(&file(&format!("{{{},{}}}", tensor("a", 0), tensor("a", 0)), &[0; 4]));
    assert!(text.contains("`a` twice"), "{text}");
    let text =
        message(&file(&format!("{{{},{}}}", tensor("fc.bias", 0), tensor("module.fc.bias", 4)), &[0; 8]));
    assert!(text.contains("both mean `fc.bias`"), "{text}");
    assert!(message(&file(&format!("{{{}}}", tensor("a", 0)), &[0; 3])).contains("fill the file exactly"));
    assert!(message(&file(&format!("{{{}}}", tensor("a", 4)), &[0; 8])).contains("header"));
    let mut huge = file("{}", &[]);
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(message(&huge).contains("a header of 18446744073709551615 bytes in a file of 10"));
    let deep = "[".repeat(100_000);
    assert!(message(&file(&format!("{{\"a\":{deep}"), &[])).contains("header"));
    let shape = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
    assert!(message(&file(shape, &[])).contains("header"));
    let complex = r#"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#;
    assert!(message(&file(complex, &[0; 8])).contains("C64"));
}

/// A zip archive with these members, deflated.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A pickle of `{name: tensor of `count` floats in storage '0'}` for each name.
fn pickle_of(names: &[&str], count: u32) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for name in names {
        out.extend(b"X");
        out.extend((name.len() as u32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ");
        out.extend(count.to_le_bytes());
        out.extend(b"tQK\x00J");
        out.extend(count.to_le_bytes());
        out.extend(b"\x85K\x01\x85\x89}tR");
    }
    out.extend(b"u.");
    out
}

#[test]
fn an_archive_must_hold_what_its_pickle_refers_to() {
    let good = archive(&[("a/data.pkl", &pickle_of(&["w"], 2)), ("a/data/0", &[0; 8])]);
    assert_eq!(read_bytes(&good).unwrap().state["w"].to_f32(), [0.0, 0.0]);
    let text = message(&archive(&[("a/data.pkl", &pickle_of(&["w"], 2)), ("a/data/0", &[0; 4])]));
    assert!(text.contains("a/data/0") && text.contains("a storage of 8 bytes, found 4"), "{text}");
    let text = message(&archive(&[("a/data.pkl", &pickle_of(&["w"], 2))]));
    assert!(text.contains("`a/data/0`") && text.contains("none of that name"), "{text}");
    let text = message(&archive(&[("a/data.pkl", &pickle_of(&["w", "w"], 1)), ("a/data/0", &[0; 4])]));
    assert!(text.contains("the name `w` twice"), "{text}");
    let text = message(&archive(&[("a/data.pkl", b"N."), ("b/data.pkl", b"N.")]));
    assert!(text.contains("2 of them"), "{text}");
    let text = message(&archive(&[("a/data.pkl", b"}."), ("a/byteorder", b"little")]));
    assert!(text.contains("a dictionary of 0 entries with the keys none"), "{text}");
    let text = message(&archive(&[("a/data.pkl", b"}."), ("a/byteorder", b"big")]));
    assert!(text.contains("little-endian"), "{text}");
}

#[test]
fn one_storage_under_very_many_names_is_refused() {
    let names: Vec<String> = (0..100).map(|i| format!("w{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let text = message(&archive(&[("a/data.pkl", &pickle_of(&names, 256)), ("a/data/0", &[0; 1024])]));
    assert!(text.contains("over and over"), "{text}");
}

#[test]
fn one_list_or_text_under_very_many_keys_is_refused() {
    // A list of 1000 numbers and a text of 1000 characters, remembered as 0 and 1.
    let shared = [
        b"]q\x00(".to_vec(),
        b"K\x07".repeat(1000),
        b"e0X\xe8\x03\x00\x00".to_vec(),
        vec![b'x'; 1000],
        b"q\x010".to_vec(),
    ];
    for memo in 0..2u8 {
        let mut pickle = [b"\x80\x02".to_vec(), shared.concat(), b"}(U\x05model}(".to_vec()].concat();
        pickle.extend(&pickle_of(&["w"], 1)[4..]);
        // Where the inner pickle ends with SETITEMS and STOP, only the inner SETITEMS and STOP belong here.
        pickle.pop();
        for index in 0..500 {
            pickle.extend(format!("U\x03{index:03}h").bytes());
            pickle.push(memo);
        }
        pickle.extend(b"u.");
        let text = message(&archive(&[("a/data.pkl", &pickle), ("a/data/0", &[0; 4])]));
        assert!(text.contains("over and over"), "{text}");
    }
}

#[test]
fn a_name_twice_in_an_archive_is_refused() {
    let pickle = pickle_of(&["w"], 2);
    let mut bytes = archive(&[("a/data.pkl", &pickle), ("a/data/0", &[0; 8]), ("a/data/1", &[1; 8])]);
    let name = b"a/data/1";
    for at in
        (0..bytes.len() - name.len()).filter(|&at| &bytes[at..at + name.len()] == name).collect::<Vec<_>>()
    {
        bytes[at + name.len() - 1] = b'0';
    }
    assert!(message(&bytes).contains("`a/data/0` twice"), "{}", message(&bytes));
}

/// The classic bomb: many entries of the central directory, all of them for the same compressed bytes.
#[test]
fn members_that_overlap_are_refused() {
    let noise: Vec<u8> = (0..4096u32).flat_map(|i| i.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    let mut pickle = pickle_of(&["w0", "w1"], 4096);
    let second = pickle.windows(3).rposition(|window| window == b"U\x010").unwrap();
    pickle[second + 2] = b'1';
    let bytes = archive(&[("a/data.pkl", &pickle), ("a/data/0", &noise)]);
    let end = bytes.windows(4).rposition(|window| window == b"PK\x05\x06").unwrap();
    let last = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    let mut record = bytes[last..end].to_vec();
    let name = record.windows(8).position(|window| window == b"a/data/0").unwrap();
    record[name + 7] = b'1';
    let mut bomb = [&bytes[..end], &record, &bytes[end..]].concat();
    // The end record: entries on this disk, entries, bytes of the directory.
    let end = end + record.len();
    let size = u32::from_le_bytes(bomb[end + 12..end + 16].try_into().unwrap()) + record.len() as u32;
    bomb[end + 8] += 1;
    bomb[end + 10] += 1;
    bomb[end + 12..end + 16].copy_from_slice(&size.to_le_bytes());
    let text = message(&bomb);
    assert!(text.contains("more compressed bytes") || text.contains("damaged"), "{text}");
}

#[test]
fn a_zip_bomb_is_refused_before_it_is_inflated() {
    let bomb = archive(&[("a/data.pkl", b"}."), ("a/byteorder", &vec![0; 100_000])]);
    // Declare 4 GB in the local and the central header of the last member.
    let size = 100_000u32.to_le_bytes();
    let mut lying = bomb.clone();
    for at in (0..bomb.len() - 4).filter(|&at| bomb[at..at + 4] == size) {
        lying[at..at + 4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    }
    assert_ne!(lying, bomb);
    let text = message(&lying);
    assert!(text.contains("at most 1032 times") && text.contains("4294967280 declared"), "{text}");
}
