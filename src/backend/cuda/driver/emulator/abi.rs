//! What a compiled kernel and this program know of each other: the structs of `kernels/emulated.cuh`, field by field.

use std::ffi::{c_char, c_void};

use corosensei::Yielder;

/// Raised whenever a struct here changes; a kernel folder with an older `emulated.cuh` is refused.
pub(super) const VERSION: u32 = 1;

/// Threads of a warp.
pub(super) const WARP: usize = 32;

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
    // 1 is a read of global memory, which needs no name here.
    pub const GLOBAL_WRITE: u32 = 2;
    pub const SHARED_ADDRESS: u32 = 3;
    pub const DYNAMIC_SHARED: u32 = 4;
    /// Found on this side: too much is declared with `SHARED`.
    pub const STATIC_SHARED: u32 = 5;
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
    pub unused: u32,
    pub operand: *const Operand,
    pub dynamic_shared: *mut u8,
    pub dynamic_bytes: u64,
    pub static_shared: *mut u8,
    pub static_bytes: u64,
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
