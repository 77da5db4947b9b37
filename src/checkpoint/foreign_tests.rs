//! Promises about files that PyTorch wrote with more in them than plain parameters; `make_weights.py` says how.

use std::path::{Path, PathBuf};

use super::{ElementType, Imported, Trained, Values, look, read_weights};
use crate::error::Result;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights").join(name)
}

/// Element 0 of the first convolution: 1 in the parameters, 5 in their average.
fn first(imported: &Imported) -> f32 {
    assert_eq!(imported.state["conv1.weight"].shape, [2, 3, 3, 3]);
    imported.state["conv1.weight"].to_f32()[0]
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn views_and_flags_of_pytorch_give_the_numbers_that_pytorch_gives() {
    let expected = read_weights(&fixture("views.safetensors"), None).unwrap().state;
    for name in ["views.pth", "views_legacy.th"] {
        let imported = read_weights(&fixture(name), None).unwrap();
        assert_eq!(imported.state.len(), expected.len());
        for (tensor, expected) in &expected {
            assert_eq!(&imported.state[tensor], expected, "{tensor} in {name}");
        }
        // The imaginary parts of the conjugates of x - i x, x = 0, 0.5, …
        assert_eq!(imported.state["negative"].to_f32(), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!(imported.state["negative_bytes"].values, Values::I64(vec![0, 255, 56]));
        assert_eq!(imported.state["expanded"].shape, [4, 5]);
        assert_eq!(imported.stored_types["expanded"], ElementType::F16);
    }
}

#[test]
fn a_tensor_that_is_no_plain_array_of_reals_is_refused_by_name_and_reason() {
    for (name, reason) in [
        ("conjugate", "ComplexFloatStorage"),
        ("complex", "ComplexDoubleStorage"),
        ("float8", "torch.float8_e5m2"),
        ("quantized", "a quantized tensor; save its dequantize()"),
        ("sparse", "a sparse tensor; save its to_dense()"),
        ("meta", "a tensor on the device `meta`"),
    ] {
        let path = fixture(&format!("odd_{name}.pth"));
        let message = message(read_weights(&path, None));
        assert!(message.contains("in `odd`") && message.contains(reason), "{message}");
        // A look at the file shows the rest.
        let seen = look(&path, None).unwrap();
        assert_eq!(seen.state["good"].to_f32(), [0.0, 0.5]);
        assert!(seen.unreadable["odd"].contains(reason), "{seen:?}");
    }
}

#[test]
fn what_nobody_asked_for_is_ignored_and_listed() {
    let imported = read_weights(&fixture("with_ema.pth"), None).unwrap();
    assert_eq!((first(&imported), imported.training.epoch()), (1.0, Some(7)));
    assert_eq!(imported.training.series["labels"], [0.0, 1.0, 2.0, 3.0]);
    let ignored: Vec<&str> = imported.ignored.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(
        ignored,
        ["state_dict_ema", "args", "torch", "started", "logs", "classes", "scales", "spectrum"]
    );
    let what = |name: &str| &imported.ignored.iter().find(|entry| entry.name == name).unwrap().what;
    assert!(what("args").contains("argparse.Namespace"));
    assert!(what("torch").contains("TorchVersion"));
    assert!(what("logs").contains("collections.defaultdict"));
}

#[test]
fn an_average_beside_the_parameters_is_named_and_chosen_by_its_key() {
    let path = fixture("with_ema.pth");
    let usual = read_weights(&path, None).unwrap();
    let note = usual.note().unwrap();
    assert!(
        note.contains("with_ema.pth: weights taken from `state_dict`") && note.contains("`state_dict_ema`"),
        "{note}"
    );
    let average = read_weights(&path, Some("state_dict_ema")).unwrap();
    assert_eq!((first(&usual), first(&average)), (1.0, 5.0));
    // Thresholds and caches know networks by their hash.
    let hash = |key| Trained::open_by_key(&path, key).unwrap().hash;
    assert_eq!(hash(None), super::hash(&path).unwrap());
    assert_eq!(hash(Some("state_dict")), hash(None));
    assert_ne!(hash(Some("state_dict_ema")), hash(None));
    let error = Trained::open_by_key(&path, Some("ema")).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
}

#[test]
fn an_averaged_model_says_that_it_is_one() {
    let imported = read_weights(&fixture("averaged_model.pth"), None).unwrap();
    assert_eq!((first(&imported), imported.selection.averaged), (1.0, Some(2)));
    assert!(imported.note().unwrap().contains("an average over 2 models (AveragedModel)"));
    super::guess_architecture(&imported.state).unwrap();
    assert_eq!(imported.ignored[0].name, "n_averaged");
}

#[test]
fn a_lightning_checkpoint_of_a_compiled_model_opens() {
    let trained = Trained::open(&fixture("lightning.ckpt")).unwrap();
    assert_eq!(trained.architecture.base_channels, 2);
    assert!(trained.note.unwrap().contains("names taken without `model._orig_mod.`"));
}

#[test]
fn two_networks_in_a_file_are_named_and_not_guessed() {
    let path = fixture("student_teacher.pth");
    let text = message(read_weights(&path, None));
    assert!(text.contains("`student`, `teacher`") && text.contains("--weights-key"), "{text}");
    assert_eq!(first(&read_weights(&path, Some("teacher")).unwrap()), 5.0);
}

#[test]
fn a_saved_module_is_named_with_what_to_save_instead() {
    let text = message(read_weights(&fixture("whole_module.pth"), None));
    assert!(text.contains("torch.nn.modules.linear.Linear") && text.contains("state_dict()"), "{text}");
}
