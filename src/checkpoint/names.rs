//! Parameter names as other programs write them, brought to torchvision's.
//!
//! | written by | example | here |
//! |---|---|---|
//! | DataParallel, torch.compile | `module.conv1.weight`, `_orig_mod.fc.bias` | `conv1.weight`, `fc.bias` |
//! | short block names | `layer1.0.c1.weight`, `layer1.0.b2.bias` | `layer1.0.conv1.weight`, `layer1.0.bn2.bias` |
//! | modules around a ResNet | `backbone.conv1.weight`, `head.weight` | `conv1.weight`, `fc.weight` |
//! | CIFAR repositories | `layer2.0.shortcut.1.weight`, `linear.weight` | `layer2.0.downsample.1.weight`, `fc.weight` |

use std::collections::BTreeMap;

/// Prefixes that wrappers put before every name, possibly several times.
const WRAPPER_PREFIXES: [&str; 3] = ["module.", "_orig_mod.", "backbone."];

/// torchvision's name for a parameter of a ResNet; a name that is none is returned without wrapper prefixes.
pub(super) fn torchvision_name(name: &str) -> String {
    let mut bare = name;
    while let Some(rest) = WRAPPER_PREFIXES.iter().find_map(|prefix| bare.strip_prefix(prefix)) {
        bare = rest;
    }
    // torch.compile puts its own module anywhere.
    let parts: Vec<&str> = bare.split('.').filter(|part| *part != "_orig_mod").collect();
    let inside_block =
        parts.len() >= 4 && parts[0].strip_prefix("layer").is_some_and(is_number) && is_number(parts[1]);
    // The name of a module: behind `layerX.Y` in a block, in front outside.
    let module = if inside_block { 2 } else { 0 };
    let renamed = match (inside_block, parts.get(module).copied().unwrap_or_default()) {
        (_, "c1") => "conv1",
        (_, "b1") => "bn1",
        (true, "c2") => "conv2",
        (true, "b2") => "bn2",
        (true, "c3") => "conv3",
        (true, "b3") => "bn3",
        (true, "shortcut") => "downsample",
        (false, "linear" | "head") => "fc",
        (_, other) => other,
    };
    let mut parts = parts;
    if let Some(part) = parts.get_mut(module) {
        *part = renamed;
    }
    parts.join(".")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Renames every key by [`torchvision_name`].
///
/// # Errors
/// Two names that become the same one; the text names both.
pub(super) fn rename<T>(
    tensors: impl IntoIterator<Item = (String, T)>,
) -> Result<BTreeMap<String, T>, String> {
    let mut renamed: BTreeMap<String, (String, T)> = BTreeMap::new();
    for (name, tensor) in tensors {
        let standard = torchvision_name(&name);
        if let Some((other, _)) = renamed.get(&standard) {
            return Err(format!("`{other}` and `{name}`, which both mean `{standard}`"));
        }
        renamed.insert(standard, (name, tensor));
    }
    Ok(renamed.into_iter().map(|(standard, (_, tensor))| (standard, tensor)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_spelling_becomes_torchvisions() {
        for (written, standard) in [
            ("module.conv1.weight", "conv1.weight"),
            ("_orig_mod.module.bn1.running_mean", "bn1.running_mean"),
            ("layer1._orig_mod.0.conv1.weight", "layer1.0.conv1.weight"),
            ("layer1.0.c1.weight", "layer1.0.conv1.weight"),
            ("layer4.1.b2.num_batches_tracked", "layer4.1.bn2.num_batches_tracked"),
            ("layer2.0.shortcut.0.weight", "layer2.0.downsample.0.weight"),
            ("layer2.0.downsample.1.bias", "layer2.0.downsample.1.bias"),
            ("module.linear.weight", "fc.weight"),
            ("fc.bias", "fc.bias"),
            ("module.backbone.layer1.0.bn1.bias", "layer1.0.bn1.bias"),
            ("head.0.scale", "fc.0.scale"),
            ("sub_head.0.weight", "sub_head.0.weight"),
            ("encoder.c1.weight", "encoder.c1.weight"),
            ("", ""),
        ] {
            assert_eq!(torchvision_name(written), standard);
        }
    }

    #[test]
    fn two_names_for_one_parameter_are_an_error_that_names_both() {
        let pair = [("fc.weight".to_string(), 1), ("module.fc.weight".to_string(), 2)];
        let message = rename(pair).unwrap_err();
        assert!(message.contains("`fc.weight` and `module.fc.weight`"), "{message}");
    }
}
