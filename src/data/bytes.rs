//! The bytes of a data file: mapped where they lie plain, inflated with a bound where they are compressed.

use std::io::Read;
use std::ops::Deref;
use std::path::Path;

use crate::error::{Error, Position, Result};
use crate::files::Mapped;

pub(super) use crate::archive::LARGEST_RATIO;

/// Bytes that are inflated between two checks of the bound.
const CHUNK: usize = 1 << 16;

/// A file's content, plain.
#[derive(Debug)]
pub(super) enum Bytes {
    /// The file itself.
    Mapped(Mapped),
    /// The bytes after decompression.
    Inflated(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Inflated(bytes) => bytes,
        }
    }
}

/// Appends exactly `wanted` inflated bytes to `out`.
///
/// `compressed` is the number of compressed bytes they come from; memory grows only as bytes arrive.
///
/// # Errors
/// `wanted` is more than `compressed` bytes can hold, the stream ends early, or its checksum is wrong.
pub(super) fn inflate_exactly(
    path: &Path,
    reader: &mut impl Read,
    compressed: u64,
    wanted: u64,
    out: &mut Vec<u8>,
) -> Result<()> {
    if wanted > compressed.saturating_mul(LARGEST_RATIO) {
        let expected = format!("at most {LARGEST_RATIO} times the {compressed} compressed bytes");
        let found = format!("a declared size of {wanted} bytes");
        return Err(Error::malformed(path, Position::Byte(out.len() as u64), expected, found));
    }
    let mut left = wanted;
    while left > 0 {
        let start = out.len();
        let step = left.min(CHUNK as u64) as usize;
        out.resize(start + step, 0);
        let read = reader.read(&mut out[start..]).map_err(|e| damaged(path, start as u64, &e))?;
        out.truncate(start + read);
        if read == 0 {
            let expected = format!("{left} more bytes of inflated data");
            let found = "the end of the stream";
            return Err(Error::malformed(path, Position::Byte(start as u64), expected, found));
        }
        left -= read as u64;
    }
    Ok(())
}

/// Checks that a stream ends here; for gzip and zlib this is also where the checksum is compared.
pub(super) fn expect_end(path: &Path, reader: &mut impl Read, offset: u64) -> Result<()> {
    match reader.read(&mut [0; 1]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Error::malformed(path, Position::Byte(offset), "the end of the data", "more bytes")),
        Err(error) => Err(damaged(path, offset, &error)),
    }
}

/// Reads on, but not far, so that a stream which ends near here compares its checksum; what else is there is ignored.
pub(super) fn compare_checksum(path: &Path, reader: &mut impl Read, offset: u64) -> Result<()> {
    let mut rest = reader.take(CHUNK as u64);
    std::io::copy(&mut rest, &mut std::io::sink()).map(drop).map_err(|e| damaged(path, offset, &e))
}

fn damaged(path: &Path, offset: u64, error: &std::io::Error) -> Error {
    Error::malformed(path, Position::Byte(offset), "compressed data that inflates", error.to_string())
}

/// The big-endian 32-bit number at `offset`.
pub(super) fn big_endian_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

/// The little-endian 32-bit number at `offset`.
pub(super) fn little_endian_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    let four = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}
