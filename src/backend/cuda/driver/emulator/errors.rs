//! What a kernel did wrong, as a sentence: kernel, block, thread, file and line, what was found, what is allowed.

use std::ffi::{CStr, c_char};

use super::abi::{Failure, Index, Lane, state, wrong};
use super::shared::{MOST_BYTES, MOST_STATIC_BYTES};
use crate::backend::cuda::driver::Launch;
use crate::error::Error;
use crate::ops::Access;
use crate::tensor::Span;

/// Why a block was stopped.
pub(super) struct Stop {
    pub block: Index,
    pub problem: Problem,
}

/// What the threads of a block did wrong.
pub(super) enum Problem {
    /// A word refused what a thread asked of it.
    Failure { failure: Failure, thread: u32 },
    /// Threads that must meet did not come to the same place.
    Apart { waiting: Place, other: Place },
    /// Shared memory was written to between its arrays.
    SharedMemoryDamaged { place: String },
}

// SAFETY: the pointers are to literals of a library that stays loaded.
unsafe impl Send for Problem {}

/// Where a thread is.
pub(super) struct Place {
    thread: u32,
    state: u32,
    what: String,
    at: String,
}

impl Place {
    fn of(lane: &Lane) -> Place {
        let at = if lane.state == state::DONE { String::new() } else { position(lane.file, lane.line) };
        let what = if lane.state == state::DONE { String::new() } else { text(lane.what) };
        Place { thread: lane.thread.x, state: lane.state, what, at }
    }

    fn describe(&self) -> String {
        match self.state {
            state::DONE => format!("thread {} has ended", self.thread),
            _ => format!("thread {} is at {} ({})", self.thread, self.what, self.at),
        }
    }
}

impl Problem {
    /// Lanes that are not all where the first one in `state` is: that one, and one that is elsewhere.
    pub fn apart(lanes: &[Lane], at: u32) -> Problem {
        let waits = |lane: &&Lane| lane.state != state::DONE;
        let first = lanes.iter().find(|lane| lane.state == at && waits(lane)).or(lanes.iter().find(waits));
        let waiting = first.unwrap_or(&lanes[0]);
        let elsewhere = |lane: &&Lane| {
            lane.state != waiting.state
                || (lane.line, lane.what, lane.file) != (waiting.line, waiting.what, waiting.file)
        };
        let other = lanes.iter().find(|lane| lane.state != waiting.state).or(lanes.iter().find(elsewhere));
        Problem::Apart { waiting: Place::of(waiting), other: Place::of(other.unwrap_or(waiting)) }
    }
}

impl Stop {
    /// The error a user reads.
    pub fn error(self, launch: &Launch<'_>, base: u64) -> Error {
        let Index { x, y, z } = self.block;
        let place = format!("kernel `{}`, block ({x}, {y}, {z})", launch.entry);
        Error::invalid(match self.problem {
            Problem::Failure { failure, thread } => {
                format!(
                    "{place}, thread {thread}, {}: {}",
                    position(failure.file, failure.line),
                    describe(&failure, launch, base)
                )
            }
            Problem::Apart { waiting, other } => {
                let rule = if waiting.state == state::AT_BARRIER {
                    "all threads of a block must come to its barriers"
                } else {
                    "all 32 lanes of a warp must come to the same place together"
                };
                format!("{place}: {}, but {}: {rule}", waiting.describe(), other.describe())
            }
            Problem::SharedMemoryDamaged { place: damaged } => format!("{place}: a thread wrote {damaged}"),
        })
    }
}

fn text(literal: *const c_char) -> String {
    if literal.is_null() {
        return String::new();
    }
    // SAFETY: a literal of a library that stays loaded.
    unsafe { CStr::from_ptr(literal) }.to_string_lossy().into_owned()
}

fn position(file: *const c_char, line: u32) -> String {
    format!("{} line {line}", text(file))
}

fn describe(failure: &Failure, launch: &Launch<'_>, base: u64) -> String {
    let Failure { bytes, address, .. } = *failure;
    let what = text(failure.what);
    match failure.wrong {
        wrong::STATIC_SHARED => format!(
            "with `{what}`, {bytes} bytes of shared memory are declared; SHARED has room for {MOST_STATIC_BYTES}, and \
             together with the launch's {} dynamic bytes for {MOST_BYTES}",
            launch.geometry.shared_bytes
        ),
        wrong::DYNAMIC_SHARED => format!(
            "`{what}` takes {bytes} bytes of dynamic shared memory; the launch gives {}",
            launch.geometry.shared_bytes
        ),
        wrong::SHARED_ADDRESS if address.is_multiple_of(bytes) => {
            format!(
                "{what} of {bytes} bytes at address {address:#x}, which is not in the block's shared memory"
            )
        }
        wrong::SHARED_ADDRESS => {
            format!("{what} of {bytes} bytes at address {address:#x}, which is not aligned to {bytes} bytes")
        }
        kind => {
            let verb = if kind == wrong::GLOBAL_WRITE { "writes" } else { "reads" };
            format!("{what} {verb} {bytes} bytes at {}", global_place(kind, address, bytes, launch, base))
        }
    }
}

/// Where an address lies relative to the operand nearest to it, and why that is wrong.
fn global_place(kind: u32, address: u64, bytes: u64, launch: &Launch<'_>, base: u64) -> String {
    let first = |span: &Span| base + span.offset as u64;
    let distance = |span: &Span| {
        let last = first(span) + (span.bytes() as u64).max(1) - 1;
        first(span).saturating_sub(address).max(address.saturating_sub(last))
    };
    let Some((name, span, access)) = launch.operands.iter().min_by_key(|(_, span, _)| distance(span)) else {
        return format!("address {address:#x}; the launch has no operands");
    };
    const FAR: u64 = 1 << 24;
    if distance(span) > FAR {
        return format!("address {address:#x}, far from every operand of the launch");
    }
    let size = span.bytes();
    if address < first(span) {
        return format!("{} bytes before the first of `{name}`", first(span) - address);
    }
    let offset = address - first(span);
    if !address.is_multiple_of(bytes) {
        return format!("byte {offset} of `{name}`, which is not aligned to {bytes} bytes");
    }
    if kind == wrong::GLOBAL_WRITE && *access == Access::Read && offset + bytes <= size as u64 {
        return format!("byte {offset} of `{name}`, which this launch may only read");
    }
    format!("byte {offset} of `{name}`, which has {size} bytes")
}
