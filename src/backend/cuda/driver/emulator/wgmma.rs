//! WGMMA: instructions that the 128 threads of a warpgroup issue one after the other, gathered, executed, waited for.
//!
//! From the first instruction that adds to some accumulators until the wait for the last, the threads' own accumulators are NaN and
//! the true ones lie here. So accumulators that are read too early show, and writes to them are detected.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::ptr;

use super::abi::{self, WARPGROUP};
use super::async_proxy::AsyncProxyView;

/// Rows of the accumulators: 16 for each warp.
const ROWS: usize = 64;

/// Content of a thread's accumulators while instructions are in flight.
const POISON: u32 = u32::MAX;

/// Accumulators of a warpgroup with instructions in flight.
struct Accumulators {
    columns: usize,
    /// Each thread's accumulators, once it has issued its first instruction.
    parts: [*mut f32; WARPGROUP],
    /// Row by row.
    values: Vec<f32>,
}

/// Where a thread's numbers begin in both of its rows; numbers 4 j and 4 j + 1 lie 8 j columns on in the first, 4 j + 2 and 4 j + 3 in
/// the second.
fn rows_of(thread: usize, columns: usize) -> [usize; 2] {
    let (warp, lane) = (thread / 32, thread % 32);
    let first = (16 * warp + lane / 4) * columns + 2 * (lane % 4);
    [first, first + 8 * columns]
}

impl Accumulators {
    fn new(columns: usize) -> Accumulators {
        Accumulators { columns, parts: [ptr::null_mut(); WARPGROUP], values: vec![0.0; ROWS * columns] }
    }

    /// Takes a thread's accumulators over.
    ///
    /// # Safety
    /// `part` has `columns / 2` numbers that no other code uses.
    unsafe fn take(&mut self, thread: usize, part: *mut f32) {
        self.parts[thread] = part;
        // SAFETY: the caller's promise.
        let part = unsafe { std::slice::from_raw_parts_mut(part, self.columns / 2) };
        let [first, second] = rows_of(thread, self.columns);
        for (j, four) in part.chunks_exact_mut(4).enumerate() {
            self.values[first + 8 * j..][..2].copy_from_slice(&four[..2]);
            self.values[second + 8 * j..][..2].copy_from_slice(&four[2..]);
            four.fill(f32::from_bits(POISON));
        }
    }

    /// Gives all threads their accumulators back; in error, a thread that has written to its own meanwhile.
    ///
    /// # Safety
    /// All threads have issued the instructions and still wait.
    unsafe fn give_back(&self) -> Result<(), usize> {
        for (thread, &part) in self.parts.iter().enumerate() {
            // SAFETY: the caller's promise.
            let part = unsafe { std::slice::from_raw_parts_mut(part, self.columns / 2) };
            let [first, second] = rows_of(thread, self.columns);
            if part.iter().any(|number| number.to_bits() != POISON) {
                return Err(thread);
            }
            for (j, four) in part.chunks_exact_mut(4).enumerate() {
                four[..2].copy_from_slice(&self.values[first + 8 * j..][..2]);
                four[2..].copy_from_slice(&self.values[second + 8 * j..][..2]);
            }
        }
        Ok(())
    }
}

/// The line of an intrinsic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Site {
    pub file: *const c_char,
    pub line: u32,
}

/// A thread's request: an instruction, or (None) the commit of a group.
struct Task {
    instruction: Option<Instruction>,
    /// The intrinsic's line, and the first thread that called it.
    place: Site,
    first: usize,
    came: usize,
}

/// An instruction that at least one thread has issued.
struct Instruction {
    asked: abi::Wgmma,
    /// Index of its accumulators.
    accumulators: usize,
    done: bool,
}

/// One warpgroup of a thread block.
pub(super) struct Warpgroup {
    /// Tasks that are not done, oldest first.
    tasks: VecDeque<Task>,
    /// Tasks that are done and forgotten.
    forgotten: usize,
    /// Number of tasks that each thread has issued.
    asked: [usize; WARPGROUP],
    fenced: [bool; WARPGROUP],
    accumulators: Vec<Option<Accumulators>>,
    /// Registers of a thread.
    pub registers: u32,
}

impl Warpgroup {
    pub fn new() -> Warpgroup {
        Warpgroup {
            tasks: VecDeque::new(),
            forgotten: 0,
            asked: [0; WARPGROUP],
            fenced: [false; WARPGROUP],
            accumulators: Vec::new(),
            registers: 0,
        }
    }

    /// Begins a thread block.
    pub fn clear(&mut self, registers: u32) {
        self.tasks.clear();
        (self.forgotten, self.asked, self.fenced) = (0, [0; WARPGROUP], [false; WARPGROUP]);
        self.accumulators.clear();
        self.registers = registers;
    }

    pub fn fence(&mut self, thread: usize) {
        self.fenced[thread] = true;
    }

    /// A thread issues its next instruction.
    ///
    /// # Safety
    /// The accumulators and `shared` can be read and written until the instruction has been waited for.
    pub unsafe fn multiply(
        &mut self,
        thread: usize,
        asked: &abi::Wgmma,
        place: Site,
        shared: Shared,
        view: &mut AsyncProxyView,
        at_once: bool,
    ) -> Result<(), String> {
        if !self.fenced[thread] {
            return Err("there is no wgmma_fence since the last wgmma_wait, or since the kernel began".into());
        }
        let index = self.asked[thread] - self.forgotten;
        if index == self.tasks.len() {
            check_tile("a", asked.a, 64, asked.a_mn_major != 0, shared.bytes)?;
            check_tile("b", asked.b, asked.columns, asked.b_mn_major != 0, shared.bytes)?;
            let accumulators = self.accumulators_of(thread, asked);
            let instruction = Some(Instruction { asked: *asked, accumulators, done: false });
            self.tasks.push_back(Task { instruction, place, first: thread, came: 0 });
        }
        let operation = &self.tasks[index];
        let Some(instruction) = &operation.instruction else {
            return Err(format!("thread {} of the warpgroup is at wgmma_commit instead", operation.first));
        };
        let key = |p: &abi::Wgmma| (p.a, p.b, p.columns, p.add, p.a_mn_major, p.b_mn_major);
        if operation.place != place || key(&instruction.asked) != key(asked) {
            return Err(format!(
                "thread {} of the warpgroup issues another wgmma: its line {}, columns {}, descriptors {:#x} and {:#x}, \
                 add {}; here {}, {:#x}, {:#x}, {}",
                operation.first,
                operation.place.line,
                instruction.asked.columns,
                instruction.asked.a,
                instruction.asked.b,
                instruction.asked.add,
                asked.columns,
                asked.a,
                asked.b,
                asked.add
            ));
        }
        let index_of_accumulators = instruction.accumulators;
        let elsewhere = self
            .accumulators
            .iter()
            .flatten()
            .filter(|accumulators| accumulators.parts[thread] == asked.accumulators)
            .count();
        let accumulators = self.accumulators[index_of_accumulators]
            .as_mut()
            .expect("accumulators of an operation in flight");
        if accumulators.parts[thread].is_null() && elsewhere == 0 {
            // SAFETY: the caller's promise.
            unsafe { accumulators.take(thread, asked.accumulators) };
        } else if accumulators.parts[thread] != asked.accumulators {
            return Err(format!("has other accumulators than thread {} of the warpgroup", operation.first));
        }
        // SAFETY: the caller's promise.
        unsafe { self.come(thread, index, shared, view, at_once) }
    }

    /// A thread commits its group of instructions.
    pub fn commit(&mut self, thread: usize, place: Site) -> Result<(), String> {
        let index = self.asked[thread] - self.forgotten;
        if index == self.tasks.len() {
            self.tasks.push_back(Task { instruction: None, place, first: thread, came: 0 });
        }
        let operation = &mut self.tasks[index];
        if operation.instruction.is_some() {
            return Err(format!("thread {} of the warpgroup is at wgmma instead", operation.first));
        }
        operation.came += 1;
        self.asked[thread] += 1;
        Ok(())
    }

    /// The accumulators that this thread's own belong to, or new ones.
    fn accumulators_of(&mut self, thread: usize, asked: &abi::Wgmma) -> usize {
        let columns = asked.columns as usize;
        let known = self.accumulators.iter().position(|accumulators| {
            accumulators.as_ref().is_some_and(|accumulators| {
                accumulators.parts[thread] == asked.accumulators && accumulators.columns == columns
            })
        });
        known.unwrap_or_else(|| {
            let free = self.accumulators.iter().position(Option::is_none).unwrap_or_else(|| {
                self.accumulators.push(None);
                self.accumulators.len() - 1
            });
            self.accumulators[free] = Some(Accumulators::new(columns));
            free
        })
    }

    /// Notes that a thread has issued an instruction; the last thread may execute it.
    ///
    /// # Safety
    /// As for [`Warpgroup::multiply`].
    unsafe fn come(
        &mut self,
        thread: usize,
        index: usize,
        shared: Shared,
        view: &mut AsyncProxyView,
        at_once: bool,
    ) -> Result<(), String> {
        self.asked[thread] += 1;
        self.tasks[index].came += 1;
        if at_once && self.tasks[index].came == WARPGROUP {
            // SAFETY: the caller's promise; whoever came to this operation came to all before.
            unsafe { self.perform(index, shared, view) }?;
        }
        Ok(())
    }

    /// Executes an instruction, unless that is done.
    ///
    /// # Safety
    /// As for [`Warpgroup::multiply`].
    unsafe fn perform(
        &mut self,
        index: usize,
        shared: Shared,
        view: &mut AsyncProxyView,
    ) -> Result<(), String> {
        let Some(instruction) = &mut self.tasks[index].instruction else { return Ok(()) };
        if std::mem::replace(&mut instruction.done, true) {
            return Ok(());
        }
        let abi::Wgmma { a, b, columns, a_mn_major, b_mn_major, .. } = instruction.asked;
        for (descriptor, extent, mn_major) in [(a, ROWS as u32, a_mn_major), (b, columns, b_mn_major)] {
            // SAFETY: the tile was checked to lie in shared memory.
            unsafe { look_at(view, shared, descriptor, extent as usize, mn_major != 0) }?;
        }
        let accumulators = self.accumulators[instruction.accumulators]
            .as_mut()
            .expect("accumulators of an operation in flight");
        if instruction.asked.add == 0 {
            accumulators.values.fill(0.0);
        }
        // SAFETY: both tiles were checked to lie in shared memory; the accumulators have 64 rows.
        unsafe {
            (instruction.asked.multiply)(shared.first, a, b, accumulators.values.as_mut_ptr());
        }
        Ok(())
    }

    /// Executes all groups but the latest `pending`, once all threads of the warpgroup wait; gives their accumulators back. In error,
    /// the thread and its mistake.
    ///
    /// # Safety
    /// As for [`Warpgroup::multiply`].
    pub unsafe fn wait(
        &mut self,
        pending: usize,
        shared: Shared,
        view: &mut AsyncProxyView,
    ) -> Result<(), (usize, String)> {
        if let Some(behind) =
            (0..WARPGROUP).find(|&thread| self.asked[thread] < self.asked[0].max(self.most()))
        {
            return Err((
                behind,
                "other threads of the warpgroup have issued more wgmma instructions".into(),
            ));
        }
        let groups = self.tasks.iter().filter(|operation| operation.instruction.is_none()).count();
        for _ in pending..groups {
            while let Some(operation) = self.tasks.front() {
                let is_commit = operation.instruction.is_none();
                // SAFETY: the caller's promise.
                unsafe { self.perform(0, shared, view) }.map_err(|text| (0, text))?;
                self.tasks.pop_front();
                self.forgotten += 1;
                if is_commit {
                    break;
                }
            }
        }
        for index in 0..self.accumulators.len() {
            let in_use = self
                .tasks
                .iter()
                .filter_map(|operation| operation.instruction.as_ref())
                .any(|p| p.accumulators == index);
            if in_use {
                continue;
            }
            if let Some(accumulators) = self.accumulators[index].take() {
                // SAFETY: all threads of the warpgroup wait.
                unsafe { accumulators.give_back() }.map_err(|thread| {
                    (
                        thread,
                        "its accumulators were written to while wgmma instructions were in flight".into(),
                    )
                })?;
            }
        }
        self.fenced = [false; WARPGROUP];
        Ok(())
    }

    fn most(&self) -> usize {
        self.asked.iter().copied().max().unwrap_or(0)
    }

    /// State that a thread block must not leave behind when it ends.
    pub fn leftover(&self) -> Option<String> {
        let operation = self.tasks.iter().find(|operation| operation.instruction.is_some())?;
        Some(format!(
            "the block ended while a wgmma of thread {} (line {}) was in flight: wgmma_commit and wgmma_wait<0> are missing",
            operation.first, operation.place.line
        ))
    }
}

/// Dynamic shared memory.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    pub first: *const u8,
    pub bytes: u64,
}

/// Reads all bytes of a tile through the async proxy.
///
/// # Safety
/// The tile lies in dynamic shared memory.
unsafe fn look_at(
    view: &mut AsyncProxyView,
    shared: Shared,
    descriptor: u64,
    extent: usize,
    mn_major: bool,
) -> Result<(), String> {
    let field = |shift: u32| (descriptor >> shift & 0x3fff) as usize * 16;
    let (start, leading, stride) = (field(0), field(16), field(32));
    // SAFETY: the caller's promise.
    let mut look = |offset: usize, bytes: usize| unsafe { view.read(shared.first, offset, bytes) };
    if mn_major {
        // Whole rows of 64 columns, 16 of them.
        for (group, row) in (0..extent / 64).flat_map(|group| (0..16).map(move |row| (group, row))) {
            look(start + group * leading + row / 8 * stride + row % 8 * 128, 128)?;
        }
    } else {
        // Of each row 32 bytes, in two chunks that the swizzle moves.
        for (row, piece) in (0..extent).flat_map(|row| [(row, 0), (row, 16)]) {
            let linear = start + row / 8 * stride + row % 8 * 128 + piece;
            look(linear ^ (linear >> 7 & 7) << 4, 16)?;
        }
    }
    Ok(())
}

/// Checks that a tile lies in dynamic shared memory, aligned to the swizzle's period.
fn check_tile(name: &str, descriptor: u64, extent: u32, mn_major: bool, bytes: u64) -> Result<(), String> {
    let field = |shift: u32| (descriptor >> shift & 0x3fff) << 4;
    let (start, leading, stride, extent) = (field(0), field(16), field(32), u64::from(extent));
    if descriptor >> 62 != 1 {
        return Err(format!(
            "the descriptor {descriptor:#x} of {name} is none: its uppermost bits must say 01"
        ));
    }
    let within = start % 1024;
    if within >= 128 || within % 32 != 0 || (mn_major && within != 0) {
        return Err(format!(
            "tile {name} begins at byte {start} of dynamic shared memory; swizzled tiles begin at multiples of 1024{}",
            if mn_major { "" } else { ", and go on in steps of 32 bytes below 128" }
        ));
    }
    let steps: &[(&str, u64, bool)] = if mn_major {
        &[("stride", stride, true), ("leading", leading, extent > 64)]
    } else {
        &[("stride", stride, true)]
    };
    if let Some((step, value, _)) =
        steps.iter().find(|(_, value, used)| *used && (*value == 0 || value % 1024 != 0))
    {
        return Err(format!("tile {name} has {step} bytes {value}; a multiple of 1024, not zero, is needed"));
    }
    let end = start - within
        + 1024
        + if mn_major { stride + (extent / 64 - 1) * leading } else { (extent / 8 - 1) * stride };
    if end > bytes {
        return Err(format!(
            "tile {name} begins at byte {start} and ends at byte {end} of dynamic shared memory, which has {bytes}"
        ));
    }
    Ok(())
}
