//! The shared memory of the thread block that runs: an arena with red zones between its arrays, filled with NaN before every thread block.

use std::ffi::{CStr, c_char, c_void};
use std::io;

use memmap2::MmapMut;

/// Bytes that `SHARED` may declare in all.
pub(super) const MOST_STATIC_BYTES: u64 = 48 << 10;

/// Bytes that a thread block may have in all: those of compute capability 9.0.
pub(super) const MOST_BYTES: usize = 227 << 10;

/// Bytes around every array that no thread may access; a multiple of the alignment of shared memory.
const RED_ZONE: usize = 128;

/// Most arrays that one kernel may declare.
const MOST_ARRAYS: usize = 128;

/// Dynamic shared memory begins here, behind all that can be declared, at a multiple of the swizzle's period.
const DYNAMIC: usize = (MOST_STATIC_BYTES as usize + 2 * RED_ZONE * (MOST_ARRAYS + 1)).next_multiple_of(1024);

/// Every byte of memory that has not been written to: NaN in each floating-point type.
const POISON: u8 = 0xff;

/// An array that a kernel declared.
#[derive(Clone, Copy)]
struct Array {
    /// The place in the source that declares it.
    key: *const c_void,
    name: *const c_char,
    offset: usize,
    bytes: usize,
}

/// Shared memory of one thread block at a time.
pub(super) struct SharedMemory {
    arena: MmapMut,
    arrays: Vec<Array>,
    /// End of the last array's red zone.
    end: usize,
    declared: u64,
    dynamic_bytes: usize,
}

impl SharedMemory {
    pub fn new() -> io::Result<SharedMemory> {
        let arena = MmapMut::map_anon(DYNAMIC + MOST_BYTES + RED_ZONE)?;
        Ok(SharedMemory { arena, arrays: Vec::new(), end: RED_ZONE, declared: 0, dynamic_bytes: 0 })
    }

    /// Begins a launch: forgets the arrays of the last one.
    pub fn begin_launch(&mut self, dynamic_bytes: usize) {
        self.arrays.clear();
        (self.end, self.declared, self.dynamic_bytes) = (RED_ZONE, 0, dynamic_bytes);
    }

    /// Begins a block: poisons everything.
    pub fn begin_block(&mut self) {
        self.arena[..self.end].fill(POISON);
        self.arena[DYNAMIC - RED_ZONE..DYNAMIC + self.dynamic_bytes + RED_ZONE].fill(POISON);
    }

    /// First byte of declared and of dynamic shared memory.
    pub fn addresses(&mut self) -> [*mut u8; 2] {
        let start = self.arena.as_mut_ptr();
        // SAFETY: both lie in the arena.
        unsafe { [start.add(RED_ZONE), start.add(DYNAMIC)] }
    }

    /// Bytes from the first declared array to the end of the last, red zones included.
    pub fn declared_extent(&self) -> u64 {
        (self.end - RED_ZONE) as u64
    }

    /// The array declared at `key`, which the first thread to come there places; or what is declared in all, if that
    /// is too much.
    pub fn declare(&mut self, key: *const c_void, name: *const c_char, bytes: u64) -> Result<*mut u8, u64> {
        let offset = match self.arrays.iter().find(|array| array.key == key) {
            Some(array) => array.offset,
            None => {
                let total = self.declared.saturating_add(bytes);
                let all = total + self.dynamic_bytes as u64;
                if total > MOST_STATIC_BYTES || all > MOST_BYTES as u64 || self.arrays.len() == MOST_ARRAYS {
                    return Err(total);
                }
                let (offset, bytes) = (self.end, bytes as usize);
                self.arrays.push(Array { key, name, offset, bytes });
                self.declared = total;
                self.end = offset + bytes.next_multiple_of(RED_ZONE) + RED_ZONE;
                self.arena[offset..self.end].fill(POISON);
                offset
            }
        };
        Ok(self.arena[offset..].as_mut_ptr())
    }

    /// Checks the red zones after a thread block; where one was written to, what lies before it.
    pub fn damage(&self) -> Option<String> {
        let clean = |from: usize, to: usize| self.arena[from..to].iter().all(|&byte| byte == POISON);
        if !clean(0, RED_ZONE) {
            return Some("before the first byte of its declared shared memory".into());
        }
        for array in &self.arrays {
            let from = array.offset + array.bytes;
            if !clean(from, from.next_multiple_of(RED_ZONE) + RED_ZONE) {
                // SAFETY: the name is a literal of a library that stays loaded.
                let name = unsafe { CStr::from_ptr(array.name) }.to_string_lossy();
                return Some(format!("past the end of shared `{name}`, which has {} bytes", array.bytes));
            }
        }
        if !clean(DYNAMIC - RED_ZONE, DYNAMIC) {
            return Some("before the first byte of its dynamic shared memory".into());
        }
        let end = DYNAMIC + self.dynamic_bytes;
        (!clean(end, end + RED_ZONE))
            .then(|| format!("past the end of its dynamic shared memory of {} bytes", self.dynamic_bytes))
    }
}
