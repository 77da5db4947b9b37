//! Passes that scores of single samples are made of: launches of `rows/logits.cu`, `rows/features.cu`, `rows/histograms.cu`,
//! `rows/bank.cu` and the projections of `rows/products.cu`.

use super::call::{all, entry, extent, grid};
use super::kernel_files::rows::{bank, features, histograms, logits, products};
use super::rows::{PRODUCTS, over_points, part, tiles, warps};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::Access::{Read, Write};
use crate::ops::{
    CentredSoftmax, ClassProducts, Coverage, GeneralisedEntropy, HISTOGRAM_BINS, HeadLogits, Histogram,
    LargestFeatures, LargestProducts, LogitRows, Magnitudes, OpenMax, Projection, Relation, RowClassProducts,
    RowCoverage, RowGeneralisedEntropy, RowGuidedSum, RowHistogram, RowHistogramOfCoordinates, RowLargest,
    RowMagnitudes, RowMarginSums, RowMeanProbability, RowOpenMax, RowProjectCoordinates, RowProjectShaped,
    RowRelation, RowSoftmax, RowUnit, Rows, ShapedProjection, Shaping,
};
use crate::tensor::Span;

const LOGITS: Variant = Variant { file: "rows/logits.cu", constants: &[] };
const FEATURES: Variant = Variant { file: "rows/features.cu", constants: &[] };
const HISTOGRAMS: Variant = Variant { file: "rows/histograms.cu", constants: &[] };
const BANK: Variant = Variant { file: "rows/bank.cu", constants: &[] };

const _: () = assert!(histograms::BINS == HISTOGRAM_BINS, "bins of kernel and operation");

/// The modules of these families.
pub(super) fn modules() -> Vec<Module> {
    const OF_LOGITS: &[Entry] = &[
        entry("row_generalised_entropy", 128, false),
        entry("row_margin_sums", 40, false),
        entry("row_softmax", 40, false),
        entry("row_mean_probability", 64, false),
        entry("row_open_max", 80, false),
    ];
    const OF_FEATURES: &[Entry] = &[
        entry("row_unit", 40, false),
        entry("row_largest", 40, false),
        entry("row_class_products", 40, false),
        entry("row_magnitudes", 40, false),
        entry("row_coverage", 40, false),
    ];
    const OF_HISTOGRAMS: &[Entry] =
        &[entry("row_histogram", 64, false), entry("row_histogram_of_coordinates", 64, false)];
    const OF_BANK: &[Entry] = &[
        // 128 but on sm_100a, where one thread block stays on an SM instead of two.
        entry("row_guided_products", 138, false),
        entry("row_likenesses", 168, false),
        entry("row_sum_of_largest", 40, false),
        entry("row_sum", 40, false),
    ];
    vec![
        Module { variant: LOGITS, entries: OF_LOGITS },
        Module { variant: FEATURES, entries: OF_FEATURES },
        Module { variant: HISTOGRAMS, entries: OF_HISTOGRAMS },
        Module { variant: BANK, entries: OF_BANK },
    ]
}

pub(super) fn row_generalised_entropy(
    cuda: &mut Cuda,
    op: &RowGeneralisedEntropy<Span>,
    _: Span,
) -> Result<()> {
    let GeneralisedEntropy { rows, classes, m, gamma, clamp } = op.attributes;
    let arguments = logits::GeneralisedEntropy {
        logits: cuda.pointer_or_null(op.logits),
        entropy: cuda.pointer_or_null(op.entropy),
        gamma,
        clamp,
        rows: extent(rows)?,
        classes: extent(classes)?,
        m: extent(m.min(classes))?,
        unused: 0,
    };
    cuda.launch((&LOGITS, "row_generalised_entropy"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_margin_sums(cuda: &mut Cuda, op: &RowMarginSums<Span>, _: Span) -> Result<()> {
    let LogitRows { rows, classes } = op.attributes;
    let arguments = logits::MarginSums {
        logits: cuda.pointer_or_null(op.logits),
        labels: cuda.pointer_or_null(op.labels),
        weights: cuda.pointer_or_null(op.weights),
        sums: cuda.pointer_or_null(op.sums),
        rows: extent(rows)?,
        classes: extent(classes)?,
    };
    cuda.launch((&LOGITS, "row_margin_sums"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_softmax(cuda: &mut Cuda, op: &RowSoftmax<Span>, _: Span) -> Result<()> {
    let CentredSoftmax { rows, classes, centre } = op.attributes;
    let arguments = logits::Softmax {
        logits: cuda.pointer_or_null(op.logits),
        p: cuda.pointer_or_null(op.p),
        centre,
        rows: extent(rows)?,
        classes: extent(classes)?,
    };
    cuda.launch((&LOGITS, "row_softmax"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_mean_probability(cuda: &mut Cuda, op: &RowMeanProbability<Span>, _: Span) -> Result<()> {
    let HeadLogits { rows, heads, classes } = op.attributes;
    let arguments = logits::MeanProbability {
        z: cuda.pointer_or_null(op.z),
        bias: cuda.pointer_or_null(op.bias),
        mean: cuda.pointer_or_null(op.mean),
        rows: extent(rows)?,
        heads: extent(heads)?,
        classes: extent(classes)?,
        unused: 0,
    };
    cuda.launch((&LOGITS, "row_mean_probability"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_open_max(cuda: &mut Cuda, op: &RowOpenMax<Span>, _: Span) -> Result<()> {
    let OpenMax { rows, classes, alpha } = op.attributes;
    let arguments = logits::OpenMax {
        logits: cuda.pointer_or_null(op.logits),
        means: cuda.pointer_or_null(op.means),
        tails: cuda.pointer_or_null(op.tails),
        revised: cuda.pointer_or_null(op.revised),
        unknown: cuda.pointer_or_null(op.unknown),
        rows: extent(rows)?,
        classes: extent(classes)?,
        alpha: extent(alpha.min(classes))?,
        unused: 0,
    };
    cuda.launch((&LOGITS, "row_open_max"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_project_coordinates(
    cuda: &mut Cuda,
    op: &RowProjectCoordinates<Span>,
    _: Span,
) -> Result<()> {
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
    let kernel = (&PRODUCTS, "row_projection_of_coordinates");
    cuda.launch(kernel, tiles(rows, outputs)?, &arguments, &all(op.operands()))
}

pub(super) fn row_unit(cuda: &mut Cuda, op: &RowUnit<Span>, _: Span) -> Result<()> {
    let Rows { rows, channels } = op.attributes;
    let arguments = features::Unit {
        x: cuda.pointer_or_null(op.x),
        y: cuda.pointer_or_null(op.y),
        rows: extent(rows)?,
        columns: extent(channels)?,
    };
    cuda.launch((&FEATURES, "row_unit"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_largest(cuda: &mut Cuda, op: &RowLargest<Span>, _: Span) -> Result<()> {
    let LargestFeatures { rows, columns, k } = op.attributes;
    let arguments = features::Largest {
        x: cuda.pointer_or_null(op.x),
        bound: cuda.pointer_or_null(op.bound),
        last: cuda.pointer_or_null(op.last),
        scale: cuda.pointer_or_null(op.scale),
        share: cuda.pointer_or_null(op.share),
        rows: extent(rows)?,
        columns: extent(columns)?,
        k: extent(k)?,
        unused: 0,
    };
    cuda.launch((&FEATURES, "row_largest"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_project_shaped(cuda: &mut Cuda, op: &RowProjectShaped<Span>, _: Span) -> Result<()> {
    let ShapedProjection { rows, columns, outputs, shaping } = op.attributes;
    let (mode, lambda) = match shaping {
        Shaping::Cut { lambda, .. } => (products::CUT, lambda),
        Shaping::Clip => (products::CLIP, 0.0),
        Shaping::Keep { ones: false } => (products::KEEP, 0.0),
        Shaping::Keep { ones: true } => (products::KEEP_ONES, 0.0),
    };
    let arguments = products::ShapedProjection {
        x: cuda.pointer_or_null(op.x),
        low: cuda.pointer_or_null(op.low),
        high: cuda.pointer_or_null(op.high),
        basis: cuda.pointer_or_null(op.basis),
        z: cuda.pointer_or_null(op.z),
        lambda,
        rows: extent(rows)?,
        inputs: extent(columns)?,
        outputs: extent(outputs)?,
        mode: extent(mode)?,
    };
    let kernel = (&PRODUCTS, "row_shaped_projection");
    cuda.launch(kernel, tiles(rows, outputs)?, &arguments, &all(op.operands()))
}

pub(super) fn row_class_products(cuda: &mut Cuda, op: &RowClassProducts<Span>, _: Span) -> Result<()> {
    let ClassProducts { rows, columns, .. } = op.attributes;
    let arguments = features::ClassProducts {
        x: cuda.pointer_or_null(op.x),
        labels: cuda.pointer_or_null(op.labels),
        shift: cuda.pointer_or_null(op.shift),
        points: cuda.pointer_or_null(op.points),
        products: cuda.pointer_or_null(op.products),
        rows: extent(rows)?,
        columns: extent(columns)?,
    };
    cuda.launch((&FEATURES, "row_class_products"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_magnitudes(cuda: &mut Cuda, op: &RowMagnitudes<Span>, _: Span) -> Result<()> {
    let Magnitudes { rows, columns, .. } = op.attributes;
    let arguments = features::Magnitudes {
        x: cuda.pointer_or_null(op.x),
        labels: cuda.pointer_or_null(op.labels),
        means: cuda.pointer_or_null(op.means),
        weights: cuda.pointer_or_null(op.weights),
        above: cuda.pointer_or_null(op.above),
        below: cuda.pointer_or_null(op.below),
        rows: extent(rows)?,
        columns: extent(columns)?,
    };
    cuda.launch((&FEATURES, "row_magnitudes"), warps(rows)?, &arguments, &all(op.operands()))
}

pub(super) fn row_coverage(cuda: &mut Cuda, op: &RowCoverage<Span>, _: Span) -> Result<()> {
    let Coverage { rows, columns, bins, alpha } = op.attributes;
    let arguments = features::Coverage {
        x: cuda.pointer_or_null(op.x),
        gradients: cuda.pointer_or_null(op.gradients),
        edges: cuda.pointer_or_null(op.edges),
        coverage: cuda.pointer_or_null(op.coverage),
        covered: cuda.pointer_or_null(op.covered),
        alpha,
        rows: extent(rows)?,
        columns: extent(columns)?,
        bins: extent(bins)?,
        unused: 0,
    };
    cuda.launch((&FEATURES, "row_coverage"), warps(rows)?, &arguments, &all(op.operands()))
}

/// The arguments of a histogram of `[values, bias, edges, shares, divergence]`.
fn histogram(cuda: &Cuda, attributes: &Histogram, operands: [Span; 5]) -> Result<histograms::RowHistogram> {
    let Histogram { rows, columns, period, per_width, width, floor } = *attributes;
    let [values, bias, edges, shares, divergence] = operands.map(|span| cuda.pointer_or_null(span));
    Ok(histograms::RowHistogram {
        values,
        bias,
        edges,
        shares,
        divergence,
        per_width,
        floor,
        rows: extent(rows)?,
        columns: extent(columns)?,
        period: extent(period)?,
        width: extent(width)?,
    })
}

pub(super) fn row_histogram(cuda: &mut Cuda, op: &RowHistogram<Span>, _: Span) -> Result<()> {
    let nothing = Span { elements: 0, ..op.edges };
    let arguments = histogram(cuda, &op.attributes, [op.x, nothing, op.edges, op.shares, op.divergence])?;
    let config = grid(op.attributes.rows, 1)?;
    cuda.launch((&HISTOGRAMS, "row_histogram"), config, &arguments, &all(op.operands()))
}

pub(super) fn row_histogram_of_coordinates(
    cuda: &mut Cuda,
    op: &RowHistogramOfCoordinates<Span>,
    _: Span,
) -> Result<()> {
    let arguments = histogram(cuda, &op.attributes, [op.z, op.bias, op.edges, op.shares, op.divergence])?;
    let config = grid(op.attributes.rows, 1)?;
    cuda.launch((&HISTOGRAMS, "row_histogram_of_coordinates"), config, &arguments, &all(op.operands()))
}

impl Cuda {
    /// The sums of each row of a table, or of its `k` largest numbers.
    fn table_sums(
        &self,
        [rows, columns]: [usize; 2],
        k: Option<usize>,
        table: Span,
        sums: Span,
    ) -> Result<()> {
        let operands = [("table", table, Read), ("sums", sums, Write)];
        let arguments = bank::RowSums {
            values: self.pointer(table),
            sums: self.pointer(sums),
            rows: extent(rows)?,
            columns: extent(columns)?,
            k: extent(k.unwrap_or(columns))?,
            unused: 0,
        };
        let kernel = if k.is_some() { "row_sum_of_largest" } else { "row_sum" };
        self.launch((&BANK, kernel), grid(rows, 1)?, &arguments, &operands)
    }
}

pub(super) fn row_guided_sum(cuda: &mut Cuda, op: &RowGuidedSum<Span>, workspace: Span) -> Result<()> {
    let LargestProducts { rows, columns, points, k } = op.attributes;
    over_points([rows, points], workspace, |first, some, table| {
        let (x, scale) = (part(op.x, columns, first, some), part(op.scale, 1, first, some));
        let arguments = bank::GuidedProducts {
            x: cuda.pointer_or_null(x),
            x_scale: cuda.pointer_or_null(scale),
            bank: cuda.pointer_or_null(op.bank),
            bank_scale: cuda.pointer_or_null(op.bank_scale),
            guide: cuda.pointer_or_null(op.guide),
            products: cuda.pointer_or_null(table),
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
            ("guide", op.guide, Read),
            ("products", table, Write),
        ];
        cuda.launch((&BANK, "row_guided_products"), tiles(some, points)?, &arguments, &operands)?;
        cuda.table_sums([some, points], Some(k), table, part(op.sums, 1, first, some))
    })
}

pub(super) fn row_relation(cuda: &mut Cuda, op: &RowRelation<Span>, workspace: Span) -> Result<()> {
    let Relation { rows, columns, classes, points, least, power } = op.attributes;
    over_points([rows, points], workspace, |first, some, table| {
        let (x, scale) = (part(op.x, columns, first, some), part(op.scale, 1, first, some));
        let p = part(op.p, classes, first, some);
        let arguments = bank::Likenesses {
            x: cuda.pointer_or_null(x),
            x_scale: cuda.pointer_or_null(scale),
            probability: cuda.pointer_or_null(p),
            bank: cuda.pointer_or_null(op.bank),
            bank_scale: cuda.pointer_or_null(op.bank_scale),
            bank_probability: cuda.pointer_or_null(op.bank_p),
            likenesses: cuda.pointer_or_null(table),
            least,
            power,
            rows: extent(some)?,
            others: extent(points)?,
            depth: extent(columns)?,
            classes: extent(classes)?,
        };
        let operands = [
            ("x", x, Read),
            ("scale", scale, Read),
            ("p", p, Read),
            ("bank", op.bank, Read),
            ("bank_scale", op.bank_scale, Read),
            ("bank_p", op.bank_p, Read),
            ("likenesses", table, Write),
        ];
        cuda.launch((&BANK, "row_likenesses"), tiles(some, points)?, &arguments, &operands)?;
        cuda.table_sums([some, points], None, table, part(op.sums, 1, first, some))
    })
}
