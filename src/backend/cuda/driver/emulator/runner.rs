//! Runs one block after another: a fiber for every thread, resumed until all have ended.
//!
//! Between two meeting points the threads of a warp run one after the other, in the chosen [`Order`](super::Order), and
//! a warp runs until it waits for the block. Since all lanes of a warp must come to the same place before any goes on,
//! every mistake shows at the moment when no lane of the warp can run.

use std::ffi::{c_char, c_void};
use std::io;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use corosensei::Coroutine;
use corosensei::stack::DefaultStack;

use super::abi::{Block, Enter, Entry, Failure, Index, Lane, MOST_THREADS, Operand, WARP, state, wrong};
use super::copies::Copies;
use super::errors::{Problem, Stop};
use super::order::Scheduler;
use super::shared::SharedMemory;
use super::{Copies as Time, Order};
use crate::backend::cuda::driver::Geometry;
use crate::error::{Error, Result};

/// Bytes of a fiber's stack, four times the largest frame that compiles. A guard page lies below it.
const STACK_BYTES: usize = 128 << 10;

/// What all blocks of a launch have in common.
pub(super) struct Job<'a> {
    pub entry: Entry,
    pub enter: Enter,
    pub arguments: *const c_void,
    pub geometry: Geometry,
    pub operands: &'a [Operand],
    pub writable: usize,
    pub order: Order,
    pub copies: Time,
}

// SAFETY: the pointer is to constant bytes that outlive the launch.
unsafe impl Sync for Job<'_> {}

/// The block as kernels see it, and what the words' other side needs. It stays at one place: fibers point to it.
#[repr(C)]
struct Running {
    /// First: kernels hold a pointer to it, and callbacks get back to the whole by it.
    block: Block,
    run: Option<unsafe extern "C-unwind" fn(*const c_void)>,
    arguments: *const c_void,
    lanes: Vec<Lane>,
    copies: Vec<Copies>,
    lazy: bool,
    shared: SharedMemory,
}

type Fiber = Coroutine<(), (), (), DefaultStack>;

/// Fibers, shared memory and all else that one block needs, used again for the next.
pub(super) struct Runner {
    running: *mut Running,
    fibers: Vec<Fiber>,
    /// Lanes of a warp, in the order they run in.
    lanes: [u32; WARP],
    /// Warps that can run, lowest first.
    ready: Vec<usize>,
}

// SAFETY: a runner changes threads only between blocks, when every fiber is parked at the top of its loop, in frames of
// this file that hold nothing of a thread.
unsafe impl Send for Runner {}

/// Runners that nobody uses at the moment.
static PARKED: Mutex<Vec<Runner>> = Mutex::new(Vec::new());

/// Lends a runner to `use_it`.
pub(super) fn with_runner<T>(use_it: impl FnOnce(&mut Runner) -> T) -> Result<T> {
    let parked = || PARKED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut runner = match parked().pop() {
        Some(runner) => runner,
        None => Runner::new().map_err(no_memory)?,
    };
    let result = use_it(&mut runner);
    parked().push(runner);
    Ok(result)
}

fn no_memory(e: io::Error) -> Error {
    Error::invalid(format!("no memory for the emulator's threads: {e}; run fewer at once, or smaller blocks"))
}

impl Runner {
    fn new() -> io::Result<Runner> {
        let lane = |i| Lane {
            thread: Index { x: i as u32, y: 0, z: 0 },
            state: state::DONE,
            file: ptr::null(),
            what: ptr::null(),
            line: 0,
            unused: 0,
            complete: None,
            operands: ptr::null_mut(),
            yielder: ptr::null(),
        };
        let mut shared = SharedMemory::new()?;
        let [static_shared, dynamic_shared] = shared.addresses();
        let running = Box::new(Running {
            block: Block {
                lane: ptr::null_mut(),
                block: Index::default(),
                threads: Index::default(),
                blocks: Index::default(),
                writable: 0,
                operands: 0,
                unused: 0,
                operand: ptr::null(),
                dynamic_shared,
                dynamic_bytes: 0,
                static_shared,
                static_bytes: 0,
                failure: Failure::NONE,
                suspend,
                declare_shared,
                copy,
                commit,
                wait,
            },
            run: None,
            arguments: ptr::null(),
            lanes: (0..MOST_THREADS).map(lane).collect(),
            copies: (0..MOST_THREADS).map(|_| Copies::default()).collect(),
            lazy: false,
            shared,
        });
        let mut lanes = [0; WARP];
        (0..).zip(&mut lanes).for_each(|(i, lane)| *lane = i);
        Ok(Runner { running: Box::into_raw(running), fibers: Vec::new(), lanes, ready: Vec::new() })
    }

    /// Takes up a launch, on the thread of the host that will run its blocks.
    pub fn begin_launch(&mut self, job: &Job<'_>) -> Result<()> {
        while self.fibers.len() < job.geometry.threads as usize {
            let stack = DefaultStack::new(STACK_BYTES).map_err(no_memory)?;
            self.fibers.push(self.fiber(stack, self.fibers.len()));
        }
        let [x, y, z] = job.geometry.grid;
        // SAFETY: no fiber runs, so nobody else uses what `running` points to.
        let running = unsafe { &mut *self.running };
        running.run = Some(job.entry.run);
        running.arguments = job.arguments;
        running.lazy = job.copies == Time::Lazy;
        running.shared.begin_launch(job.geometry.shared_bytes as usize);
        let block = &mut running.block;
        block.threads = Index { x: job.geometry.threads, y: 1, z: 1 };
        block.blocks = Index { x, y, z };
        block.operand = job.operands.as_ptr();
        block.operands = job.operands.len() as u32;
        block.writable = job.writable as u32;
        block.dynamic_bytes = u64::from(job.geometry.shared_bytes);
        block.static_bytes = 0;
        // SAFETY: the library keeps the pointer for this thread only and uses it while a kernel runs.
        unsafe { (job.enter)(&raw mut running.block) };
        Ok(())
    }

    /// Runs one block to its end.
    pub fn run(&mut self, job: &Job<'_>, position: u64) -> Result<(), Box<Stop>> {
        let [x, y, _] = job.geometry.grid.map(u64::from);
        let block =
            Index { x: (position % x) as u32, y: (position / x % y) as u32, z: (position / (x * y)) as u32 };
        let threads = job.geometry.threads as usize;
        // SAFETY: no fiber runs.
        let running = unsafe { &mut *self.running };
        running.block.block = block;
        running.shared.begin_block();
        running.copies[..threads].iter_mut().for_each(Copies::clear);
        let mut scheduler = Scheduler::new(job.order, position);
        let result = self.until_all_end(threads, &mut scheduler).and_then(|()| {
            // SAFETY: all fibers are parked.
            match unsafe { &*self.running }.shared.damage() {
                Some(place) => Err(Problem::SharedMemoryDamaged { place }),
                None => Ok(()),
            }
        });
        result.map_err(|problem| {
            self.abandon(threads);
            Box::new(Stop { block, problem })
        })
    }

    fn until_all_end(&mut self, threads: usize, scheduler: &mut Scheduler) -> Result<(), Problem> {
        let warps = threads / WARP;
        loop {
            // From one barrier to the next.
            self.ready.clear();
            self.ready.extend(0..warps);
            while !self.ready.is_empty() {
                let next = scheduler.pick(self.ready.len());
                if self.run_warp(self.ready[next], scheduler)? != state::AT_COLLECTIVE {
                    self.ready.remove(next);
                }
            }
            // SAFETY: no fiber runs.
            let lanes = unsafe { &(&(*self.running).lanes)[..threads] };
            let ended = lanes.iter().filter(|lane| lane.state == state::DONE).count();
            if ended == threads {
                return Ok(());
            }
            if ended > 0 {
                return Err(Problem::apart(lanes, state::AT_BARRIER));
            }
        }
    }

    /// Runs every lane of a warp to its next meeting point; gives the one where all are now.
    fn run_warp(&mut self, warp: usize, scheduler: &mut Scheduler) -> Result<u32, Problem> {
        scheduler.arrange(&mut self.lanes);
        let running = self.running;
        // SAFETY: `running` is alive; fibers and this function use it in turns, through raw pointers.
        unsafe {
            let first = (&raw mut (*running).lanes).as_mut().unwrap_unchecked().as_mut_ptr().add(warp * WARP);
            for &lane in &self.lanes {
                let lane = first.add(lane as usize);
                (*lane).state = state::RUNNING;
                (*running).block.lane = lane;
                self.fibers[(*lane).thread.x as usize].resume(());
                if (*running).block.failure.wrong != wrong::NOTHING {
                    return Err(Problem::Failure {
                        failure: (*running).block.failure,
                        thread: (*lane).thread.x,
                    });
                }
            }
            let lanes = std::slice::from_raw_parts(first, WARP);
            let (at, line, complete) = (lanes[0].state, lanes[0].line, lanes[0].complete);
            let same = match at {
                state::AT_COLLECTIVE => lanes.iter().all(|lane| {
                    (lane.state, lane.line, lane.what, lane.file) == (at, line, lanes[0].what, lanes[0].file)
                }),
                _ => lanes.iter().all(|lane| lane.state == at),
            };
            if !same {
                return Err(Problem::apart(lanes, at));
            }
            if let (state::AT_COLLECTIVE, Some(complete)) = (at, complete) {
                complete(first);
            }
            Ok(at)
        }
    }

    /// A fiber that runs the launch's kernel once each time it is resumed from its parking place.
    fn fiber(&self, stack: DefaultStack, thread: usize) -> Fiber {
        let running = self.running;
        Coroutine::with_stack(stack, move |yielder, ()| {
            loop {
                // SAFETY: `running` outlives the fiber, and `run` was set before the fiber was resumed. The kernel
                // checks its accesses to global memory; nothing here needs to be dropped if it never returns.
                unsafe {
                    let lane =
                        (&raw mut (*running).lanes).as_mut().unwrap_unchecked().as_mut_ptr().add(thread);
                    (*lane).yielder = yielder;
                    if let Some(run) = (*running).run {
                        run((*running).arguments);
                    }
                    (*lane).state = state::DONE;
                }
                yielder.suspend(());
            }
        })
    }

    /// Gives up fibers that stopped in the middle of a kernel: new ones take over their stacks.
    fn abandon(&mut self, threads: usize) {
        let rest = self.fibers.split_off(threads);
        let stopped = std::mem::replace(&mut self.fibers, Vec::with_capacity(threads + rest.len()));
        for (thread, mut fiber) in stopped.into_iter().enumerate() {
            // SAFETY: on its stack are frames of kernels, which have nothing to drop, and of this file, which
            // hold only pointers.
            unsafe { fiber.force_reset() };
            let fiber = self.fiber(fiber.into_stack(), thread);
            self.fibers.push(fiber);
        }
        self.fibers.extend(rest);
        // SAFETY: no fiber runs.
        unsafe { (*self.running).block.failure = Failure::NONE };
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        for mut fiber in self.fibers.drain(..) {
            // SAFETY: as in `abandon`.
            unsafe { fiber.force_reset() };
        }
        // SAFETY: made by Box::into_raw in `new`; no fiber is left.
        drop(unsafe { Box::from_raw(self.running) });
    }
}

unsafe extern "C-unwind" fn suspend(block: *mut Block) {
    // SAFETY: called by the running lane's fiber, which stored its yielder before it entered the kernel.
    unsafe { (*(*(*block).lane).yielder).suspend(()) }
}

unsafe extern "C-unwind" fn declare_shared(
    block: *mut Block,
    key: *const c_void,
    name: *const c_char,
    bytes: u64,
    file: *const c_char,
    line: u32,
) -> *mut u8 {
    // SAFETY: the block is the first field of a `Running`, and only this fiber runs.
    unsafe {
        let running = block.cast::<Running>();
        let shared = &raw mut (*running).shared;
        let shared = &mut *shared;
        match shared.declare(key, name, bytes) {
            Ok(address) => {
                (*block).static_bytes = shared.declared_extent();
                address
            }
            Err(total) => {
                (*block).failure =
                    Failure { wrong: wrong::STATIC_SHARED, line, file, what: name, address: 0, bytes: total };
                loop {
                    suspend(block);
                }
            }
        }
    }
}

/// The copies of the lane that runs.
///
/// # Safety
/// Called from that lane's fiber; the reference ends before the fiber is suspended.
unsafe fn copies<'a>(block: *mut Block) -> &'a mut Copies {
    // SAFETY: as in `declare_shared`; a lane's `thread` is its index.
    unsafe {
        let copies = &raw mut (*block.cast::<Running>()).copies;
        &mut (&mut *copies)[(*(*block).lane).thread.x as usize]
    }
}

unsafe extern "C-unwind" fn copy(block: *mut Block, to: *mut u8, from: *const u8, bytes: u32, valid: u32) {
    let from = if valid != 0 { from } else { ptr::null() };
    // SAFETY: both addresses were checked by the word; memory and shared memory outlive the launch.
    unsafe { copies(block).issue(to, from, bytes as usize, (*block.cast::<Running>()).lazy) }
}

unsafe extern "C-unwind" fn commit(block: *mut Block) {
    // SAFETY: called by the running lane's fiber.
    unsafe { copies(block).commit() }
}

unsafe extern "C-unwind" fn wait(block: *mut Block, pending: u32) {
    // SAFETY: called by the running lane's fiber; see `copy`.
    unsafe { copies(block).wait(pending as usize) }
}
