//! Lifetimes of buffers, and their offsets in one arena.
//!
//! Two buffers may share bytes when they are never alive at the same call. Offsets are assigned largest buffer first,
//! each at the lowest place free over its whole lifetime (Pisarchyk & Lee, "Efficient memory management for deep neural
//! net inference", 2020, greedy by size); for ResNets this lands within a few percent of the peak of live bytes.
//!
//! The inputs that the host writes before a step lie side by side, so that one copy carries them all.

use std::collections::HashSet;

use super::{BufferId, Plan, Storage};
use crate::ops::{Access, Call, CallConfig, Device, Operand};
use crate::tensor::{DType, Span, aligned};

/// The calls between which a buffer holds something: first write to last use, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Index of the first call that touches it.
    pub first: usize,
    /// Index of the last one.
    pub last: usize,
}

impl Lifetime {
    fn overlaps(self, other: Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Where every buffer and workspace of a plan lies.
#[derive(Debug, Clone)]
pub struct Layout {
    /// A span for each buffer, by id.
    pub spans: Vec<Span>,
    /// How each setup call is carried out, and its scratch memory.
    pub setup: Vec<(CallConfig, Span)>,
    /// How each call is carried out, and its scratch memory.
    pub calls: Vec<(CallConfig, Span)>,
    /// Bytes of memory needed, the `base` included.
    pub bytes: usize,
}

impl Plan {
    /// When each buffer is alive, by id; `None` for persistent buffers and those no call touches.
    ///
    /// Buffers the host reads or writes, and buffers that setup fills, live through the whole step.
    pub fn lifetimes(&self) -> Vec<Option<Lifetime>> {
        let whole = Lifetime { first: 0, last: self.calls.len() };
        let mut lifetimes: Vec<Option<Lifetime>> =
            self.buffers.iter().map(|b| (b.storage == Storage::Step).then_some(whole)).collect();
        for call in &self.setup {
            for Operand { place: id, .. } in call.operands() {
                lifetimes[id.index()] = Some(whole);
            }
        }
        for (index, call) in self.calls.iter().enumerate() {
            for Operand { place: id, .. } in call.operands() {
                let lifetime = lifetimes[id.index()].get_or_insert(Lifetime { first: index, last: index });
                lifetime.last = lifetime.last.max(index);
            }
        }
        for (buffer, lifetime) in self.buffers.iter().zip(&mut lifetimes) {
            if matches!(buffer.storage, Storage::Persistent(_)) {
                *lifetime = None;
            }
        }
        lifetimes
    }

    /// Lays the plan out in an arena that begins at byte `base` of the device's memory.
    pub fn layout(&self, device: &dyn Device, base: usize) -> Layout {
        let base = base + aligned(device.red_zone());
        let mut blocks = Vec::new();
        let bytes_of = |index: usize| {
            let buffer = &self.buffers[index];
            aligned(buffer.shape.elements() * buffer.dtype.size() + device.red_zone())
        };
        let inputs = self.inputs();
        if !inputs.is_empty() {
            let bytes = inputs.iter().map(|&index| bytes_of(index)).sum();
            let lifetime = Lifetime { first: 0, last: self.calls.len() };
            blocks.push(Block { owner: Owner::Inputs, bytes, lifetime });
        }
        for (index, lifetime) in self.lifetimes().into_iter().enumerate() {
            if let Some(lifetime) = lifetime.filter(|_| !inputs.contains(&index)) {
                blocks.push(Block { owner: Owner::Buffer(index), bytes: bytes_of(index), lifetime });
            }
        }
        let prepared = |calls: &[Call<BufferId>]| -> Vec<CallConfig> {
            calls.iter().map(|call| device.prepare(&call.map(|_| ()))).collect()
        };
        let (setup, calls) = (prepared(&self.setup), prepared(&self.calls));
        for (index, config) in setup.iter().enumerate() {
            let lifetime = Lifetime { first: 0, last: self.calls.len() };
            let bytes = aligned(config.workspace_bytes);
            blocks.push(Block { owner: Owner::Setup(index), bytes, lifetime });
        }
        for (index, config) in calls.iter().enumerate() {
            let lifetime = Lifetime { first: index, last: index };
            let bytes = aligned(config.workspace_bytes);
            blocks.push(Block { owner: Owner::Call(index), bytes, lifetime });
        }
        let (offsets, arena) = place(&mut blocks);

        let nothing = Span { offset: base, elements: 0, dtype: DType::F32 };
        let mut layout = Layout {
            spans: self
                .buffers
                .iter()
                .map(|b| if let Storage::Persistent(span) = b.storage { span } else { nothing })
                .collect(),
            setup: setup.into_iter().map(|config| (config, nothing)).collect(),
            calls: calls.into_iter().map(|config| (config, nothing)).collect(),
            bytes: base + arena,
        };
        for (block, offset) in blocks.iter().zip(offsets) {
            let offset = base + offset;
            let scratch = Span { offset, elements: block.bytes / DType::F32.size(), dtype: DType::F32 };
            let mut put = |index: usize, offset: usize| {
                let buffer = &self.buffers[index];
                layout.spans[index] = Span { offset, elements: buffer.shape.elements(), dtype: buffer.dtype };
            };
            match block.owner {
                Owner::Buffer(index) => put(index, offset),
                Owner::Inputs => {
                    let mut offset = offset;
                    for &index in &inputs {
                        put(index, offset);
                        offset += bytes_of(index);
                    }
                }
                Owner::Setup(index) => layout.setup[index].1 = scratch,
                Owner::Call(index) => layout.calls[index].1 = scratch,
            }
        }
        layout
    }

    /// The buffers that the host fills and no call writes, by index.
    fn inputs(&self) -> Vec<usize> {
        let written: HashSet<BufferId> = (self.setup.iter().chain(&self.calls))
            .flat_map(Call::operands)
            .filter_map(|operand| (operand.access != Access::Read).then_some(operand.place))
            .collect();
        (0..self.buffers.len())
            .filter(|&index| self.buffers[index].storage == Storage::Step)
            .filter(|&index| !written.contains(&BufferId(index as u32)))
            .collect()
    }
}

struct Block {
    owner: Owner,
    bytes: usize,
    lifetime: Lifetime,
}

#[derive(Clone, Copy)]
enum Owner {
    Buffer(usize),
    /// All inputs from the host, one behind the other.
    Inputs,
    Setup(usize),
    Call(usize),
}

/// Sorts the blocks, largest first, and gives each an offset; also the size of the arena.
fn place(blocks: &mut [Block]) -> (Vec<usize>, usize) {
    blocks.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.lifetime.first.cmp(&b.lifetime.first)));
    let mut offsets: Vec<usize> = Vec::with_capacity(blocks.len());
    let mut arena = 0;
    for (index, block) in blocks.iter().enumerate() {
        let mut taken: Vec<(usize, usize)> = (0..index)
            .filter(|&other| blocks[other].bytes > 0 && blocks[other].lifetime.overlaps(block.lifetime))
            .map(|other| (offsets[other], offsets[other] + blocks[other].bytes))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + block.bytes <= start {
                break;
            }
            offset = offset.max(end);
        }
        arena = arena.max(offset + block.bytes);
        offsets.push(offset);
    }
    (offsets, arena)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::ops::{Accumulate, Add, CopyRows, Rows};
    use crate::tensor::Shape;

    #[test]
    fn blocks_alive_together_never_overlap_and_others_share() {
        let stream = crate::rng::Stream::new(3, &[]);
        let mut blocks: Vec<Block> = (0..200u64)
            .map(|i| {
                let first = stream.below(3 * i, 90) as usize;
                let last = first + stream.below(3 * i + 1, 12) as usize;
                let bytes = 64 * (1 + stream.below(3 * i + 2, 50) as usize);
                Block { owner: Owner::Buffer(i as usize), bytes, lifetime: Lifetime { first, last } }
            })
            .collect();
        let (offsets, arena) = place(&mut blocks);
        for i in 0..blocks.len() {
            for j in 0..i {
                let apart =
                    offsets[i] + blocks[i].bytes <= offsets[j] || offsets[j] + blocks[j].bytes <= offsets[i];
                assert!(apart || !blocks[i].lifetime.overlaps(blocks[j].lifetime));
            }
        }
        let peak = (0..102)
            .map(|t| {
                let alive = |b: &&Block| b.lifetime.first <= t && t <= b.lifetime.last;
                blocks.iter().filter(alive).map(|b| b.bytes).sum::<usize>()
            })
            .max()
            .unwrap();
        assert!(arena >= peak && arena * 4 <= peak * 5, "arena {arena} for a peak of {peak}");
    }

    #[test]
    fn what_the_host_hands_over_lies_together_apart_from_what_calls_write() {
        let rows = |rows| Rows { rows, channels: 1 };
        let mut plan = Plan::default();
        let mut buffer =
            |name: &str, elements, storage| plan.buffer(name, Shape::from([elements]), DType::F32, storage);
        let (small, large) = (buffer("small", 3, Storage::Step), buffer("large", 900, Storage::Step));
        let sums = buffer("sums", 900, Storage::Step);
        let (between, result) =
            (buffer("between", 500, Storage::Transient), buffer("result", 500, Storage::Step));
        plan.push(Accumulate { attributes: rows(900), x: large, y: sums });
        plan.push(CopyRows { attributes: rows(500), x: large, y: between });
        plan.push(Add { attributes: rows(500), a: between, b: small, y: result });
        let spans = plan.layout(&Cpu::<f32>::new(1).unwrap(), 0).spans;
        let [small, large, sums, result] = [small, large, sums, result].map(|id| spans[id.index()]);
        assert_eq!(large.offset, aligned(small.offset + small.bytes()), "{spans:?}");
        for written in [sums, result] {
            let apart = written.offset + written.bytes() <= small.offset
                || large.offset + large.bytes() <= written.offset;
            assert!(apart, "{spans:?}");
        }
    }
}
