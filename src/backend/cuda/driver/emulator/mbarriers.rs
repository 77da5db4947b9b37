//! Barriers in shared memory that count threads and bytes, and the tensor copies whose bytes they wait for.

use super::async_view::AsyncView;
use super::tensor_copies::TensorCopy;

/// Most arrivals and bytes of a phase, as on a card.
const MOST: u32 = (1 << 20) - 1;

/// Who comes from another block of the cluster, in place of a thread.
pub(super) const REMOTE: u32 = u32::MAX;

/// What lies where a barrier was made, so that a stray write is seen.
const MARK: u64 = 0x6d62_6172_7269_6572;

/// One barrier.
struct Mbarrier {
    word: *mut u64,
    arrivals: u32,
    /// Arrivals that this phase still waits for.
    missing: u32,
    /// Bytes that were announced and have not come. Below zero where they came before they were announced.
    bytes: i64,
    /// Phases that are complete.
    phase: u64,
    maker: u32,
    /// Whether its maker has shown it to others.
    shown: bool,
    waiting: Vec<u32>,
    copies: Vec<TensorCopy>,
}

impl Mbarrier {
    fn parity(&self) -> u32 {
        (self.phase % 2) as u32
    }

    /// Begins the next phase if this one is complete; gives the threads that waited.
    fn advance(&mut self) -> Result<Vec<u32>, String> {
        if self.missing > 0 || self.bytes > 0 {
            return Ok(Vec::new());
        }
        if self.bytes < 0 {
            return Err(format!(
                "all {} have arrived, and {} bytes more than they announced have come",
                self.arrivals, -self.bytes
            ));
        }
        self.phase += 1;
        self.missing = self.arrivals;
        Ok(std::mem::take(&mut self.waiting))
    }

    fn land(&mut self, copy: &TensorCopy, view: &mut AsyncView) -> Result<Vec<u32>, String> {
        if copy.phase != self.phase {
            return Err(format!(
                "its {} bytes come after the phase they were copied in: fewer bytes were announced than are copied",
                copy.bytes()
            ));
        }
        // SAFETY: operands and target were checked when the copy was issued, and the launch still runs.
        unsafe { copy.perform(view) };
        self.bytes -= copy.bytes() as i64;
        self.advance()
    }

    /// What its phase lacks.
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

/// The barriers of one block.
#[derive(Default)]
pub(super) struct Mbarriers {
    barriers: Vec<Mbarrier>,
}

impl Mbarriers {
    /// Begins a block.
    pub fn clear(&mut self) {
        self.barriers.clear();
    }

    fn find(&mut self, word: *const u64, thread: u32) -> Result<&mut Mbarrier, String> {
        let known = self.barriers.iter_mut().find(|barrier| barrier.word.cast_const() == word);
        let barrier = known.ok_or("there is no barrier here: nobody has called mbarrier_init")?;
        // SAFETY: the word checked that these 8 bytes are shared memory.
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

    /// Shows all that a thread made to the others.
    pub fn init_fence(&mut self, thread: u32) {
        self.barriers
            .iter_mut()
            .filter(|barrier| barrier.maker == thread)
            .for_each(|barrier| barrier.shown = true);
    }

    /// One arrival, which announces so many bytes; gives the threads that go on.
    pub fn arrive(&mut self, word: *const u64, bytes: u32, thread: u32) -> Result<Vec<u32>, String> {
        let barrier = self.find(word, thread)?;
        if barrier.missing == 0 {
            return Err(format!(
                "one arrival too many: all {} have come, and the phase waits for {} bytes",
                barrier.arrivals, barrier.bytes
            ));
        }
        if bytes > MOST {
            return Err(format!("{bytes} bytes are announced; a phase may have {MOST}"));
        }
        barrier.missing -= 1;
        barrier.bytes += i64::from(bytes);
        barrier.advance()
    }

    /// Whether a thread must wait until the phase of this parity is complete; it is then among those who wait.
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

    /// Takes up a copy: done at once, or poisoned until somebody must have it; gives the threads that go on.
    pub fn copy(
        &mut self,
        word: *const u64,
        mut copy: TensorCopy,
        lazy: bool,
        view: &mut AsyncView,
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

    /// Barriers that somebody waits at and whose copies are under way.
    pub fn landable(&self) -> Vec<usize> {
        let can_land = |index: &usize| {
            let barrier = &self.barriers[*index];
            !barrier.waiting.is_empty() && !barrier.copies.is_empty()
        };
        (0..self.barriers.len()).filter(can_land).collect()
    }

    /// Does a barrier's copies; gives the threads that go on, or the copy that came wrong and why.
    pub fn land(&mut self, index: usize, view: &mut AsyncView) -> Result<Vec<u32>, (TensorCopy, String)> {
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

    /// What the barrier lacks that a thread waits at.
    pub fn lack(&self, thread: u32) -> Option<String> {
        self.barriers.iter().find(|barrier| barrier.waiting.contains(&thread)).map(Mbarrier::describe)
    }

    /// What a block leaves behind that it may not.
    pub fn leftover(&self) -> Option<String> {
        if let Some(copy) = self.barriers.iter().flat_map(|barrier| &barrier.copies).next() {
            return Some(format!(
                "the block ended while a tensor copy of thread {} ({}) was under way: nobody waited for it",
                copy.thread, copy.place
            ));
        }
        let unequal = self.barriers.iter().find(|barrier| barrier.bytes != 0)?;
        Some(format!("the block ended, and at a barrier of thread {} {}", unequal.maker, unequal.describe()))
    }
}
