//! Blocks of rows, one after the other, through the same buffers on a device.
//!
//! A pass is a list of steps, each of which gives some numbers per row. The operands of the steps (bases, means, a bank)
//! are uploaded once; features and logits of a block go up, its numbers come down while the next block is computed.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::RowsPrecision;
use crate::error::Result;
use crate::ood::compute::Projector;
use crate::ood::rows::Rows;
use crate::ops::{
    Call, Device, InverseNorms, LogitScores, Nearest, PreparedRows, Projection, Readback, RowInverseNorms,
    RowLogitScores, RowNearest, RowNearestF32, RowNearestNormalised, RowNormalise, RowProject,
    RowSquareNorms, RowSquareNormsOfCoordinates, Rows as RowsOf,
};
use crate::tensor::{DType, HostValues, Span, aligned};

/// Blocks whose numbers are on their way back.
const IN_FLIGHT: usize = 2;

/// Places in a device's memory, handed out one after the other.
#[derive(Debug)]
pub(super) struct Places<'a> {
    end: usize,
    red_zone: usize,
    uploads: Vec<(Span, HostValues<'a>)>,
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

    fn upload(&mut self, values: &'a [f64]) -> Span {
        let span = self.place(values.len(), DType::F64);
        self.uploads.push((span, HostValues::F64(values)));
        span
    }

    /// Allocates memory for all places, and uploads the values kept for it.
    pub(super) fn allocate(&self, device: &mut dyn Device) -> Result<()> {
        device.allocate(self.end)?;
        self.uploads.iter().try_for_each(|&(span, values)| device.write(span, values))
    }
}

/// A linear map on the device.
#[derive(Debug, Clone, Copy)]
struct Map {
    shift: Option<Span>,
    divisor: Option<Span>,
    basis: Span,
    outputs: usize,
}

/// One computation on each block.
#[derive(Debug, Clone, Copy)]
enum Step {
    LogitScores {
        temperature: f64,
    },
    Norms {
        map: Map,
    },
    WholeNorms {
        shift: Option<Span>,
        divisor: Option<Span>,
    },
    Nearest {
        map: Map,
        points: Span,
        count: usize,
    },
    Neighbours {
        bank: Span,
        bank_scale: Span,
        k: usize,
        floor: f64,
    },
    /// The same in f32, of a bank that was normalised before.
    NeighboursF32 {
        bank: Span,
        count: usize,
        k: usize,
        floor: f64,
    },
}

/// The place of a step's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ood) enum Place {
    /// In this column of the results.
    Column(usize),
    /// Nowhere: they are all zero.
    Zeros,
}

/// The steps of a pass, while they are put together.
pub(in crate::ood) struct Steps<'a> {
    places: Places<'a>,
    rows: usize,
    columns: usize,
    classes: usize,
    /// Steps, each with its first column of results.
    steps: Vec<(usize, Step)>,
    /// Calls that run once, before the first block.
    setup: Vec<Call<Span>>,
    /// Columns of results so far.
    results: usize,
    /// Most coordinates a step projects a row to.
    coordinates: usize,
    /// Columns of logit scores by temperature: several scores are made of the same.
    logit_scores: Vec<(f64, [Place; 3])>,
    precision: RowsPrecision,
}

impl<'a> Steps<'a> {
    /// No step yet, for blocks of at most `rows` rows of `columns` features and `classes` classes.
    pub(super) fn new(red_zone: usize, [rows, columns, classes]: [usize; 3]) -> Steps<'a> {
        Steps {
            places: Places::new(red_zone),
            rows,
            columns,
            classes,
            steps: Vec::new(),
            setup: Vec::new(),
            results: 0,
            coordinates: 0,
            logit_scores: Vec::new(),
            precision: RowsPrecision::default(),
        }
    }

    /// The same with other products.
    pub(super) fn with_precision(self, precision: RowsPrecision) -> Steps<'a> {
        Steps { precision, ..self }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn push(&mut self, step: Step, columns: usize) -> Place {
        let first = self.results;
        self.steps.push((first, step));
        self.results += columns;
        Place::Column(first)
    }

    fn map(&mut self, projector: &Projector<'a>) -> Map {
        self.coordinates = self.coordinates.max(projector.outputs);
        Map {
            shift: projector.shift.map(|values| self.places.upload(values)),
            divisor: projector.divisor.map(|values| self.places.upload(values)),
            basis: self.places.upload(projector.basis),
            outputs: projector.outputs,
        }
    }

    /// Bytes of scratch memory that the steps take of a device.
    fn workspace_bytes(&self, device: &dyn Device) -> usize {
        let nearest = |columns, points, k| Nearest { rows: self.rows, columns, points, k };
        let bytes = self.steps.iter().map(|(_, step)| match *step {
            Step::Nearest { map, count, .. } => {
                device.workspace_bytes(&RowNearest::alone(nearest(map.outputs, count, 1)))
            }
            Step::Neighbours { bank_scale, k, .. } => {
                let attributes = nearest(self.columns, bank_scale.elements, k);
                device.workspace_bytes(&RowNearestNormalised::alone(attributes))
            }
            Step::NeighboursF32 { count, k, .. } => {
                device.workspace_bytes(&RowNearestF32::alone(nearest(self.columns, count, k)))
            }
            Step::LogitScores { .. } | Step::Norms { .. } | Step::WholeNorms { .. } => 0,
        });
        bytes.max().unwrap_or(0)
    }

    /// Largest probability, largest logit and energy, in three columns.
    pub(in crate::ood) fn logit_scores(&mut self, temperature: f64) -> [Place; 3] {
        if let Some((_, places)) = self.logit_scores.iter().find(|(own, _)| *own == temperature) {
            return *places;
        }
        let first = self.results;
        self.push(Step::LogitScores { temperature }, 3);
        let places = [0, 1, 2].map(|column| Place::Column(first + column));
        self.logit_scores.push((temperature, places));
        places
    }

    /// Squared norms of coordinates.
    pub(in crate::ood) fn norms(&mut self, projector: &Projector<'a>) -> Place {
        if projector.outputs == 0 {
            return Place::Zeros;
        }
        let map = self.map(projector);
        self.push(Step::Norms { map }, 1)
    }

    /// Squared norms of prepared rows.
    pub(in crate::ood) fn whole_norms(
        &mut self,
        shift: Option<&'a [f64]>,
        divisor: Option<&'a [f64]>,
    ) -> Place {
        let shift = shift.map(|values| self.places.upload(values));
        let divisor = divisor.map(|values| self.places.upload(values));
        self.push(Step::WholeNorms { shift, divisor }, 1)
    }

    /// Squared distances of coordinates to the nearest of some points.
    pub(in crate::ood) fn nearest(&mut self, projector: &Projector<'a>, points: &'a [f64]) -> Place {
        if projector.outputs == 0 {
            return Place::Zeros;
        }
        let map = self.map(projector);
        let count = points.len() / projector.outputs;
        let points = self.places.upload(points);
        self.push(Step::Nearest { map, points, count }, 1)
    }

    /// Squared distances of normalised features to the k-th nearest of a normalised bank.
    pub(in crate::ood) fn neighbours(
        &mut self,
        (bank, scales): (&'a [f32], &'a [f64]),
        k: usize,
        floor: f64,
    ) -> Place {
        if self.precision == RowsPrecision::F32 {
            return self.neighbours_f32(bank, k, floor);
        }
        let place = self.upload_features(bank);
        let bank_scale = self.places.upload(scales);
        self.push(Step::Neighbours { bank: place, bank_scale, k, floor }, 1)
    }

    /// The same with products in f32.
    fn neighbours_f32(&mut self, bank: &'a [f32], k: usize, floor: f64) -> Place {
        let (given, normalised) = (self.upload_features(bank), self.places.place(bank.len(), DType::F32));
        let count = bank.len() / self.columns;
        let attributes = InverseNorms { rows: count, columns: self.columns, floor };
        self.setup.push(RowNormalise { attributes, x: given, y: normalised }.into());
        self.push(Step::NeighboursF32 { bank: normalised, count, k, floor }, 1)
    }

    fn upload_features(&mut self, features: &'a [f32]) -> Span {
        let place = self.places.place(features.len(), DType::F32);
        self.places.uploads.push((place, HostValues::F32(features)));
        place
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
    steps: Vec<(usize, Step)>,
    columns: usize,
    classes: usize,
    x: Span,
    /// Normalised features in f32, where a step wants them.
    normalised: Span,
    logits: Span,
    scale: Span,
    coordinates: Span,
    workspace: Span,
    /// Of the blocks in flight: columns of `stride` numbers.
    results: [Span; IN_FLIGHT],
    stride: usize,
}

impl<'d> Pipeline<'d> {
    /// Reserves the buffers and uploads the operands of the steps.
    pub(super) fn new(device: &'d mut dyn Device, mut steps: Steps<'_>) -> Result<Pipeline<'d>> {
        let Steps { rows, columns, classes, .. } = steps;
        // Every column of results begins where memory is aligned.
        let stride = aligned(rows * DType::F64.size()) / DType::F64.size();
        let workspace = steps.workspace_bytes(device);
        let mut double = |elements| steps.places.place(elements, DType::F64);
        let [logits, scale, coordinates, workspace] =
            [rows * classes, rows, rows * steps.coordinates, workspace.div_ceil(DType::F64.size())]
                .map(&mut double);
        let results = [(); IN_FLIGHT].map(|()| double(steps.results * stride));
        let x = steps.places.place(rows * columns, DType::F32);
        let singles = steps.steps.iter().any(|(_, step)| matches!(step, Step::NeighboursF32 { .. }));
        let normalised = steps.places.place(if singles { rows * columns } else { 0 }, DType::F32);
        steps.places.allocate(device)?;
        let nothing = Span { elements: 0, ..scale };
        steps.setup.iter().try_for_each(|call| device.run(call, nothing))?;
        let steps = steps.steps;
        Ok(Pipeline {
            device,
            steps,
            columns,
            classes,
            x,
            normalised,
            logits,
            scale,
            coordinates,
            workspace,
            results,
            stride,
        })
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
        let (device, count) = (&mut *self.device, rows.count);
        let some = |span: Span, elements| Span { elements, ..span };
        let values: Vec<f32> = rows.features.iter().map(|&x| x as f32).collect();
        let x = some(self.x, count * self.columns);
        // No features are read where no score looks at them.
        if !values.is_empty() {
            device.write(x, HostValues::F32(&values))?;
        }
        let logits = some(self.logits, count * self.classes);
        if self.steps.iter().any(|(_, step)| matches!(step, Step::LogitScores { .. })) {
            device.write(logits, HostValues::F64(&rows.logits))?;
        }
        let (columns, nothing) = (self.columns, Span { elements: 0, ..self.scale });
        let mut run = |call: Call<Span>| device.run(&call, self.workspace);
        let coordinates = |map: &Map| some(self.coordinates, count * map.outputs);
        let project = |map: &Map| -> Call<Span> {
            let Map { shift, divisor, basis, outputs } = *map;
            let attributes = Projection {
                rows: count,
                columns,
                outputs,
                shift: shift.is_some(),
                divisor: divisor.is_some(),
            };
            let [shift, divisor] = [shift, divisor].map(|span| span.unwrap_or(nothing));
            RowProject { attributes, x, shift, divisor, basis, z: coordinates(map) }.into()
        };
        for (first, step) in &self.steps {
            let column = |number: usize| Span {
                offset: results.offset + (first + number) * self.stride * DType::F64.size(),
                elements: count,
                dtype: DType::F64,
            };
            let out = column(0);
            match step {
                Step::LogitScores { temperature } => {
                    let attributes =
                        LogitScores { rows: count, classes: self.classes, temperature: *temperature };
                    let [mls, energy] = [column(1), column(2)];
                    run(RowLogitScores { attributes, logits, msp: out, mls, energy }.into())?;
                }
                Step::Norms { map } => {
                    run(project(map))?;
                    let attributes = RowsOf { rows: count, channels: map.outputs };
                    let z = coordinates(map);
                    run(RowSquareNormsOfCoordinates { attributes, z, norms: out }.into())?;
                }
                Step::WholeNorms { shift, divisor } => {
                    let (has_shift, has_divisor) = (shift.is_some(), divisor.is_some());
                    let attributes =
                        PreparedRows { rows: count, columns, shift: has_shift, divisor: has_divisor };
                    let [shift, divisor] = [*shift, *divisor].map(|span| span.unwrap_or(nothing));
                    run(RowSquareNorms { attributes, x, shift, divisor, norms: out }.into())?;
                }
                Step::Nearest { map, points, count: of } => {
                    run(project(map))?;
                    let attributes = Nearest { rows: count, columns: map.outputs, points: *of, k: 1 };
                    let (z, points) = (coordinates(map), *points);
                    run(RowNearest { attributes, z, points, nearest: out }.into())?;
                }
                Step::Neighbours { bank, bank_scale, k, floor } => {
                    let scale = some(self.scale, count);
                    let attributes = InverseNorms { rows: count, columns, floor: *floor };
                    run(RowInverseNorms { attributes, x, norms: scale }.into())?;
                    let attributes = Nearest { rows: count, columns, points: bank_scale.elements, k: *k };
                    let (bank, bank_scale) = (*bank, *bank_scale);
                    run(RowNearestNormalised { attributes, x, scale, bank, bank_scale, nearest: out }.into())?;
                }
                Step::NeighboursF32 { bank, count: of, k, floor } => {
                    let z = some(self.normalised, count * columns);
                    let attributes = InverseNorms { rows: count, columns, floor: *floor };
                    run(RowNormalise { attributes, x, y: z }.into())?;
                    let attributes = Nearest { rows: count, columns, points: *of, k: *k };
                    run(RowNearestF32 { attributes, z, points: *bank, nearest: out }.into())?;
                }
            }
        }
        device.begin_read(results)
    }
}
