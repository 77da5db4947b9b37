//! Parameters between a network in a device's memory and named tensors in torchvision's layout.

use std::path::Path;

use super::{HostTensor, StateDict, Values};
use crate::error::{Error, Position, Result};
use crate::nn::{Entry, Kind, Model, Network, ONLY_HEAD, SUBCLASS_HEAD, SUPERCLASS_HEAD};
use crate::tensor::{DType, HostValues};

/// The extents a parameter has in PyTorch: convolution weights OIHW, scales without dimensions, everything else as here.
pub fn torch_shape(entry: &Entry) -> Vec<usize> {
    let extents = entry.parameter.shape.extents();
    match entry.kind {
        Kind::ConvWeight => vec![extents[0], extents[3], extents[1], extents[2]],
        Kind::Scale | Kind::SoftplusScale => Vec::new(),
        _ => extents.to_vec(),
    }
}

/// Reorders a parameter's elements from this program's layout (KRSC) to PyTorch's (KCRS).
pub fn to_torch_order<T: Copy>(entry: &Entry, values: &[T]) -> Vec<T> {
    match entry.kind {
        Kind::ConvWeight => {
            let [_, rows, columns, channels] = entry.parameter.shape.nhwc();
            transpose_filters(values, rows * columns, channels)
        }
        _ => values.to_vec(),
    }
}

/// Reorders a parameter's elements from PyTorch's layout (KCRS) to this program's (KRSC).
pub fn from_torch_order<T: Copy>(entry: &Entry, values: &[T]) -> Vec<T> {
    match entry.kind {
        Kind::ConvWeight => {
            let [_, rows, columns, channels] = entry.parameter.shape.nhwc();
            transpose_filters(values, channels, rows * columns)
        }
        _ => values.to_vec(),
    }
}

/// Transposes each filter, a matrix of `rows` x `columns`.
fn transpose_filters<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    for filter in values.chunks_exact(rows * columns) {
        for column in 0..columns {
            out.extend((0..rows).map(|row| filter[row * columns + column]));
        }
    }
    out
}

/// Whether a tensor has the extents of a parameter; a scale may also be a vector of one.
fn has_shape(entry: &Entry, tensor: &HostTensor) -> bool {
    let is_scale = matches!(entry.kind, Kind::Scale | Kind::SoftplusScale);
    tensor.shape == torch_shape(entry) || (is_scale && tensor.shape == [1])
}

/// Checks that named tensors are exactly a network's parameters: none missing, none left over, every shape the
/// network's. Counters named `num_batches_tracked` are ignored.
///
/// # Errors
/// Names the first tensor that does not fit, and the architecture that was expected.
pub fn check(network: &Network, state: &StateDict, source: &Path) -> Result<()> {
    check_except(network, state, source, &|_| false)
}

/// The same, but ignores the tensors whose names `left_out` accepts.
fn check_except(
    network: &Network,
    state: &StateDict,
    source: &Path,
    left_out: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let entries = network.parameters().entries();
    let fail = |expected: String, found: String| {
        Err(Error::malformed(
            source,
            Position::File,
            format!("the tensors of {}: {expected}", network.architecture()),
            found,
        ))
    };
    for entry in entries.iter().filter(|entry| !left_out(&entry.name)) {
        let shape = torch_shape(entry);
        match state.get(&entry.name) {
            None => {
                let missing = entries.iter().filter(|e| !state.contains_key(&e.name)).count();
                let found = format!("no such tensor ({missing} are missing); is it another architecture?");
                return fail(format!("`{}` of shape {shape:?}", entry.name), found);
            }
            Some(tensor) if !has_shape(entry, tensor) => {
                return fail(
                    format!("`{}` of shape {shape:?}", entry.name),
                    format!("shape {:?}", tensor.shape),
                );
            }
            Some(tensor) if matches!(tensor.values, Values::I64(_)) => {
                return fail(format!("floating-point numbers in `{}`", entry.name), "integers".into());
            }
            Some(_) => {}
        }
    }
    let known: std::collections::HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let extra: Vec<&str> = state
        .keys()
        .map(String::as_str)
        .filter(|name| !known.contains(name) && !name.ends_with("num_batches_tracked") && !left_out(name))
        .collect();
    if let Some(first) = extra.first() {
        return fail("nothing else".into(), format!("{} more, the first of them `{first}`", extra.len()));
    }
    Ok(())
}

/// Loads named tensors into a model's memory. See [`check`] for what must fit.
///
/// # Errors
/// As [`check`], and a tensor that holds NaN or infinity.
pub fn load(model: &mut Model, state: &StateDict, source: &Path) -> Result<()> {
    check(model.network(), state, source)?;
    let entries = model.network().parameters().entries().to_vec();
    write_entries(model, &entries, state, source)
}

/// Loads named tensors into the trained network that runs beside a model's own.
///
/// # Errors
/// As [`load`].
///
/// # Panics
/// There is no such network.
pub fn load_teacher(model: &mut Model, state: &StateDict, source: &Path) -> Result<()> {
    let teacher = model.network().teacher().expect("a network with a teacher").clone();
    check(&teacher, state, source)?;
    write_entries(model, teacher.parameters().entries(), state, source)
}

/// The part of a weights file that a training starts from.
struct Start {
    taken: Vec<Entry>,
    /// Notes for people on what is left out.
    notes: Vec<String>,
}

/// The backbone must fit; a head need not. A head with a tensor that is missing or of another shape keeps its random start.
fn start(network: &Network, state: &StateDict, source: &Path) -> Result<Start> {
    let entries = network.parameters().entries();
    let fits = |entry: &Entry| state.get(&entry.name).is_some_and(|tensor| has_shape(entry, tensor));
    let heads = network.architecture().heads.iter().map(|head| head.name.as_str());
    let unfit: Vec<&str> = heads
        .filter(|&head| entries.iter().any(|entry| head_of(&entry.name) == Some(head) && !fits(entry)))
        .collect();
    let left_out = |name: &str| {
        let own = || entries.iter().any(|entry| entry.name == name);
        head_of(name).is_some_and(|head| unfit.contains(&head) || !own())
    };
    check_except(network, state, source, &left_out)?;
    let source = source.display();
    let random = |head: &&str| {
        format!("{source} has no `{head}` for these classes, so that head starts from random values")
    };
    let mut notes: Vec<String> = unfit.iter().map(random).collect();
    let unused: Vec<&str> = state.keys().map(String::as_str).filter(|name| left_out(name)).collect();
    if let Some(first) = unused.first() {
        notes.push(format!("{source}: {} tensors of heads are left out, the first: `{first}`", unused.len()));
    }
    Ok(Start { taken: entries.iter().filter(|entry| !left_out(&entry.name)).cloned().collect(), notes })
}

/// Checks weights to start a training from: the backbone must fit, a head need not. Returns notes for people on what will
/// be left out.
///
/// # Errors
/// As [`check`], for the backbone.
pub fn check_start(network: &Network, state: &StateDict, source: &Path) -> Result<Vec<String>> {
    Ok(start(network, state, source)?.notes)
}

/// Loads weights to start a training from; see [`check_start`].
///
/// # Errors
/// As [`check_start`], and a tensor that holds NaN or infinity.
pub fn load_start(model: &mut Model, state: &StateDict, source: &Path) -> Result<()> {
    let start = start(model.network(), state, source)?;
    write_entries(model, &start.taken, state, source)
}

/// The head a tensor belongs to, by its name.
fn head_of(name: &str) -> Option<&str> {
    let head = name.split('.').next()?;
    [ONLY_HEAD, SUPERCLASS_HEAD, SUBCLASS_HEAD].contains(&head).then_some(head)
}

fn write_entries(model: &mut Model, entries: &[Entry], state: &StateDict, source: &Path) -> Result<()> {
    for entry in entries {
        let Some(tensor) = state.get(&entry.name) else { continue };
        let values = from_torch_order(entry, &tensor.to_f64());
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let at = Position::Member(entry.name.clone());
            let found = format!("{} among them", values[index]);
            return Err(Error::malformed(source, at, "finite numbers", found));
        }
        model.write(entry.parameter.value, HostValues::F64(&values))?;
    }
    Ok(())
}

/// A model's parameters and running statistics as f32 tensors in torchvision's names and layout.
///
/// # Errors
/// The device failed.
pub fn read(model: &Model) -> Result<StateDict> {
    let mut state = StateDict::new();
    for entry in model.network().parameters().entries() {
        let values = to_torch_order(entry, &model.read_f32(entry.parameter.value)?);
        state.insert(
            entry.name.clone(),
            HostTensor { shape: torch_shape(entry), values: Values::F32(values) },
        );
    }
    Ok(state)
}

/// Everything a bit-exact resume needs beside [`read`]: the optimizer's states under `slot_names` (`velocity.conv1.weight`),
/// and, for an f64 model, the parameters in full precision (`parameter.conv1.weight`).
///
/// # Errors
/// The device failed.
pub fn read_training_state(model: &Model, slot_names: &[&str]) -> Result<StateDict> {
    let mut state = StateDict::new();
    let parameters = model.network().parameters();
    let double = model.device().dtype() == DType::F64;
    for entry in parameters.entries() {
        let mut add = |prefix: &str, span| -> Result<()> {
            let values = if double {
                Values::F64(to_torch_order(entry, &model.read_f64(span)?))
            } else {
                Values::F32(to_torch_order(entry, &model.read_f32(span)?))
            };
            state
                .insert(format!("{prefix}.{}", entry.name), HostTensor { shape: torch_shape(entry), values });
            Ok(())
        };
        for (slot, name) in slot_names.iter().enumerate() {
            if let Some(span) = parameters.slot_of(entry, slot) {
                add(name, span)?;
            }
        }
        if double {
            add("parameter", entry.parameter.value)?;
        }
    }
    Ok(state)
}

/// Loads what [`read_training_state`] wrote.
///
/// # Errors
/// A missing tensor or one of another shape.
pub fn load_training_state(
    model: &mut Model,
    state: &StateDict,
    slot_names: &[&str],
    source: &Path,
) -> Result<()> {
    let parameters = model.network().parameters().clone();
    for entry in parameters.entries() {
        let mut targets: Vec<(String, _)> = slot_names
            .iter()
            .enumerate()
            .filter_map(|(slot, name)| {
                Some((format!("{name}.{}", entry.name), parameters.slot_of(entry, slot)?))
            })
            .collect();
        if model.device().dtype() == DType::F64 {
            targets.push((format!("parameter.{}", entry.name), entry.parameter.value));
        }
        for (name, span) in targets {
            let shape = torch_shape(entry);
            let tensor = state.get(&name).filter(|tensor| tensor.shape == shape).ok_or_else(|| {
                Error::malformed(
                    source,
                    Position::Member(name.clone()),
                    format!("a tensor of shape {shape:?}"),
                    state.get(&name).map_or("none".into(), |tensor| format!("shape {:?}", tensor.shape)),
                )
            })?;
            model.write(span, HostValues::F64(&from_torch_order(entry, &tensor.to_f64())))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Architecture, Depth};

    #[test]
    fn layouts_round_trip_and_match_pytorchs_order() {
        let architecture = Architecture::new(Depth::ResNet18, None, None, 0.05, 4).unwrap();
        let network = Network::new(&architecture, DType::F32, None);
        let entry = &network.parameters().entries()[0];
        let [k, r, s, c] = entry.parameter.shape.nhwc();
        let krsc: Vec<usize> = (0..k * r * s * c).collect();
        let kcrs = to_torch_order(entry, &krsc);
        let (at_k, at_c, at_r, at_s) = (1, 2, 0, 1);
        assert_eq!(
            kcrs[((at_k * c + at_c) * r + at_r) * s + at_s],
            ((at_k * r + at_r) * s + at_s) * c + at_c
        );
        assert_eq!(from_torch_order(entry, &kcrs), krsc);
    }
}
