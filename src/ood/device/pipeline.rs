//! Blocks of rows, one after the other, through the same buffers on a device.
//!
//! A pass is a list of steps. The operands of the steps (bases, means, a bank) are uploaded once; features and logits of a
//! block go up, its numbers come down while the next block is computed.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::steps::{Place, Step, Steps};
use crate::error::Result;
use crate::ood::rows::Rows;
use crate::ops::{Device, Readback};
use crate::tensor::{DType, HostValues, Span, aligned};

/// Blocks whose numbers are on their way back.
const IN_FLIGHT: usize = 2;

/// Places in a device's memory, handed out one after the other.
#[derive(Debug)]
pub(super) struct Places<'a> {
    end: usize,
    red_zone: usize,
    uploads: Vec<(Span, Upload<'a>)>,
}

/// Values that a place is filled with.
#[derive(Debug)]
enum Upload<'a> {
    Borrowed(HostValues<'a>),
    Own(Vec<f64>),
}

impl<'a> Places<'a> {
    pub(super) fn new(red_zone: usize) -> Places<'a> {
        Places { end: aligned(red_zone), red_zone, uploads: Vec::new() }
    }

    pub(super) fn place(&mut self, elements: usize, dtype: DType) -> Span {
        let span = Span { offset: self.end, elements, dtype };
        self.end = aligned(self.end + span.bytes()) + aligned(self.red_zone);
        span
    }

    /// The place of values, which is one for all who give the same slice.
    pub(super) fn upload(&mut self, values: &'a [f64]) -> Span {
        self.upload_once(HostValues::F64(values), values.len(), DType::F64)
    }

    pub(super) fn upload_f32(&mut self, values: &'a [f32]) -> Span {
        self.upload_once(HostValues::F32(values), values.len(), DType::F32)
    }

    fn upload_once(&mut self, values: HostValues<'a>, elements: usize, dtype: DType) -> Span {
        let is_same = |upload: &Upload<'a>| match (upload, values) {
            (Upload::Borrowed(HostValues::F64(own)), HostValues::F64(values)) => std::ptr::eq(*own, values),
            (Upload::Borrowed(HostValues::F32(own)), HostValues::F32(values)) => std::ptr::eq(*own, values),
            _ => false,
        };
        if let Some((span, _)) = self.uploads.iter().find(|(_, upload)| is_same(upload)) {
            return *span;
        }
        let span = self.place(elements, dtype);
        self.uploads.push((span, Upload::Borrowed(values)));
        span
    }

    /// The same of values that are kept here.
    pub(super) fn upload_own(&mut self, values: Vec<f64>) -> Span {
        let span = self.place(values.len(), DType::F64);
        self.uploads.push((span, Upload::Own(values)));
        span
    }

    /// Allocates memory for all places, and uploads the values kept for it.
    pub(super) fn allocate(&self, device: &mut dyn Device) -> Result<()> {
        device.allocate(self.end)?;
        let filled = self.uploads.iter().filter(|(span, _)| span.elements > 0);
        filled.into_iter().try_for_each(|(span, values)| match values {
            Upload::Borrowed(values) => device.write(*span, *values),
            Upload::Own(values) => device.write(*span, HostValues::F64(values)),
        })
    }
}

/// One block of rows in a device's memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// Rows.
    pub count: usize,
    /// Columns of `stride` numbers.
    results: Span,
    stride: usize,
}

impl Block {
    /// The part of a buffer that the rows take, with `each` elements a row.
    pub(super) fn rows(&self, buffer: Span, each: usize) -> Span {
        Span { elements: self.count * each, ..buffer }
    }

    /// A column of results.
    pub(super) fn column(&self, number: usize) -> Span {
        let offset = self.results.offset + number * self.stride * DType::F64.size();
        Span { offset, elements: self.count, dtype: DType::F64 }
    }
}

/// The numbers of one block.
#[derive(Debug)]
pub(in crate::ood) struct Numbers {
    /// Columns of `stride` numbers.
    values: Vec<f64>,
    stride: usize,
    count: usize,
}

impl Numbers {
    /// One number a row.
    pub(in crate::ood) fn of(&self, place: Place) -> impl Iterator<Item = f64> + '_ {
        (0..self.count).map(move |row| match place {
            Place::Column(column) => self.values[column * self.stride + row],
            Place::Zeros => 0.0,
        })
    }
}

/// Steps with their buffers.
pub(super) struct Pipeline<'d> {
    device: &'d mut dyn Device,
    steps: Vec<Step>,
    x: Span,
    logits: Span,
    /// Elements of a row of each.
    widths: [usize; 2],
    workspace: Span,
    /// Of the blocks in flight.
    results: [Span; IN_FLIGHT],
    stride: usize,
}

impl<'d> Pipeline<'d> {
    /// Reserves the buffers and uploads the operands of the steps.
    pub(super) fn new(device: &'d mut dyn Device, steps: Steps<'_>) -> Result<Pipeline<'d>> {
        let Steps { mut places, rows, columns, classes, x, logits, steps, setup, results, .. } = steps;
        // Every column of results begins where memory is aligned.
        let stride = aligned(rows * DType::F64.size()) / DType::F64.size();
        let results = [(); IN_FLIGHT].map(|()| places.place(results * stride, DType::F64));
        let whole = Block { count: rows, results: results[0], stride };
        let bytes = steps.iter().map(|step| device.workspace_bytes(&step(&whole).map(|_| ())));
        let workspace = bytes.max().unwrap_or(0).div_ceil(DType::F64.size());
        let workspace = places.place(workspace, DType::F64);
        places.allocate(device)?;
        let nothing = Span { elements: 0, ..workspace };
        setup.iter().try_for_each(|call| device.run(call, nothing))?;
        Ok(Pipeline { device, steps, x, logits, widths: [columns, classes], workspace, results, stride })
    }

    /// Sends blocks 0..`blocks` through, in order. While the device works, all threads of the CPU read blocks and run
    /// `beside` on them.
    pub(super) fn stream<T: Send>(
        &mut self,
        blocks: usize,
        read: &(dyn Fn(usize) -> Rows + Sync),
        beside: &(dyn Fn(&Rows) -> T + Sync),
        mut each: impl FnMut(Numbers, T),
    ) -> Result<()> {
        let mut in_flight: VecDeque<(Readback, usize, T)> = VecDeque::new();
        let numbers: Vec<usize> = (0..blocks).collect();
        let stride = self.stride;
        let finish = |(reading, count, beside): (Readback, usize, T), each: &mut dyn FnMut(Numbers, T)| {
            let values = reading.wait()?;
            each(Numbers { values, stride, count }, beside);
            Ok(())
        };
        for wave in numbers.chunks(rayon::current_num_threads().max(1)) {
            let read: Vec<(Rows, T)> = wave
                .par_iter()
                .map(|&number| {
                    let rows = read(number);
                    let beside = beside(&rows);
                    (rows, beside)
                })
                .collect();
            for (&number, (rows, beside)) in wave.iter().zip(read) {
                if in_flight.len() == IN_FLIGHT {
                    in_flight.pop_front().map_or(Ok(()), |oldest| finish(oldest, &mut each))?;
                }
                let reading = self.queue(&rows, self.results[number % IN_FLIGHT])?;
                in_flight.push_back((reading, rows.count, beside));
            }
        }
        in_flight.into_iter().try_for_each(|block| finish(block, &mut each))
    }

    /// Queues all steps of a block; its numbers follow.
    fn queue(&mut self, rows: &Rows, results: Span) -> Result<Readback> {
        let block = Block { count: rows.count, results, stride: self.stride };
        let [columns, classes] = self.widths;
        // No features are read where no score looks at them.
        if !rows.features.is_empty() {
            let values: Vec<f32> = rows.features.iter().map(|&x| x as f32).collect();
            self.device.write(block.rows(self.x, columns), HostValues::F32(&values))?;
        }
        self.device.write(block.rows(self.logits, classes), HostValues::F64(&rows.logits))?;
        for step in &self.steps {
            self.device.run(&step(&block), self.workspace)?;
        }
        self.device.begin_read(results)
    }
}
