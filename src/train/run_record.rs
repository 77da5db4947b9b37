//! `run.json`: the device, the precision and the time of a training. These vary from run to run, so they are kept apart from
//! checkpoints, which do not.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files;
use crate::ops::Device;
use crate::tensor::DType;

/// The file's name in a run folder.
pub const RUN_FILE: &str = "run.json";
/// A session is a few lines, and nobody resumes ten thousand times.
const LARGEST: u64 = 4 << 20;

/// The sessions of a training: a resume adds one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// In the order in which they ran.
    pub sessions: Vec<Session>,
}

/// One process that trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Program and version.
    pub program: String,
    /// The device's name.
    pub device: String,
    /// Element type of activations: `f32`, `bf16` or `f64`.
    pub precision: String,
    /// Steps done before it.
    pub first_step: u64,
    /// Steps done at its end, or when it last wrote this file.
    pub last_step: u64,
    /// Seconds from its first step until then.
    pub seconds: f64,
}

impl RunRecord {
    /// Reads a run's file.
    ///
    /// # Errors
    /// It is damaged; the message names file and line.
    pub fn read(path: &Path) -> Result<RunRecord> {
        files::read_json(
            path,
            LARGEST,
            "sessions of a training (`{\"sessions\": [{\"device\", \"seconds\", …}]}`)",
        )
    }

    /// Seconds of all sessions.
    pub fn seconds(&self) -> f64 {
        self.sessions.iter().map(|session| session.seconds).sum()
    }
}

/// The record of a training that runs now, written after every epoch.
#[derive(Debug)]
pub(super) struct OpenRecord {
    record: RunRecord,
    path: PathBuf,
}

impl OpenRecord {
    /// Begins a session at a step. A resume keeps the sessions before it; a file that cannot be read is no reason not to train, so it is
    /// begun anew, and the note for the user says so.
    pub(super) fn begin(
        folder: &Path,
        resume: bool,
        device: &dyn Device,
        step: u64,
    ) -> (OpenRecord, Option<String>) {
        let path = folder.join(RUN_FILE);
        let before = (resume && path.exists()).then(|| RunRecord::read(&path));
        let (mut record, note) = match before {
            Some(Ok(record)) => (record, None),
            Some(Err(error)) => (
                RunRecord::default(),
                Some(format!("times and devices of the runs before are lost: {error}")),
            ),
            None => (RunRecord::default(), None),
        };
        record.sessions.push(Session {
            program: format!("residua {}", env!("CARGO_PKG_VERSION")),
            device: device.hardware().name,
            precision: match device.dtype() {
                DType::Bf16 => "bf16",
                DType::F64 => "f64",
                _ => "f32",
            }
            .to_string(),
            first_step: step,
            last_step: step,
            seconds: 0.0,
        });
        (OpenRecord { record, path }, note)
    }

    /// Notes how far the session is, and writes the file.
    ///
    /// # Errors
    /// The disk is full.
    pub(super) fn update(&mut self, step: u64, seconds: f64) -> Result<()> {
        if let Some(session) = self.record.sessions.last_mut() {
            (session.last_step, session.seconds) = (step, seconds);
        }
        files::write_json(&self.path, &self.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;

    #[test]
    fn a_resume_adds_a_session_and_a_new_training_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let device = Cpu::<f32>::new(1).unwrap();
        for (resume, step, seconds) in [(false, 0, 2.5), (true, 10, 1.0)] {
            let (mut open, note) = OpenRecord::begin(folder.path(), resume, &device, step);
            assert_eq!(note, None);
            open.update(step + 5, 0.5).unwrap();
            open.update(step + 10, seconds).unwrap();
        }
        let path = folder.path().join(RUN_FILE);
        let record = RunRecord::read(&path).unwrap();
        let steps: Vec<(u64, u64)> = record.sessions.iter().map(|s| (s.first_step, s.last_step)).collect();
        assert_eq!((steps, record.seconds()), (vec![(0, 10), (10, 20)], 3.5));
        assert_eq!(record.sessions[0].precision, "f32");
        OpenRecord::begin(folder.path(), false, &device, 0).0.update(1, 1.0).unwrap();
        assert_eq!(RunRecord::read(&path).unwrap().sessions.len(), 1);
        std::fs::write(&path, "{\"sessions\": 3}").unwrap();
        assert!(RunRecord::read(&path).unwrap_err().to_string().contains("run.json line 1"));
        OpenRecord::begin(folder.path(), true, &device, 0).0.update(1, 1.0).unwrap();
        assert_eq!(RunRecord::read(&path).unwrap().sessions.len(), 1);
    }

    #[test]
    fn a_damaged_record_is_begun_anew_and_said_to_be_lost() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(RUN_FILE), "{\"sessions\": 3}").unwrap();
        let (mut open, note) = OpenRecord::begin(folder.path(), true, &Cpu::<f32>::new(1).unwrap(), 10);
        let note = note.unwrap();
        assert!(note.contains("are lost") && note.contains(RUN_FILE), "{note}");
        open.update(12, 0.5).unwrap();
        assert_eq!(RunRecord::read(&folder.path().join(RUN_FILE)).unwrap().sessions.len(), 1);
    }
}
