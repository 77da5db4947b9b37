//! The interface between a compiled kernel and this program: the structs of `kernels/intrinsics/emulated.cuh`, field by field.

use std::ffi::{c_char, c_void};

use corosensei::Yielder;

/// Raised whenever a struct here changes; a kernel folder with an older `intrinsics/emulated.cuh` is refused.
pub(super) const VERSION: u32 = 4;

/// Threads of a warp.
pub(super) const WARP: usize = 32;

/// Threads of a warpgroup: four warps, the first a multiple of four.
pub(super) const WARPGROUP: usize = 128;

/// Threads of the largest thread block.
pub(super) const MOST_THREADS: usize = 1024;

/// A position in a thread block or a grid.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub x: u32,
    pub y: u32,
    pub z: u32,
}

/// The state of a thread. (A plain number: C++ writes it.)
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

/// Operands of a thread that waits at a named barrier or for its warpgroup. (Plain numbers: C++ writes them.)
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BarrierOperands {
    /// The named barrier's number, or one of [`warpgroup_operation`].
    pub kind: u32,
    /// Threads of the named barrier, wgmma groups that may be in flight, or registers.
    pub value: u32,
}

/// Collective operations of a warpgroup.
pub(super) mod warpgroup_operation {
    pub const WGMMA_WAIT: u32 = 0;
    pub const SETMAXNREG_DEC: u32 = 1;
    pub const SETMAXNREG_INC: u32 = 2;
}

/// Operations on mbarriers.
pub(super) mod mbarrier {
    pub const INIT: u32 = 0;
    pub const INIT_FENCE: u32 = 1;
    pub const ARRIVE: u32 = 2;
    pub const ARRIVE_EXPECT_TX: u32 = 3;
    pub const WAIT: u32 = 4;
    pub const ARRIVE_REMOTE: u32 = 5;
}

/// A TMA load as an intrinsic requests it; a null `to` only prefetches the tensor map.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct TmaLoad {
    pub to: *mut u8,
    pub map: *const u64,
    pub barrier: *mut u64,
    /// Innermost first.
    pub coordinates: [i32; 5],
    pub rank: u32,
    /// In w and h.
    pub offsets: [u32; 2],
    pub im2col: u32,
    /// Multicast: [`MULTICAST`] and a bit for the rank of each destination; else 0.
    pub ranks: u32,
}

/// Marks a load as a multicast.
pub(super) const MULTICAST: u32 = 1 << 16;

/// A WGMMA instruction as one thread of the warpgroup issues it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Wgmma {
    /// The thread's accumulators.
    pub accumulators: *mut f32,
    /// Descriptors of both tiles.
    pub a: u64,
    pub b: u64,
    /// Columns of b and of the accumulators: N.
    pub columns: u32,
    pub add: u32,
    /// Whether the tiles are MN-major.
    pub a_mn_major: u32,
    pub b_mn_major: u32,
    /// Multiplies both tiles in dynamic shared memory, and adds the product to 64 rows of accumulators.
    pub multiply: unsafe extern "C-unwind" fn(*const u8, u64, u64, *mut f32),
}

/// One thread of a thread block.
#[repr(C)]
pub(super) struct Lane {
    pub thread: Index,
    pub state: u32,
    /// Where and in which intrinsic it waits.
    pub file: *const c_char,
    pub what: *const c_char,
    pub line: u32,
    pub unused: u32,
    /// Completes the exchange of a warp; null where lanes only wait for each other.
    pub complete: Option<unsafe extern "C-unwind" fn(*mut Lane)>,
    pub operands: *mut c_void,
    pub yielder: *const Yielder<(), ()>,
}

/// A part of global memory that a launch may access.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operand {
    pub first: u64,
    pub bytes: u64,
}

/// The kind of an error in a thread. (A plain number: C++ writes it.)
pub(super) mod wrong {
    pub const NOTHING: u32 = 0;
    pub const GLOBAL_READ: u32 = 1;
    pub const GLOBAL_WRITE: u32 = 2;
    pub const SHARED_ADDRESS: u32 = 3;
    pub const DYNAMIC_SHARED: u32 = 4;
    pub const SPINNING: u32 = 5;
    /// Found on this side: too much is declared with `SHARED`.
    pub const STATIC_SHARED: u32 = 6;
    /// Found on this side, with a text.
    pub const COMPLAINT: u32 = 7;
}

/// The error of a thread.
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

/// One thread block, and this program's side of the intrinsics.
#[repr(C)]
pub(super) struct Block {
    pub lane: *mut Lane,
    pub block: Index,
    pub threads: Index,
    pub blocks: Index,
    /// Operands that may be written, which come first; all may be read.
    pub writable: u32,
    pub operands: u32,
    /// Thread blocks of a cluster.
    pub cluster: u32,
    pub operand: *const Operand,
    pub dynamic_shared: *mut u8,
    pub dynamic_bytes: u64,
    pub static_shared: *mut u8,
    pub static_bytes: u64,
    /// Steps left before the thread block is taken for one that never ends.
    pub steps_left: u64,
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
    pub cp_async: unsafe extern "C-unwind" fn(*mut Block, *mut u8, *const u8, u32, u32),
    pub cp_async_commit: unsafe extern "C-unwind" fn(*mut Block),
    pub cp_async_wait: unsafe extern "C-unwind" fn(*mut Block, u32),
    pub mbarrier: unsafe extern "C-unwind" fn(*mut Block, u32, *mut u64, u32),
    pub tma_load: unsafe extern "C-unwind" fn(*mut Block, *const TmaLoad),
    pub wgmma: unsafe extern "C-unwind" fn(*mut Block, *const Wgmma),
    pub wgmma_fence: unsafe extern "C-unwind" fn(*mut Block),
    pub wgmma_commit: unsafe extern "C-unwind" fn(*mut Block),
    pub fence_proxy_async: unsafe extern "C-unwind" fn(*mut Block),
}

/// A kernel, as its library exports it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub run: unsafe extern "C-unwind" fn(*const c_void),
    pub most_threads: u32,
    pub argument_bytes: u32,
}

/// Tells a library which thread block this host thread runs.
pub(super) type Enter = unsafe extern "C-unwind" fn(*mut Block);
