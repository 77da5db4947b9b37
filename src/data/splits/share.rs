//! Sharing out: the images of a class among the parts, classes among superclasses; by largest remainders.

use super::Classes;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// The parts the images of a seen class go to, in the order they are dealt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Train,
    Select,
    Calibrate,
    Report,
}

pub(super) const NUMBER_OF_PARTS: usize = 4;

/// The images of each class in each part; classes for which `is_divided` says no have none.
///
/// A part gets its share of a class rounded down or up; train gets at least one image. The parts with the largest
/// remainders are rounded up, where a remainder includes the images a part was short of in the classes before. So the
/// shares of the whole data set are met too, even if every class has three images.
pub(super) fn divide_by_class(
    dataset: &dyn Dataset,
    classes: &Classes,
    is_divided: impl Fn(usize) -> bool,
    shares: [f64; NUMBER_OF_PARTS],
    seed: u64,
) -> Result<Vec<[Vec<u32>; NUMBER_OF_PARTS]>> {
    let mut short = [0.0; NUMBER_OF_PARTS];
    let mut parts = vec![<[Vec<u32>; NUMBER_OF_PARTS]>::default(); classes.members.len()];
    for (class, members) in classes.members.iter().enumerate().filter(|(class, _)| is_divided(*class)) {
        if members.len() == 1 && shares[Part::Train as usize] < 1.0 {
            return Err(Error::invalid(format!(
                "{} has a single image (sample {}, `{}`): it cannot be in several parts, and a class needs at least \
                 two; add images of it, take it out of the table, or hold it out",
                classes.describe(class),
                members[0],
                dataset.sample_name(members[0] as usize)
            )));
        }
        let mut counts = share_out(members.len(), &shares, &mut short);
        if counts[Part::Train as usize] == 0 && !members.is_empty() {
            let largest = (0..NUMBER_OF_PARTS).max_by_key(|&part| counts[part]).unwrap_or_default();
            counts[largest] -= 1;
            counts[Part::Train as usize] = 1;
        }
        let order = Stream::for_purpose(seed, Purpose::Split, &[class as u64]).permutation(members.len());
        let mut dealt = order.into_iter().map(|position| members[position as usize]);
        for (part, count) in parts[class].iter_mut().zip(counts) {
            *part = dealt.by_ref().take(count).collect();
        }
    }
    Ok(parts)
}

/// Divides `count` things by `shares` that add up to one. Each share is rounded down or up, by the largest remainder plus
/// its entry in `short`, the shortfall so far, which is updated; among equals the first.
pub(super) fn share_out(count: usize, shares: &[f64], short: &mut [f64]) -> Vec<usize> {
    /// Closer to a whole number than this is that number: 0.1 + 0.2 is no more than 0.3.
    const WHOLE: f64 = 1e-9;
    let quotas: Vec<f64> = shares
        .iter()
        .map(|share| share * count as f64)
        .map(|quota| if (quota - quota.round()).abs() < WHOLE { quota.round() } else { quota })
        .collect();
    let mut counts: Vec<usize> = quotas.iter().map(|quota| quota.floor() as usize).collect();
    let left = count.saturating_sub(counts.iter().sum());
    let mut order: Vec<usize> = (0..shares.len()).collect();
    // A share that is a whole number comes last: it has its due.
    let claim = |part: usize| (quotas[part] > quotas[part].floor(), quotas[part].fract() + short[part]);
    order.sort_by(|&a, &b| {
        let (a, b) = (claim(a), claim(b));
        b.0.cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    order.iter().take(left).for_each(|&part| counts[part] += 1);
    for (part, short) in short.iter_mut().enumerate() {
        *short += quotas[part] - counts[part] as f64;
    }
    counts
}
