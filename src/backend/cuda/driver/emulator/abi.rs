//! What a compiled kernel and this program know of each other: the structs of `kernels/intrinsics/emulated.cuh`, field by field.

use std::ffi::{c_char, c_void};

use corosensei::Yielder;

/// Raised whenever a struct here changes; a kernel folder with an older `intrinsics/emulated.cuh` is refused.
pub(super) const VERSION: u32 = 4;

/// Threads of a warp.
pub(super) const WARP: usize = 32;

/// Threads of a warpgroup: four warps, the first a multiple of four.
pub(super) const WARPGROUP: usize = 128;

/// Threads of the largest block.
pub(super) const MOST_THREADS: usize = 1024;

/// A position in a block or a grid.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub x: u32,
    pub y: u32,
    pub z: u32,
}

/// What a thread is doing. (A plain number: C++ writes it.)
pub(super) mod state {
    pub const RUNNING: u32 = 0;
    pub const AT_COLLECTIVE: u32 = 1;
    pub const AT_BARRIER: u32 = 2;
    pub const DONE: u32 = 3;
    pub const AT_NAMED_BARRIER: u32 = 4;
    pub const AT_MBARRIER: u32 = 5;
    pub const AT_WARPGROUP: u32 = 6;
    pub const AT_CLUSTER: u32 = 7;
}

/// What the threads that wait at a named barrier or for their warpgroup leave as operands. (Plain numbers: C++ writes them.)
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meeting {
    /// The named barrier's number, or one of [`together`].
    pub kind: u32,
    /// The named barrier's threads, groups that may be under way, or registers.
    pub value: u32,
}

/// What a warpgroup does together.
pub(super) mod together {
    pub const WGMMA_WAIT: u32 = 0;
    pub const REGISTERS_GIVE: u32 = 1;
    pub const REGISTERS_TAKE: u32 = 2;
}

/// What is asked of a barrier in shared memory.
pub(super) mod mbarrier {
    pub const INIT: u32 = 0;
    pub const INIT_FENCE: u32 = 1;
    pub const ARRIVE: u32 = 2;
    pub const ARRIVE_EXPECT: u32 = 3;
    pub const WAIT: u32 = 4;
    pub const ARRIVE_REMOTE: u32 = 5;
}

/// A tensor copy as a word asks for it; `to` null only prefetches the map.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct TensorCopy {
    pub to: *mut u8,
    pub map: *const u64,
    pub barrier: *mut u64,
    /// Innermost first.
    pub coordinates: [i32; 5],
    pub rank: u32,
    /// In w and h.
    pub offsets: [u32; 2],
    pub im2col: u32,
    /// A bit for each block of the cluster that it goes to, and [`MULTICAST`]; or 0, where it stays in its own.
    pub ranks: u32,
}

/// Marks a copy as one to several blocks.
pub(super) const MULTICAST: u32 = 1 << 16;

/// A product of a warpgroup as one of its threads asks for it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    /// The thread's part of the sums.
    pub sums: *mut f32,
    /// Descriptors of both tiles.
    pub a: u64,
    pub b: u64,
    /// Columns of b and of the sums.
    pub columns: u32,
    pub add: u32,
    /// Whether the sum runs down the columns of the tile.
    pub a_down: u32,
    pub b_down: u32,
    /// Adds the product of both tiles in dynamic shared memory to 64 rows of sums.
    pub multiply: unsafe extern "C-unwind" fn(*const u8, u64, u64, *mut f32),
}

/// One thread of a block.
#[repr(C)]
pub(super) struct Lane {
    pub thread: Index,
    pub state: u32,
    /// Where it waits, and for what.
    pub file: *const c_char,
    pub what: *const c_char,
    pub line: u32,
    pub unused: u32,
    /// Carries the exchange of a warp out; null where lanes only wait for each other.
    pub complete: Option<unsafe extern "C-unwind" fn(*mut Lane)>,
    pub operands: *mut c_void,
    pub yielder: *const Yielder<(), ()>,
}

/// A piece of global memory that a launch may touch.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operand {
    pub first: u64,
    pub bytes: u64,
}

/// What went wrong in a thread. (A plain number: C++ writes it.)
pub(super) mod wrong {
    pub const NOTHING: u32 = 0;
    pub const GLOBAL_READ: u32 = 1;
    pub const GLOBAL_WRITE: u32 = 2;
    pub const SHARED_ADDRESS: u32 = 3;
    pub const DYNAMIC_SHARED: u32 = 4;
    pub const SPINNING: u32 = 5;
    /// Found on this side: too much is declared with `SHARED`.
    pub const STATIC_SHARED: u32 = 6;
    /// Found on this side, and said in words.
    pub const COMPLAINT: u32 = 7;
}

/// What a thread did wrong.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    pub wrong: u32,
    pub line: u32,
    pub file: *const c_char,
    pub what: *const c_char,
    pub address: u64,
    pub bytes: u64,
}

impl Failure {
    pub const NONE: Failure = Failure {
        wrong: wrong::NOTHING,
        line: 0,
        file: std::ptr::null(),
        what: std::ptr::null(),
        address: 0,
        bytes: 0,
    };
}

/// One block, and this program's side of the words.
#[repr(C)]
pub(super) struct Block {
    pub lane: *mut Lane,
    pub block: Index,
    pub threads: Index,
    pub blocks: Index,
    /// The first so many operands may be written, all may be read.
    pub writable: u32,
    pub operands: u32,
    /// Blocks of a cluster.
    pub cluster: u32,
    pub operand: *const Operand,
    pub dynamic_shared: *mut u8,
    pub dynamic_bytes: u64,
    pub static_shared: *mut u8,
    pub static_bytes: u64,
    /// Steps that are left before the block is taken for one that never ends.
    pub fuse: u64,
    pub failure: Failure,
    pub suspend: unsafe extern "C-unwind" fn(*mut Block),
    pub declare_shared: unsafe extern "C-unwind" fn(
        *mut Block,
        *const c_void,
        *const c_char,
        u64,
        *const c_char,
        u32,
    ) -> *mut u8,
    pub copy: unsafe extern "C-unwind" fn(*mut Block, *mut u8, *const u8, u32, u32),
    pub commit: unsafe extern "C-unwind" fn(*mut Block),
    pub wait: unsafe extern "C-unwind" fn(*mut Block, u32),
    pub mbarrier: unsafe extern "C-unwind" fn(*mut Block, u32, *mut u64, u32),
    pub tensor_copy: unsafe extern "C-unwind" fn(*mut Block, *const TensorCopy),
    pub wgmma: unsafe extern "C-unwind" fn(*mut Block, *const Product),
    pub wgmma_fence: unsafe extern "C-unwind" fn(*mut Block),
    pub wgmma_commit: unsafe extern "C-unwind" fn(*mut Block),
    pub fence_async_shared: unsafe extern "C-unwind" fn(*mut Block),
}

/// A kernel, as its library exports it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub run: unsafe extern "C-unwind" fn(*const c_void),
    pub most_threads: u32,
    pub argument_bytes: u32,
}

/// Tells a library which block this thread of the host runs.
pub(super) type Enter = unsafe extern "C-unwind" fn(*mut Block);
