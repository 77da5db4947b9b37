//! Products of warpgroups: what 128 threads ask for one after the other, gathered, carried out, waited for.
//!
//! From the first product that adds to some sums until the wait for the last, the threads' own copies of the sums are NaN and
//! the true ones lie here. So sums that are read too early show, and writes to them are noticed.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::ptr;

use super::abi::{self, WARPGROUP};
use super::async_view::AsyncView;

/// Rows of the sums: of each warp 16.
const ROWS: usize = 64;

/// What a thread finds in sums that are under way.
const POISON: u32 = u32::MAX;

/// Sums of a warpgroup that products under way add to.
struct Sums {
    columns: usize,
    /// Each thread's part, once it has come.
    parts: [*mut f32; WARPGROUP],
    /// Row by row.
    values: Vec<f32>,
}

/// Where a thread's numbers begin in both of its rows; numbers 4 j and the next lie 8 j on in the first, 4 j + 2 and the next in
/// the second.
fn rows_of(thread: usize, columns: usize) -> [usize; 2] {
    let (warp, lane) = (thread / 32, thread % 32);
    let first = (16 * warp + lane / 4) * columns + 2 * (lane % 4);
    [first, first + 8 * columns]
}

impl Sums {
    fn new(columns: usize) -> Sums {
        Sums { columns, parts: [ptr::null_mut(); WARPGROUP], values: vec![0.0; ROWS * columns] }
    }

    /// Takes a thread's numbers over.
    ///
    /// # Safety
    /// `part` has `columns / 2` numbers that nobody else uses.
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

    /// Gives all threads their numbers back; in error, a thread whose own were written to meanwhile.
    ///
    /// # Safety
    /// All threads have come and still wait.
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

/// Where a word stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Site {
    pub file: *const c_char,
    pub line: u32,
}

/// What a thread may ask for: a product, or (None) the end of a group.
struct Task {
    product: Option<Product>,
    /// The word's line, and the first thread that came.
    place: Site,
    first: usize,
    came: usize,
}

/// A product that at least one thread has asked for.
struct Product {
    asked: abi::Product,
    /// Which of the sums it adds to.
    sums: usize,
    done: bool,
}

/// One warpgroup of a block.
pub(super) struct Warpgroup {
    /// Tasks that are not done, oldest first.
    tasks: VecDeque<Task>,
    /// Tasks that are done and forgotten.
    forgotten: usize,
    /// Tasks that each thread has asked for.
    asked: [usize; WARPGROUP],
    fenced: [bool; WARPGROUP],
    sums: Vec<Option<Sums>>,
    /// Registers a thread has.
    pub registers: u32,
}

impl Warpgroup {
    pub fn new() -> Warpgroup {
        Warpgroup {
            tasks: VecDeque::new(),
            forgotten: 0,
            asked: [0; WARPGROUP],
            fenced: [false; WARPGROUP],
            sums: Vec::new(),
            registers: 0,
        }
    }

    /// Begins a block.
    pub fn clear(&mut self, registers: u32) {
        self.tasks.clear();
        (self.forgotten, self.asked, self.fenced) = (0, [0; WARPGROUP], [false; WARPGROUP]);
        self.sums.clear();
        self.registers = registers;
    }

    pub fn fence(&mut self, thread: usize) {
        self.fenced[thread] = true;
    }

    /// A thread asks for its next product.
    ///
    /// # Safety
    /// The sums and `shared` can be read and written until the product was waited for.
    pub unsafe fn multiply(
        &mut self,
        thread: usize,
        asked: &abi::Product,
        place: Site,
        shared: Shared,
        view: &mut AsyncView,
        at_once: bool,
    ) -> Result<(), String> {
        if !self.fenced[thread] {
            return Err("there is no wgmma_fence since the last wgmma_wait, or since the kernel began".into());
        }
        let index = self.asked[thread] - self.forgotten;
        if index == self.tasks.len() {
            check_tile("a", asked.a, 64, asked.a_down != 0, shared.bytes)?;
            check_tile("b", asked.b, asked.columns, asked.b_down != 0, shared.bytes)?;
            let sums = self.sums_of(thread, asked);
            let product = Some(Product { asked: *asked, sums, done: false });
            self.tasks.push_back(Task { product, place, first: thread, came: 0 });
        }
        let task = &self.tasks[index];
        let Some(product) = &task.product else {
            return Err(format!("thread {} of the warpgroup is at wgmma_commit instead", task.first));
        };
        let key = |p: &abi::Product| (p.a, p.b, p.columns, p.add, p.a_down, p.b_down);
        if task.place != place || key(&product.asked) != key(asked) {
            return Err(format!(
                "thread {} of the warpgroup asks for another product: its line {}, columns {}, descriptors {:#x} and {:#x}, \
                 add {}; here {}, {:#x}, {:#x}, {}",
                task.first,
                task.place.line,
                product.asked.columns,
                product.asked.a,
                product.asked.b,
                product.asked.add,
                asked.columns,
                asked.a,
                asked.b,
                asked.add
            ));
        }
        let index_of_sums = product.sums;
        let elsewhere = self.sums.iter().flatten().filter(|sums| sums.parts[thread] == asked.sums).count();
        let sums = self.sums[index_of_sums].as_mut().expect("sums of a task under way");
        if sums.parts[thread].is_null() && elsewhere == 0 {
            // SAFETY: the caller's promise.
            unsafe { sums.take(thread, asked.sums) };
        } else if sums.parts[thread] != asked.sums {
            return Err(format!("adds to other sums than thread {} of the warpgroup", task.first));
        }
        // SAFETY: the caller's promise.
        unsafe { self.come(thread, index, shared, view, at_once) }
    }

    /// A thread closes its group of products.
    pub fn commit(&mut self, thread: usize, place: Site) -> Result<(), String> {
        let index = self.asked[thread] - self.forgotten;
        if index == self.tasks.len() {
            self.tasks.push_back(Task { product: None, place, first: thread, came: 0 });
        }
        let task = &mut self.tasks[index];
        if task.product.is_some() {
            return Err(format!("thread {} of the warpgroup is at wgmma instead", task.first));
        }
        task.came += 1;
        self.asked[thread] += 1;
        Ok(())
    }

    /// The sums that this thread's part belongs to, or new ones.
    fn sums_of(&mut self, thread: usize, asked: &abi::Product) -> usize {
        let columns = asked.columns as usize;
        let known = self.sums.iter().position(|sums| {
            sums.as_ref().is_some_and(|sums| sums.parts[thread] == asked.sums && sums.columns == columns)
        });
        known.unwrap_or_else(|| {
            let free = self.sums.iter().position(Option::is_none).unwrap_or_else(|| {
                self.sums.push(None);
                self.sums.len() - 1
            });
            self.sums[free] = Some(Sums::new(columns));
            free
        })
    }

    /// Notes that a thread has come to a product; the last may carry it out.
    ///
    /// # Safety
    /// As for [`Warpgroup::multiply`].
    unsafe fn come(
        &mut self,
        thread: usize,
        index: usize,
        shared: Shared,
        view: &mut AsyncView,
        at_once: bool,
    ) -> Result<(), String> {
        self.asked[thread] += 1;
        self.tasks[index].came += 1;
        if at_once && self.tasks[index].came == WARPGROUP {
            // SAFETY: the caller's promise; whoever came to this task came to all before.
            unsafe { self.perform(index, shared, view) }?;
        }
        Ok(())
    }

    /// Carries a product out, unless that is done.
    ///
    /// # Safety
    /// As for [`Warpgroup::multiply`].
    unsafe fn perform(&mut self, index: usize, shared: Shared, view: &mut AsyncView) -> Result<(), String> {
        let Some(product) = &mut self.tasks[index].product else { return Ok(()) };
        if std::mem::replace(&mut product.done, true) {
            return Ok(());
        }
        let abi::Product { a, b, columns, a_down, b_down, .. } = product.asked;
        for (descriptor, extent, down) in [(a, ROWS as u32, a_down), (b, columns, b_down)] {
            // SAFETY: the tile was held to the bytes of shared memory.
            unsafe { look_at(view, shared, descriptor, extent as usize, down != 0) }?;
        }
        let sums = self.sums[product.sums].as_mut().expect("sums of a task under way");
        if product.asked.add == 0 {
            sums.values.fill(0.0);
        }
        // SAFETY: both tiles were held to the bytes of shared memory; the sums have 64 rows.
        unsafe {
            (product.asked.multiply)(shared.first, a, b, sums.values.as_mut_ptr());
        }
        Ok(())
    }

    /// Does all groups but the latest `pending`, once all threads of the warpgroup wait; gives their sums back. In error,
    /// the thread and what it did.
    ///
    /// # Safety
    /// As for [`Warpgroup::multiply`].
    pub unsafe fn wait(
        &mut self,
        pending: usize,
        shared: Shared,
        view: &mut AsyncView,
    ) -> Result<(), (usize, String)> {
        if let Some(behind) =
            (0..WARPGROUP).find(|&thread| self.asked[thread] < self.asked[0].max(self.most()))
        {
            return Err((behind, "other threads of the warpgroup have asked for more products".into()));
        }
        let groups = self.tasks.iter().filter(|task| task.product.is_none()).count();
        for _ in pending..groups {
            while let Some(task) = self.tasks.front() {
                let is_commit = task.product.is_none();
                // SAFETY: the caller's promise.
                unsafe { self.perform(0, shared, view) }.map_err(|text| (0, text))?;
                self.tasks.pop_front();
                self.forgotten += 1;
                if is_commit {
                    break;
                }
            }
        }
        for index in 0..self.sums.len() {
            let in_use = self.tasks.iter().filter_map(|task| task.product.as_ref()).any(|p| p.sums == index);
            if in_use {
                continue;
            }
            if let Some(sums) = self.sums[index].take() {
                // SAFETY: all threads of the warpgroup wait.
                unsafe { sums.give_back() }.map_err(|thread| {
                    (thread, "its sums were written to while products were under way".into())
                })?;
            }
        }
        self.fenced = [false; WARPGROUP];
        Ok(())
    }

    fn most(&self) -> usize {
        self.asked.iter().copied().max().unwrap_or(0)
    }

    /// What a block leaves behind that it may not.
    pub fn leftover(&self) -> Option<String> {
        let task = self.tasks.iter().find(|task| task.product.is_some())?;
        Some(format!(
            "the block ended while a product of thread {} (line {}) was under way: wgmma_commit and wgmma_wait<0> are missing",
            task.first, task.place.line
        ))
    }
}

/// Dynamic shared memory.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    pub first: *const u8,
    pub bytes: u64,
}

/// Looks at all bytes of a tile as the matrix units see them.
///
/// # Safety
/// The tile lies in dynamic shared memory.
unsafe fn look_at(
    view: &mut AsyncView,
    shared: Shared,
    descriptor: u64,
    extent: usize,
    down: bool,
) -> Result<(), String> {
    let field = |shift: u32| (descriptor >> shift & 0x3fff) as usize * 16;
    let (start, leading, stride) = (field(0), field(16), field(32));
    // SAFETY: the caller's promise.
    let mut look = |offset: usize, bytes: usize| unsafe { view.read(shared.first, offset, bytes) };
    if down {
        // Whole rows of 64 columns, 16 of them.
        for (group, row) in (0..extent / 64).flat_map(|group| (0..16).map(move |row| (group, row))) {
            look(start + group * leading + row / 8 * stride + row % 8 * 128, 128)?;
        }
    } else {
        // Of each row 32 bytes, in two pieces that the swizzle moves.
        for (row, piece) in (0..extent).flat_map(|row| [(row, 0), (row, 16)]) {
            let linear = start + row / 8 * stride + row % 8 * 128 + piece;
            look(linear ^ (linear >> 7 & 7) << 4, 16)?;
        }
    }
    Ok(())
}

/// Holds a tile to dynamic shared memory and to the swizzle's period.
fn check_tile(name: &str, descriptor: u64, extent: u32, down: bool, bytes: u64) -> Result<(), String> {
    let field = |shift: u32| (descriptor >> shift & 0x3fff) << 4;
    let (start, leading, stride, extent) = (field(0), field(16), field(32), u64::from(extent));
    if descriptor >> 62 != 1 {
        return Err(format!(
            "the descriptor {descriptor:#x} of {name} is none: its uppermost bits must say 01"
        ));
    }
    let within = start % 1024;
    if within >= 128 || within % 32 != 0 || (down && within != 0) {
        return Err(format!(
            "tile {name} begins at byte {start} of dynamic shared memory; swizzled tiles begin at multiples of 1024{}",
            if down { "" } else { ", and go on in steps of 32 bytes below 128" }
        ));
    }
    let steps: &[(&str, u64, bool)] = if down {
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
        + if down { stride + (extent / 64 - 1) * leading } else { (extent / 8 - 1) * stride };
    if end > bytes {
        return Err(format!(
            "tile {name} begins at byte {start} and ends at byte {end} of dynamic shared memory, which has {bytes}"
        ));
    }
    Ok(())
}
