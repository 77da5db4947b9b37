//! Weight files that PyTorch and the safetensors package wrote: the same numbers from both.

use residua::checkpoint::{Values, read_weights};

use crate::parity::golden::{Golden, path};

#[test]
fn a_pth_and_a_safetensors_file_of_one_network_hold_the_same() {
    for depth in [18, 50] {
        let golden = Golden::load(&format!("trajectories/resnet{depth}_init"));
        for kind in ["pth", "safetensors"] {
            let file = path(&format!("trajectories/resnet{depth}_init.{kind}"));
            let state = read_weights(&file, None).expect("a file from PyTorch").state;
            assert_eq!(state.len(), golden.with_prefix("").count(), "tensors in {}", file.display());
            for (name, tensor) in &state {
                let expected = golden.get(name);
                assert_eq!(tensor.shape, expected.shape, "{name} in {}", file.display());
                assert_eq!(tensor.to_f64(), expected.values, "{name} in {}", file.display());
                let counts = matches!(tensor.values, Values::I64(_));
                assert_eq!(counts, name.ends_with("num_batches_tracked"), "{name} in {}", file.display());
            }
        }
    }
}
