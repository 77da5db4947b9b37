//! Entries of a bundle: their names, and arrays and JSON in them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::inside;
use crate::archive::SharedMap;
use crate::error::{Error, Position, Result};
use crate::features::{Element, NpyArray, Npz, npy_bytes};
use crate::ood::detectors::Scores;

/// The fitted detectors.
pub(super) const FIT: &str = "fit.safetensors";
/// The tables.
pub(super) const METRICS: &str = "metrics.json";
/// The tables in the columns of OpenOOD.
pub(super) const METRICS_CSV: &str = "metrics.csv";
/// Scores of training samples.
pub(super) const TRAINING_SCORES: &str = "checks/train.npz";
/// The folder of predicted classes.
pub(super) const CORRECT: &str = "correct";

/// The entry with the scores of a set.
pub(super) fn scores_entry(set: &str) -> String {
    format!("scores/{set}.npz")
}

/// An array of a set in a folder.
pub(super) fn array_entry(folder: &str, set: &str) -> String {
    format!("{folder}/{set}.npy")
}

/// Flags as an array of bytes, 1 and 0.
pub(super) fn flags_as_npy(flags: &[bool]) -> Vec<u8> {
    let bytes: Vec<u8> = flags.iter().map(|flag| u8::from(*flag)).collect();
    npy_bytes(&NpyArray::from_vec(bytes, Element::Unsigned(1), vec![flags.len()]))
}

/// Reads what [`flags_as_npy`] wrote of `samples` samples.
pub(super) fn flags(bundle: &Path, entry: &str, content: SharedMap, samples: u64) -> Result<Vec<bool>> {
    let path = inside(bundle, entry);
    let held = content.as_ref().to_vec();
    let array = NpyArray::parse(Arc::new(held), 0, &path, None)?;
    let wrong = |found: String| {
        let expected = format!("{samples} bytes, 0 or 1");
        Error::malformed(bundle, Position::Member(entry.into()), expected, found)
    };
    if array.element != Element::Unsigned(1) || array.shape != [samples as usize] {
        return Err(wrong(format!("{:?} of shape {:?}", array.element, array.shape)));
    }
    let flag = |(row, byte): (usize, &u8)| match byte {
        0 | 1 => Ok(*byte == 1),
        other => Err(wrong(format!("{other} for sample {row}"))),
    };
    array.elements().iter().enumerate().map(flag).collect()
}

/// Reads the scores of a set, of `samples` samples where that is known; `sign` turns them to larger = in-distribution.
///
/// # Errors
/// An array is missing, is no score, is damaged, has another length, or holds a number that is not finite.
pub(super) fn scores(
    bundle: &Path,
    entry: &str,
    content: SharedMap,
    (names, samples, sign): (&[String], Option<u64>, f64),
) -> Result<Scores> {
    let archive = Npz::of(&inside(bundle, entry), content)?;
    let wrong = |expected: &str, found: String| {
        Error::malformed(bundle, Position::Member(entry.into()), expected, found)
    };
    if let Some(odd) = archive.names().into_iter().find(|name| !names.iter().any(|own| own == name)) {
        return Err(wrong("an array for each fitted score and nothing else", format!("`{odd}`")));
    }
    let (mut all, mut samples) = (BTreeMap::new(), samples.map(|samples| samples as usize));
    for name in names {
        let array =
            archive.array(name)?.ok_or_else(|| wrong(&format!("an array `{name}`"), "none".into()))?;
        let shape = array.shape.as_slice();
        let is_plain = array.element == Element::F64 && !array.big_endian && shape.len() == 1;
        if !is_plain || samples.is_some_and(|samples| shape[0] != samples) {
            let expected =
                samples.map_or("one f64 number a sample".to_string(), |n| format!("{n} f64 numbers"));
            let found = format!("`{name}` of {:?}, shape {shape:?}", array.element);
            return Err(wrong(&expected, found));
        }
        samples = Some(shape[0]);
        let numbers = array.elements().as_chunks::<8>().0.iter();
        let values: Vec<f64> = numbers.map(|bytes| sign * f64::from_le_bytes(*bytes)).collect();
        if let Some(row) = values.iter().position(|value| !value.is_finite()) {
            return Err(wrong("finite numbers", format!("{} for sample {row} in `{name}`", values[row])));
        }
        all.insert(name.clone(), values);
    }
    Ok(all)
}

/// Parses JSON; else says what is wrong with it, with its line.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Whether JSON is laid out as this program does it, so that nothing is in it twice; else says where it is not.
pub(super) fn is_as_written(bytes: &[u8], value: &Value) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).expect("JSON that was read") + "\n";
    if text.as_bytes() == bytes {
        return Ok(());
    }
    let same = text.as_bytes().iter().zip(bytes).take_while(|(a, b)| a == b).count();
    let line = 1 + bytes[..same].iter().filter(|byte| **byte == b'\n').count();
    Err(format!("line {line} that is not (a key twice, other spaces, another form of a number)"))
}
