//! Measurements of the passes over many rows of features: every pass alone, and together the passes that the scores of a
//! row take.

use crate::ops::*;

/// Slices that the scatter is summed in.
const SLICES: usize = 2;
const TEMPERATURE: f64 = 1.5;
const FLOOR: f64 = 1e-10;
/// The neighbour whose distance is asked for, where there are that many points.
const NEIGHBOUR: usize = 3;
const HEADS: usize = 3;
/// Logits that OpenMax revises, where there are that many.
const REVISED: usize = 3;
const COVERED_BINS: usize = 48;

fn project(rows: usize, columns: usize, outputs: usize) -> Call<()> {
    RowProject::alone(Projection { rows, columns, outputs, shift: true, divisor: true })
}

fn square_norms_of_coordinates(rows: usize, channels: usize) -> Call<()> {
    RowSquareNormsOfCoordinates::alone(Rows { rows, channels })
}

fn logit_scores(rows: usize, classes: usize) -> Call<()> {
    let (temperature, scaled, biased, deviation) = (TEMPERATURE, false, false, false);
    RowLogitScores::alone(LogitScores { rows, classes, temperature, scaled, biased, deviation })
}

fn square_norms(rows: usize, columns: usize) -> Call<()> {
    RowSquareNorms::alone(PreparedRows { rows, columns, shift: true, divisor: true })
}

fn nearest(rows: usize, columns: usize, points: usize) -> Nearest {
    Nearest { rows, columns, points, k: NEIGHBOUR.min(points) }
}

/// Every pass over `rows` rows.
pub(super) fn passes(rows: usize, columns: usize, others: usize) -> Vec<Call<()>> {
    let mut all = passes_of_statistics(rows, columns, others);
    all.extend(passes_of_scores(rows, columns, others));
    all
}

/// The passes that scores of single samples are made of.
fn passes_of_scores(rows: usize, columns: usize, classes: usize) -> Vec<Call<()>> {
    let logits = LogitRows { rows, classes };
    let (temperature, gamma, clamp) = (TEMPERATURE, 0.1, 0.0);
    let all = LogitScores { rows, classes, temperature, scaled: true, biased: true, deviation: true };
    let projection = Projection { rows, columns, outputs: classes, shift: true, divisor: true };
    let histogram = Histogram { rows, columns, period: classes, per_width: 50.0, width: 4, floor: 0.01 };
    let shaped =
        |shaping| RowProjectShaped::alone(ShapedProjection { rows, columns, outputs: classes, shaping });
    let magnitudes =
        |centred, signed| RowMagnitudes::alone(Magnitudes { rows, columns, classes, centred, signed });
    vec![
        RowLogitScores::alone(all),
        RowGeneralisedEntropy::alone(GeneralisedEntropy { rows, classes, m: classes, gamma, clamp }),
        RowGeneralisedEntropy::alone(GeneralisedEntropy {
            rows,
            classes,
            m: classes.div_ceil(3),
            gamma,
            clamp: 1e-7,
        }),
        RowMarginSums::alone(logits),
        RowSoftmax::alone(CentredSoftmax { rows, classes, centre: (classes as f64).recip() }),
        RowMeanProbability::alone(HeadLogits { rows, heads: HEADS, classes }),
        RowOpenMax::alone(OpenMax { rows, classes, alpha: REVISED.min(classes) }),
        RowProjectCoordinates::alone(projection),
        RowUnit::alone(Rows { rows, channels: columns }),
        RowLargest::alone(LargestFeatures { rows, columns, k: columns.div_ceil(10) }),
        shaped(Shaping::Cut { low: false, lambda: 0.0 }),
        shaped(Shaping::Cut { low: true, lambda: 0.25 }),
        shaped(Shaping::Clip),
        shaped(Shaping::Keep { ones: false }),
        shaped(Shaping::Keep { ones: true }),
        RowClassProducts::alone(ClassProducts { rows, columns, classes, shift: true }),
        magnitudes(false, false),
        magnitudes(true, false),
        magnitudes(true, true),
        RowCoverage::alone(Coverage { rows, columns, bins: COVERED_BINS, alpha: 50.0 }),
        RowHistogram::alone(histogram),
        RowHistogramOfCoordinates::alone(histogram),
        RowGuidedSum::alone(LargestProducts { rows, columns, points: classes, k: NEIGHBOUR.min(classes) }),
        RowRelation::alone(Relation { rows, columns, classes, points: classes, least: 0.03, power: 1.5 }),
    ]
}

fn passes_of_statistics(rows: usize, columns: usize, others: usize) -> Vec<Call<()>> {
    let labelled = Labelled { rows, columns, classes: others };
    vec![
        logit_scores(rows, others),
        project(rows, columns, others),
        square_norms(rows, columns),
        square_norms_of_coordinates(rows, columns),
        RowInverseNorms::alone(InverseNorms { rows, columns, floor: FLOOR }),
        RowNearest::alone(nearest(rows, columns, others)),
        RowNearestNormalised::alone(nearest(rows, columns, others)),
        RowNormalise::alone(InverseNorms { rows, columns, floor: FLOOR }),
        RowNearestF32::alone(nearest(rows, columns, others)),
        RowClassSums::alone(labelled),
        RowClassDeviations::alone(labelled),
        RowWithinScatter::alone(Scatter { labelled, slices: SLICES }),
    ]
}

/// The name of a row of results, and the calls that it times one after the other.
pub(super) type Measured = (String, Vec<Call<()>>);

/// Every pass alone, and together the passes that the scores of a row, Mahalanobis, ViM and NECO take.
pub(super) fn measured(rows: usize, columns: usize, classes: usize) -> Vec<Measured> {
    let principal = classes.min(columns);
    let residual = (columns - principal / 2).max(1);
    let scores = vec![
        logit_scores(rows, classes),
        // Whitened, the nearest class mean.
        project(rows, columns, columns),
        RowNearest::alone(nearest(rows, columns, classes)),
        // The part outside the principal subspace.
        project(rows, columns, residual),
        square_norms_of_coordinates(rows, residual),
        // The part inside, and the whole.
        project(rows, columns, principal),
        square_norms_of_coordinates(rows, principal),
        square_norms(rows, columns),
    ];
    let passes = passes(rows, columns, classes).into_iter();
    let single = passes.map(|pass| (format!("{}.{}.f64", pass.name(), pass.shape()), vec![pass]));
    single.chain([(format!("row_scores.{rows}x{columns}-k{classes}.f64"), scores)]).collect()
}
