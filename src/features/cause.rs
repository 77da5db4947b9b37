//! Why the logits of a cache are not those of a head: each common mistake is undone, and the one that explains them is named.

use super::agreement::Block;
use super::head::Head;
use super::set::FeatureSet;
use crate::error::Result;
use crate::linalg::{View, largest, matmul};

/// A mistake explains the logits where, undone, it leaves a smaller relative deviation than this.
const EXPLAINED: f64 = 1e-2;
/// Fewer rows have a mean difference that explains them whatever they are.
const FEWEST_ROWS: usize = 8;

/// The likely cause, as a clause for the end of a sentence.
///
/// # Errors
/// The head inside the cache is damaged.
pub(super) fn likely(set: &FeatureSet, head: &Head) -> Result<String> {
    let block = Block::sample(set, head)?;
    let classes = head.classes();
    let without_bias = plus_bias(&block.computed, head, -1.0);
    let explains = |logits: &[f64]| deviation(&block.stored, logits) < EXPLAINED;
    let known = if explains(&by_row(&block.computed, classes, softmax)) {
        "softmax probabilities are stored in their place: store what goes into the softmax".to_string()
    } else if explains(&by_row(&block.computed, classes, log_softmax)) {
        "log-softmax values are stored in their place: store what goes into the softmax".to_string()
    } else if explains(&without_bias) {
        "they are W f without the bias b: store the logits with it, or give a head without b".to_string()
    } else if transposed(&block, head).is_some_and(|logits| explains(&logits)) {
        "W is transposed: its rows are classes, its columns features, as in torch.nn.Linear.weight"
            .to_string()
    } else if block.rows.len() >= FEWEST_ROWS && explains(&with_other_bias(&block, classes)) {
        "the bias b is another one: every row differs by the same numbers".to_string()
    } else if let Some(factor) = multiple(&block, |logits| explains(logits)) {
        format!("they are {factor:.4} times as large: was a temperature or a scale applied?")
    } else if explains(&scaled_by_row(&block, &without_bias, head)) {
        "every row is scaled by a number of its own: were the features normalised to length 1 after the head saw them?".to_string()
    } else if is_reordered(&block, classes) {
        "the classes of the head are in another order than the columns of the logits".to_string()
    } else {
        "the head of another network or epoch, or rows of features and logits in different orders?"
            .to_string()
    };
    Ok(known)
}

/// `|a - b|` relative to the longer of both.
fn deviation(a: &[f64], b: &[f64]) -> f64 {
    let square = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    let larger = square(a).max(square(b));
    if larger > 0.0 { (difference / larger).sqrt() } else { 0.0 }
}

fn by_row(logits: &[f64], classes: usize, change: fn(&mut [f64])) -> Vec<f64> {
    let mut changed = logits.to_vec();
    changed.chunks_exact_mut(classes).for_each(change);
    changed
}

fn log_softmax(row: &mut [f64]) {
    let largest = largest(row);
    let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
    row.iter_mut().for_each(|x| *x -= largest + sum.ln());
}

fn softmax(row: &mut [f64]) {
    log_softmax(row);
    row.iter_mut().for_each(|x| *x = x.exp());
}

/// Logits plus a multiple of the head's bias.
fn plus_bias(logits: &[f64], head: &Head, factor: f64) -> Vec<f64> {
    let mut changed = logits.to_vec();
    for row in changed.chunks_exact_mut(head.classes()) {
        row.iter_mut().zip(head.bias()).for_each(|(x, b)| *x += factor * b);
    }
    changed
}

/// The logits of the transposed weight, where that is possible.
fn transposed(block: &Block, head: &Head) -> Option<Vec<f64>> {
    let (rows, size) = (block.rows.len(), head.dimension());
    if head.classes() != size {
        return None;
    }
    let mut logits = vec![0.0; rows * size];
    matmul(View::new(&block.features, rows, size), View::new(head.weight(), size, size), &mut logits);
    Some(plus_bias(&logits, head, 1.0))
}

/// The head's logits, moved by the mean difference of each class.
fn with_other_bias(block: &Block, classes: usize) -> Vec<f64> {
    let rows = block.rows.len() as f64;
    let mut mean = vec![0.0; classes];
    for (stored, computed) in block.stored.chunks_exact(classes).zip(block.computed.chunks_exact(classes)) {
        for (mean, (a, b)) in mean.iter_mut().zip(stored.iter().zip(computed)) {
            *mean += (a - b) / rows;
        }
    }
    let mut changed = block.computed.clone();
    for row in changed.chunks_exact_mut(classes) {
        row.iter_mut().zip(&mean).for_each(|(x, mean)| *x += mean);
    }
    changed
}

/// The factor, other than 1, that makes the stored logits of the head's.
fn multiple(block: &Block, explains: impl Fn(&[f64]) -> bool) -> Option<f64> {
    let factor = factor(&block.stored, &block.computed)?;
    ((factor - 1.0).abs() > EXPLAINED && explains(&scaled(&block.computed, factor))).then_some(factor)
}

fn factor(wanted: &[f64], given: &[f64]) -> Option<f64> {
    let square: f64 = given.iter().map(|x| x * x).sum();
    let product: f64 = wanted.iter().zip(given).map(|(a, b)| a * b).sum();
    (square > 0.0 && product > 0.0).then(|| product / square)
}

fn scaled(values: &[f64], factor: f64) -> Vec<f64> {
    values.iter().map(|x| factor * x).collect()
}

/// `a_i W f_i + b` with the best factor of each row.
fn scaled_by_row(block: &Block, without_bias: &[f64], head: &Head) -> Vec<f64> {
    let classes = head.classes();
    let stored = plus_bias(&block.stored, head, -1.0);
    let rows = stored.chunks_exact(classes).zip(without_bias.chunks_exact(classes));
    let logits: Vec<f64> = rows
        .flat_map(|(stored, computed)| scaled(computed, factor(stored, computed).unwrap_or(0.0)))
        .collect();
    plus_bias(&logits, head, 1.0)
}

/// Whether each stored column is a computed column of another class.
fn is_reordered(block: &Block, classes: usize) -> bool {
    let rows = block.rows.len();
    if rows < 2 || classes < 2 {
        return false;
    }
    let mut products = vec![0.0; classes * classes];
    let stored = View::new(&block.stored, rows, classes).transposed();
    matmul(stored, View::new(&block.computed, rows, classes), &mut products);
    let square =
        |values: &[f64], class: usize| values.iter().skip(class).step_by(classes).map(|x| x * x).sum::<f64>();
    let squares: Vec<f64> = (0..classes).map(|class| square(&block.computed, class)).collect();
    let mut taken = vec![false; classes];
    let (mut distance, mut total) = (0.0, 0.0);
    for class in 0..classes {
        let own = square(&block.stored, class);
        let far = |other: usize| own + squares[other] - 2.0 * products[class * classes + other];
        let nearest = (0..classes).min_by(|&a, &b| far(a).total_cmp(&far(b))).unwrap_or(0);
        if std::mem::replace(&mut taken[nearest], true) {
            return false;
        }
        distance += far(nearest).max(0.0);
        total += own;
    }
    distance < EXPLAINED * EXPLAINED * total
}
