//! Epochs in which every class has the same chance.

use super::Targets;
use crate::rng::{Purpose, Stream};

/// The samples of an epoch by their number, one draw for each sample of the data: draw i takes a class with number 2i of the stream (seed,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{InMemory, SharedDataset};

    /// Class 0 has 900 samples, class 1 has 90, `novel` 10.
    fn targets() -> Targets {
        let labels: Vec<i64> = (0..1000).map(|i| if i < 900 { 0 } else { 1 + i64::from(i >= 990) }).collect();
        let names = ["a", "b", "novel"].map(str::to_string).to_vec();
        let images = InMemory::from_grey(1, 1, &[0; 1000], labels, names).unwrap();
        let data: SharedDataset = Arc::new(images);
        Targets::single(&data, None, true, true).unwrap()
    }

    // Notebook A, trap A12: the class `novel` was 44 % of the images.
    #[test]
    fn every_class_has_the_same_chance_whatever_its_size() {
        let targets = targets();
        let labels = targets.labels(0);
        let mut counts = [0_i64; 3];
        for epoch in 0..30 {
            balanced(&targets, 1, epoch).iter().for_each(|&i| counts[labels[i as usize] as usize] += 1);
        }
        // 30,000 draws: 10,000 of each class, with a standard deviation of 82.
        assert!(counts.iter().all(|count| (count - 10_000).abs() < 400), "{counts:?}");
    }

    #[test]
    fn an_epoch_is_a_function_of_seed_and_number() {
        let targets = targets();
        assert_eq!(balanced(&targets, 1, 3), balanced(&targets, 1, 3));
        assert_ne!(balanced(&targets, 1, 3), balanced(&targets, 1, 4));
        assert_ne!(balanced(&targets, 1, 3), balanced(&targets, 2, 3));
    }
}
