//! Errors of kernels as sentences: kernel, block, thread, file and line, what was found, what is allowed.

use std::ffi::{CStr, c_char};
use std::ptr;

use super::abi::{Failure, Index, Lane, WARP, state, wrong};
use super::running::{Reach, Running};
use super::shared::{MOST_BYTES, MOST_STATIC_BYTES};
use crate::backend::cuda::driver::Launch;
use crate::error::Error;
use crate::ops::Access;
use crate::tensor::Span;

/// Why a thread block was stopped.
pub(super) struct Stop {
    pub block: Index,
    pub problem: Problem,
}

/// Errors of the threads of a thread block.
pub(super) enum Problem {
    /// An intrinsic refused its operands; some say why in a text of their own.
    Failure { failure: Failure, complaint: Option<String>, thread: u32 },
    /// Threads that must synchronise did not call the same intrinsic.
    Apart { waiting: Place, other: Place },
    /// No thread can go on.
    Stuck { places: Vec<String> },
    /// A TMA load failed.
    Copy { thread: u32, place: String, text: String },
    /// The thread block left something behind.
    Leftover { text: String },
    /// The thread block never ends.
    Endless { place: Place },
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

/// Where a thread waits: state, line, intrinsic and file.
fn site(lane: &Lane) -> (u32, u32, *const c_char, *const c_char) {
    match lane.state {
        state::DONE => (state::DONE, 0, ptr::null(), ptr::null()),
        at => (at, lane.line, lane.what, lane.file),
    }
}

impl Problem {
    /// An error of a thread in an intrinsic, as a text.
    pub fn complaint(lane: &Lane, text: String) -> Problem {
        let Lane { file, what, line, .. } = *lane;
        let failure = Failure { wrong: wrong::COMPLAINT, line, file, what, address: 0, bytes: 0 };
        Problem::Failure { failure, complaint: Some(text), thread: lane.thread.x }
    }

    /// A warp that never stopped.
    pub fn endless(lanes: &[Lane]) -> Problem {
        let place = lanes.iter().find(|lane| lane.state != state::DONE).unwrap_or(&lanes[0]);
        Problem::Endless { place: Place::of(place) }
    }

    /// Lanes that are not all where the first one in `state` is: that one, and one that is elsewhere.
    fn apart(lanes: &[Lane], at: u32) -> Problem {
        let waiting = lanes.iter().find(|lane| lane.state == at).unwrap_or(&lanes[0]);
        let elsewhere = |lane: &&Lane| site(lane) != site(waiting);
        let other = lanes.iter().find(|lane| lane.state != waiting.state).or(lanes.iter().find(elsewhere));
        Problem::Apart { waiting: Place::of(waiting), other: Place::of(other.unwrap_or(waiting)) }
    }
}

/// No thread can run. Where in one thread block only lanes of a warp or threads of the block wait for each other, two that are apart; else
/// all places where threads wait.
pub(super) fn stuck(blocks: &[&mut Running], threads: usize) -> Box<Stop> {
    let first = blocks.iter().find(|block| !block.has_ended()).unwrap_or(&blocks[0]);
    let apart =
        blocks.iter().find_map(|block| Some((block.block.block, threads_apart(&block.lanes[..threads])?)));
    let (block, problem) = apart.unwrap_or_else(|| {
        let of_block = |block: &&mut Running| places(block, threads, blocks.len() > 1);
        (first.block.block, Problem::Stuck { places: blocks.iter().flat_map(of_block).collect() })
    });
    Box::new(Stop { block, problem })
}

/// Two threads of a thread block that are apart, where all wait for lanes of their warps or for the block.
fn threads_apart(lanes: &[Lane]) -> Option<Problem> {
    let at = |state: u32| move |lane: &Lane| lane.state == state;
    let simple = [state::AT_COLLECTIVE, state::AT_BARRIER, state::DONE];
    if lanes.iter().all(at(state::DONE)) || !lanes.iter().all(|lane| simple.contains(&lane.state)) {
        return None;
    }
    Some(match lanes.chunks(WARP).find(|warp| warp.iter().any(at(state::AT_COLLECTIVE))) {
        Some(warp) => Problem::apart(warp, state::AT_COLLECTIVE),
        None => Problem::apart(lanes, state::AT_BARRIER),
    })
}

/// Where and for what threads of a thread block wait.
fn places(running: &Running, threads: usize, name_block: bool) -> Vec<String> {
    let mut places: Vec<(&Lane, usize)> = Vec::new();
    for lane in &running.lanes[..threads] {
        match places.iter_mut().find(|(first, _)| site(first) == site(lane)) {
            Some((_, count)) => *count += 1,
            None => places.push((lane, 1)),
        }
    }
    let block = if name_block { format!("{}, ", running.block.block) } else { String::new() };
    let describe = |(lane, count): &(&Lane, usize)| {
        let others = if *count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        let lack = match lane.state {
            state::AT_MBARRIER => running.mbarriers.lack(lane.thread.x).map(|lack| format!(": {lack}")),
            state::AT_NAMED_BARRIER => Some(running.named_barrier(lane)),
            _ => None,
        };
        format!("{block}{}{others}{}", Place::of(lane).describe(), lack.unwrap_or_default())
    };
    places.iter().map(describe).collect()
}

impl Reach {
    /// A thread block whose shared memory another has accessed may not end before both have synchronised.
    pub fn leftover(&self) -> String {
        format!(
            "the block may end while {}, thread {}, still reaches into it by {} ({}): cluster_sync must come between",
            self.from,
            self.thread,
            text(self.what),
            position(self.file, self.line)
        )
    }
}

impl Stop {
    /// The error a user reads.
    pub fn error(self, launch: &Launch<'_>, base: u64) -> Error {
        let place = format!("kernel `{}`, {}", launch.entry, self.block);
        Error::invalid(match self.problem {
            Problem::Failure { failure, complaint, thread } => {
                let found = match complaint {
                    Some(complaint) => format!("{}: {complaint}", text(failure.what)),
                    None => describe(&failure, launch, base),
                };
                format!("{place}, thread {thread}, {}: {found}", position(failure.file, failure.line))
            }
            Problem::Stuck { places } => {
                format!("{place}: no thread can go on: {}", places.join("; "))
            }
            Problem::Copy { thread, place: at, text } => {
                format!("{place}, thread {thread}, {at}: a TMA load failed: {text}")
            }
            Problem::Leftover { text } => format!("{place}: {text}"),
            Problem::Endless { place: at } => {
                format!("{place}: it never ends; {} when it was stopped", at.describe())
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
            launch.config.shared_bytes
        ),
        wrong::SPINNING => format!(
            "{what}: the block reads and writes on and on, and was stopped: does it wait for another block?"
        ),
        wrong::DYNAMIC_SHARED => format!(
            "`{what}` takes {bytes} bytes of dynamic shared memory; the launch gives {}",
            launch.config.shared_bytes
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
