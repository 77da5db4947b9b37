//! Passes over many rows of features: launches of `rows/scores.cu`, `rows/products.cu` and `rows/moments.cu`.

use super::call::{THREADS, WARPS, all, entry, extent, grid};
use super::driver::LaunchConfig;
use super::kernel_files::common::pairwise_tile::TILE;
use super::kernel_files::rows::{moments, products, scores};
use super::{Cuda, Entry, Module, Variant};
use crate::error::{Error, Result};
use crate::ops::Access::{Read, Write};
use crate::ops::{
    Call, InverseNorms, Labelled, LogitScores, Nearest, PreparedRows, Projection, RowClassDeviations,
    RowClassSums, RowInverseNorms, RowLogitScores, RowNearest, RowNearestF32, RowNearestNormalised,
    RowNormalise, RowProject, RowSquareNorms, RowSquareNormsOfCoordinates, RowWithinScatter, Rows, Scatter,
};
use crate::tensor::{DType, Span};

const SCORES: Variant = Variant { file: "rows/scores.cu", constants: &[] };
pub(super) const PRODUCTS: Variant = Variant { file: "rows/products.cu", constants: &[] };
const MOMENTS: Variant = Variant { file: "rows/moments.cu", constants: &[] };

/// The modules of these families.
pub(super) fn modules() -> Vec<Module> {
    const OF_SCORES: &[Entry] = &[
        entry("row_logit_scores", 40, false),
        entry("row_square_norms", 48, true),
        entry("row_square_norms_of_coordinates", 40, true),
        entry("row_inverse_norms", 40, true),
        entry("row_normalise", 40, true),
        entry("row_kth_smallest", 40, false),
    ];
    const OF_PRODUCTS: &[Entry] = &[
        entry("row_projection", 128, false),
        entry("row_projection_of_coordinates", 128, false),
        entry("row_shaped_projection", 128, false),
        entry("row_distances", 128, false),
        entry("row_normalised_distances", 128, false),
        entry("row_distances_f32", 128, false),
    ];
    const OF_MOMENTS: &[Entry] = &[entry("class_sums", 40, false), entry("within_scatter", 128, false)];
    vec![
        Module { variant: SCORES, entries: OF_SCORES },
        Module { variant: PRODUCTS, entries: OF_PRODUCTS },
        Module { variant: MOMENTS, entries: OF_MOMENTS },
    ]
}

/// Distances between rows and points that are held at once: 64 MiB.
const MOST_DISTANCES: usize = 1 << 23;

/// A warp for each row.
pub(super) fn warps(rows: usize) -> Result<LaunchConfig> {
    grid(rows.div_ceil(WARPS), 1)
}

/// A thread block for each tile of a matrix.
pub(super) fn tiles(rows: usize, columns: usize) -> Result<LaunchConfig> {
    grid(columns.div_ceil(TILE), rows.div_ceil(TILE))
}

/// Scratch memory of the calls of this family; `None` for others.
pub(super) fn workspace_bytes(call: &Call<()>) -> Option<usize> {
    let of = |nearest: &Nearest| (nearest.rows, nearest.points);
    let (rows, points) = match call {
        Call::RowNearest(op) => of(&op.attributes),
        Call::RowNearestNormalised(op) => of(&op.attributes),
        Call::RowNearestF32(op) => of(&op.attributes),
        Call::RowGuidedSum(op) => (op.attributes.rows, op.attributes.points),
        Call::RowRelation(op) => (op.attributes.rows, op.attributes.points),
        _ => return None,
    };
    Some((rows * points).min(MOST_DISTANCES.max(points)) * DType::F64.size())
}

/// Part of a matrix: rows `first..first + rows`.
pub(super) fn part(span: Span, columns: usize, first: usize, rows: usize) -> Span {
    Span { offset: span.offset + first * columns * span.dtype.size(), elements: rows * columns, ..span }
}

impl Cuda {
    /// The k-th smallest of each row of `distances`.
    fn kth_smallest(
        &self,
        [rows, columns]: [usize; 2],
        k: usize,
        distances: Span,
        smallest: Span,
    ) -> Result<()> {
        let operands = [("distances", distances, Read), ("smallest", smallest, Write)];
        let arguments = scores::KthSmallest {
            values: self.pointer(distances),
            smallest: self.pointer(smallest),
            rows: extent(rows)?,
            columns: extent(columns)?,
            k: extent(k)?,
            unused: 0,
        };
        self.launch((&SCORES, "row_kth_smallest"), grid(rows, 1)?, &arguments, &operands)
    }

    /// Distances of some rows at a time, by the room in the workspace, and the k-th smallest of each.
    fn kth_distances(
        &self,
        nearest: &Nearest,
        workspace: Span,
        to: Span,
        mut distances: impl FnMut(usize, usize, Span) -> Result<()>,
    ) -> Result<()> {
        let Nearest { rows, points, k, .. } = *nearest;
        over_points([rows, points], workspace, |first, some, table| {
            distances(first, some, table)?;
            self.kth_smallest([some, points], k, table, part(to, 1, first, some))
        })
    }
}

/// Some rows at a time, by the room in the workspace for a table of a number for each row and point.
pub(super) fn over_points(
    [rows, points]: [usize; 2],
    workspace: Span,
    mut each: impl FnMut(usize, usize, Span) -> Result<()>,
) -> Result<()> {
    // Whole tiles where there is room for one.
    let room = workspace.bytes() / DType::F64.size() / points;
    let step = if room >= TILE { room / TILE * TILE } else { room };
    if step == 0 {
        return Err(Error::invalid(format!(
            "a workspace of {} bytes has no room for {points} distances of type F64",
            workspace.bytes()
        )));
    }
    for first in (0..rows).step_by(step) {
        let some = step.min(rows - first);
        let table = Span { offset: workspace.offset, elements: some * points, dtype: DType::F64 };
        each(first, some, table)?;
    }
    Ok(())
}

pub(super) fn row_logit_scores(cuda: &mut Cuda, op: &RowLogitScores<Span>, _: Span) -> Result<()> {
    let LogitScores { rows, classes, temperature, .. } = op.attributes;
    let arguments = scores::LogitScores {
        logits: cuda.pointer_or_null(op.logits),
        scale: cuda.pointer_or_null(op.scale),
        bias: cuda.pointer_or_null(op.bias),
        msp: cuda.pointer_or_null(op.msp),
        mls: cuda.pointer_or_null(op.mls),
        energy: cuda.pointer_or_null(op.energy),
        entropy: cuda.pointer_or_null(op.entropy),
        deviation: cuda.pointer_or_null(op.deviation),
        predicted: cuda.pointer_or_null(op.predicted),
        rows: extent(rows)?,
        classes: extent(classes)?,
        temperature,
    };
    cuda.launch((&SCORES, "row_logit_scores"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_project(cuda: &mut Cuda, op: &RowProject<Span>, _: Span) -> Result<()> {
    let Projection { rows, columns, outputs, .. } = op.attributes;
    let arguments = products::Projection {
        x: cuda.pointer_or_null(op.x),
        shift: cuda.pointer_or_null(op.shift),
        divisor: cuda.pointer_or_null(op.divisor),
        basis: cuda.pointer_or_null(op.basis),
        z: cuda.pointer_or_null(op.z),
        rows: extent(rows)?,
        inputs: extent(columns)?,
        outputs: extent(outputs)?,
        unused: 0,
    };
    cuda.launch((&PRODUCTS, "row_projection"), tiles(rows, outputs)?, &arguments, &all(op.operands()))
}

pub(super) fn row_square_norms(cuda: &mut Cuda, op: &RowSquareNorms<Span>, _: Span) -> Result<()> {
    let PreparedRows { rows, columns, .. } = op.attributes;
    let arguments = scores::SquareNorms {
        x: cuda.pointer_or_null(op.x),
        shift: cuda.pointer_or_null(op.shift),
        divisor: cuda.pointer_or_null(op.divisor),
        labels: 0,
        norms: cuda.pointer_or_null(op.norms),
        rows: extent(rows)?,
        columns: extent(columns)?,
    };
    cuda.launch((&SCORES, "row_square_norms"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_square_norms_of_coordinates(
    cuda: &mut Cuda,
    op: &RowSquareNormsOfCoordinates<Span>,
    _: Span,
) -> Result<()> {
    let Rows { rows, channels } = op.attributes;
    let arguments = scores::CoordinateNorms {
        z: cuda.pointer_or_null(op.z),
        norms: cuda.pointer_or_null(op.norms),
        rows: extent(rows)?,
        columns: extent(channels)?,
    };
    let kernel = (&SCORES, "row_square_norms_of_coordinates");
    cuda.launch(kernel, warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_inverse_norms(cuda: &mut Cuda, op: &RowInverseNorms<Span>, _: Span) -> Result<()> {
    let InverseNorms { rows, columns, floor } = op.attributes;
    let arguments = scores::InverseNorms {
        x: cuda.pointer_or_null(op.x),
        norms: cuda.pointer_or_null(op.norms),
        rows: extent(rows)?,
        columns: extent(columns)?,
        floor,
    };
    cuda.launch((&SCORES, "row_inverse_norms"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_normalise(cuda: &mut Cuda, op: &RowNormalise<Span>, _: Span) -> Result<()> {
    let InverseNorms { rows, columns, floor } = op.attributes;
    let arguments = scores::Normalised {
        x: cuda.pointer_or_null(op.x),
        y: cuda.pointer_or_null(op.y),
        rows: extent(rows)?,
        columns: extent(columns)?,
        floor,
    };
    cuda.launch((&SCORES, "row_normalise"), warps(rows)?, &arguments, &all(op.operands()))
}

/// The k-th nearest of points, by the distances that a kernel computes.
fn nearest(
    cuda: &Cuda,
    kernel: &'static str,
    attributes: &Nearest,
    [z, points, to]: [Span; 3],
    workspace: Span,
) -> Result<()> {
    let Nearest { columns, points: others, .. } = *attributes;
    cuda.kth_distances(attributes, workspace, to, |first, some, distances| {
        let z = part(z, columns, first, some);
        let arguments = products::Distances {
            z: cuda.pointer_or_null(z),
            points: cuda.pointer_or_null(points),
            distances: cuda.pointer_or_null(distances),
            rows: extent(some)?,
            others: extent(others)?,
            depth: extent(columns)?,
            unused: 0,
        };
        let operands = [("z", z, Read), ("points", points, Read), ("distances", distances, Write)];
        cuda.launch((&PRODUCTS, kernel), tiles(some, others)?, &arguments, &operands)
    })
}

pub(super) fn row_nearest(cuda: &mut Cuda, op: &RowNearest<Span>, workspace: Span) -> Result<()> {
    nearest(cuda, "row_distances", &op.attributes, [op.z, op.points, op.nearest], workspace)
}

pub(super) fn row_nearest_f32(cuda: &mut Cuda, op: &RowNearestF32<Span>, workspace: Span) -> Result<()> {
    nearest(cuda, "row_distances_f32", &op.attributes, [op.z, op.points, op.nearest], workspace)
}

pub(super) fn row_nearest_normalised(
    cuda: &mut Cuda,
    op: &RowNearestNormalised<Span>,
    workspace: Span,
) -> Result<()> {
    let Nearest { columns, points, .. } = op.attributes;
    cuda.kth_distances(&op.attributes, workspace, op.nearest, |first, some, distances| {
        let (x, scale) = (part(op.x, columns, first, some), part(op.scale, 1, first, some));
        let arguments = products::NormalisedDistances {
            x: cuda.pointer_or_null(x),
            x_scale: cuda.pointer_or_null(scale),
            bank: cuda.pointer_or_null(op.bank),
            bank_scale: cuda.pointer_or_null(op.bank_scale),
            distances: cuda.pointer_or_null(distances),
            rows: extent(some)?,
            others: extent(points)?,
            depth: extent(columns)?,
            unused: 0,
        };
        let operands = [
            ("x", x, Read),
            ("scale", scale, Read),
            ("bank", op.bank, Read),
            ("bank_scale", op.bank_scale, Read),
            ("distances", distances, Write),
        ];
        let kernel = (&PRODUCTS, "row_normalised_distances");
        cuda.launch(kernel, tiles(some, points)?, &arguments, &operands)
    })
}

pub(super) fn row_class_sums(cuda: &mut Cuda, op: &RowClassSums<Span>, _: Span) -> Result<()> {
    let Labelled { rows, columns, classes } = op.attributes;
    let arguments = moments::ClassSums {
        x: cuda.pointer_or_null(op.x),
        labels: cuda.pointer_or_null(op.labels),
        sums: cuda.pointer_or_null(op.sums),
        rows: extent(rows)?,
        columns: extent(columns)?,
    };
    let config = grid(columns.div_ceil(THREADS), classes)?;
    cuda.launch((&MOMENTS, "class_sums"), config, &arguments, &all(op.operands()))
}

pub(super) fn row_class_deviations(cuda: &mut Cuda, op: &RowClassDeviations<Span>, _: Span) -> Result<()> {
    let Labelled { rows, columns, .. } = op.attributes;
    let arguments = scores::SquareNorms {
        x: cuda.pointer_or_null(op.x),
        shift: cuda.pointer_or_null(op.means),
        divisor: 0,
        labels: cuda.pointer_or_null(op.labels),
        norms: cuda.pointer_or_null(op.deviations),
        rows: extent(rows)?,
        columns: extent(columns)?,
    };
    cuda.launch((&SCORES, "row_square_norms"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_within_scatter(cuda: &mut Cuda, op: &RowWithinScatter<Span>, _: Span) -> Result<()> {
    let Scatter { labelled: Labelled { rows, columns, .. }, slices } = op.attributes;
    let arguments = moments::WithinScatter {
        x: cuda.pointer_or_null(op.x),
        labels: cuda.pointer_or_null(op.labels),
        means: cuda.pointer_or_null(op.means),
        scatter: cuda.pointer_or_null(op.scatter),
        rows: extent(rows)?,
        columns: extent(columns)?,
        slice: extent(rows.div_ceil(slices))?,
        unused: 0,
    };
    let mut config = tiles(columns, columns)?;
    config.grid[2] = slices as u32;
    cuda.launch((&MOMENTS, "within_scatter"), config, &arguments, &all(op.operands()))
}
