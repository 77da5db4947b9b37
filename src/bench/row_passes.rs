//! Passes over rows of features, as operations of their own: what each reads and writes, what it has to do, how a device is
//! asked for it, and the plain loop it is held to.

use rayon::prelude::*;

use crate::error::Result;
use crate::ops::{Features, Labelled, Points, RowOps};
use crate::rng::{Purpose, Stream};
use crate::tensor::{DType, Span};

/// Distances of a pass that are held at once, f64.
const MOST_DISTANCES: usize = 1 << 23;
/// Slices that the scatter is summed in.
const SLICES: usize = 2;
const TEMPERATURE: f64 = 1.5;
const FLOOR: f64 = 1e-10;
/// The neighbour whose distance is asked for, where there are as many.
const NEIGHBOUR: usize = 3;

/// One pass at one shape; each is the [`RowOps`] method of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowPass {
    LogitScores { rows: usize, classes: usize },
    Project { rows: usize, columns: usize, outputs: usize },
    SquareNorms { rows: usize, columns: usize },
    SquareNormsOfCoordinates { rows: usize, columns: usize },
    InverseNorms { rows: usize, columns: usize },
    Nearest { rows: usize, columns: usize, points: usize },
    NearestNormalised { rows: usize, columns: usize, points: usize },
    ClassSums { rows: usize, columns: usize, classes: usize },
    ClassDeviations { rows: usize, columns: usize, classes: usize },
    WithinScatter { rows: usize, columns: usize, classes: usize },
}

/// What an operand is to a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Read.
    Input,
    /// Written.
    Output,
    /// Added to.
    Sum,
    /// Used meanwhile.
    Scratch,
}

/// An operand: name, elements, type, role.
pub(super) type Operand = (&'static str, usize, DType, Role);

impl RowPass {
    /// The method, as its kernels are called.
    pub(super) fn method(&self) -> &'static str {
        match self {
            RowPass::LogitScores { .. } => "row_logit_scores",
            RowPass::Project { .. } => "row_project",
            RowPass::SquareNorms { .. } => "row_square_norms",
            RowPass::SquareNormsOfCoordinates { .. } => "row_square_norms_of_coordinates",
            RowPass::InverseNorms { .. } => "row_inverse_norms",
            RowPass::Nearest { .. } => "row_nearest",
            RowPass::NearestNormalised { .. } => "row_nearest_normalised",
            RowPass::ClassSums { .. } => "row_class_sums",
            RowPass::ClassDeviations { .. } => "row_class_deviations",
            RowPass::WithinScatter { .. } => "row_within_scatter",
        }
    }

    /// Method, shape and the type of its sums: `row_project.1000000x512-k412.f64`.
    pub(super) fn name(&self) -> String {
        use RowPass::*;
        let shape = match *self {
            LogitScores { rows, classes } => format!("{rows}x{classes}"),
            SquareNorms { rows, columns }
            | SquareNormsOfCoordinates { rows, columns }
            | InverseNorms { rows, columns } => format!("{rows}x{columns}"),
            Project { rows, columns, outputs: others }
            | Nearest { rows, columns, points: others }
            | NearestNormalised { rows, columns, points: others }
            | ClassSums { rows, columns, classes: others }
            | ClassDeviations { rows, columns, classes: others }
            | WithinScatter { rows, columns, classes: others } => format!("{rows}x{columns}-k{others}"),
        };
        format!("{}.{shape}.f64", self.method())
    }

    /// Its operands, in the order in which [`RowPass::run`] takes them.
    pub(super) fn operands(&self) -> Vec<Operand> {
        use Role::{Input, Output, Scratch, Sum};
        use RowPass::*;
        let x = |rows, columns| ("x", rows * columns, DType::F32, Input);
        let double = |name, elements| (name, elements, DType::F64, Input);
        let written = |name, elements| (name, elements, DType::F64, Output);
        let scratch = |rows: usize, points: usize| {
            ("scratch", (rows * points).min(MOST_DISTANCES.max(points)), DType::F64, Scratch)
        };
        let labels = |rows| ("labels", rows, DType::I32, Input);
        match *self {
            LogitScores { rows, classes } => vec![
                double("logits", rows * classes),
                written("msp", rows),
                written("mls", rows),
                written("energy", rows),
            ],
            Project { rows, columns, outputs } => vec![
                x(rows, columns),
                double("shift", columns),
                double("divisor", columns),
                double("basis", columns * outputs),
                written("z", rows * outputs),
            ],
            SquareNorms { rows, columns } => vec![
                x(rows, columns),
                double("shift", columns),
                double("divisor", columns),
                written("norms", rows),
            ],
            SquareNormsOfCoordinates { rows, columns } => {
                vec![double("z", rows * columns), written("norms", rows)]
            }
            InverseNorms { rows, columns } => vec![x(rows, columns), written("norms", rows)],
            Nearest { rows, columns, points } => vec![
                double("z", rows * columns),
                double("points", points * columns),
                scratch(rows, points),
                written("nearest", rows),
            ],
            NearestNormalised { rows, columns, points } => vec![
                x(rows, columns),
                double("scale", rows),
                ("bank", points * columns, DType::F32, Input),
                double("bank_scale", points),
                scratch(rows, points),
                written("nearest", rows),
            ],
            ClassSums { rows, columns, classes } => {
                vec![x(rows, columns), labels(rows), ("sums", classes * columns, DType::F64, Sum)]
            }
            ClassDeviations { rows, columns, classes } => vec![
                x(rows, columns),
                labels(rows),
                double("means", classes * columns),
                written("deviations", rows),
            ],
            WithinScatter { rows, columns, classes } => vec![
                x(rows, columns),
                labels(rows),
                double("means", classes * columns),
                ("scatter", SLICES * columns * columns, DType::F64, Sum),
            ],
        }
    }

    /// Floating-point operations of its products, two per multiply-add (of distances three: a difference comes first).
    pub(super) fn flop(&self) -> f64 {
        use RowPass::*;
        match *self {
            Project { rows, columns, outputs } => 2.0 * (rows * columns * outputs) as f64,
            Nearest { rows, columns, points } | NearestNormalised { rows, columns, points } => {
                3.0 * (rows * columns * points) as f64
            }
            // On and below the diagonal.
            WithinScatter { rows, columns, .. } => (rows * columns * (columns + 1)) as f64,
            _ => 0.0,
        }
    }

    /// Bytes it must read and write, each once.
    pub(super) fn bytes(&self) -> f64 {
        let bytes = |(_, elements, dtype, role): Operand| {
            let times = match role {
                Role::Input | Role::Output => 1,
                Role::Sum => 2,
                Role::Scratch => 0,
            };
            times * elements * dtype.size()
        };
        self.operands().into_iter().map(bytes).sum::<usize>() as f64
    }

    /// The numbers of classes of its labels.
    fn classes(&self) -> usize {
        match *self {
            RowPass::ClassSums { classes, .. }
            | RowPass::ClassDeviations { classes, .. }
            | RowPass::WithinScatter { classes, .. } => classes,
            _ => 1,
        }
    }

    /// The first values of an input, all of which its type holds.
    pub(super) fn values(&self, (name, elements, dtype, _): Operand) -> Vec<f64> {
        let key = name.bytes().fold(0, |key, byte| 31 * key + u64::from(byte));
        let stream = Stream::for_purpose(1, Purpose::Synthetic, &[key]);
        let number = |i| match (name, dtype) {
            (_, DType::I32) => stream.below(i, self.classes() as u64) as f64,
            ("divisor" | "scale" | "bank_scale", _) => 0.5 + stream.uniform(i),
            (_, DType::F32) => f64::from((2.0 * stream.uniform(i) - 1.0) as f32),
            _ => 2.0 * stream.uniform(i) - 1.0,
        };
        (0..elements as u64).into_par_iter().map(number).collect()
    }

    /// Asks a device for it.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// Other spans than those of [`RowPass::operands`].
    pub(super) fn run(&self, device: &mut dyn RowOps, spans: &[Span]) -> Result<()> {
        use RowPass::*;
        let prepared =
            |rows, columns, shift, divisor| Features { x: spans[0], rows, columns, shift, divisor };
        let neighbour = |points: usize| NEIGHBOUR.min(points);
        match (*self, spans) {
            (LogitScores { rows, classes }, &[logits, msp, mls, energy]) => {
                device.logit_scores([rows, classes], TEMPERATURE, logits, [msp, mls, energy])
            }
            (Project { rows, columns, outputs }, &[_, shift, divisor, basis, z]) => {
                let features = prepared(rows, columns, Some(shift), Some(divisor));
                device.project(&features, outputs, basis, z)
            }
            (SquareNorms { rows, columns }, &[_, shift, divisor, norms]) => {
                device.square_norms(&prepared(rows, columns, Some(shift), Some(divisor)), norms)
            }
            (SquareNormsOfCoordinates { rows, columns }, &[z, norms]) => {
                device.square_norms_of_coordinates([rows, columns], z, norms)
            }
            (InverseNorms { rows, columns }, &[_, norms]) => {
                device.inverse_norms(&prepared(rows, columns, None, None), FLOOR, norms)
            }
            (Nearest { rows, columns, points }, &[z, values, scratch, nearest]) => {
                let points = Points { values, count: points, k: neighbour(points) };
                device.nearest([rows, columns], z, &points, scratch, nearest)
            }
            (
                NearestNormalised { rows, columns, points },
                &[_, scale, values, bank_scale, scratch, nearest],
            ) => {
                let bank = Points { values, count: points, k: neighbour(points) };
                let features = prepared(rows, columns, None, None);
                device.nearest_normalised((&features, scale), (&bank, bank_scale), scratch, nearest)
            }
            (ClassSums { rows, columns, classes }, &[x, labels, sums]) => {
                device.class_sums(&Labelled { x, labels, rows, columns, classes }, sums)
            }
            (ClassDeviations { rows, columns, classes }, &[x, labels, means, deviations]) => {
                let labelled = Labelled { x, labels, rows, columns, classes };
                device.class_deviations(&labelled, means, deviations)
            }
            (WithinScatter { rows, columns, classes }, &[x, labels, means, scatter]) => {
                let labelled = Labelled { x, labels, rows, columns, classes };
                device.within_scatter(&labelled, means, SLICES, scatter)
            }
            _ => panic!("{self:?} takes {} operands, not {}", self.operands().len(), spans.len()),
        }
    }

    /// What its outputs and sums must hold, by plain loops in f64, in the order of the operands; sums began at zero. Of the
    /// scatter that is the sum over slices, on and below the diagonal.
    pub(super) fn expected(&self, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        use RowPass::*;
        let square = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>();
        match *self {
            LogitScores { classes, .. } => {
                let scores = |row: &[f64]| {
                    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = row.iter().map(|l| ((l - largest) / TEMPERATURE).exp()).sum();
                    [1.0 / sum, largest, largest + TEMPERATURE * sum.ln()]
                };
                let scores: Vec<[f64; 3]> = inputs[0].chunks(classes).map(scores).collect();
                (0..3).map(|which| scores.iter().map(|score| score[which]).collect()).collect()
            }
            Project { columns, outputs, .. } => {
                let (prepared, basis) = (prepare(inputs, columns), &inputs[3]);
                let product = |row: &[f64]| {
                    (0..outputs)
                        .map(|o| (0..columns).map(|c| row[c] * basis[c * outputs + o]).sum())
                        .collect()
                };
                vec![prepared.chunks(columns).flat_map(|row| -> Vec<f64> { product(row) }).collect()]
            }
            SquareNorms { columns, .. } => {
                vec![prepare(inputs, columns).chunks(columns).map(square).collect()]
            }
            SquareNormsOfCoordinates { columns, .. } => vec![inputs[0].chunks(columns).map(square).collect()],
            InverseNorms { columns, .. } => {
                vec![inputs[0].chunks(columns).map(|row| 1.0 / (square(row).sqrt() + FLOOR)).collect()]
            }
            Nearest { columns, .. } => vec![kth_distances(&inputs[0], &inputs[1], columns)],
            NearestNormalised { columns, .. } => {
                let scaled = |values: &[f64], scales: &[f64]| -> Vec<f64> {
                    values.iter().enumerate().map(|(i, x)| x * scales[i / columns]).collect()
                };
                let (rows, bank) = (scaled(&inputs[0], &inputs[1]), scaled(&inputs[2], &inputs[3]));
                vec![kth_distances(&rows, &bank, columns)]
            }
            ClassSums { columns, classes, .. } => {
                let mut sums = vec![0.0; classes * columns];
                for (row, &label) in inputs[0].chunks(columns).zip(&inputs[1]) {
                    let sums = &mut sums[label as usize * columns..][..columns];
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                vec![sums]
            }
            ClassDeviations { columns, .. } => {
                vec![deviations(inputs, columns).chunks(columns).map(square).collect()]
            }
            WithinScatter { columns, .. } => {
                let deviations = deviations(inputs, columns);
                let sum = |(i, j): (usize, usize)| deviations.chunks(columns).map(|d| d[i] * d[j]).sum();
                vec![lower_triangle(columns).map(sum).collect()]
            }
        }
    }

    /// What a device's outputs are compared in: as they are, but the scatter as [`RowPass::expected`] says.
    pub(super) fn compared(&self, found: Vec<f64>) -> Vec<f64> {
        let RowPass::WithinScatter { columns, .. } = *self else { return found };
        let slices = |at: usize| found.iter().skip(at).step_by(columns * columns).sum();
        lower_triangle(columns).map(|(i, j)| slices(i * columns + j)).collect()
    }
}

/// Rows and columns on and below the diagonal.
fn lower_triangle(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..columns).flat_map(|i| (0..=i).map(move |j| (i, j)))
}

/// `(x - shift) / divisor`, the first three inputs.
fn prepare(inputs: &[Vec<f64>], columns: usize) -> Vec<f64> {
    let prepared = |(i, x): (usize, &f64)| (x - inputs[1][i % columns]) / inputs[2][i % columns];
    inputs[0].iter().enumerate().map(prepared).collect()
}

/// Rows minus the mean of their class: x, labels, means.
fn deviations(inputs: &[Vec<f64>], columns: usize) -> Vec<f64> {
    let mean = |i: usize| inputs[2][inputs[1][i / columns] as usize * columns + i % columns];
    inputs[0].iter().enumerate().map(|(i, x)| x - mean(i)).collect()
}

fn kth_distances(rows: &[f64], points: &[f64], columns: usize) -> Vec<f64> {
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    let kth = |row: &[f64]| {
        let mut distances: Vec<f64> = points.chunks(columns).map(|point| distance(row, point)).collect();
        distances.sort_by(f64::total_cmp);
        distances[NEIGHBOUR.min(distances.len()) - 1]
    };
    rows.chunks(columns).map(kth).collect()
}

/// Passes at awkward shapes, each of them at several: rows that fill no block, columns that fill no vector or tile.
pub(super) fn row_edge_cases() -> Vec<RowPass> {
    let shapes = [[1, 1, 1], [5, 7, 3], [67, 65, 70], [130, 33, 9]];
    shapes.into_iter().flat_map(|[rows, columns, others]| all(rows, columns, others)).collect()
}

/// Every pass over so many rows.
fn all(rows: usize, columns: usize, others: usize) -> Vec<RowPass> {
    use RowPass::*;
    vec![
        LogitScores { rows, classes: others },
        Project { rows, columns, outputs: others },
        SquareNorms { rows, columns },
        SquareNormsOfCoordinates { rows, columns },
        InverseNorms { rows, columns },
        Nearest { rows, columns, points: others },
        NearestNormalised { rows, columns, points: others },
        ClassSums { rows, columns, classes: others },
        ClassDeviations { rows, columns, classes: others },
        WithinScatter { rows, columns, classes: others },
    ]
}

/// What `bench` measures over so many rows of features: every pass, and all those together that the scores of a row, Mahalanobis,
/// ViM and NECO take.
pub(super) fn measured(rows: usize, columns: usize, classes: usize) -> Vec<(String, Vec<RowPass>)> {
    use RowPass::*;
    let principal = classes.min(columns);
    let residual = (columns - principal / 2).max(1);
    let scores = vec![
        LogitScores { rows, classes },
        // Whitened, the nearest class mean.
        Project { rows, columns, outputs: columns },
        Nearest { rows, columns, points: classes },
        // What lies outside the principal subspace.
        Project { rows, columns, outputs: residual },
        SquareNormsOfCoordinates { rows, columns: residual },
        // What lies inside, and the whole.
        Project { rows, columns, outputs: principal },
        SquareNormsOfCoordinates { rows, columns: principal },
        SquareNorms { rows, columns },
    ];
    let single = all(rows, columns, classes).into_iter().map(|pass| (pass.name(), vec![pass]));
    single.chain([(format!("row_scores.{rows}x{columns}-k{classes}.f64"), scores)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_cases_have_every_pass_over_rows() {
        let mut names: Vec<&str> =
            row_edge_cases().iter().map(|pass| pass.method().trim_start_matches("row_")).collect();
        names.sort_unstable();
        names.dedup();
        let mut declared: Vec<&str> = include_str!("../ops/rows.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("    fn ")?.split_once('('))
            .map(|(name, _)| name)
            .collect();
        declared.sort_unstable();
        assert_eq!(names, declared);
    }

    #[test]
    fn work_counts_every_byte_and_multiply_add_once() {
        let pass = RowPass::Project { rows: 10, columns: 4, outputs: 3 };
        assert_eq!(pass.flop(), 2.0 * 10.0 * 4.0 * 3.0);
        assert_eq!(pass.bytes(), (4 * 40 + 8 * (4 + 4 + 12 + 30)) as f64);
        let sums = RowPass::ClassSums { rows: 10, columns: 4, classes: 2 };
        assert_eq!((sums.flop(), sums.bytes()), (0.0, (4 * 50 + 2 * 8 * 8) as f64));
        assert_eq!(pass.name(), "row_project.10x4-k3.f64");
    }
}
