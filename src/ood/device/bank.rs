//! Steps that compare rows with a bank of training rows.

use super::RowsPrecision;
use super::steps::{Buffer, Place, Steps};
use crate::ops::{
    InverseNorms, LargestProducts, Nearest, Relation, RowGuidedSum, RowInverseNorms, RowNearestF32,
    RowNearestNormalised, RowNormalise, RowRelation,
};
use crate::tensor::DType;

/// A bank of training rows: features, and 1 over their norms.
#[derive(Debug, Clone, Copy)]
pub(in crate::ood) struct BankOf<'a> {
    /// Row-major, points x D.
    pub features: &'a [f32],
    /// One a point.
    pub scales: &'a [f64],
    /// Added to the norm of a feature before it is divided.
    pub floor: f64,
}

impl<'a> Steps<'a> {
    /// 1 over the norm of the features, to which a number is added.
    fn inverse_norms(&mut self, floor: f64) -> Buffer {
        if let Some((_, norms)) = self.inverse_norms.iter().find(|(own, _)| *own == floor) {
            return *norms;
        }
        let (x, columns) = (self.x, self.columns);
        let norms = self.buffer(1, DType::F64);
        self.push(move |block| {
            let attributes = InverseNorms { rows: block.count, columns, floor };
            RowInverseNorms { attributes, x: block.rows(x, columns), norms: block.rows(norms.span, 1) }.into()
        });
        self.inverse_norms.push((floor, norms));
        norms
    }

    /// Squared distances of normalised features to the k-th nearest of a normalised bank.
    pub(in crate::ood) fn neighbours(&mut self, bank: BankOf<'a>, k: usize) -> Place {
        if self.precision == RowsPrecision::F32 {
            return self.neighbours_f32(bank, k);
        }
        let (x, columns, scale) = (self.x, self.columns, self.inverse_norms(bank.floor));
        let [to] = self.columns_of_results();
        let (bank, bank_scale) = (self.places.upload_f32(bank.features), self.places.upload(bank.scales));
        self.push(move |block| {
            let attributes = Nearest { rows: block.count, columns, points: bank_scale.elements, k };
            let (x, scale) = (block.rows(x, columns), block.rows(scale.span, 1));
            RowNearestNormalised { attributes, x, scale, bank, bank_scale, nearest: block.column(to) }.into()
        });
        Place::Column(to)
    }

    /// The same with products in f32.
    fn neighbours_f32(&mut self, bank: BankOf<'a>, k: usize) -> Place {
        let (x, columns, floor) = (self.x, self.columns, bank.floor);
        let points = bank.features.len() / columns;
        let given = self.places.upload_f32(bank.features);
        let bank = self.places.place(given.elements, DType::F32);
        let attributes = InverseNorms { rows: points, columns, floor };
        self.setup.push(RowNormalise { attributes, x: given, y: bank }.into());
        let normalised = self.buffer(columns, DType::F32);
        self.push(move |block| {
            let attributes = InverseNorms { rows: block.count, columns, floor };
            let [x, y] = [x, normalised.span].map(|span| block.rows(span, columns));
            RowNormalise { attributes, x, y }.into()
        });
        let [to] = self.columns_of_results();
        self.push(move |block| {
            let attributes = Nearest { rows: block.count, columns, points, k };
            let (z, nearest) = (block.rows(normalised.span, columns), block.column(to));
            RowNearestF32 { attributes, z, points: bank, nearest }.into()
        });
        Place::Column(to)
    }

    /// The sum of the k largest cosines with a bank, each multiplied by a number of the point.
    pub(in crate::ood) fn guided_sum(&mut self, bank: BankOf<'a>, guide: &'a [f64], k: usize) -> Place {
        let (x, columns, scale) = (self.x, self.columns, self.inverse_norms(bank.floor));
        let [to] = self.columns_of_results();
        let bank_features = self.places.upload_f32(bank.features);
        let [bank_scale, guide] = [bank.scales, guide].map(|values| self.places.upload(values));
        self.push(move |block| {
            let attributes = LargestProducts { rows: block.count, columns, points: bank_scale.elements, k };
            let (x, scale) = (block.rows(x, columns), block.rows(scale.span, 1));
            let (bank, sums) = (bank_features, block.column(to));
            RowGuidedSum { attributes, x, scale, bank, bank_scale, guide, sums }.into()
        });
        Place::Column(to)
    }

    /// The sum of powers of likenesses above a least one: cosines with a bank, times the products of probabilities.
    pub(in crate::ood) fn relation(
        &mut self,
        bank: BankOf<'a>,
        probabilities: &'a [f32],
        [least, power]: [f64; 2],
    ) -> Place {
        let (p, scale) = (self.softmax(0.0), self.inverse_norms(bank.floor));
        let (x, columns, classes, [to]) = (self.x, self.columns, self.classes, self.columns_of_results());
        let [bank_features, bank_p] = [bank.features, probabilities].map(|v| self.places.upload_f32(v));
        let bank_scale = self.places.upload(bank.scales);
        self.push(move |block| {
            let points = bank_scale.elements;
            let attributes = Relation { rows: block.count, columns, classes, points, least, power };
            RowRelation {
                attributes,
                x: block.rows(x, columns),
                scale: block.rows(scale.span, 1),
                p: block.rows(p.span, classes),
                bank: bank_features,
                bank_scale,
                bank_p,
                sums: block.column(to),
            }
            .into()
        });
        Place::Column(to)
    }
}
