//! The record of a card: what was tried on it, what failed and is left out.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::child::Outcome;
use super::trial::Trial;
use crate::backend::cuda::driver::Properties;
use crate::backend::cuda::driver::cache::Cache;
use crate::backend::cuda::{Exclusions, Sources, modules};
use crate::bench::results::now;
use crate::error::{Error, Result, printable};

/// What a record holds for: another card, driver, compiler, program or kernel set is tried anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The card's name.
    pub card: String,
    /// The architecture that kernels are compiled for.
    pub architecture: String,
    /// SMs (streaming multiprocessors).
    pub sms: u32,
    /// Versions of driver and compiler.
    pub versions: String,
    /// Hash of the program.
    pub program: String,
    /// Hash of the kernels' sources.
    pub kernels: String,
}

impl Subject {
    /// A device with kernels from some sources, and this program.
    ///
    /// # Errors
    /// The program cannot be read, or sources do not fit together.
    pub fn of(device: &Properties, sources: &Sources, program: &Path) -> Result<Subject> {
        Ok(Subject {
            card: device.name.clone(),
            architecture: device.architecture.clone(),
            sms: device.sms,
            versions: device.versions.clone(),
            program: hash_of_program(program)?,
            kernels: hash_of_kernels(sources)?,
        })
    }

    /// Everything, as the cache keys it.
    fn key(&self) -> String {
        serde_json::to_string(self).expect("a subject is plain values")
    }
}

fn hash_of_program(program: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(program).map_err(|e| Error::io("open", program, e))?;
    io::copy(&mut file, &mut hasher).map_err(|e| Error::io("read", program, e))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn hash_of_kernels(sources: &Sources) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for module in modules() {
        hasher.update(sources.assemble(&module.variant)?.text.as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Something that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was tried: `fprop.sm90-rows-256x128.bf16-statistics`.
    pub subject: String,
    /// What is left out for it, in the words of `--exclude`; nothing where there is no other, and the CPU computes.
    pub left_out: Option<String>,
    /// The call on which it failed, by name and shape.
    pub call: String,
    /// How.
    pub how: String,
}

/// What is known of a card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it holds for.
    pub subject: Subject,
    /// When something was tried last, in UTC.
    pub date: String,
    /// Seconds that all trials took.
    pub seconds: f64,
    /// What was tried and is right.
    pub right: BTreeSet<String>,
    /// What failed.
    pub failed: Vec<Failure>,
    /// What is left out.
    pub exclusions: Exclusions,
}

impl Record {
    /// Of a device of which nothing is known.
    pub fn new(subject: Subject) -> Record {
        Record {
            subject,
            date: now(),
            seconds: 0.0,
            right: BTreeSet::new(),
            failed: Vec::new(),
            exclusions: Exclusions::default(),
        }
    }

    /// The record that was kept of a device, if there is one and it is whole.
    pub fn kept(cache: &Cache, subject: &Subject) -> Option<Record> {
        let record: Record = serde_json::from_str(&cache.kept(&[subject.key().as_bytes()])?).ok()?;
        (record.subject == *subject).then_some(record)
    }

    /// The records of every device that were kept of this program with the kernels inside it.
    ///
    /// # Errors
    /// The program cannot be read.
    pub fn all(cache: &Cache, program: &Path) -> Result<Vec<Record>> {
        let (program, kernels) = (hash_of_program(program)?, hash_of_kernels(&Sources::default())?);
        let records = cache.all_kept().into_iter().filter_map(|text| serde_json::from_str(&text).ok());
        let is_of_this =
            |record: &Record| record.subject.program == program && record.subject.kernels == kernels;
        Ok(records.filter(is_of_this).collect())
    }

    /// Keeps it, with what another process has found meanwhile.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep(&mut self, cache: &Cache) -> Result<()> {
        if let Some(other) = Record::kept(cache, &self.subject) {
            self.right.extend(other.right);
            let new = other.failed.into_iter().filter(|failure| !self.failed.contains(failure));
            let new: Vec<Failure> = new.collect();
            self.failed.extend(new);
            self.exclusions = self.exclusions.and(&other.exclusions);
        }
        self.date = now();
        let text = serde_json::to_string_pretty(self).expect("a record is plain values");
        cache.keep(&[self.subject.key().as_bytes()], &text).map(drop)
    }

    /// Replaces what was kept.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget_kept(&self, cache: &Cache) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("a record is plain values");
        cache.keep(&[self.subject.key().as_bytes()], &text).map(drop)
    }

    /// Something that failed, and for which there is no other.
    pub fn without_other(&self, subject: &str) -> Option<&Failure> {
        self.failed.iter().find(|failure| failure.subject == subject && failure.left_out.is_none())
    }

    /// Whether something was tried.
    pub fn knows(&self, subject: &str) -> bool {
        self.right.contains(subject) || self.failed.iter().any(|failure| failure.subject == subject)
    }

    /// Adds the outcome of a trial; the failure, if it is one.
    ///
    /// # Errors
    /// A kernel of a name that no kernel has.
    pub fn add(&mut self, trial: &Trial, outcome: Outcome) -> Result<Option<&Failure>> {
        let (call, how) = match outcome {
            Outcome::Right => {
                self.right.insert(trial.subject.clone());
                return Ok(None);
            }
            Outcome::Wrong { call, how } => (call, how),
            Outcome::Failed { call, error } => (call, error),
        };
        let (call, how) = (printable(&call), printable(&how));
        let left_out = trial.word();
        if let Some(word) = &left_out {
            self.exclusions.insert(word)?;
        }
        self.failed.push(Failure { subject: trial.subject.clone(), left_out, call, how });
        Ok(self.failed.last())
    }

    /// For a terminal.
    pub fn summary(&self) -> String {
        let Record { subject, date, right, failed, exclusions, .. } = self;
        let mut text = format!(
            "{} ({}, {} SMs; {}): {} are right ({:.1} s on {date})",
            printable(&subject.card),
            subject.architecture,
            subject.sms,
            printable(&subject.versions),
            right.len(),
            self.seconds
        );
        for Failure { subject, call, how, left_out } in failed {
            let instead =
                if left_out.is_some() { "" } else { "; there is no other, so the CPU does what needs it" };
            text += &format!("; {subject} failed on {call}: {how}{instead}");
        }
        if !exclusions.is_empty() {
            text += &format!("; left out: {exclusions}");
        }
        text
    }
}
