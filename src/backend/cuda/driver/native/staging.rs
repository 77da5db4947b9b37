//! Copies to the device that do not wait: bytes go into a ring of pinned memory, from where the device fetches them.

use std::collections::VecDeque;
use std::sync::Arc;

use cudarc::driver::sys;

use super::library::check;
use super::memory::Pinned;
use super::stream::{Stream, StreamEvent};
use crate::backend::cuda::driver::Memory;
use crate::error::Result;

/// Bytes of the ring.
const CAPACITY: usize = 32 << 20;
/// A larger upload goes in pieces of this size, so that one is filled while another is fetched.
const PIECE: usize = 8 << 20;
/// Copies begin at multiples of this.
const ALIGNMENT: usize = 256;
/// Uploads that may be under way at once.
const MOST_PENDING: usize = 256;

/// Which bytes of a ring are taken, each until its ticket is over.
#[derive(Debug)]
struct Ring<T> {
    capacity: usize,
    /// The first byte behind the newest region.
    head: usize,
    /// First bytes and tickets, oldest first.
    pending: VecDeque<(usize, T)>,
}

impl<T> Ring<T> {
    fn new(capacity: usize) -> Ring<T> {
        Ring { capacity, head: 0, pending: VecDeque::new() }
    }

    /// A place for `bytes` bytes beside what is pending; `None` while the oldest must be over first.
    fn place(&self, bytes: usize) -> Option<usize> {
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        let Some(&(oldest, _)) = self.pending.front() else {
            return (bytes <= self.capacity).then_some(0);
        };
        if self.pending.len() >= MOST_PENDING {
            return None;
        }
        // A head that meets the oldest byte would look like an empty ring, so one of them stays behind the other.
        if self.head <= oldest {
            (self.head + bytes < oldest).then_some(self.head)
        } else if self.head + bytes <= self.capacity {
            Some(self.head)
        } else {
            (bytes < oldest).then_some(0)
        }
    }

    /// Takes the bytes from `start` until the ticket is over.
    fn take(&mut self, start: usize, bytes: usize, ticket: T) {
        self.head = start + bytes.next_multiple_of(ALIGNMENT);
        self.pending.push_back((start, ticket));
    }
}

/// The ring and its memory, which is locked at the first upload.
#[derive(Debug)]
pub struct Staging {
    ring: Ring<StreamEvent>,
    pinned: Option<Pinned>,
    /// Events that are over, to be used again.
    idle: Vec<StreamEvent>,
}

impl Staging {
    /// Nothing under way.
    pub fn new() -> Staging {
        Staging { ring: Ring::new(CAPACITY), pinned: None, idle: Vec::new() }
    }

    /// Queues a copy; `bytes` may be reused on return. Waits only for room in the ring.
    pub fn upload(
        &mut self,
        stream: &Arc<Stream>,
        memory: &Memory,
        offset: usize,
        bytes: &[u8],
    ) -> Result<()> {
        stream.refuse_in_capture("copy to the GPU")?;
        let to = memory.range(offset, bytes.len())?;
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            self.upload_piece(stream, to + (index * PIECE) as u64, piece)?;
        }
        Ok(())
    }

    fn upload_piece(&mut self, stream: &Arc<Stream>, to: u64, piece: &[u8]) -> Result<()> {
        let context = stream.enter()?;
        let start = loop {
            if let Some(start) = self.ring.place(piece.len()) {
                break start;
            }
            let (_, event) = self.ring.pending.pop_front().expect("a piece fits an empty ring");
            event.wait()?;
            self.idle.push(event);
        };
        let event = match self.idle.pop() {
            Some(event) => event,
            None => StreamEvent::new(stream, false)?,
        };
        let pinned = match &mut self.pinned {
            Some(pinned) => pinned,
            none => none.insert(Pinned::new(context, CAPACITY)?),
        };
        // SAFETY: the ring gives only places whose events are over.
        unsafe { pinned.write(start, piece) };
        // SAFETY: both ranges have `piece.len()` bytes; the ring keeps the pinned one until the event.
        let result = unsafe {
            sys::cuMemcpyHtoDAsync_v2(to, pinned.at(start).cast_const().cast(), piece.len(), stream.handle())
        };
        check(result, "copy to the GPU")?;
        event.record()?;
        self.ring.take(start, piece.len(), event);
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The memory must outlive the copies out of it.
        for (_, event) in &self.ring.pending {
            let _ = event.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream as Random};

    #[test]
    fn places_never_overlap_what_is_pending_and_room_is_found_once_it_is_over() {
        const SMALL: usize = 16 * ALIGNMENT;
        let mut ring = Ring::new(SMALL);
        let random = Random::for_purpose(3, Purpose::Synthetic, &[]);
        let (mut waits, mut wraps, mut last) = (0, 0, 0);
        for step in 0..5000 {
            let bytes = 1 + (random.uniform(step) * (SMALL / 2) as f64) as usize;
            let start = loop {
                if let Some(start) = ring.place(bytes) {
                    break start;
                }
                waits += 1;
                // Tickets are the ends of the regions.
                ring.pending.pop_front().expect("an empty ring has room for half of it");
            };
            assert!(start + bytes <= SMALL && start.is_multiple_of(ALIGNMENT));
            for &(first, end) in &ring.pending {
                assert!(
                    start + bytes <= first || start >= end,
                    "step {step}: {start} overlaps {first}..{end}"
                );
            }
            wraps += usize::from(start < last);
            last = start;
            ring.take(start, bytes, start + bytes);
        }
        assert!(waits > 1000 && wraps > 100, "{waits} waits, {wraps} times round");
    }

    #[test]
    fn tiny_uploads_wait_before_they_are_too_many() {
        let mut ring = Ring::new(CAPACITY);
        for ticket in 0..MOST_PENDING {
            let start = ring.place(4).unwrap();
            ring.take(start, 4, ticket);
        }
        assert_eq!(ring.place(4), None);
        ring.pending.pop_front();
        assert!(ring.place(4).is_some());
    }

    #[test]
    fn a_piece_fits_the_ring_with_room_for_others() {
        assert!(PIECE * 2 < CAPACITY && PIECE.is_multiple_of(ALIGNMENT));
        assert_eq!(Ring::<()>::new(CAPACITY).place(CAPACITY + 1), None);
    }
}
