//! The last linear layer: logits = features Wᵀ + b.

use std::path::Path;

use super::archive::Npz;
use super::foreign;
use super::matrix::Matrix;
use super::npy::{Element, NpyArray};
use super::writer::write_npz;
use crate::error::{Error, Position, Result};
use crate::linalg::{View, add_matmul, squared_norm};

/// Weight (C, D) and bias (C,) of the classifier, widened to f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    weight: Vec<f64>,
    bias: Vec<f64>,
    dimension: usize,
}

impl Head {
    /// Puts a head together; `weight` is row-major, one row of `dimension` per class.
    ///
    /// # Errors
    /// The number of weights is not `bias.len() * dimension`, or there is no class.
    pub fn new(weight: Vec<f64>, bias: Vec<f64>, dimension: usize) -> Result<Head> {
        if bias.is_empty() || dimension == 0 || bias.len().checked_mul(dimension) != Some(weight.len()) {
            return Err(Error::invalid(format!(
                "a head of {} weights and {} biases does not fit {dimension} features",
                weight.len(),
                bias.len()
            )));
        }
        Ok(Head { weight, bias, dimension })
    }

    /// Reads `W` (C, D) and `b` (C,) from an `.npz`; `weight` and `bias` are understood too, and no bias means zero.
    ///
    /// # Errors
    /// The file is damaged, has no weight, or shapes do not fit.
    pub fn open(path: &Path) -> Result<Head> {
        let archive = Npz::open(path)?;
        let weight = match archive.array("W")? {
            Some(weight) => weight,
            None => archive.array("weight")?.ok_or_else(|| {
                let found = foreign::members(&archive.names());
                Error::malformed(path, Position::File, "an array `W` of shape (classes, features)", found)
            })?,
        };
        let weight = Matrix::new(weight, path, "W")?;
        let (classes, dimension) = (weight.rows(), weight.columns());
        let bias = match archive.array("b")? {
            Some(bias) => Some(bias),
            None => archive.array("bias")?,
        };
        let bias = match bias {
            None => vec![0.0; classes],
            Some(mut array) => {
                let count: usize = array.shape.iter().product();
                if count != classes {
                    let expected = format!("{classes} numbers, one per row of W");
                    let found = format!("shape {:?}", array.shape);
                    return Err(Error::malformed(path, Position::Member("b".into()), expected, found));
                }
                array.shape = vec![1, count];
                let mut bias = Vec::new();
                Matrix::new(array, path, "b")?.read_f64(0..1, &mut bias);
                bias
            }
        };
        let mut values = Vec::new();
        weight.read_f64(0..classes, &mut values);
        Head::new(values, bias, dimension)
    }

    /// Writes `W` and `b` as f32 into an `.npz`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
        let weight =
            NpyArray::from_vec(narrow(&self.weight), Element::F32, vec![self.classes(), self.dimension]);
        let bias = NpyArray::from_vec(narrow(&self.bias), Element::F32, vec![self.classes()]);
        write_npz(path, &[("W", &weight), ("b", &bias)])
    }

    /// Number of classes, C.
    pub fn classes(&self) -> usize {
        self.bias.len()
    }

    /// Number of features, D.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// How far another head is from this one: the length of the difference of weights and biases relative to the longer of
    /// both; infinite where shapes differ.
    pub fn difference(&self, other: &Head) -> f64 {
        if (self.classes(), self.dimension) != (other.classes(), other.dimension) {
            return f64::INFINITY;
        }
        let all = |head: &Head| -> Vec<f64> { head.weight.iter().chain(&head.bias).copied().collect() };
        let (own, other) = (all(self), all(other));
        let difference: f64 = own.iter().zip(&other).map(|(a, b)| (a - b) * (a - b)).sum();
        let longer = squared_norm(&own).max(squared_norm(&other));
        if longer > 0.0 { (difference / longer).sqrt() } else { 0.0 }
    }

    /// The head of some classes, in the order given.
    ///
    /// # Errors
    /// There are none.
    ///
    /// # Panics
    /// If a class lies beyond the head.
    pub fn of_classes(&self, classes: &[usize]) -> Result<Head> {
        let weight = classes.iter().flat_map(|&class| self.class_weight(class)).copied().collect();
        let bias = classes.iter().map(|&class| self.bias[class]).collect();
        Head::new(weight, bias, self.dimension)
    }

    /// The weight, row-major, C x D.
    pub fn weight(&self) -> &[f64] {
        &self.weight
    }

    /// The weights of one class, D of them.
    pub fn class_weight(&self, class: usize) -> &[f64] {
        &self.weight[class * self.dimension..(class + 1) * self.dimension]
    }

    /// The bias, C numbers.
    pub fn bias(&self) -> &[f64] {
        &self.bias
    }

    /// Logits of `rows` samples (row-major features, rows x D) into `out` (made to fit, rows x C).
    pub fn logits(&self, features: &[f64], rows: usize, out: &mut Vec<f64>) {
        out.clear();
        for _ in 0..rows {
            out.extend_from_slice(&self.bias);
        }
        let weight = View::new(&self.weight, self.classes(), self.dimension).transposed();
        add_matmul(View::new(features, rows, self.dimension), weight, out);
    }
}
