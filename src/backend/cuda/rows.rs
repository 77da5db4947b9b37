//! [`RowOps`] for CUDA: launches of `rows_scores.cu`, `rows_products.cu` and `rows_moments.cu`.

use bytemuck::{Pod, Zeroable};

use super::call::{Operand, THREADS, entry, extent, grid};
use super::driver::Geometry;
use super::{Cuda, Entry, Module, Variant};
use crate::error::{Error, Result};
use crate::ops::Access::{self, Read, Update, Write};
use crate::ops::{Features, Labelled, Points, RowOps};
use crate::tensor::{ALIGNMENT, DType, Span};

const SCORES: Variant = Variant { file: "rows_scores.cu", constants: &[] };
const PRODUCTS: Variant = Variant { file: "rows_products.cu", constants: &[] };
const MOMENTS: Variant = Variant { file: "rows_moments.cu", constants: &[] };

/// What is compiled for these families.
pub(super) fn modules() -> Vec<Module> {
    const OF_SCORES: &[Entry] = &[
        entry("row_logit_scores", 40, false),
        entry("row_square_norms", 48, true),
        entry("row_square_norms_of_coordinates", 40, true),
        entry("row_inverse_norms", 40, true),
        entry("row_kth_smallest", 40, false),
    ];
    const OF_PRODUCTS: &[Entry] = &[
        entry("row_projection", 128, false),
        entry("row_distances", 128, false),
        entry("row_normalised_distances", 128, false),
    ];
    const OF_MOMENTS: &[Entry] = &[entry("class_sums", 40, false), entry("within_scatter", 128, false)];
    vec![
        Module { variant: SCORES, entries: OF_SCORES },
        Module { variant: PRODUCTS, entries: OF_PRODUCTS },
        Module { variant: MOMENTS, entries: OF_MOMENTS },
    ]
}

/// Rows and columns of the part of a product that one block computes: `TILE` of `tiles.cuh`.
const TILE: usize = 64;

/// A warp for every row.
fn warps(rows: usize) -> Result<Geometry> {
    grid(rows.div_ceil(THREADS / 32), 1)
}

/// A block for every tile of a matrix.
fn tiles(rows: usize, columns: usize) -> Result<Geometry> {
    grid(columns.div_ceil(TILE), rows.div_ceil(TILE))
}

/// An operand, once type, size and place are those that the kernels rely on.
fn operand(name: &'static str, span: Span, access: Access, dtype: DType, elements: usize) -> Result<Operand> {
    if elements > 0
        && span.dtype == dtype
        && span.elements == elements
        && span.offset.is_multiple_of(ALIGNMENT)
    {
        return Ok((name, span, access));
    }
    Err(Error::invalid(format!(
        "operand `{name}` has {} elements of {:?} at byte {}; rows need {elements}, at least one, of {dtype:?} at a \
         multiple of {ALIGNMENT}",
        span.elements, span.dtype, span.offset
    )))
}

fn double(name: &'static str, span: Span, access: Access, elements: usize) -> Result<Operand> {
    operand(name, span, access, DType::F64, elements)
}

/// `rows` times `columns`, where that is a number.
fn area(rows: usize, columns: usize) -> Result<usize> {
    rows.checked_mul(columns).ok_or_else(|| Error::invalid(format!("{rows} rows of {columns} are too many")))
}

/// Part of a matrix of f64: rows `first..first + rows`.
fn part(span: Span, columns: usize, first: usize, rows: usize) -> Span {
    Span { offset: span.offset + first * columns * span.dtype.size(), elements: rows * columns, ..span }
}

impl Cuda {
    fn run<A: Pod>(
        &self,
        kernel: (&Variant, &'static str),
        geometry: Geometry,
        arguments: &A,
        operands: &[Option<Operand>],
    ) -> Result<()> {
        let operands: Vec<Operand> = operands.iter().copied().flatten().collect();
        self.launch(kernel, geometry, arguments, &operands)
    }

    /// Addresses of operands; 0 for those that are absent.
    fn addresses<const N: usize>(&self, operands: [Option<Operand>; N]) -> [u64; N] {
        operands.map(|operand| operand.map_or(0, |(_, span, _)| self.pointer(span)))
    }

    /// Features, their shift and their divisor.
    fn features(&self, features: &Features) -> Result<[Option<Operand>; 3]> {
        let Features { x, rows, columns, shift, divisor } = *features;
        let vector =
            |name, span: Option<Span>| span.map(|span| double(name, span, Read, columns)).transpose();
        let x = operand("x", x, Read, DType::F32, area(rows, columns)?)?;
        Ok([Some(x), vector("shift", shift)?, vector("divisor", divisor)?])
    }

    /// The k-th smallest of each row of `distances`.
    fn kth_smallest(
        &self,
        [rows, columns]: [usize; 2],
        k: usize,
        distances: Span,
        smallest: Span,
    ) -> Result<()> {
        #[repr(C)]
        #[derive(Clone, Copy, Pod, Zeroable)]
        struct KthSmallest {
            /// values, smallest
            pointers: [u64; 2],
            rows: u32,
            columns: u32,
            k: u32,
            unused: u32,
        }
        let operands = [
            Some(double("distances", distances, Read, area(rows, columns)?)?),
            Some(("smallest", smallest, Write)),
        ];
        let arguments = KthSmallest {
            pointers: self.addresses(operands),
            rows: extent(rows)?,
            columns: extent(columns)?,
            k: extent(k)?,
            unused: 0,
        };
        self.run((&SCORES, "row_kth_smallest"), grid(rows, 1)?, &arguments, &operands)
    }

    /// Distances of some rows at a time, as many as `scratch` has room for, and the k-th smallest of each.
    fn kth_distances(
        &self,
        rows: usize,
        points: &Points,
        scratch: Span,
        nearest: Span,
        mut distances: impl FnMut(usize, usize, Operand) -> Result<()>,
    ) -> Result<()> {
        let Points { count, k, .. } = *points;
        if k == 0 || k > count {
            return Err(Error::invalid(format!(
                "neighbour number {k} of {count} points is wanted; k counts from 1 and ends at the number of points"
            )));
        }
        double("nearest", nearest, Write, rows)?;
        // Whole tiles where there is room for one.
        let room = scratch.elements / count;
        let step = if room >= TILE { room / TILE * TILE } else { room };
        if scratch.dtype != DType::F64 || step == 0 {
            return Err(Error::invalid(format!(
                "a scratch of {} elements of {:?} has no room for {count} distances of type F64",
                scratch.elements, scratch.dtype
            )));
        }
        for first in (0..rows).step_by(step) {
            let some = step.min(rows - first);
            let table = Span { elements: some * count, ..scratch };
            distances(first, some, double("distances", table, Write, some * count)?)?;
            self.kth_smallest([some, count], k, table, part(nearest, 1, first, some))?;
        }
        Ok(())
    }

    /// Labelled rows: features and labels.
    fn labelled(&self, rows: &Labelled) -> Result<[Option<Operand>; 2]> {
        Ok([
            Some(operand("x", rows.x, Read, DType::F32, area(rows.rows, rows.columns)?)?),
            Some(operand("labels", rows.labels, Read, DType::I32, rows.rows)?),
        ])
    }

    fn launch_square_norms(&self, [rows, columns]: [usize; 2], operands: [Option<Operand>; 5]) -> Result<()> {
        #[repr(C)]
        #[derive(Clone, Copy, Pod, Zeroable)]
        struct SquareNorms {
            /// x, shift, divisor, labels, norms
            pointers: [u64; 5],
            rows: u32,
            columns: u32,
        }
        let arguments = SquareNorms {
            pointers: self.addresses(operands),
            rows: extent(rows)?,
            columns: extent(columns)?,
        };
        self.run((&SCORES, "row_square_norms"), warps(rows)?, &arguments, &operands)
    }
}

/// Behind the pointers of `rows_products.cu` and of `within_scatter`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Extents {
    rows: u32,
    others: u32,
    depth: u32,
    unused: u32,
}

/// The arguments of a kernel that takes so many pointers, and extents.
macro_rules! product {
    ($($name:ident: $pointers:literal),*) => { $(
        #[repr(C)]
        #[derive(Clone, Copy, Pod, Zeroable)]
        struct $name {
            pointers: [u64; $pointers],
            extents: Extents,
        }
    )* };
}

product!(Projection: 5, Distances: 3, NormalisedDistances: 5, WithinScatter: 4);

impl RowOps for Cuda {
    fn logit_scores(
        &mut self,
        [rows, classes]: [usize; 2],
        temperature: f64,
        logits: Span,
        [msp, mls, energy]: [Span; 3],
    ) -> Result<()> {
        #[repr(C)]
        #[derive(Clone, Copy, Pod, Zeroable)]
        struct LogitScores {
            /// logits, msp, mls, energy
            pointers: [u64; 4],
            rows: u32,
            classes: u32,
            temperature: f64,
        }
        let operands = [
            Some(double("logits", logits, Read, area(rows, classes)?)?),
            Some(double("msp", msp, Write, rows)?),
            Some(double("mls", mls, Write, rows)?),
            Some(double("energy", energy, Write, rows)?),
        ];
        let arguments = LogitScores {
            pointers: self.addresses(operands),
            rows: extent(rows)?,
            classes: extent(classes)?,
            temperature,
        };
        self.run((&SCORES, "row_logit_scores"), warps(rows)?, &arguments, &operands)
    }

    fn project(&mut self, features: &Features, outputs: usize, basis: Span, z: Span) -> Result<()> {
        let Features { rows, columns, .. } = *features;
        let [x, shift, divisor] = self.features(features)?;
        let basis = Some(double("basis", basis, Read, area(columns, outputs)?)?);
        let operands = [x, shift, divisor, basis, Some(double("z", z, Write, area(rows, outputs)?)?)];
        let extents =
            Extents { rows: extent(rows)?, others: extent(columns)?, depth: extent(outputs)?, unused: 0 };
        let arguments = Projection { pointers: self.addresses(operands), extents };
        self.run((&PRODUCTS, "row_projection"), tiles(rows, outputs)?, &arguments, &operands)
    }

    fn square_norms(&mut self, features: &Features, norms: Span) -> Result<()> {
        let [x, shift, divisor] = self.features(features)?;
        let norms = Some(double("norms", norms, Write, features.rows)?);
        self.launch_square_norms([features.rows, features.columns], [x, shift, divisor, None, norms])
    }

    fn square_norms_of_coordinates(
        &mut self,
        [rows, columns]: [usize; 2],
        z: Span,
        norms: Span,
    ) -> Result<()> {
        #[repr(C)]
        #[derive(Clone, Copy, Pod, Zeroable)]
        struct CoordinateNorms {
            /// z, norms
            pointers: [u64; 2],
            rows: u32,
            columns: u32,
        }
        let operands =
            [Some(double("z", z, Read, area(rows, columns)?)?), Some(double("norms", norms, Write, rows)?)];
        let arguments = CoordinateNorms {
            pointers: self.addresses(operands),
            rows: extent(rows)?,
            columns: extent(columns)?,
        };
        let kernel = (&SCORES, "row_square_norms_of_coordinates");
        self.run(kernel, warps(rows)?, &arguments, &operands)
    }

    fn inverse_norms(&mut self, features: &Features, floor: f64, norms: Span) -> Result<()> {
        #[repr(C)]
        #[derive(Clone, Copy, Pod, Zeroable)]
        struct InverseNorms {
            /// x, norms
            pointers: [u64; 2],
            rows: u32,
            columns: u32,
            floor: f64,
        }
        let [x, _, _] = self.features(features)?;
        let operands = [x, Some(double("norms", norms, Write, features.rows)?)];
        let arguments = InverseNorms {
            pointers: self.addresses(operands),
            rows: extent(features.rows)?,
            columns: extent(features.columns)?,
            floor,
        };
        self.run((&SCORES, "row_inverse_norms"), warps(features.rows)?, &arguments, &operands)
    }

    fn nearest(
        &mut self,
        [rows, columns]: [usize; 2],
        z: Span,
        points: &Points,
        scratch: Span,
        nearest: Span,
    ) -> Result<()> {
        double("z", z, Read, area(rows, columns)?)?;
        let values = double("points", points.values, Read, area(points.count, columns)?)?;
        let depth = extent(columns)?;
        self.kth_distances(rows, points, scratch, nearest, |first, some, distances| {
            let operands = [Some(("z", part(z, columns, first, some), Read)), Some(values), Some(distances)];
            let extents = Extents { rows: extent(some)?, others: extent(points.count)?, depth, unused: 0 };
            let arguments = Distances { pointers: self.addresses(operands), extents };
            let geometry = tiles(some, points.count)?;
            self.run((&PRODUCTS, "row_distances"), geometry, &arguments, &operands)
        })
    }

    fn nearest_normalised(
        &mut self,
        (features, scale): (&Features, Span),
        (bank, bank_scale): (&Points, Span),
        scratch: Span,
        nearest: Span,
    ) -> Result<()> {
        let Features { x, rows, columns, .. } = *features;
        self.features(features)?;
        double("scale", scale, Read, rows)?;
        let values = operand("bank", bank.values, Read, DType::F32, area(bank.count, columns)?)?;
        let bank_scale = double("bank_scale", bank_scale, Read, bank.count)?;
        let depth = extent(columns)?;
        self.kth_distances(rows, bank, scratch, nearest, |first, some, distances| {
            let operands = [
                Some(("x", part(x, columns, first, some), Read)),
                Some(("scale", part(scale, 1, first, some), Read)),
                Some(values),
                Some(bank_scale),
                Some(distances),
            ];
            let extents = Extents { rows: extent(some)?, others: extent(bank.count)?, depth, unused: 0 };
            let arguments = NormalisedDistances { pointers: self.addresses(operands), extents };
            let geometry = tiles(some, bank.count)?;
            self.run((&PRODUCTS, "row_normalised_distances"), geometry, &arguments, &operands)
        })
    }

    fn class_sums(&mut self, rows: &Labelled, sums: Span) -> Result<()> {
        #[repr(C)]
        #[derive(Clone, Copy, Pod, Zeroable)]
        struct ClassSums {
            /// x, labels, sums
            pointers: [u64; 3],
            rows: u32,
            columns: u32,
        }
        let [x, labels] = self.labelled(rows)?;
        let operands = [x, labels, Some(double("sums", sums, Update, area(rows.classes, rows.columns)?)?)];
        let arguments = ClassSums {
            pointers: self.addresses(operands),
            rows: extent(rows.rows)?,
            columns: extent(rows.columns)?,
        };
        let geometry = grid(rows.columns.div_ceil(THREADS), rows.classes)?;
        self.run((&MOMENTS, "class_sums"), geometry, &arguments, &operands)
    }

    fn class_deviations(&mut self, rows: &Labelled, means: Span, deviations: Span) -> Result<()> {
        let [x, labels] = self.labelled(rows)?;
        let means = Some(double("means", means, Read, area(rows.classes, rows.columns)?)?);
        let norms = Some(double("deviations", deviations, Write, rows.rows)?);
        self.launch_square_norms([rows.rows, rows.columns], [x, means, None, labels, norms])
    }

    fn within_scatter(&mut self, rows: &Labelled, means: Span, slices: usize, scatter: Span) -> Result<()> {
        let columns = rows.columns;
        let [x, labels] = self.labelled(rows)?;
        let means = Some(double("means", means, Read, area(rows.classes, columns)?)?);
        let elements = area(slices, area(columns, columns)?)?;
        let operands = [x, labels, means, Some(double("scatter", scatter, Update, elements)?)];
        let extents = Extents {
            rows: extent(rows.rows)?,
            others: extent(columns)?,
            depth: extent(rows.rows.div_ceil(slices))?,
            unused: 0,
        };
        let arguments = WithinScatter { pointers: self.addresses(operands), extents };
        let mut geometry = tiles(columns, columns)?;
        geometry.grid[2] = extent(slices)?;
        self.run((&MOMENTS, "within_scatter"), geometry, &arguments, &operands)
    }
}
