//! `residua weights` from the outside, and the PyTorch files it writes.

use std::fs;
use std::path::{Path, PathBuf};

use predicates::prelude::*;
use predicates::str::contains;
use residua::checkpoint::{
    HostTensor, StateDict, Values, guess_architecture, network, read_weights, write_safetensors, write_torch,
};
use residua::nn::{Architecture, Depth, Network};
use residua::tensor::DType;

use crate::program::residua;

fn weights() -> assert_cmd::Command {
    residua(["weights"])
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights").join(name)
}

/// A narrow ResNet-20's tensors under the names and wrappers of a CIFAR repository.
fn foreign_resnet20() -> (Architecture, StateDict) {
    let architecture = Architecture::new(Depth::ResNet20, None, None, 0.125, 3).unwrap();
    let described = Network::new(&architecture, DType::F32, None);
    let mut state = StateDict::new();
    for (index, entry) in described.parameters().entries().iter().enumerate() {
        let shape = network::torch_shape(entry);
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| (i as f32 - 3.0) / (index + 1) as f32).collect();
        state.insert(
            format!("module.{}", entry.name.replace("fc.", "linear.")),
            HostTensor::f32(shape, values),
        );
    }
    (architecture, state)
}

#[test]
fn weights_survive_export_to_pytorch_and_import_to_safetensors_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (foreign, torch) = (folder.path().join("foreign.pth"), folder.path().join("again.pth"));
    let ours = folder.path().join("model.safetensors");
    let (architecture, state) = foreign_resnet20();
    write_torch(&foreign, &state).unwrap();
    weights()
        .arg("import")
        .args([&foreign, &ours])
        .assert()
        .success()
        .stdout(contains("resnet20 (shortcut a"));
    weights().arg("export").args([&ours, &torch]).assert().success();
    for path in [&foreign, &ours, &torch] {
        let imported = read_weights(path).unwrap();
        assert_eq!(guess_architecture(&imported.state).unwrap(), architecture);
        assert_eq!(imported.state.len(), state.len());
        for (name, tensor) in &state {
            let name = name.replace("module.", "").replace("linear.", "fc.");
            assert_eq!(&imported.state[&name], tensor, "{name} in {}", path.display());
        }
    }
}

#[test]
fn a_pytorch_file_has_the_members_and_the_alignment_that_pytorch_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.pth");
    let mut state = StateDict::new();
    state.insert("a".into(), HostTensor::f32([2, 0, 3], Vec::new()));
    state.insert("b".into(), HostTensor { shape: vec![], values: Values::I64(vec![-5]) });
    state.insert(
        "c".into(),
        HostTensor { shape: vec![3], values: Values::F64(vec![0.1, -0.0, f64::INFINITY]) },
    );
    write_torch(&path, &state).unwrap();
    let read = read_weights(&path).unwrap();
    assert_eq!(read.state, state);
    assert!(read.training.numbers.is_empty(), "the scalar `b` is a parameter, not a record of training");
    let first = fs::read(&path).unwrap();
    write_torch(&path, &state).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first, "the same tensors give the same bytes");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(first)).unwrap();
    let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    for name in ["data.pkl", "version", "byteorder", "data/0", "data/1", "data/2"] {
        let member = archive.by_name(&format!("archive/{name}")).unwrap();
        assert_eq!(member.compression(), zip::CompressionMethod::Stored);
        assert_eq!(member.data_start().unwrap() % 64, 0, "{name}");
    }
    assert_eq!(names.len(), 6, "{names:?}");
}

#[test]
fn inspect_shows_tensors_network_and_training() {
    let json = weights().args(["inspect", "--json"]).arg(fixture("resnet_20_epoch.pth")).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let tensors = value["tensors"].as_array().unwrap();
    let weight = tensors.iter().find(|tensor| tensor["name"] == "conv1.weight").unwrap();
    // 27 elements 0, 0.5, …, 13
    assert_eq!((&weight["min"], &weight["mean"], &weight["max"]), (&0.0.into(), &6.5.into(), &13.0.into()));
    assert_eq!((&weight["dtype"], &weight["nan"]), (&"f32".into(), &0.into()));
    assert_eq!(value["training"]["numbers"]["epoch"], 20.0);
    assert!(value["problem"].as_str().unwrap().contains("[1, 1] basic blocks"));

    let folder = tempfile::tempdir().unwrap();
    let (_, mut state) = foreign_resnet20();
    let path = folder.path().join("m.safetensors");
    write_safetensors(&path, &state, &Default::default()).unwrap();
    weights()
        .arg("inspect")
        .arg(&path)
        .assert()
        .success()
        .stdout(contains("layer3.2.bn2.running_var").and(contains("every tensor fits")));
    state.insert("module.extra\u{1b}[2J".into(), HostTensor::f32([1], vec![f32::NAN]));
    write_safetensors(&path, &state, &Default::default()).unwrap();
    weights().arg("inspect").arg(&path).assert().success().stdout(
        contains("extra\\u{1b}[2J").and(contains("architecture: unknown")).and(contains("\u{1b}").not()),
    );
}

#[test]
fn bad_weights_end_with_a_message_and_code_1_and_damage_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    fs::write(&out, "precious").unwrap();
    let bad = folder.path().join("bad.pth");
    let legacy = fs::read(fixture("legacy.th")).unwrap();
    for (bytes, expected) in [
        (&b""[..], "an empty file"),
        (&legacy[..legacy.len() - 1], "until the end of the file"),
        (b"\x7fELF....", "expected weights"),
    ] {
        fs::write(&bad, bytes).unwrap();
        weights()
            .arg("import")
            .args([&bad, &out])
            .assert()
            .code(1)
            .stderr(contains(expected).and(contains("bad.pth")));
    }
    weights().arg("inspect").arg(folder.path().join("absent")).assert().code(1).stderr(contains("absent"));
    weights().arg("inspect").arg(folder.path()).assert().code(1).stderr(contains("checkpoint folder"));
    assert_eq!(fs::read_to_string(&out).unwrap(), "precious");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn an_output_of_an_unknown_kind_is_wrong_use() {
    let legacy = fixture("legacy.th");
    weights().arg("import").arg(&legacy).arg("out.pth").assert().code(2).stderr(contains("weights export"));
    weights()
        .arg("export")
        .arg(&legacy)
        .arg("out.onnx")
        .assert()
        .code(2)
        .stderr(contains(".safetensors or .pth"));
}
