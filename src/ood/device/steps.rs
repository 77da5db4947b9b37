//! The steps of a pass, while they are put together: what one score asks for and another has asked for already is computed once.

use super::RowsPrecision;
use super::features::Largest;
use super::pipeline::{Block, Places};
use crate::linalg::squared_norm;
use crate::ood::compute::Projector;
use crate::ops::{
    Call, CentredSoftmax, GeneralisedEntropy, LogitRows, LogitScores, Nearest, OpenMax, PreparedRows,
    Projection, RowGeneralisedEntropy, RowLogitScores, RowMarginSums, RowNearest, RowOpenMax, RowProject,
    RowProjectCoordinates, RowSoftmax, RowSquareNorms, RowSquareNormsOfCoordinates, RowUnit, Rows as RowsOf,
};
use crate::tensor::{DType, Span};

/// One computation on each block.
pub(super) type Step = Box<dyn Fn(&Block) -> Call<Span>>;

/// The place of a step's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ood) enum Place {
    /// In this column of the results.
    Column(usize),
    /// Nowhere: they are all zero.
    Zeros,
}

/// Numbers of each row that stay on the device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::ood) struct Buffer {
    pub(super) span: Span,
    /// Numbers of a row.
    pub(super) width: usize,
}

/// Scores of logits.
#[derive(Debug, Clone, Copy)]
pub(in crate::ood) struct OfLogits {
    /// The largest probability.
    pub msp: Place,
    /// The largest logit.
    pub mls: Place,
    /// `T logsumexp(l / T)`.
    pub energy: Place,
    /// `sum of p log p`.
    pub entropy: Place,
    /// `sum of |classes p - 1|`, where that was asked for.
    deviation: Place,
    /// The class of the largest logit.
    pub predicted: Buffer,
}

/// The steps of a pass, while they are put together.
pub(in crate::ood) struct Steps<'a> {
    pub(super) places: Places<'a>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) classes: usize,
    /// Features and logits of a block.
    pub(super) x: Span,
    pub(super) logits: Span,
    pub(super) steps: Vec<Step>,
    /// Calls that run once, before the first block.
    pub(super) setup: Vec<Call<Span>>,
    /// Columns of results so far.
    pub(super) results: usize,
    pub(super) precision: RowsPrecision,
    logit_scores: Vec<(f64, OfLogits)>,
    softmaxes: Vec<(f64, Buffer)>,
    unit: Option<Buffer>,
    pub(super) inverse_norms: Vec<(f64, Buffer)>,
    pub(super) largest: Vec<(usize, Largest)>,
    norms: Option<Place>,
    pub(super) magnitudes: Option<[Place; 2]>,
}

impl<'a> Steps<'a> {
    /// No step yet, for blocks of at most `rows` rows of `columns` features and `classes` classes.
    pub(super) fn new(red_zone: usize, [rows, columns, classes]: [usize; 3]) -> Steps<'a> {
        let mut places = Places::new(red_zone);
        let (x, logits) =
            (places.place(rows * columns, DType::F32), places.place(rows * classes, DType::F64));
        Steps {
            places,
            rows,
            columns,
            classes,
            x,
            logits,
            steps: Vec::new(),
            setup: Vec::new(),
            results: 0,
            precision: RowsPrecision::default(),
            logit_scores: Vec::new(),
            softmaxes: Vec::new(),
            unit: None,
            inverse_norms: Vec::new(),
            largest: Vec::new(),
            norms: None,
            magnitudes: None,
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

    pub(super) fn push(&mut self, step: impl Fn(&Block) -> Call<Span> + 'static) {
        self.steps.push(Box::new(step));
    }

    /// The next columns of results.
    pub(super) fn columns_of_results<const N: usize>(&mut self) -> [usize; N] {
        let first = self.results;
        self.results += N;
        std::array::from_fn(|number| first + number)
    }

    pub(super) fn buffer(&mut self, width: usize, dtype: DType) -> Buffer {
        Buffer { span: self.places.place(self.rows * width, dtype), width }
    }

    pub(super) fn optional(&mut self, values: Option<&'a [f64]>) -> Span {
        let nothing = Span { elements: 0, ..self.logits };
        values.map_or(nothing, |values| self.places.upload(values))
    }

    /// Scores of the logits at a temperature.
    pub(in crate::ood) fn logit_scores(&mut self, temperature: f64) -> OfLogits {
        if let Some((_, scores)) = self.logit_scores.iter().find(|(own, _)| *own == temperature) {
            return *scores;
        }
        let logits = Buffer { span: self.logits, width: self.classes };
        let scores = self.scores_by(logits, [None, None], temperature, false);
        self.logit_scores.push((temperature, scores));
        scores
    }

    /// `sum of |classes p - 1|`, p the probabilities at a temperature.
    pub(in crate::ood) fn deviation(&mut self, temperature: f64) -> Place {
        let logits = Buffer { span: self.logits, width: self.classes };
        self.scores_by(logits, [None, None], temperature, true).deviation
    }

    /// Scores of logits that were computed here, `scale z + bias`.
    pub(in crate::ood) fn scores_of(
        &mut self,
        z: Buffer,
        scale: Option<Buffer>,
        bias: &'a [f64],
        temperature: f64,
    ) -> OfLogits {
        let bias = self.places.upload(bias);
        self.scores_by(z, [scale, Some(Buffer { span: bias, width: 0 })], temperature, false)
    }

    fn scores_by(
        &mut self,
        z: Buffer,
        [scale, bias]: [Option<Buffer>; 2],
        temperature: f64,
        deviates: bool,
    ) -> OfLogits {
        let nothing = Span { elements: 0, ..self.logits };
        let [msp, mls, energy, entropy, deviation] = self.columns_of_results();
        let predicted = self.buffer(1, DType::I32);
        self.push(move |block| {
            let attributes = LogitScores {
                rows: block.count,
                classes: z.width,
                temperature,
                scaled: scale.is_some(),
                biased: bias.is_some(),
                deviation: deviates,
            };
            RowLogitScores {
                attributes,
                logits: block.rows(z.span, z.width),
                scale: scale.map_or(nothing, |scale| block.rows(scale.span, 1)),
                bias: bias.map_or(nothing, |bias| bias.span),
                msp: block.column(msp),
                mls: block.column(mls),
                energy: block.column(energy),
                entropy: block.column(entropy),
                deviation: if deviates { block.column(deviation) } else { nothing },
                predicted: block.rows(predicted.span, 1),
            }
            .into()
        });
        let [msp, mls, energy, entropy, deviation] =
            [msp, mls, energy, entropy, deviation].map(Place::Column);
        OfLogits { msp, mls, energy, entropy, deviation, predicted }
    }

    /// The class of the largest logit.
    pub(in crate::ood) fn predicted(&mut self) -> Buffer {
        self.logit_scores(1.0).predicted
    }

    /// `-sum of p^gamma (1 - p)^gamma` over the `m` largest probabilities.
    pub(in crate::ood) fn generalised_entropy(&mut self, [gamma, clamp]: [f64; 2], m: usize) -> Place {
        let (logits, classes, [to]) = (self.logits, self.classes, self.columns_of_results());
        self.push(move |block| {
            let attributes = GeneralisedEntropy { rows: block.count, classes, m, gamma, clamp };
            let (logits, entropy) = (block.rows(logits, classes), block.column(to));
            RowGeneralisedEntropy { attributes, logits, entropy }.into()
        });
        Place::Column(to)
    }

    /// `sum of |l_y - l_c| weights[y, c]`, y the predicted class.
    pub(in crate::ood) fn margin_sums(&mut self, weights: &'a [f64]) -> Place {
        let labels = self.predicted();
        let (logits, classes, weights) = (self.logits, self.classes, self.places.upload(weights));
        let [to] = self.columns_of_results();
        self.push(move |block| {
            let attributes = LogitRows { rows: block.count, classes };
            let (logits, labels) = (block.rows(logits, classes), block.rows(labels.span, 1));
            RowMarginSums { attributes, logits, labels, weights, sums: block.column(to) }.into()
        });
        Place::Column(to)
    }

    /// Probabilities less a number.
    pub(in crate::ood) fn softmax(&mut self, centre: f64) -> Buffer {
        if let Some((_, p)) = self.softmaxes.iter().find(|(own, _)| *own == centre) {
            return *p;
        }
        let (logits, classes) = (self.logits, self.classes);
        let p = self.buffer(classes, DType::F64);
        self.push(move |block| {
            let attributes = CentredSoftmax { rows: block.count, classes, centre };
            RowSoftmax { attributes, logits: block.rows(logits, classes), p: block.rows(p.span, classes) }
                .into()
        });
        self.softmaxes.push((centre, p));
        p
    }

    /// The probability of an unknown class.
    pub(in crate::ood) fn open_max(&mut self, means: &'a [f64], tails: Vec<f64>, alpha: usize) -> Place {
        let (logits, classes, [to]) = (self.logits, self.classes, self.columns_of_results());
        let (means, tails) = (self.places.upload(means), self.places.upload_own(tails));
        let revised = self.buffer(classes, DType::F64);
        self.push(move |block| {
            let attributes = OpenMax { rows: block.count, classes, alpha };
            let [logits, revised] = [logits, revised.span].map(|span| block.rows(span, classes));
            RowOpenMax { attributes, logits, means, tails, revised, unknown: block.column(to) }.into()
        });
        Place::Column(to)
    }

    /// The features.
    pub(in crate::ood) fn features(&self) -> Buffer {
        Buffer { span: self.x, width: self.columns }
    }

    /// Inner products with the rows of a row-major matrix, as wide as the rows here.
    pub(in crate::ood) fn products(&mut self, x: Buffer, matrix: &[f64]) -> Buffer {
        let basis = self.places.upload_own(transposed(matrix, x.width));
        let nothing = Span { elements: 0, ..self.logits };
        self.project_onto(x, [nothing; 2], basis)
    }

    /// The largest number of each row.
    pub(in crate::ood) fn largest_of(&mut self, z: Buffer) -> Place {
        self.scores_by(z, [None, None], 1.0, false).mls
    }

    /// The class whose mean is nearest to the features, of equal ones the first: that of the largest `<x, m> - |m|² / 2`.
    pub(in crate::ood) fn nearest_class(&mut self, means: &[f64]) -> Buffer {
        let z = self.products(self.features(), means);
        let halves = means.chunks_exact(self.columns).map(|mean| -squared_norm(mean) / 2.0);
        let bias = Buffer { span: self.places.upload_own(halves.collect()), width: 0 };
        self.scores_by(z, [None, Some(bias)], 1.0, false).predicted
    }

    /// Coordinates of rows.
    pub(in crate::ood) fn project(&mut self, x: Buffer, projector: &Projector<'a>) -> Buffer {
        let prepared = [projector.shift, projector.divisor].map(|values| self.optional(values));
        let basis = self.places.upload(projector.basis);
        self.project_onto(x, prepared, basis)
    }

    pub(super) fn project_onto(&mut self, x: Buffer, [shift, divisor]: [Span; 2], basis: Span) -> Buffer {
        let z = self.buffer(basis.elements / x.width, DType::F64);
        self.push(move |block| {
            let attributes = Projection {
                rows: block.count,
                columns: x.width,
                outputs: z.width,
                shift: shift.elements > 0,
                divisor: divisor.elements > 0,
            };
            let (from, z) = (block.rows(x.span, x.width), block.rows(z.span, z.width));
            match x.span.dtype {
                DType::F32 => RowProject { attributes, x: from, shift, divisor, basis, z }.into(),
                _ => RowProjectCoordinates { attributes, x: from, shift, divisor, basis, z }.into(),
            }
        });
        z
    }

    /// Squared norms of coordinates.
    pub(in crate::ood) fn norms(&mut self, x: Buffer, projector: &Projector<'a>) -> Place {
        if projector.outputs == 0 {
            return Place::Zeros;
        }
        let z = self.project(x, projector);
        self.norms_of(z)
    }

    /// The same with a shift that is kept here, and a divisor.
    pub(in crate::ood) fn norms_shifted(
        &mut self,
        x: Buffer,
        shift: Vec<f64>,
        divisor: &'a [f64],
        projector: &Projector<'a>,
    ) -> Place {
        if projector.outputs == 0 {
            return Place::Zeros;
        }
        let prepared = [self.places.upload_own(shift), self.places.upload(divisor)];
        let basis = self.places.upload(projector.basis);
        let z = self.project_onto(x, prepared, basis);
        self.norms_of(z)
    }

    /// Squared norms of the first `count` coordinates.
    pub(in crate::ood) fn leading_norms(
        &mut self,
        x: Buffer,
        projector: &Projector<'a>,
        count: usize,
    ) -> Place {
        if count == projector.outputs {
            return self.norms(x, projector);
        }
        let prepared = [projector.shift, projector.divisor].map(|values| self.optional(values));
        let leading = projector.basis.chunks_exact(projector.outputs).flat_map(|row| &row[..count]);
        let basis = self.places.upload_own(leading.copied().collect());
        let z = self.project_onto(x, prepared, basis);
        self.norms_of(z)
    }

    fn norms_of(&mut self, z: Buffer) -> Place {
        let [to] = self.columns_of_results();
        self.push(move |block| {
            let attributes = RowsOf { rows: block.count, channels: z.width };
            let (z, norms) = (block.rows(z.span, z.width), block.column(to));
            RowSquareNormsOfCoordinates { attributes, z, norms }.into()
        });
        Place::Column(to)
    }

    /// Squared norms of prepared rows.
    pub(in crate::ood) fn whole_norms(
        &mut self,
        shift: Option<&'a [f64]>,
        divisor: Option<&'a [f64]>,
    ) -> Place {
        let is_plain = shift.is_none() && divisor.is_none();
        if let Some(place) = self.norms.filter(|_| is_plain) {
            return place;
        }
        let [shift, divisor] = [shift, divisor].map(|values| self.optional(values));
        let (x, columns, [to]) = (self.x, self.columns, self.columns_of_results());
        self.push(move |block| {
            let (has_shift, has_divisor) = (shift.elements > 0, divisor.elements > 0);
            let attributes =
                PreparedRows { rows: block.count, columns, shift: has_shift, divisor: has_divisor };
            let (x, norms) = (block.rows(x, columns), block.column(to));
            RowSquareNorms { attributes, x, shift, divisor, norms }.into()
        });
        if is_plain {
            self.norms = Some(Place::Column(to));
        }
        Place::Column(to)
    }

    /// Features divided by their norms, in f64.
    pub(in crate::ood) fn unit(&mut self) -> Buffer {
        if let Some(unit) = self.unit {
            return unit;
        }
        let (x, columns) = (self.x, self.columns);
        let unit = self.buffer(columns, DType::F64);
        self.push(move |block| {
            let attributes = RowsOf { rows: block.count, channels: columns };
            RowUnit { attributes, x: block.rows(x, columns), y: block.rows(unit.span, columns) }.into()
        });
        self.unit = Some(unit);
        unit
    }

    /// Squared distances of coordinates to the nearest of some points.
    pub(in crate::ood) fn nearest(
        &mut self,
        x: Buffer,
        projector: &Projector<'a>,
        points: &'a [f64],
    ) -> Place {
        if projector.outputs == 0 {
            return Place::Zeros;
        }
        let z = self.project(x, projector);
        let (count, points) = (points.len() / z.width, self.places.upload(points));
        let [to] = self.columns_of_results();
        self.push(move |block| {
            let attributes = Nearest { rows: block.count, columns: z.width, points: count, k: 1 };
            let (z, nearest) = (block.rows(z.span, z.width), block.column(to));
            RowNearest { attributes, z, points, nearest }.into()
        });
        Place::Column(to)
    }
}

/// The transpose of a row-major matrix of `columns` columns.
pub(super) fn transposed(matrix: &[f64], columns: usize) -> Vec<f64> {
    let rows = matrix.len() / columns;
    (0..matrix.len()).map(|at| matrix[at % rows * columns + at / rows]).collect()
}
