//! Copies to the device that do not wait for it: bytes go into a ring of pinned memory, from where the device fetches them.
//!
//! A small upload is fetched in the stream of the work. A large one, as a batch of images, is fetched in a stream of its own, the copy
//! stream, while the work queued before it still runs: into a staging ring in device memory, with the same places as the pinned one. In
//! the stream of the work it is then moved from there to its place, at the speed of device memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys;

use super::library::check;
use super::memory::{Pinned, zeroed};
use super::stream::{Stream, StreamEvent};
use crate::backend::cuda::driver::Memory;
use crate::error::Result;

/// Bytes of the ring at first.
const CAPACITY: usize = 32 << 20;
/// Uploads that the ring has room for where they are all of one size, as batches are: one on its way to its place, one in the ring, one
/// that is being written.
const UPLOADS_IN_FLIGHT: usize = 3;
/// Bytes of the ring at most, which are locked in the host's memory; larger batches wait for each other.
const MOST_CAPACITY: usize = 512 << 20;
/// A larger upload goes in pieces of this size, so that one is filled while another is fetched.
const PIECE: usize = 8 << 20;
/// Uploads of at least this many bytes go by the copy stream: it costs two events and a second copy, which fetching less would not be
/// worth. Chosen, not measured.
const LARGE: usize = 256 << 10;
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

/// Large uploads' way to the device.
struct CopyStream {
    /// The staging ring in device memory.
    memory: Memory,
    stream: Arc<Stream>,
    /// The newest piece has arrived there.
    arrived: StreamEvent,
}

/// The ring and its memory, which is locked at the first upload.
pub struct Staging {
    ring: Ring<StreamEvent>,
    pinned: Option<Pinned>,
    /// Made at the first large upload.
    copies: Option<CopyStream>,
    /// Events that are over, to be used again.
    idle: Vec<StreamEvent>,
    /// Bytes of the last large upload.
    last_large: usize,
    /// How long a wait may take, where a user says so.
    timeout: Option<Duration>,
}

impl Staging {
    /// Nothing under way; `timeout` is how long a wait may take, where a user says so.
    pub fn new(timeout: Option<Duration>) -> Staging {
        let ring = Ring::new(CAPACITY);
        Staging { ring, pinned: None, copies: None, idle: Vec::new(), last_large: 0, timeout }
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
        let large = bytes.len() >= LARGE;
        if large {
            self.make_room(bytes.len())?;
        }
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            self.upload_piece(stream, to + (index * PIECE) as u64, piece, large)?;
        }
        Ok(())
    }

    /// Enlarges the ring where large uploads of one size follow each other, so that none waits for the work that reads the one before.
    fn make_room(&mut self, bytes: usize) -> Result<()> {
        let repeated = std::mem::replace(&mut self.last_large, bytes) == bytes;
        let wanted = capacity_for(bytes);
        if !repeated || wanted <= self.ring.capacity {
            return Ok(());
        }
        while !self.ring.pending.is_empty() {
            self.finish_oldest()?;
        }
        self.pinned = None;
        self.copies = None;
        self.ring = Ring::new(wanted);
        Ok(())
    }

    /// Waits until the oldest piece is in its place.
    fn finish_oldest(&mut self) -> Result<()> {
        if let Some((_, event)) = self.ring.pending.front() {
            event.wait()?;
        }
        self.idle.extend(self.ring.pending.pop_front().map(|(_, event)| event));
        Ok(())
    }

    fn upload_piece(&mut self, stream: &Arc<Stream>, to: u64, piece: &[u8], large: bool) -> Result<()> {
        let context = stream.enter()?;
        let start = loop {
            if let Some(start) = self.ring.place(piece.len()) {
                break start;
            }
            self.finish_oldest()?;
        };
        let over = match self.idle.pop() {
            Some(event) => event,
            None => StreamEvent::new(stream, false)?,
        };
        let pinned = match &mut self.pinned {
            Some(pinned) => pinned,
            none => none.insert(Pinned::new(context, self.ring.capacity)?),
        };
        // SAFETY: the ring gives only places whose events are over.
        unsafe { pinned.write(start, piece) };
        // SAFETY of both calls: the ranges have `piece.len()` bytes; the ring keeps the pinned one until the event.
        let fetch = |to: u64, stream: &Stream| unsafe {
            let result = sys::cuMemcpyHtoDAsync_v2(
                to,
                pinned.at(start).cast_const().cast(),
                piece.len(),
                stream.handle(),
            );
            check(result, "copy to the GPU")
        };
        if large {
            let copies = match &mut self.copies {
                Some(copies) => copies,
                none => none.insert(CopyStream::new(stream, self.ring.capacity, self.timeout)?),
            };
            let staged = copies.memory.range(start, piece.len())?;
            fetch(staged, &copies.stream)?;
            copies.arrived.record()?;
            stream.wait_for(&copies.arrived)?;
            // SAFETY: both ranges have `piece.len()` bytes of device memory; the ring keeps the staged one until the event.
            let result = unsafe { sys::cuMemcpyDtoDAsync_v2(to, staged, piece.len(), stream.handle()) };
            check(result, "copy within the GPU")?;
        } else {
            fetch(to, stream)?;
        }
        over.record()?;
        self.ring.take(start, piece.len(), over);
        Ok(())
    }
}

impl CopyStream {
    fn new(work: &Arc<Stream>, bytes: usize, timeout: Option<Duration>) -> Result<CopyStream> {
        let memory = zeroed(work, bytes)?;
        // The zeros are there before the first piece is.
        work.synchronise()?;
        let stream = Arc::new(Stream::new(work.enter()?.clone(), timeout)?);
        let arrived = StreamEvent::new(&stream, false)?;
        Ok(CopyStream { memory, stream, arrived })
    }
}

/// Bytes of a ring for large uploads of this size.
fn capacity_for(bytes: usize) -> usize {
    // A piece that does not fit behind the last begins anew, and leaves less than its size unused.
    (UPLOADS_IN_FLIGHT * bytes.next_multiple_of(ALIGNMENT) + PIECE).clamp(CAPACITY, MOST_CAPACITY)
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
    fn a_ring_for_batches_has_room_for_three_of_them_wherever_it_begins() {
        for bytes in [LARGE, 6_291_456, 38_535_168, 77_070_336 + 3] {
            let mut ring = Ring::new(capacity_for(bytes));
            for batch in 0..20 {
                for piece in (0..bytes).step_by(PIECE).map(|first| PIECE.min(bytes - first)) {
                    // Of tickets, which are numbers of batches, those are over that lie three back.
                    while ring.pending.front().is_some_and(|&(_, ticket)| ticket + UPLOADS_IN_FLIGHT <= batch)
                    {
                        ring.pending.pop_front();
                    }
                    let start = ring.place(piece).unwrap_or_else(|| panic!("batch {batch} of {bytes}"));
                    ring.take(start, piece, batch);
                }
            }
        }
        assert_eq!(capacity_for(1 << 30), MOST_CAPACITY);
    }

    #[test]
    fn a_piece_fits_the_ring_with_room_for_others() {
        assert!(PIECE * 2 < CAPACITY && PIECE.is_multiple_of(ALIGNMENT));
        assert_eq!(Ring::<()>::new(CAPACITY).place(CAPACITY + 1), None);
    }
}
