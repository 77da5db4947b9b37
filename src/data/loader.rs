//! Batches for training and extraction, made ahead of time on a thread of their own.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use rayon::prelude::*;

use super::{SharedDataset, Transform};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Images a thread takes at a time: with fewer, handing them out costs as much as cropping a small image.
const IMAGES_AT_A_TIME: usize = 8;

/// Order of the samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Order {
    /// The order of the data set.
    #[default]
    Sequential,
    /// [`Stream::permutation`] of the stream (seed, [`Purpose::Shuffle`], epoch).
    Shuffled,
    /// The samples of the epoch by their number in the data set, drawn by somebody else: a sample may be left out or
    /// come several times, and is augmented anew each time ([`Transform::repeated_stream`]).
    Given(Arc<[u32]>),
}

impl Order {
    /// The samples of an epoch.
    fn indices(&self, count: usize, seed: u64, epoch: u64) -> Cow<'_, [u32]> {
        match self {
            Order::Sequential => Cow::Owned((0..count as u32).collect()),
            Order::Shuffled => {
                Cow::Owned(Stream::for_purpose(seed, Purpose::Shuffle, &[epoch]).permutation(count))
            }
            Order::Given(indices) => Cow::Borrowed(indices),
        }
    }

    /// Samples in an epoch.
    fn len(&self, count: usize) -> usize {
        match self {
            Order::Sequential | Order::Shuffled => count,
            Order::Given(indices) => indices.len(),
        }
    }
}

/// Options of a [`Loader`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Samples in a batch; the last batch of an epoch has what is left.
    pub batch_size: usize,
    /// Order of the samples.
    pub order: Order,
    /// Seed of the order and of the augmentation.
    pub seed: u64,
    /// Number of the epoch: each has its own order and augmentation.
    pub epoch: u64,
    /// Batches left out at the start: where a resumed run goes on.
    pub start_batch: usize,
    /// Whether the transform's augmentation is applied.
    pub augment: bool,
    /// Whether the device has all pixels already ([`AllPixels`]): batches then hold none, and placements name the
    /// samples by their number in the data set.
    pub resident: bool,
}

impl LoaderOptions {
    /// One pass in order, without augmentation: for evaluation and extraction.
    pub fn evaluation(batch_size: usize) -> LoaderOptions {
        LoaderOptions { batch_size, ..LoaderOptions::default() }
    }
}

/// Some samples, ready for [`crate::ops::LoadImages`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The sized images, row-major, channels last: `indices.len() * size * size * 3` bytes; empty if they are resident.
    pub pixels: Vec<u8>,
    /// Where each image's pixels go, [`PLACEMENT_NUMBERS`](crate::ops::PLACEMENT_NUMBERS) numbers an image.
    pub placement: Vec<i32>,
    /// The class of each sample, or [`super::UNKNOWN_LABEL`].
    pub labels: Vec<i64>,
    /// Where each sample is in the data set.
    pub indices: Vec<u32>,
}

/// An iterator over the batches of one epoch.
///
/// A background thread reads, decodes and transforms with the threads of rayon's pool. It is at most one finished
/// batch ahead of the caller and one more in the making, so three batches exist at any time. Every batch is the same
/// bits whatever the number of threads. After an error nothing follows.
#[derive(Debug)]
pub struct Loader {
    batches: Option<Receiver<Result<Batch>>>,
    used: Sender<Vec<u8>>,
    worker: Option<JoinHandle<()>>,
    left: usize,
}

impl Loader {
    /// Starts loading.
    ///
    /// # Errors
    /// The batch size is zero, the data set empty or too large, a given order empty or beyond the data set, or no
    /// thread can be started.
    pub fn new(dataset: SharedDataset, transform: &Transform, options: LoaderOptions) -> Result<Loader> {
        if options.batch_size == 0 {
            return Err(Error::usage("a batch of 0 samples: give a batch size of at least 1"));
        }
        if dataset.is_empty() || u32::try_from(dataset.len()).is_err() {
            return Err(Error::invalid(format!(
                "a data set of {} samples: expected 1 to 2^32 - 1",
                dataset.len()
            )));
        }
        if let Order::Given(indices) = &options.order {
            check_given(indices, dataset.len())?;
        }
        let all = options.order.len(dataset.len()).div_ceil(options.batch_size);
        let left = all.saturating_sub(options.start_batch);
        // One batch waits in the channel while the next is made: with the caller's that is three.
        let (sender, batches) = sync_channel(1);
        let (used, reusable) = channel();
        let producer = Producer { dataset, transform: transform.clone(), options };
        let image_len = transform.image_len();
        let worker = thread::Builder::new()
            .name("residua-loader".to_owned())
            .spawn(move || producer.run(image_len, &reusable, &sender))
            .map_err(|e| Error::invalid(format!("cannot start a thread to load data: {e}")))?;
        Ok(Loader { batches: Some(batches), used, worker: Some(worker), left })
    }

    /// Gives a batch's memory back, to be filled again.
    pub fn recycle(&self, batch: Batch) {
        // Once the last batch is made nobody listens, and the memory is simply freed.
        let _ = self.used.send(batch.pixels);
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.left == 0 {
            return None;
        }
        let batch = self.batches.as_ref()?.recv().unwrap_or_else(|_| {
            Err(Error::invalid("the thread that loads data ended before its work was done; this is a bug"))
        });
        self.left = if batch.is_ok() { self.left - 1 } else { 0 };
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error may end it earlier.
        (usize::from(self.left > 0), Some(self.left))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Without a receiver the worker's next send fails, and it ends.
        self.batches = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// The background thread's side.
struct Producer {
    dataset: SharedDataset,
    transform: Transform,
    options: LoaderOptions,
}

impl Producer {
    fn run(self, image_len: usize, reusable: &Receiver<Vec<u8>>, out: &SyncSender<Result<Batch>>) {
        let LoaderOptions { ref order, seed, epoch, batch_size, start_batch, .. } = self.options;
        let indices = order.indices(self.dataset.len(), seed, epoch);
        let repeats = matches!(order, Order::Given(_)).then(|| repeats(&indices));
        for (batch, indices) in indices.chunks(batch_size).enumerate().skip(start_batch) {
            let repeats = repeats.as_ref().map(|all| &all[batch * batch_size..][..indices.len()]);
            let batch = self.batch(reusable.try_recv().unwrap_or_default(), indices, repeats, image_len);
            let failed = batch.is_err();
            if out.send(batch).is_err() || failed {
                return;
            }
        }
    }

    /// Fills `pixels`, whatever it held, with the samples at `indices`; `repeats` says how often each of them came
    /// before in the epoch, where one may come twice.
    fn batch(
        &self,
        mut pixels: Vec<u8>,
        indices: &[u32],
        repeats: Option<&[u32]>,
        image_len: usize,
    ) -> Result<Batch> {
        if self.options.resident {
            pixels.clear();
        } else {
            pixels.resize(indices.len() * image_len, 0);
            fill(&mut pixels, &self.dataset, &self.transform, indices, || false)?;
        }
        let placement = indices.iter().enumerate().flat_map(|(position, &index)| {
            let repeat = repeats.map_or(0, |repeats| repeats[position]);
            let stream = Transform::repeated_stream(self.options.seed, self.options.epoch, index, repeat);
            let placement = self.transform.placement(self.options.augment.then_some(&stream));
            placement.numbers(if self.options.resident { index as usize } else { position })
        });
        Ok(Batch {
            placement: placement.collect(),
            pixels,
            labels: indices.iter().map(|&index| self.dataset.label(index as usize)).collect(),
            indices: indices.to_vec(),
        })
    }
}

fn check_given(indices: &[u32], len: usize) -> Result<()> {
    if indices.is_empty() {
        return Err(Error::invalid("an epoch of no samples: the order given for it is empty"));
    }
    match indices.iter().find(|&&index| index as usize >= len) {
        None => Ok(()),
        Some(beyond) => Err(Error::invalid(format!(
            "the order given for an epoch names sample {beyond}, but the data set has {len} samples"
        ))),
    }
}

/// Number of times each entry came before.
fn repeats(indices: &[u32]) -> Vec<u32> {
    let mut seen: HashMap<u32, u32> = HashMap::new();
    indices
        .iter()
        .map(|&index| {
            let count = seen.entry(index).or_default();
            *count += 1;
            *count - 1
        })
        .collect()
}

/// The pixels of a whole data set, each image in the transform's size: `len * size * size * 3` bytes. A background thread reads and
/// decodes them with the threads of rayon's pool, until somebody waits for them or loses interest.
#[derive(Debug)]
pub struct AllPixels {
    worker: Option<JoinHandle<Result<Vec<u8>>>>,
    unwanted: Arc<AtomicBool>,
}

impl AllPixels {
    /// Begins to read.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn begin(dataset: SharedDataset, transform: &Transform) -> Result<AllPixels> {
        let (transform, unwanted) = (transform.clone(), Arc::new(AtomicBool::new(false)));
        let stop = unwanted.clone();
        let read = move || {
            let indices: Vec<u32> = (0..dataset.len() as u32).collect();
            let mut pixels = vec![0; indices.len() * transform.image_len()];
            fill(&mut pixels, &dataset, &transform, &indices, || stop.load(Ordering::Relaxed))?;
            Ok(pixels)
        };
        let worker = thread::Builder::new()
            .name("residua-loader".to_owned())
            .spawn(read)
            .map_err(|e| Error::invalid(format!("cannot start a thread to load data: {e}")))?;
        Ok(AllPixels { worker: Some(worker), unwanted })
    }

    /// Waits for all of them.
    ///
    /// # Errors
    /// A sample cannot be read.
    pub fn wait(mut self) -> Result<Vec<u8>> {
        let worker = self.worker.take().expect("only waiting and dropping take it");
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for AllPixels {
    fn drop(&mut self) {
        self.unwanted.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// Reads, decodes and sizes samples, until nobody wants them any more.
fn fill(
    pixels: &mut [u8],
    dataset: &SharedDataset,
    transform: &Transform,
    indices: &[u32],
    is_unwanted: impl Fn() -> bool + Sync,
) -> Result<()> {
    // Of several errors the first is told, so that the message does not depend on timing.
    let first_error = pixels
        .par_chunks_exact_mut(transform.image_len())
        .zip(indices)
        .with_min_len(IMAGES_AT_A_TIME)
        .enumerate()
        .filter_map(|(position, (out, &index))| {
            if is_unwanted() {
                return None;
            }
            let image = dataset.image(index as usize);
            let sized = image.and_then(|image| {
                out.copy_from_slice(&transform.sized(&image)?.pixels);
                Ok(())
            });
            Some((position, sized.err()?))
        })
        .min_by_key(|(position, _)| *position);
    first_error.map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::data::{Augment, Dataset, InMemory, RgbImage};
    use crate::ops::PLACEMENT_NUMBERS;

    fn dataset(count: usize) -> SharedDataset {
        let grey: Vec<u8> = (0..count * 25).map(|i| (i * 31 % 256) as u8).collect();
        let labels = (0..count).map(|i| (i % 3) as i64).collect();
        Arc::new(InMemory::from_grey(5, 5, &grey, labels, (0..3).map(|i| i.to_string()).collect()).unwrap())
    }

    fn transform() -> Transform {
        Transform { augment: Augment::CropFlip, ..Transform::new(5, "cifar10".parse().unwrap()) }
    }

    fn training() -> LoaderOptions {
        let order = Order::Shuffled;
        LoaderOptions {
            batch_size: 8,
            order,
            seed: 9,
            epoch: 2,
            start_batch: 0,
            augment: true,
            resident: false,
        }
    }

    fn batches(options: LoaderOptions) -> Vec<Batch> {
        Loader::new(dataset(29), &transform(), options).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn an_epoch_holds_every_sample_once_and_the_last_batch_is_short() {
        let all = batches(training());
        assert_eq!(all.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(), [8, 8, 8, 5]);
        let mut indices: Vec<u32> = all.iter().flat_map(|batch| batch.indices.clone()).collect();
        assert_ne!(indices[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
        for batch in &all {
            assert_eq!(batch.pixels.len(), batch.indices.len() * 75);
            assert_eq!(batch.placement.len(), batch.indices.len() * PLACEMENT_NUMBERS);
            assert!(batch.indices.iter().zip(&batch.labels).all(|(&i, &label)| i64::from(i % 3) == label));
        }
        indices.sort_unstable();
        assert_eq!(indices, (0..29).collect::<Vec<_>>());
    }

    #[test]
    fn the_same_bits_come_from_one_thread_and_from_many() {
        let expected = batches(training());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for batch in expected {
            let producer = Producer { dataset: dataset(29), transform: transform(), options: training() };
            assert_eq!(pool.install(|| producer.batch(Vec::new(), &batch.indices, None, 75)).unwrap(), batch);
        }
    }

    #[test]
    fn a_resumed_epoch_goes_on_with_the_same_batches_and_recycled_memory_changes_nothing() {
        let all = batches(training());
        let mut loader =
            Loader::new(dataset(29), &transform(), LoaderOptions { start_batch: 1, ..training() }).unwrap();
        for expected in &all[1..] {
            let batch = loader.next().unwrap().unwrap();
            assert_eq!(batch, *expected);
            loader.recycle(batch);
        }
        assert!(loader.next().is_none());
        assert_eq!(batches(LoaderOptions { start_batch: 9, ..training() }).len(), 0);
    }

    #[test]
    fn epochs_differ_in_order_and_augmentation() {
        let (first, second) = (batches(training()), batches(LoaderOptions { epoch: 3, ..training() }));
        assert_ne!(first[0].indices, second[0].indices);
        let in_order = LoaderOptions { order: Order::Sequential, ..training() };
        let (first, second) = (batches(in_order.clone()), batches(LoaderOptions { epoch: 3, ..in_order }));
        assert_eq!(first[0].indices, second[0].indices);
        assert_ne!(first[0].placement, second[0].placement);
        assert_eq!(first[0].pixels, second[0].pixels);
    }

    #[test]
    fn a_given_order_is_kept_and_a_repeated_sample_is_augmented_anew() {
        let order = Order::Given([5, 5, 28, 0, 5, 7, 0, 1, 2, 5].into());
        let given = LoaderOptions { batch_size: 4, order, ..training() };
        let all = batches(given.clone());
        let indices: Vec<u32> = all.iter().flat_map(|batch| batch.indices.clone()).collect();
        assert_eq!(indices, [5, 5, 28, 0, 5, 7, 0, 1, 2, 5]);
        // Crop and flip of a batch's sample, without the number that says where its pixels lie.
        let placed = |batch: &Batch, at: usize| {
            batch.placement[at * PLACEMENT_NUMBERS..][1..PLACEMENT_NUMBERS].to_vec()
        };
        let fives = [placed(&all[0], 0), placed(&all[0], 1), placed(&all[1], 0), placed(&all[2], 1)];
        assert!(fives.iter().any(|other| *other != fives[0]), "{fives:?}");
        let shuffled = batches(training());
        let first = shuffled
            .iter()
            .find_map(|batch| batch.indices.iter().position(|&index| index == 5).map(|at| placed(batch, at)));
        assert_eq!(first, Some(fives[0].clone()), "the first time is augmented as in any other order");
        let resumed = batches(LoaderOptions { start_batch: 1, ..given });
        assert_eq!(resumed, all[1..]);
    }

    #[test]
    fn a_given_order_that_is_empty_or_leads_beyond_the_data_is_refused() {
        for (order, part) in [(vec![], "empty"), (vec![0, 29], "sample 29, but the data set has 29")] {
            let options = LoaderOptions { order: Order::Given(order.into()), ..training() };
            let error = Loader::new(dataset(29), &transform(), options).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn resident_pixels_are_those_of_the_batches() {
        let all = AllPixels::begin(dataset(29), &transform()).unwrap().wait().unwrap();
        let resident = batches(LoaderOptions { resident: true, ..training() });
        for (streamed, resident) in batches(training()).iter().zip(&resident) {
            assert!(resident.pixels.is_empty());
            let rows = |batch: &Batch| {
                batch.placement.chunks_exact(PLACEMENT_NUMBERS).map(<[i32]>::to_vec).collect()
            };
            let (there, here): (Vec<Vec<i32>>, Vec<Vec<i32>>) = (rows(resident), rows(streamed));
            for (there, here) in there.iter().zip(&here) {
                assert_eq!(there[1..], here[1..]);
                assert_eq!(
                    all[75 * there[0] as usize..][..75],
                    streamed.pixels[75 * here[0] as usize..][..75]
                );
            }
        }
    }

    /// A data set whose images are asked for by way of somebody who may refuse.
    struct Asked<F>(SharedDataset, F);

    impl<F> fmt::Debug for Asked<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Asked")
        }
    }

    impl<F: Fn(usize) -> Result<()> + Send + Sync> Dataset for Asked<F> {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn class_names(&self) -> &[String] {
            self.0.class_names()
        }
        fn label(&self, index: usize) -> i64 {
            self.0.label(index)
        }
        fn image(&self, index: usize) -> Result<RgbImage> {
            self.1(index)?;
            self.0.image(index)
        }
    }

    /// A data set with unreadable images.
    fn damaged(count: usize, unreadable: &'static [usize]) -> SharedDataset {
        let refuse = |index| {
            if unreadable.contains(&index) { Err(Error::invalid(format!("no {index}"))) } else { Ok(()) }
        };
        Arc::new(Asked(dataset(count), refuse))
    }

    #[test]
    fn the_first_unreadable_image_ends_the_epoch_with_its_error() {
        let mut loader =
            Loader::new(damaged(29, &[11, 14, 13]), &transform(), LoaderOptions::evaluation(8)).unwrap();
        assert!(loader.next().unwrap().is_ok());
        assert_eq!(loader.next().unwrap().unwrap_err().to_string(), "no 11");
        assert!(loader.next().is_none());
    }

    #[test]
    fn all_pixels_tell_of_an_unreadable_image_and_are_not_read_to_the_end_for_nobody() {
        let error = AllPixels::begin(damaged(29, &[14, 13]), &transform()).unwrap().wait().unwrap_err();
        assert_eq!(error.to_string(), "no 13");

        let read = Arc::new(AtomicUsize::new(0));
        let count = read.clone();
        let slow = Asked(dataset(100_000), move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(std::time::Duration::from_millis(1));
            Ok(())
        });
        drop(AllPixels::begin(Arc::new(slow), &transform()).unwrap());
        assert!(read.load(Ordering::Relaxed) < 50_000);
    }

    #[test]
    fn a_loader_nobody_empties_can_be_dropped() {
        drop(
            Loader::new(dataset(1000), &transform(), LoaderOptions { batch_size: 1, ..training() }).unwrap(),
        );
        assert!(Loader::new(dataset(3), &transform(), LoaderOptions::evaluation(0)).is_err());
    }
}
