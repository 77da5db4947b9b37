//! NC1..NC5 of one checkpoint (Papyan, Han, Donoho, "Prevalence of neural collapse", 2020; NC5: Ben Ammar et al.,
//! "NECO", 2024), from feature caches, in f64.
//!
//! Notation: h a feature vector of D components, μ_c the mean of class c of C, μ_G the global mean,
//! Σ_W = 1/N Σ (h − μ_y)(h − μ_y)ᵀ, Σ_B = 1/C Σ (μ_c − μ_G)(μ_c − μ_G)ᵀ, w_c a row of the classifier.

use std::collections::BTreeMap;

use super::geometry::{Rows, products};
use super::nearest::NearestMean;
use super::row::CollapseRow;
use crate::error::{Error, Result};
use crate::features::{
    Extent, FeatureSet, ForeignLogits, Head, Moments, check_logits, check_same_checkpoint,
};
use crate::linalg::{self, PseudoInverseFactor, View};
use crate::ood::{Compute, OnCpu};
use crate::values::named;

named! {
    /// The kind of mean that the global mean μ_G is; the two differ where classes have different numbers of samples.
    pub enum GlobalMean: "global mean" {
        /// All samples.
        Samples = "samples",
        /// The class means, each counted once.
        ClassMeans = "class-means",
    }
    default Samples
}

/// How to measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Which global mean the class means are centred by.
    pub global_mean: GlobalMean,
    /// Whether logits that are not the classifier's are an error.
    pub foreign_logits: ForeignLogits,
}

/// The caches of one checkpoint.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Features of the ID training set: without augmentation, network in evaluation mode.
    pub train: FeatureSet,
    /// Features of an ID test set, for NC4 and accuracy there.
    pub test: Option<FeatureSet>,
    /// The classifier of the same checkpoint.
    pub head: Head,
    /// Named OOD sets, for NC5; features of the same checkpoint.
    pub ood: Vec<(String, FeatureSet)>,
    /// Notes for a user on where these come from.
    pub notes: Vec<String>,
}

/// The metrics of one checkpoint and the cosines behind NC2.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The metrics; its `checkpoint` and `epoch` are for the caller to fill.
    pub row: CollapseRow,
    /// Cosines between centred class means, row-major, C x C.
    pub cosines: Vec<f64>,
    /// Notes for a user on the caches.
    pub warnings: Vec<String>,
}

/// Measures NC1..NC5 of one checkpoint.
///
/// # Errors
/// One class only, a class without samples, labels, logits or shapes that do not fit the head, caches of different
/// checkpoints, an empty set, two OOD sets of one name, or features that are the same for every class.
pub fn measure(subject: &Subject, options: &Options) -> Result<Measurement> {
    measure_on(&mut OnCpu, subject, options)
}

/// The same with class sums and scatter on a device.
///
/// # Errors
/// As [`measure`], or the device failed.
pub fn measure_on(compute: &mut dyn Compute, subject: &Subject, options: &Options) -> Result<Measurement> {
    check(subject)?;
    let warnings = check_meaning(subject, options)?;
    let Subject { train, test, head, ood, .. } = subject;
    let (classes, dimension) = (head.classes(), head.dimension());
    Moments::check_dimension(dimension)?;
    let moments = compute.moments(train.features(), &train.training_labels(classes)?, classes)?;
    let origin = match options.global_mean {
        GlobalMean::Samples => moments.global_mean(),
        GlobalMean::ClassMeans => mean_of_rows(moments.means(), dimension),
    };
    let centred = Rows::centred(moments.means(), &origin);
    let raw = Rows::new(moments.means().to_vec(), dimension);
    let weight = Rows::new(head.weight().to_vec(), dimension);
    let nc1 = Variability::new(&moments, &centred)?.ok_or_else(|| constant_features(train))?;
    let cosines = centred.cosines();
    let nc2 = centred.simplex_distance(&cosines);
    let nc2_weights = weight.simplex_distance(&weight.cosines());
    let nc3 = weight.alignment(&centred);
    let nearest = NearestMean::new(&centred, &origin);
    let on_train = nearest.decisions(train, head);
    let on_test = test.as_ref().map(|test| nearest.decisions(test, head));

    let (mut nc5_by_ood, mut nc5_uncentered_by_ood) = (BTreeMap::new(), BTreeMap::new());
    for (name, set) in ood {
        let mean = compute.mean(set.features())?;
        let direction: Vec<f64> = mean.iter().zip(&origin).map(|(mean, origin)| mean - origin).collect();
        nc5_by_ood.insert(name.clone(), centred.mean_absolute_cosine(&direction));
        nc5_uncentered_by_ood.insert(name.clone(), raw.mean_absolute_cosine(&mean));
    }
    let row = CollapseRow {
        checkpoint: String::new(),
        epoch: None,
        samples: moments.samples(),
        classes: classes as u64,
        dimension: dimension as u64,
        train_accuracy: on_train.accuracy().unwrap_or(f64::NAN),
        test_accuracy: on_test.and_then(|decisions| decisions.accuracy()),
        nc1: nc1.nc1,
        nc1_trace_ratio: nc1.trace_ratio,
        nc1_cdnv: centred.class_distance_normalised_variance(&class_variances(&moments)),
        nc1_rank: nc1.rank,
        nc1_condition: nc1.condition,
        nc2_equinorm: nc2.equinorm,
        nc2_equinorm_ddof1: nc2.equinorm_ddof1,
        nc2_equiangular: nc2.equiangular,
        nc2_cosine_mean: nc2.cosine_mean,
        nc2_cosine_std: nc2.cosine_std,
        nc2_etf_frobenius: nc2.etf_frobenius,
        nc2_equinorm_weights: nc2_weights.equinorm,
        nc2_equinorm_ddof1_weights: nc2_weights.equinorm_ddof1,
        nc2_equiangular_weights: nc2_weights.equiangular,
        nc2_cosine_mean_weights: nc2_weights.cosine_mean,
        nc2_cosine_std_weights: nc2_weights.cosine_std,
        nc2_etf_frobenius_weights: nc2_weights.etf_frobenius,
        nc3: nc3.distance,
        nc3_frobenius: nc3.frobenius,
        nc3_frobenius_sq: nc3.frobenius * nc3.frobenius,
        nc3_one_minus_cosine: nc3.one_minus_cosine,
        nc4: on_train.mismatch_rate(),
        nc4_test: on_test.map(|decisions| decisions.mismatch_rate()),
        nc5: mean_of_values(&nc5_by_ood),
        nc5_uncentered: mean_of_values(&nc5_uncentered_by_ood),
        nc5_by_ood,
        nc5_uncentered_by_ood,
    };
    Ok(Measurement { row, cosines, warnings })
}

/// NC1: variability within classes, compared with the distances between their means.
struct Variability {
    /// tr(Σ_W Σ_B⁺) / C.
    nc1: f64,
    /// tr Σ_W / tr Σ_B.
    trace_ratio: f64,
    rank: u64,
    condition: f64,
}

impl Variability {
    /// Σ_B has the non-zero eigenvalues λ of the C x C matrix G = M Mᵀ / C, where M has the rows μ_c − μ_G; with an
    /// eigenvector q of G, u = Mᵀ q / √(C λ) is one of Σ_B. So tr(Σ_W Σ_B⁺) = Σ uᵀ Σ_W u / λ without a D x D
    /// pseudo-inverse, and the rank is at most C − 1, because a weighted sum of the rows is zero: rounding must not
    /// add an eigenvalue whose reciprocal would drown all others. `None` where all class means coincide.
    fn new(moments: &Moments, centred: &Rows) -> Result<Option<Variability>> {
        let (classes, dimension) = (centred.classes, centred.dimension);
        let mut gram = products(&centred.values, classes, dimension);
        gram.iter_mut().for_each(|value| *value /= classes as f64);
        let factor = PseudoInverseFactor::new(&gram, classes, (classes - 1).min(dimension))?;
        if factor.rank == 0 {
            return Ok(None);
        }
        // B = Mᵀ A has columns √C u, for A = q / √λ.
        let mut basis = vec![0.0; dimension * factor.rank];
        let means = View::new(&centred.values, classes, dimension).transposed();
        linalg::matmul(means, View::new(&factor.factor, classes, factor.rank), &mut basis);
        let scatter = moments.within_scatter();
        let mut product = vec![0.0; dimension * factor.rank];
        let basis_view = View::new(&basis, dimension, factor.rank);
        linalg::matmul(View::new(&scatter, dimension, dimension), basis_view, &mut product);
        // Column norms of A are 1/√λ, so uᵀ Σ_W u / λ = (bᵀ Σ_W b / C) · |a|².
        let mut sum = 0.0;
        for k in 0..factor.rank {
            let column = |matrix: &[f64], rows: usize| -> Vec<f64> {
                (0..rows).map(|row| matrix[row * factor.rank + k]).collect()
            };
            let form = linalg::dot(&column(&basis, dimension), &column(&product, dimension));
            sum += form / classes as f64 * linalg::squared_norm(&column(&factor.factor, classes));
        }
        let samples = moments.samples() as f64;
        let trace_within = moments.class_scatter().iter().sum::<f64>() / samples;
        let trace_between = linalg::squared_norm(&centred.norms) / classes as f64;
        Ok(Some(Variability {
            nc1: sum / samples / classes as f64,
            trace_ratio: trace_within / trace_between,
            rank: factor.rank as u64,
            condition: factor.condition(),
        }))
    }
}

fn check(subject: &Subject) -> Result<()> {
    let Subject { train, test, head, ood, .. } = subject;
    if head.classes() < 2 {
        return Err(Error::invalid(format!(
            "neural collapse compares classes; the head has {} class, two or more are needed",
            head.classes()
        )));
    }
    if head.weight().iter().all(|&weight| weight == 0.0) {
        return Err(Error::invalid(
            "every weight of the head is zero; is it the head of a trained checkpoint?",
        ));
    }
    let mut sets = vec![train];
    sets.extend(test);
    sets.extend(ood.iter().map(|(_, set)| set));
    check_same_checkpoint(&sets)?;
    for set in sets {
        set.check_shape(head.dimension(), head.classes())?;
        if set.is_empty() {
            return Err(Error::invalid(format!(
                "{} holds no samples; at least one is needed",
                set.path().display()
            )));
        }
    }
    for (i, (name, _)) in ood.iter().enumerate() {
        if ood[..i].iter().any(|(other, _)| other == name) {
            return Err(Error::invalid(format!("two OOD sets are named `{name}`; rename one of them")));
        }
    }
    Ok(())
}

/// Checks that logits are the head's, on some rows of every set before all rows of any, and that labels count as it does.
fn check_meaning(subject: &Subject, options: &Options) -> Result<Vec<String>> {
    let Subject { train, test, head, ood, notes } = subject;
    let sets = || std::iter::once(train).chain(test).chain(ood.iter().map(|(_, set)| set));
    let mut warnings = notes.clone();
    for extent in [Extent::Sample, Extent::All] {
        for set in sets() {
            let warning = check_logits(set, head, extent, options.foreign_logits)?;
            warnings.extend(warning.filter(|_| extent == Extent::All));
        }
    }
    train.check_labels(head.classes())?;
    if let Some(test) = test {
        warnings.extend(test.check_numbering(head)?);
    }
    Ok(warnings)
}

fn constant_features(train: &FeatureSet) -> Error {
    Error::invalid(format!(
        "{}: the class means coincide, so neural collapse is undefined; the network gives every class the same features \
         (dead or not trained?)",
        train.path().display()
    ))
}

fn class_variances(moments: &Moments) -> Vec<f64> {
    moments.class_scatter().iter().zip(moments.counts()).map(|(scatter, &n)| scatter / n as f64).collect()
}

/// Mean of the rows of a matrix.
fn mean_of_rows(values: &[f64], columns: usize) -> Vec<f64> {
    let rows = (values.len() / columns) as f64;
    let mut mean = vec![0.0; columns];
    for row in values.chunks_exact(columns) {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    mean.iter_mut().for_each(|sum| *sum /= rows);
    mean
}

fn mean_of_values(values: &BTreeMap<String, f64>) -> Option<f64> {
    (!values.is_empty()).then(|| values.values().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
