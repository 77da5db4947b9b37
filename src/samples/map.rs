//! Two-dimensional projections of features: by their principal components, and onto the plane that spreads the class means most.
//!
//! Both are linear maps with an exact eigensolver, so that the same features give the same bytes for any number of threads; t-SNE and
//! UMAP promise that in no implementation that is fast enough.

use crate::error::Result;
use crate::features::FeatureSet;
use crate::linalg::{SymmetricEigen, View, add_gram, dot, matmul, mirror_lower};

/// Classes whose means span a plane.
const FEWEST_CLASSES: usize = 3;
/// Digits that a place is kept with.
const DIGITS: i32 = 5;

/// Places of some samples.
pub(super) struct Projected {
    /// `pca` or `class_means`.
    pub name: &'static str,
    /// Shares of the variance (of the familiar samples, or of the class means) along both axes.
    pub explained: [f64; 2],
    /// A place a sample.
    pub places: Vec<[f64; 2]>,
}

/// A plane in feature space.
struct Plane {
    origin: Vec<f64>,
    axes: [Vec<f64>; 2],
    explained: [f64; 2],
}

/// Projects `features` (row-major, `dimension` a row), of which the first `familiar` are of the first set.
///
/// # Errors
/// An eigenvalue problem that does not converge.
pub(super) fn projections(
    first: &FeatureSet,
    classes: usize,
    features: &[f64],
    familiar: usize,
    dimension: usize,
) -> Result<Vec<Projected>> {
    let mut found = Vec::new();
    let fitted = &features[..familiar * dimension];
    if let Some(plane) = principal_plane(fitted, dimension)? {
        found.push(plane.project("pca", features, dimension));
    }
    let means = class_means(first, classes);
    if means.len() >= FEWEST_CLASSES * dimension
        && let Some(plane) = principal_plane(&means, dimension)?
    {
        found.push(plane.project("class_means", features, dimension));
    }
    Ok(found)
}

impl Plane {
    fn project(&self, name: &'static str, features: &[f64], dimension: usize) -> Projected {
        let place = |row: &[f64]| {
            let centred: Vec<f64> = row.iter().zip(&self.origin).map(|(x, origin)| x - origin).collect();
            [0, 1].map(|axis| rounded(dot(&centred, &self.axes[axis])))
        };
        let places = features.chunks_exact(dimension).map(place).collect();
        Projected { name, explained: self.explained.map(rounded), places }
    }
}

/// Means of the features of each class that has samples, row-major.
fn class_means(set: &FeatureSet, classes: usize) -> Vec<f64> {
    let (dimension, Some(labels)) = (set.dimension(), set.labels()) else { return Vec::new() };
    let (mut sums, mut counts) = (vec![0.0; classes * dimension], vec![0u64; classes]);
    let mut block = Vec::new();
    for start in (0..set.len()).step_by(1024) {
        let end = (start + 1024).min(set.len());
        set.features().read_f64(start..end, &mut block);
        for (row, label) in block.chunks_exact(dimension).zip(&labels[start..end]) {
            let Some(class) = usize::try_from(*label).ok().filter(|class| *class < classes) else { continue };
            counts[class] += 1;
            let sum = &mut sums[class * dimension..(class + 1) * dimension];
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    }
    let present = sums.chunks_exact(dimension).zip(&counts).filter(|(_, count)| **count > 0);
    present.flat_map(|(sum, count)| sum.iter().map(|x| x / *count as f64)).collect()
}

/// The plane of the two largest principal components of some rows; `None` where they do not spread in two directions.
fn principal_plane(rows: &[f64], dimension: usize) -> Result<Option<Plane>> {
    let count = rows.len() / dimension.max(1);
    if count < 3 || dimension < 2 {
        return Ok(None);
    }
    let mut origin = vec![0.0; dimension];
    rows.chunks_exact(dimension).for_each(|row| origin.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
    origin.iter_mut().for_each(|sum| *sum /= count as f64);
    let centred: Vec<f64> = rows
        .chunks_exact(dimension)
        .flat_map(|row| row.iter().zip(&origin).map(|(x, mean)| x - mean))
        .collect();
    // The smaller of the two Gram matrices has the same eigenvalues.
    let is_wide = dimension > count;
    let size = dimension.min(count);
    let mut gram = vec![0.0; size * size];
    if is_wide {
        let view = View::new(&centred, count, dimension);
        matmul(view, view.transposed(), &mut gram);
    } else {
        add_gram(&centred, count, dimension, &mut gram);
        mirror_lower(&mut gram, size);
    }
    let eigen = SymmetricEigen::new(&gram, size)?;
    let total: f64 = (0..size).map(|i| gram[i * size + i]).sum();
    let largest = [eigen.values[size - 1], eigen.values[size - 2]];
    // An eigenvalue of rounding alone has no direction.
    if total.is_nan() || largest[1] <= 1e-12 * total {
        return Ok(None);
    }
    let axis = |column: usize, value: f64| {
        let vector = eigen.columns(column..column + 1);
        let mut axis = if is_wide {
            let mut sum = vec![0.0; dimension];
            for (weight, row) in vector.iter().zip(centred.chunks_exact(dimension)) {
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x / value.sqrt());
            }
            sum
        } else {
            vector
        };
        // Eigenvectors have no sign; the largest entry decides it.
        let largest = axis.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        if largest < 0.0 {
            axis.iter_mut().for_each(|x| *x = -*x);
        }
        axis
    };
    let axes = [axis(size - 1, largest[0]), axis(size - 2, largest[1])];
    Ok(Some(Plane { origin, axes, explained: largest.map(|value| value / total) }))
}

/// A number in [`DIGITS`] significant digits.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let unit = 10f64.powi(value.abs().log10().floor() as i32 - DIGITS + 1);
    if unit > 0.0 { (value / unit).round() * unit } else { 0.0 }
}
