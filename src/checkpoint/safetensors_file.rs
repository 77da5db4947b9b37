//! safetensors files: an 8-byte header length, a JSON header, then the tensors' bytes without a gap.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Metadata, SafeTensorError, SafeTensors, TensorView};

use super::contents::{Contents, TrainingRecord};
use super::element::{ElementType, encode};
use super::selection::{self, Listing};
use super::{HostTensor, StateDict};
use crate::error::{Error, Position, Result};
use crate::files;

/// Bytes before the header: its length, little-endian.
const PREFIX: usize = 8;
/// The header's entry that is no tensor.
const METADATA_KEY: &str = "__metadata__";

/// Reads the tensors of the network in a safetensors file; `key` chooses among several.
pub(super) fn read(path: &Path, bytes: &[u8], key: Option<&str>) -> Result<Contents> {
    let (header, views) = open(path, bytes)?;
    let names = views.iter().map(|(name, view)| (name.to_string(), view.shape().to_vec())).collect();
    let listings = [Listing { key: String::new(), tensors: names }];
    let chosen = selection::choose(&listings, key).map_err(|refusal| selection::refuse(path, refusal))?;
    let (taken, rest) = chosen.split(&listings, views.iter().map(|(name, view)| (name.as_str(), view)));
    let texts = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let mut contents = Contents {
        training: TrainingRecord { texts, ..TrainingRecord::default() },
        selection: chosen.selection(&listings),
        ignored: selection::left_out(rest.iter().map(|(name, _)| *name)),
        ..Contents::default()
    };
    for (name, view) in taken {
        match ElementType::of_safetensors(view.dtype()) {
            Some(element) => {
                let tensor = decode(path, &name, element, view)?;
                contents.tensors.push((name, element, tensor));
            }
            None => contents.unreadable.push((name, format!("elements of type {:?}", view.dtype()))),
        }
    }
    Ok(contents)
}

/// The header and the tensors of a file, sorted by name.
fn open<'b>(path: &Path, bytes: &'b [u8]) -> Result<(Metadata, Vec<(String, TensorView<'b>)>)> {
    let (header_length, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| header_error(path, bytes, &error))?;
    refuse_duplicate_names(path, &bytes[PREFIX..PREFIX + header_length])?;
    let mut views =
        SafeTensors::deserialize(bytes).map_err(|error| header_error(path, bytes, &error))?.tensors();
    views.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((header, views))
}

fn decode(path: &Path, name: &str, element: ElementType, view: &TensorView<'_>) -> Result<HostTensor> {
    let at = Position::Member(name.to_string());
    let values = element
        .decode(view.data())
        .map_err(|found| Error::malformed(path, at, "integers within 64 signed bits", found))?;
    Ok(HostTensor { shape: view.shape().to_vec(), values })
}

/// Reads one of our own files: all tensors under the names they were written with.
pub(super) fn read_state(path: &Path) -> Result<StateDict> {
    let bytes = files::map(path)?;
    let (_, views) = open(path, &bytes)?;
    let mut state = StateDict::new();
    for (name, view) in &views {
        let at = || Position::Member(name.clone());
        let element = ElementType::of_safetensors(view.dtype()).ok_or_else(|| {
            let found = format!("{:?}", view.dtype());
            Error::malformed(path, at(), "float (f16 to f64), integer or boolean elements", found)
        })?;
        state.insert(name.clone(), decode(path, name, element, view)?);
    }
    Ok(state)
}

/// Reads the metadata in the header only.
pub(super) fn read_metadata(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| header_error(path, bytes, &error))?;
    Ok(header.metadata().clone().unwrap_or_default().into_iter().collect())
}

fn header_error(path: &Path, bytes: &[u8], error: &SafeTensorError) -> Error {
    let length = bytes.first_chunk::<PREFIX>().map_or(0, |prefix| u64::from_le_bytes(*prefix));
    match error {
        SafeTensorError::HeaderTooSmall => {
            Error::malformed(path, Position::File, "a safetensors file", format!("{} bytes", bytes.len()))
        }
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => Error::malformed(
            path,
            Position::Byte(0),
            "a safetensors header that fits the file",
            format!("a header of {length} bytes in a file of {}", bytes.len()),
        ),
        SafeTensorError::MetadataIncompleteBuffer => Error::malformed(
            path,
            Position::Byte((PREFIX as u64).saturating_add(length)),
            "tensors that fill the file exactly",
            format!("a file of {} bytes (truncated, or with bytes to spare)", bytes.len()),
        ),
        other => {
            let expected = "a valid safetensors header";
            Error::malformed(path, Position::Byte(PREFIX as u64), expected, other.to_string())
        }
    }
}

/// JSON readers keep the last of two equal keys; which one a file's author meant cannot be known.
fn refuse_duplicate_names(path: &Path, header: &[u8]) -> Result<()> {
    struct Names;
    impl<'de> serde::de::Visitor<'de> for Names {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a JSON object of tensors")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
            let mut seen = std::collections::HashSet::new();
            while let Some(name) = map.next_key::<String>()? {
                map.next_value::<serde::de::IgnoredAny>()?;
                if let Some(twice) = seen.replace(name) {
                    return Err(serde::de::Error::custom(format!("the name `{twice}` twice")));
                }
            }
            Ok(())
        }
    }
    let mut json = serde_json::Deserializer::from_slice(header);
    serde::Deserializer::deserialize_map(&mut json, Names).map_err(|error| {
        Error::malformed(
            path,
            Position::Byte(PREFIX as u64),
            "a header that names each tensor once",
            error.to_string(),
        )
    })
}

/// The bytes of a safetensors file: the same tensors and metadata give the same bytes.
///
/// # Errors
/// A shape that contradicts the number of elements.
pub(super) fn to_bytes(state: &StateDict, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let encoded: Vec<_> = state.values().map(|tensor| encode(&tensor.values)).collect();
    let failed =
        |error: SafeTensorError| Error::invalid(format!("cannot write tensors as safetensors: {error}"));
    let mut views = Vec::with_capacity(encoded.len());
    for ((name, tensor), bytes) in state.iter().zip(&encoded) {
        let dtype = tensor.values.element_type().in_safetensors();
        views.push((name, TensorView::new(dtype, tensor.shape.clone(), bytes).map_err(failed)?));
    }
    let bytes = safetensors::tensor::serialize(views, None).map_err(failed)?;
    if metadata.is_empty() { Ok(bytes) } else { with_metadata(&bytes, metadata) }
}

/// Puts metadata into the header of a serialised file. The crate would write it from a `HashMap`, in an order that
/// differs from run to run; here it is sorted.
fn with_metadata(bytes: &[u8], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let header_error = |error| Error::invalid(format!("cannot write a safetensors header: {error}"));
    let header_length =
        bytes.first_chunk::<PREFIX>().map_or(0, |prefix| u64::from_le_bytes(*prefix) as usize);
    let (header, data) = bytes[PREFIX..].split_at(header_length);
    let mut entries: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(header_error)?;
    let json = serde_json::to_value(metadata).map_err(header_error)?;
    if entries.shift_insert(0, METADATA_KEY.to_string(), json).is_some() {
        return Err(Error::invalid(format!("a tensor cannot have the name {METADATA_KEY}; rename it")));
    }
    let mut header = serde_json::to_vec(&entries).map_err(header_error)?;
    header.resize(header.len().next_multiple_of(PREFIX), b' ');
    Ok([&(header.len() as u64).to_le_bytes()[..], &header, data].concat())
}

/// Writes tensors as a safetensors file, all at once or not at all. `metadata` goes into the header.
///
/// # Errors
/// A shape that contradicts the number of elements, or a failing disk; an older file stays as it was.
pub fn write_safetensors(path: &Path, state: &StateDict, metadata: &BTreeMap<String, String>) -> Result<()> {
    let bytes = to_bytes(state, metadata)?;
    files::write_atomically(path, |writer| writer.write_all(&bytes))
}
