//! mbarriers, which count arrivals of threads and bytes, and the TMA loads whose bytes they wait for.

use super::async_proxy::AsyncProxyView;
use super::tma::TmaLoad;

/// Most arrivals and bytes of a phase, as on a GPU.
const MOST: u32 = (1 << 20) - 1;

/// Arrives from another thread block of the cluster, in place of a thread.
pub(super) const REMOTE: u32 = u32::MAX;

/// Content of the 8 bytes of a barrier, so that a stray write is detected.
const MARK: u64 = 0x6d62_6172_7269_6572;

/// One barrier.
struct Mbarrier {
    word: *mut u64,
    arrivals: u32,
    /// Arrivals that this phase still waits for.
    missing: u32,
    /// Bytes that are expected and have not arrived. Below zero where they arrived before they were expected.
    bytes: i64,
    /// Phases that are complete.
    phase: u64,
    maker: u32,
    /// Whether mbarrier_init_fence has made it visible to other threads.
    shown: bool,
    waiting: Vec<u32>,
    copies: Vec<TmaLoad>,
}

impl Mbarrier {
    fn parity(&self) -> u32 {
        (self.phase % 2) as u32
    }

    /// Begins the next phase if this one is complete; returns the threads that waited.
    fn advance(&mut self) -> Result<Vec<u32>, String> {
        if self.missing > 0 || self.bytes > 0 {
            return Ok(Vec::new());
        }
        if self.bytes < 0 {
            return Err(format!(
                "all {} have arrived, and {} bytes more than expected",
                self.arrivals, -self.bytes
            ));
        }
        self.phase += 1;
        self.missing = self.arrivals;
        Ok(std::mem::take(&mut self.waiting))
    }

    fn land(&mut self, copy: &TmaLoad, view: &mut AsyncProxyView) -> Result<Vec<u32>, String> {
        if copy.phase != self.phase {
            return Err(format!(
                "its {} bytes arrive after the phase they were loaded in: fewer bytes are expected (expect_tx) than loaded",
                copy.bytes()
            ));
        }
        // SAFETY: operands and target were checked when the load was issued, and the launch still runs.
        unsafe { copy.perform(view) };
        self.bytes -= copy.bytes() as i64;
        self.advance()
    }

    /// Arrivals and bytes that its phase still waits for.
    fn describe(&self) -> String {
        format!(
            "a phase of parity {} lacks {} of {} arrivals and {} bytes",
            self.parity(),
            self.missing,
            self.arrivals,
            self.bytes
        )
    }
}

/// The barriers of one thread block.
#[derive(Default)]
pub(super) struct Mbarriers {
    barriers: Vec<Mbarrier>,
}

impl Mbarriers {
    /// Begins a thread block.
    pub fn clear(&mut self) {
        self.barriers.clear();
    }

    fn find(&mut self, word: *const u64, thread: u32) -> Result<&mut Mbarrier, String> {
        let known = self.barriers.iter_mut().find(|barrier| barrier.word.cast_const() == word);
        let barrier = known.ok_or("there is no barrier here: nobody has called mbarrier_init")?;
        // SAFETY: the intrinsic checked that these 8 bytes are shared memory.
        if unsafe { word.read() } != MARK ^ word as u64 {
            return Err("something was written over the barrier".into());
        }
        if barrier.maker != thread && !barrier.shown {
            return Err(format!("thread {} made the barrier without mbarrier_init_fence", barrier.maker));
        }
        Ok(barrier)
    }

    /// # Safety
    /// `word` lies in shared memory and is aligned.
    pub unsafe fn init(&mut self, word: *mut u64, arrivals: u32, thread: u32) -> Result<(), String> {
        if arrivals == 0 || arrivals > MOST {
            return Err(format!("a barrier for {arrivals} arrivals; 1 to {MOST} are allowed"));
        }
        if let Some(old) = self.barriers.iter().find(|barrier| barrier.word == word) {
            return Err(format!("there is a barrier already, made by thread {}", old.maker));
        }
        // SAFETY: the caller's promise.
        unsafe { word.write(MARK ^ word as u64) };
        self.barriers.push(Mbarrier {
            word,
            arrivals,
            missing: arrivals,
            bytes: 0,
            phase: 0,
            maker: thread,
            shown: false,
            waiting: Vec::new(),
            copies: Vec::new(),
        });
        Ok(())
    }

    /// Makes all barriers that a thread has initialised visible to the others.
    pub fn init_fence(&mut self, thread: u32) {
        self.barriers
            .iter_mut()
            .filter(|barrier| barrier.maker == thread)
            .for_each(|barrier| barrier.shown = true);
    }

    /// One arrival, which expects `bytes` bytes; returns the threads that go on.
    pub fn arrive(&mut self, word: *const u64, bytes: u32, thread: u32) -> Result<Vec<u32>, String> {
        let barrier = self.find(word, thread)?;
        if barrier.missing == 0 {
            return Err(format!(
                "one arrival too many: all {} have come, and the phase waits for {} bytes",
                barrier.arrivals, barrier.bytes
            ));
        }
        if bytes > MOST {
            return Err(format!("{bytes} bytes are expected; a phase may have {MOST}"));
        }
        barrier.missing -= 1;
        barrier.bytes += i64::from(bytes);
        barrier.advance()
    }

    /// Whether a thread must wait until the phase of this parity is complete; it is then among the waiting threads.
    pub fn wait(&mut self, word: *const u64, parity: u32, thread: u32) -> Result<bool, String> {
        let barrier = self.find(word, thread)?;
        if parity > 1 {
            return Err(format!("a phase has parity 0 or 1, not {parity}"));
        }
        let must_wait = barrier.parity() == parity;
        if must_wait {
            barrier.waiting.push(thread);
        }
        Ok(must_wait)
    }

    /// Adds a load: performed at once, or with its target poisoned until a thread needs it; returns the threads that go on.
    pub fn copy(
        &mut self,
        word: *const u64,
        mut copy: TmaLoad,
        lazy: bool,
        view: &mut AsyncProxyView,
    ) -> Result<Vec<u32>, String> {
        let by = if copy.sender.is_some() { REMOTE } else { copy.thread };
        let barrier = self.find(word, by)?;
        copy.phase = barrier.phase;
        if lazy {
            // SAFETY: the target was checked.
            unsafe { copy.poison(view) };
            barrier.copies.push(copy);
            Ok(Vec::new())
        } else {
            barrier.land(&copy, view)
        }
    }

    /// Barriers at which threads wait and whose loads are in flight.
    pub fn landable(&self) -> Vec<usize> {
        let can_land = |index: &usize| {
            let barrier = &self.barriers[*index];
            !barrier.waiting.is_empty() && !barrier.copies.is_empty()
        };
        (0..self.barriers.len()).filter(can_land).collect()
    }

    /// Performs a barrier's loads; returns the threads that go on, or the load that failed and why.
    pub fn land(&mut self, index: usize, view: &mut AsyncProxyView) -> Result<Vec<u32>, (TmaLoad, String)> {
        let barrier = &mut self.barriers[index];
        let mut woken = Vec::new();
        for copy in std::mem::take(&mut barrier.copies) {
            match barrier.land(&copy, view) {
                Ok(threads) => woken.extend(threads),
                Err(why) => return Err((copy, why)),
            }
        }
        Ok(woken)
    }

    /// The missing arrivals and bytes of the barrier that a thread waits at.
    pub fn lack(&self, thread: u32) -> Option<String> {
        self.barriers.iter().find(|barrier| barrier.waiting.contains(&thread)).map(Mbarrier::describe)
    }

    /// State that a thread block must not leave behind when it ends.
    pub fn leftover(&self) -> Option<String> {
        if let Some(copy) = self.barriers.iter().flat_map(|barrier| &barrier.copies).next() {
            return Some(format!(
                "the block ended while a TMA load of thread {} ({}) was in flight: no thread waited for it",
                copy.thread, copy.place
            ));
        }
        let unequal = self.barriers.iter().find(|barrier| barrier.bytes != 0)?;
        Some(format!("the block ended, and at a barrier of thread {} {}", unequal.maker, unequal.describe()))
    }
}
