//! The async proxy's view of dynamic shared memory, which TMA and WGMMA have: what TMA loads wrote, and ordinary stores that
//! `fence_proxy_async` made visible.
//!
//! Ordinary stores are not tracked. So a WGMMA that finds other bytes than were last seen here asks whether any thread has called
//! the fence since; if so, the new bytes count as visible. That finds a missing fence, not one by the wrong thread.

/// Bytes of a row of a swizzled tile.
const ROW: usize = 128;

/// Memory that nothing has been written to, as in shared memory itself.
const POISON: u8 = 0xff;

/// Dynamic shared memory as the async proxy sees it.
#[derive(Default)]
pub(super) struct AsyncProxyView {
    bytes: Vec<u8>,
    /// Fences before each row was last seen.
    seen: Vec<u64>,
    fences: u64,
    /// First byte of dynamic shared memory.
    first: usize,
}

impl AsyncProxyView {
    /// Begins a thread block.
    pub fn clear(&mut self, first: *const u8) {
        self.bytes.clear();
        self.seen.clear();
        (self.fences, self.first) = (0, first as usize);
    }

    /// Makes the stores of all threads so far visible.
    pub fn fence(&mut self) {
        self.fences += 1;
    }

    /// The rows up to `end`.
    fn reach(&mut self, end: usize) {
        if self.bytes.len() < end {
            self.bytes.resize(end.next_multiple_of(ROW), POISON);
            self.seen.resize(self.bytes.len() / ROW, 0);
        }
    }

    /// A TMA load wrote to an address that begins a row; no effect outside dynamic shared memory.
    ///
    /// # Safety
    /// `bytes` bytes can be read.
    pub unsafe fn copied(&mut self, to: *const u8, bytes: usize) {
        let Some(offset) = (to as usize).checked_sub(self.first) else { return };
        self.reach(offset + bytes);
        // SAFETY: the caller's promise.
        let new = unsafe { std::slice::from_raw_parts(to, bytes) };
        self.bytes[offset..offset + bytes].copy_from_slice(new);
        self.seen[offset / ROW..(offset + bytes).div_ceil(ROW)].fill(self.fences);
    }

    /// A WGMMA reads some bytes of one row.
    ///
    /// # Errors
    /// They were written by ordinary stores, and no fence came since.
    ///
    /// # Safety
    /// `shared` is the first byte of dynamic shared memory, which has this row.
    pub unsafe fn read(&mut self, shared: *const u8, offset: usize, bytes: usize) -> Result<(), String> {
        let row = offset / ROW;
        self.reach((row + 1) * ROW);
        // SAFETY: the caller's promise.
        let now = unsafe { std::slice::from_raw_parts(shared.add(row * ROW), ROW) };
        let within = offset % ROW..offset % ROW + bytes;
        let known = &mut self.bytes[row * ROW..][..ROW];
        if now[within.clone()] == known[within] {
            return Ok(());
        }
        if self.seen[row] == self.fences {
            return Err(format!(
                "reads byte {offset} of dynamic shared memory, which ordinary stores wrote; fence_proxy_async by those \
                 threads, and a barrier, must come between"
            ));
        }
        known.copy_from_slice(now);
        self.seen[row] = self.fences;
        Ok(())
    }
}
