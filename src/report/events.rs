//! TensorBoard's event files: scalars and histograms over steps, for TensorBoard and other readers of its files.
//!
//! A file is a sequence of records, each an `Event` in protocol-buffer encoding:
//!
//! ```text
//! length of data, u64 LE | masked CRC-32C of the length, u32 LE | data | masked CRC-32C of data, u32 LE
//! Event      1 wall_time double | 2 step int64 | 3 file_version string | 5 Summary | 7 SessionLog
//! Summary    1 Value (repeated)
//! Value      1 tag string | 2 simple_value float | 5 HistogramProto
//! HistogramProto  1 min 2 max 3 num 4 sum 5 sum_squares double | 6 bucket_limit 7 bucket packed double
//! ```
//!
//! Source: `event.proto`, `summary.proto` and `record_writer.cc` of TensorFlow.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result, printable};
use crate::files;

/// Equal bins of a histogram; TensorBoard shows about 30.
const BINS: usize = 64;

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    out: BufWriter<File>,
    path: PathBuf,
}

impl EventFile {
    /// Starts a new `events.out.tfevents.*` in `folder`; older ones stay. With `resumed_at`, readers forget what older
    /// files say about that step and later ones.
    ///
    /// # Errors
    /// The folder or file cannot be written.
    pub fn create(folder: &Path, resumed_at: Option<u64>) -> Result<EventFile> {
        files::create_folder(folder)?;
        let seconds = wall_time() as u64;
        let mut number = 0;
        let (path, file) = loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.residua.{number}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                // Another start within this second.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && number < 10_000 => {
                    number += 1
                }
                Err(error) => return Err(Error::io("create", path, error)),
            }
        };
        let mut events = EventFile { out: BufWriter::new(file), path };
        let mut version = Message::event(wall_time(), 0);
        version.bytes(3, b"brain.Event:2");
        events.write(&version)?;
        if let Some(step) = resumed_at {
            let mut start = Message::default();
            start.integer(1, 1);
            let mut event = Message::event(wall_time(), step);
            event.bytes(7, &start.0);
            events.write(&event)?;
        }
        events.flush()?;
        Ok(events)
    }

    /// One number at a step; `tag` groups by its part before a slash (`loss/train`).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f64) -> Result<()> {
        let mut entry = tagged(tag);
        entry.float(2, value as f32);
        self.write(&summary(wall_time(), step, &entry))
    }

    /// The distribution of values at a step, for instance of a layer's weights. Values that are not finite are left
    /// out; if none is left, nothing is written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn histogram(&mut self, step: u64, tag: &str, values: &[f32]) -> Result<()> {
        let Some(histogram) = histogram(values) else { return Ok(()) };
        let mut entry = tagged(tag);
        entry.bytes(5, &histogram.0);
        self.write(&summary(wall_time(), step, &entry))
    }

    /// Hands everything to the operating system, so that a running TensorBoard sees it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|error| Error::io("write", &self.path, error))
    }

    fn write(&mut self, event: &Message) -> Result<()> {
        let length = (event.0.len() as u64).to_le_bytes();
        let parts: [&[u8]; 4] =
            [&length, &masked_crc(&length).to_le_bytes(), &event.0, &masked_crc(&event.0).to_le_bytes()];
        for part in parts {
            self.out.write_all(part).map_err(|error| Error::io("write", &self.path, error))?;
        }
        Ok(())
    }
}

/// Seconds since 1970; 0 on a machine whose clock is before that.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Records hold checksums rotated and shifted, since a checksum of data that holds its own checksum is degenerate.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn tagged(tag: &str) -> Message {
    let mut entry = Message::default();
    entry.bytes(1, printable(tag).as_bytes());
    entry
}

fn summary(wall_time: f64, step: u64, entry: &Message) -> Message {
    let mut summary = Message::default();
    summary.bytes(1, &entry.0);
    let mut event = Message::event(wall_time, step);
    event.bytes(5, &summary.0);
    event
}

/// A HistogramProto over equal bins; `None` without a finite value.
fn histogram(values: &[f32]) -> Option<Message> {
    let finite = || values.iter().filter(|value| value.is_finite()).map(|value| f64::from(*value));
    let count = finite().count();
    if count == 0 {
        return None;
    }
    let (lowest, highest) =
        (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let width = (highest - lowest) / BINS as f64;
    let mut counts = [0.0; BINS];
    for value in finite() {
        // Equal values have no width; all of them belong to the first bin.
        let bin = if width > 0.0 { ((value - lowest) / width) as usize } else { 0 };
        counts[bin.min(BINS - 1)] += 1.0;
    }
    let limits: Vec<f64> = (1..BINS).map(|bin| lowest + width * bin as f64).chain([highest]).collect();
    let mut message = Message::default();
    message.double(1, lowest);
    message.double(2, highest);
    message.double(3, count as f64);
    message.double(4, finite().sum());
    message.double(5, finite().map(|value| value * value).sum());
    message.doubles(6, &limits);
    message.doubles(7, &counts);
    Some(message)
}

/// A protocol-buffer message: fields of (number << 3 | wire type) and value.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn event(wall_time: f64, step: u64) -> Message {
        let mut event = Message::default();
        event.double(1, wall_time);
        event.integer(2, step);
        event
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn doubles(&mut self, field: u64, values: &[f64]) {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(field, &packed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of each record, after checking lengths and checksums as a reader does.
    fn records(file: &[u8]) -> Vec<Vec<u8>> {
        let (mut rest, mut records) = (file, Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
            records.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        records
    }

    /// Fields of a message in order: number and raw value.
    fn fields(mut data: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(data: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = data[0];
                *data = &data[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut fields = Vec::new();
        while !data.is_empty() {
            let key = varint(&mut data);
            let length = match key & 7 {
                0 => {
                    let value = varint(&mut data);
                    fields.push((key >> 3, value.to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                5 => 4,
                _ => varint(&mut data) as usize,
            };
            fields.push((key >> 3, data[..length].to_vec()));
            data = &data[length..];
        }
        fields
    }

    fn field(message: &[u8], number: u64) -> Vec<u8> {
        fields(message).into_iter().find(|(found, _)| *found == number).expect("the field").1
    }

    fn doubles(bytes: &[u8]) -> Vec<f64> {
        bytes.chunks(8).map(|value| f64::from_le_bytes(value.try_into().unwrap())).collect()
    }

    #[test]
    fn checksums_are_the_castagnoli_polynomial_masked_as_tfrecord_does() {
        // CRC-32C of "123456789" is 0xe3069283 (RFC 3720's polynomial).
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn scalars_and_histograms_can_be_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path(), Some(300)).unwrap();
        events.scalar(301, "loss/train", 0.5).unwrap();
        events.histogram(302, "weights", &[-1.0, 0.0, 0.0, 3.0, f32::NAN]).unwrap();
        events.histogram(303, "nothing", &[f32::INFINITY]).unwrap();
        events.flush().unwrap();
        let records = records(&std::fs::read(&events.path).unwrap());
        assert_eq!(records.len(), 4, "version, session, scalar, histogram");
        assert_eq!(field(&records[0], 3), b"brain.Event:2");
        assert_eq!((field(&records[1], 2)[..2].to_vec(), field(&records[1], 7)), (vec![44, 1], vec![8, 1]));

        assert_eq!(field(&records[2], 2)[..2], 301u16.to_le_bytes());
        let value = field(&field(&records[2], 5), 1);
        assert_eq!(
            (field(&value, 1), field(&value, 2)),
            (b"loss/train".to_vec(), 0.5f32.to_le_bytes().to_vec())
        );

        let histogram = field(&field(&field(&records[3], 5), 1), 5);
        let number = |index| doubles(&field(&histogram, index))[0];
        assert_eq!([1, 2, 3, 4, 5].map(number), [-1.0, 3.0, 4.0, 2.0, 10.0]);
        let (limits, counts) = (doubles(&field(&histogram, 6)), doubles(&field(&histogram, 7)));
        assert_eq!((limits.len(), counts.len(), counts.iter().sum::<f64>()), (BINS, BINS, 4.0));
        assert!(limits.is_sorted() && limits[BINS - 1] == 3.0 && counts[0] == 1.0 && counts[16] == 2.0);
    }

    #[test]
    fn a_second_start_in_the_same_second_gets_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventFile::create(folder.path(), None).unwrap();
        let second = EventFile::create(folder.path(), None).unwrap();
        assert_ne!(first.path, second.path);
    }
}
