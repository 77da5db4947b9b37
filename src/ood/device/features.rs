//! Steps on the features of each row: the largest of them, products with the vector of a class, magnitudes, coverage, histograms.

use std::borrow::Cow;

use super::steps::{Buffer, Place, Steps, transposed};
use crate::ops::{
    ClassProducts, Coverage, HeadLogits, Histogram, Labelled, LargestFeatures, Magnitudes,
    RowClassDeviations, RowClassProducts, RowCoverage, RowHistogram, RowHistogramOfCoordinates, RowLargest,
    RowMagnitudes, RowMeanProbability, RowProjectShaped, ShapedProjection, Shaping,
};
use crate::tensor::{DType, Span};

/// What the largest features of each row are.
#[derive(Debug, Clone, Copy)]
pub(in crate::ood) struct Largest {
    bound: Buffer,
    last: Buffer,
    /// `exp(sum of all / sum of the largest)`.
    pub scale: Buffer,
    /// The sum of all divided by their number.
    pub share: Buffer,
}

/// A training histogram.
#[derive(Debug, Clone, Copy)]
pub(in crate::ood) struct TrainingHistogram<'a> {
    /// Edges of the bins, ascending.
    pub edges: &'a [f64],
    /// Share of the training values in each bin.
    pub shares: &'a [f64],
    /// Bins in a unit of the values.
    pub per_width: f64,
    /// Bins of the box that smooths the histogram of a sample.
    pub width: usize,
    /// Added to every bin.
    pub floor: f64,
}

impl<'a> Steps<'a> {
    /// The k largest features of each row.
    pub(in crate::ood) fn largest_features(&mut self, k: usize) -> Largest {
        if let Some((_, largest)) = self.largest.iter().find(|(own, _)| *own == k) {
            return *largest;
        }
        let (x, columns) = (self.x, self.columns);
        let [bound, last, scale, share] = [(); 4].map(|()| self.buffer(1, DType::F64));
        self.push(move |block| {
            let attributes = LargestFeatures { rows: block.count, columns, k };
            let [bound, last, scale, share] =
                [bound, last, scale, share].map(|buffer| block.rows(buffer.span, 1));
            RowLargest { attributes, x: block.rows(x, columns), bound, last, scale, share }.into()
        });
        let largest = Largest { bound, last, scale, share };
        self.largest.push((k, largest));
        largest
    }

    /// Coordinates of features that are cut or clipped to bounds; `weight` is row-major, C x D.
    pub(in crate::ood) fn project_within(
        &mut self,
        shaping: Shaping,
        [low, high]: [Vec<f64>; 2],
        weight: &[f64],
    ) -> Buffer {
        let [low, high] = [low, high].map(|values| self.places.upload_own(values));
        self.project_shaped(shaping, [low, high].map(|span| Buffer { span, width: 0 }), weight)
    }

    /// Coordinates of the largest features, the others being 0; of ones in their place.
    pub(in crate::ood) fn project_largest(&mut self, largest: Largest, ones: bool, weight: &[f64]) -> Buffer {
        self.project_shaped(Shaping::Keep { ones }, [largest.bound, largest.last], weight)
    }

    fn project_shaped(&mut self, shaping: Shaping, [low, high]: [Buffer; 2], weight: &[f64]) -> Buffer {
        let (x, columns) = (self.x, self.columns);
        let basis = self.places.upload_own(transposed(weight, columns));
        let z = self.buffer(weight.len() / columns, DType::F64);
        self.push(move |block| {
            let attributes = ShapedProjection { rows: block.count, columns, outputs: z.width, shaping };
            let part = |of: Buffer| if of.width == 0 { of.span } else { block.rows(of.span, of.width) };
            let (low, high) = (part(low), part(high));
            let (x, z) = (block.rows(x, columns), block.rows(z.span, z.width));
            RowProjectShaped { attributes, x, low, high, basis, z }.into()
        });
        z
    }

    /// Inner products of the features, less a shift, with the vector of a class.
    pub(in crate::ood) fn class_products(
        &mut self,
        labels: Buffer,
        shift: Option<&'a [f64]>,
        points: impl Into<Cow<'a, [f64]>>,
    ) -> Place {
        let points = match points.into() {
            Cow::Borrowed(points) => self.places.upload(points),
            Cow::Owned(points) => self.places.upload_own(points),
        };
        let shift = self.optional(shift);
        let (x, columns, [to]) = (self.x, self.columns, self.columns_of_results());
        let classes = points.elements / columns;
        self.push(move |block| {
            let has_shift = shift.elements > 0;
            let attributes = ClassProducts { rows: block.count, columns, classes, shift: has_shift };
            let (x, labels) = (block.rows(x, columns), block.rows(labels.span, 1));
            RowClassProducts { attributes, x, labels, shift, points, products: block.column(to) }.into()
        });
        Place::Column(to)
    }

    /// Squared distances of the features from the mean of a class.
    pub(in crate::ood) fn class_distances(&mut self, labels: Buffer, means: &'a [f64]) -> Place {
        let (x, columns, [to]) = (self.x, self.columns, self.columns_of_results());
        let (classes, means) = (means.len() / columns, self.places.upload(means));
        self.push(move |block| {
            let attributes = Labelled { rows: block.count, columns, classes };
            let (x, labels) = (block.rows(x, columns), block.rows(labels.span, 1));
            RowClassDeviations { attributes, x, labels, means, deviations: block.column(to) }.into()
        });
        Place::Column(to)
    }

    /// Sums of the magnitudes of the features: of those above 0 and of those below.
    pub(in crate::ood) fn magnitudes(&mut self) -> [Place; 2] {
        if let Some(places) = self.magnitudes {
            return places;
        }
        let nothing = Span { elements: 0, ..self.logits };
        let places = self.magnitudes_by(None, nothing, nothing);
        self.magnitudes = Some(places);
        places
    }

    /// The same of features less the mean of a class, with the signs of its weights where there are some.
    pub(in crate::ood) fn class_magnitudes(
        &mut self,
        labels: Buffer,
        means: &'a [f64],
        weights: Option<&'a [f64]>,
    ) -> [Place; 2] {
        let (means, weights) = (self.places.upload(means), self.optional(weights));
        self.magnitudes_by(Some(labels), means, weights)
    }

    fn magnitudes_by(&mut self, labels: Option<Buffer>, means: Span, weights: Span) -> [Place; 2] {
        let (x, columns, [above, below]) = (self.x, self.columns, self.columns_of_results());
        let classes = means.elements.max(weights.elements).div_ceil(columns).max(1);
        let nothing = Span { elements: 0, dtype: DType::I32, ..self.logits };
        self.push(move |block| {
            let (centred, signed) = (means.elements > 0, weights.elements > 0);
            let attributes = Magnitudes { rows: block.count, columns, classes, centred, signed };
            RowMagnitudes {
                attributes,
                x: block.rows(x, columns),
                labels: labels.map_or(nothing, |labels| block.rows(labels.span, 1)),
                means,
                weights,
                above: block.column(above),
                below: block.column(below),
            }
            .into()
        });
        [above, below].map(Place::Column)
    }

    /// The mean coverage of the bins of states, `alpha` times feature times gradient.
    pub(in crate::ood) fn coverage(
        &mut self,
        gradients: Buffer,
        alpha: f64,
        edges: &'a [f64],
        coverage: &'a [f64],
    ) -> Place {
        let (x, columns, [to]) = (self.x, self.columns, self.columns_of_results());
        let (bins, [edges, coverage]) = (edges.len() + 1, [edges, coverage].map(|v| self.places.upload(v)));
        self.push(move |block| {
            let attributes = Coverage { rows: block.count, columns, bins, alpha };
            let [x, gradients] = [x, gradients.span].map(|span| block.rows(span, columns));
            RowCoverage { attributes, x, gradients, edges, coverage, covered: block.column(to) }.into()
        });
        Place::Column(to)
    }

    /// Divergence of the histogram of a row's features from training.
    pub(in crate::ood) fn histogram(&mut self, training: &TrainingHistogram<'a>) -> Place {
        let (x, columns, [to]) = (self.x, self.columns, self.columns_of_results());
        let TrainingHistogram { per_width, width, floor, .. } = *training;
        let [edges, shares] = [training.edges, training.shares].map(|values| self.places.upload(values));
        self.push(move |block| {
            let attributes = Histogram { rows: block.count, columns, period: 1, per_width, width, floor };
            let (x, divergence) = (block.rows(x, columns), block.column(to));
            RowHistogram { attributes, x, edges, shares, divergence }.into()
        });
        Place::Column(to)
    }

    /// The same of logits under several heads, `z + bias`, and the mean of their largest probabilities.
    pub(in crate::ood) fn histogram_of_heads(
        &mut self,
        z: Buffer,
        bias: &'a [f64],
        training: &TrainingHistogram<'a>,
    ) -> [Place; 2] {
        let (classes, [to, mean]) = (bias.len(), self.columns_of_results());
        let TrainingHistogram { per_width, width, floor, .. } = *training;
        let [bias, edges, shares] =
            [bias, training.edges, training.shares].map(|values| self.places.upload(values));
        self.push(move |block| {
            let (rows, columns) = (block.count, z.width);
            let attributes = Histogram { rows, columns, period: classes, per_width, width, floor };
            let (z, divergence) = (block.rows(z.span, z.width), block.column(to));
            RowHistogramOfCoordinates { attributes, z, bias, edges, shares, divergence }.into()
        });
        self.push(move |block| {
            let attributes = HeadLogits { rows: block.count, heads: z.width / classes, classes };
            let (z, mean) = (block.rows(z.span, z.width), block.column(mean));
            RowMeanProbability { attributes, z, bias, mean }.into()
        });
        [to, mean].map(Place::Column)
    }
}
