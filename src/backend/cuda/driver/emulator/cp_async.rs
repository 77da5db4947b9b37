//! cp.async of one thread: issued, committed in groups, waited for.

use std::collections::VecDeque;
use std::ptr;

/// One copy in flight; where `from` is null, zeros.
struct Copy {
    to: *mut u8,
    from: *const u8,
    bytes: usize,
}

impl Copy {
    /// # Safety
    /// Both places were checked when the copy was issued and are still there.
    unsafe fn perform(&self) {
        // SAFETY: as the caller promises; `to` is shared memory, `from` global, so they cannot overlap.
        unsafe {
            if self.from.is_null() {
                ptr::write_bytes(self.to, 0, self.bytes);
            } else {
                ptr::copy_nonoverlapping(self.from, self.to, self.bytes);
            }
        }
    }
}

/// The copies of one thread that are in flight, oldest first.
#[derive(Default)]
pub(super) struct Copies {
    copies: VecDeque<Copy>,
    /// Number of copies in each committed group.
    groups: VecDeque<usize>,
    /// Copies since the last commit.
    open: usize,
}

impl Copies {
    /// Issues a copy. If `lazy`, it is done when it is waited for, and its target is NaN until then.
    ///
    /// # Safety
    /// `to` is writable and `from` null or readable for `bytes` bytes until the copy is done or dropped.
    pub unsafe fn issue(&mut self, to: *mut u8, from: *const u8, bytes: usize, lazy: bool) {
        let copy = Copy { to, from, bytes };
        if lazy {
            // SAFETY: the caller's promise.
            unsafe { ptr::write_bytes(to, 0xff, bytes) };
            self.copies.push_back(copy);
            self.open += 1;
        } else {
            // SAFETY: the caller's promise.
            unsafe { copy.perform() };
        }
    }

    /// Commits the group of copies issued since the last commit; it may be empty.
    pub fn commit(&mut self) {
        self.groups.push_back(self.open);
        self.open = 0;
    }

    /// Does all copies but those of the latest `pending` groups, and those not committed.
    ///
    /// # Safety
    /// As for [`Copies::issue`].
    pub unsafe fn wait(&mut self, pending: usize) {
        while self.groups.len() > pending {
            let group = self.groups.pop_front().unwrap_or(0);
            for copy in self.copies.drain(..group) {
                // SAFETY: the caller's promise.
                unsafe { copy.perform() };
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.copies.clear();
        self.groups.clear();
        self.open = 0;
    }
}
