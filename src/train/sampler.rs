//! Epochs in which every class has the same chance.

use super::Targets;
use crate::rng::{Purpose, Stream};

/// The samples of an epoch by their number, as many as the data has: draw i takes a class with number 2i of the stream (seed,
/// [`Purpose::Balance`], epoch), and one of its samples with number 2i + 1, both with [`Stream::below`]. The classes are those of
/// the last head, and the outliers where they are none of them.
pub fn balanced(targets: &Targets, seed: u64, epoch: u64) -> Vec<u32> {
    let labels = targets.labels(targets.heads.len() - 1);
    let mut members: Vec<Vec<u32>> =
        vec![Vec::new(); targets.heads.last().expect("a head").classes.len() + 1];
    let outliers = members.len() - 1;
    for (sample, &label) in labels.iter().enumerate() {
        members[usize::try_from(label).unwrap_or(outliers)].push(sample as u32);
    }
    members.retain(|members| !members.is_empty());
    let stream = Stream::for_purpose(seed, Purpose::Balance, &[epoch]);
    let draw = |i: u64| {
        let class = &members[stream.below(2 * i, members.len() as u64) as usize];
        class[stream.below(2 * i + 1, class.len() as u64) as usize]
    };
    (0..labels.len() as u64).map(draw).collect()
}
