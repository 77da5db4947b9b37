//! `residua weights` from the outside, and the PyTorch files it writes.

mod mutations;

use std::fs;
use std::path::{Path, PathBuf};

use predicates::prelude::*;
use predicates::str::contains;
use residua::checkpoint::{
    HostTensor, StateDict, Values, guess_architecture, network, read_weights, write_safetensors, write_torch,
};
use residua::nn::{Architecture, Depth, Network};
use residua::tensor::DType;

use crate::support::program::residua;

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
        let imported = read_weights(path, None).unwrap();
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
    let read = read_weights(&path, None).unwrap();
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
fn inspect_and_import_say_which_network_was_taken_and_what_else_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (fixture("with_ema.pth"), folder.path().join("out.safetensors"));
    let first = |path: &Path| read_weights(path, None).unwrap().state["conv1.weight"].to_f32()[0];
    weights().arg("inspect").arg(&file).assert().success().stdout(
        contains(
            "weights taken from `state_dict`; there are also `state_dict_ema`, which --weights-key chooses",
        )
        .and(contains("ignored: args: an object that argparse.Namespace makes"))
        .and(contains("ignored: scales: an object that torch._utils._rebuild_tensor_v3 makes"))
        .and(contains("every tensor fits")),
    );
    weights()
        .arg("import")
        .args([&file, &out])
        .assert()
        .success()
        .stdout(contains("8 other entries").and(contains("weights inspect lists them")))
        .stderr(contains("note: ").and(contains("`state_dict_ema`")));
    assert_eq!(first(&out), 1.0);
    weights().arg("import").args([&file, &out]).args(["--weights-key", "state_dict_ema"]).assert().success();
    assert_eq!(first(&out), 5.0);
    weights()
        .arg("import")
        .args([&file, &out])
        .args(["--weights-key", "ema"])
        .assert()
        .code(2)
        .stderr(contains("there are no tensors under `ema`; there are `state_dict`, `state_dict_ema`"));
    weights()
        .arg("import")
        .args([&fixture("student_teacher.pth"), &out])
        .assert()
        .code(1)
        .stderr(contains("2 of them: `student`, `teacher`; say which with --weights-key"));
    let json = weights().args(["inspect", "--json"]).arg(&file).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["selection"]["key"], "state_dict");
    assert_eq!(value["selection"]["others"][0], "state_dict_ema");
    assert_eq!(value["ignored"].as_array().unwrap().len(), 8);
}

#[test]
fn inspect_shows_the_rest_of_a_file_with_a_tensor_it_cannot_read() {
    weights().arg("inspect").arg(fixture("odd_quantized.pth")).assert().success().stdout(
        contains("cannot be read: odd: a quantized tensor; save its dequantize()").and(contains("good")),
    );
    let folder = tempfile::tempdir().unwrap();
    weights()
        .arg("import")
        .args([&fixture("odd_quantized.pth"), &folder.path().join("out.safetensors")])
        .assert()
        .code(1)
        .stderr(contains("in `odd`").and(contains("a quantized tensor")));
}

#[test]
fn training_and_extraction_take_the_network_that_a_key_names() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("folder:{}", folder.path().join("data").display());
    for (class, level) in [("a", 10), ("b", 90), ("c", 200)] {
        fs::create_dir_all(folder.path().join("data").join(class)).unwrap();
        let image = image::RgbImage::from_pixel(32, 32, image::Rgb([level; 3]));
        image.save(folder.path().join("data").join(class).join("0.png")).unwrap();
    }
    let file = fixture("with_ema.pth");
    let run = |verb: &str| {
        let mut command = residua([verb]);
        command.args(["--data", &data, "--normalize", "imagenet", "--device", "cpu"]);
        command
    };
    let mut hashes = Vec::new();
    for key in [None, Some("state_dict_ema")] {
        let out = folder.path().join(format!("cache_{}", key.unwrap_or("usual"))).join("features");
        let mut command = run("extract");
        command.arg("--checkpoint").arg(&file).arg("--out").arg(&out);
        command.args(key.map(|key| ["--weights-key", key]).into_iter().flatten());
        command.assert().success().stderr(contains("note: ").and(contains("state_dict_ema")));
        let meta: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(out.join("meta.json")).unwrap()).unwrap();
        hashes.push(meta["checkpoint"].clone());
    }
    assert!(hashes[0].is_string() && hashes[0] != hashes[1], "{hashes:?}");
    let mut command = run("train");
    command.args([
        "--arch",
        "resnet20",
        "--width",
        "0.125",
        "--epochs",
        "1",
        "--max-steps",
        "1",
        "--lr",
        "0",
    ]);
    command.arg("--init").arg(&file).args(["--weights-key", "state_dict_ema"]);
    command.arg("--out").arg(folder.path().join("run"));
    command.assert().success().stderr(contains("weights taken from `state_dict_ema`"));
    let recipe = fs::read_to_string(folder.path().join("run/recipe.toml")).unwrap();
    assert!(recipe.contains("weights_key = \"state_dict_ema\""), "{recipe}");
    let trained = residua::checkpoint::load(&folder.path().join("run")).unwrap();
    assert_eq!(trained.model["conv1.weight"].to_f32()[0], 5.0);
    // A folder of ours holds one network.
    run("extract")
        .arg("--checkpoint")
        .arg(folder.path().join("run"))
        .args(["--weights-key", "x", "--out"])
        .arg(folder.path().join("x"))
        .assert()
        .code(2)
        .stderr(contains("holds one network; leave the key out"));
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
