//! Loops over products of some samples with a bank: which rows of it are worth a look in f64.

use pulp::NullaryFnOnce;

use crate::instructions::arch;

/// Likenesses below this do not count.
pub(super) const ALIKE: f64 = 0.03;

/// Products looked at together.
const CHUNK: usize = 64;

/// The bank rows that may be among the k with the largest products with one query.
#[derive(Debug)]
pub(super) struct Candidates {
    held: Vec<(f32, u32)>,
    k: usize,
    margin: f32,
    /// Products below this cannot belong to the k largest.
    floor: f32,
    /// Length at which hopeless candidates are swept out.
    limit: usize,
    /// Room for the chunks of a tile that are looked at.
    chunks: Vec<usize>,
}

impl Candidates {
    pub fn new(k: usize, margin: f32) -> Candidates {
        Candidates {
            held: Vec::new(),
            k,
            margin,
            floor: f32::NEG_INFINITY,
            limit: (4 * k).max(256),
            chunks: Vec::new(),
        }
    }

    pub fn offer(&mut self, products: &[f32], first: usize) {
        let mut chunks = std::mem::take(&mut self.chunks);
        chunks.clear();
        arch().dispatch(ChunksAbove { values: products, floor: self.floor, found: &mut chunks });
        for number in &chunks {
            let start = number * CHUNK;
            for (offset, &product) in products[start..].iter().take(CHUNK).enumerate() {
                if product >= self.floor {
                    self.held.push((product, (first + start + offset) as u32));
                    if self.held.len() >= self.limit {
                        self.sweep();
                        self.limit = self.limit.max(2 * self.held.len());
                    }
                }
            }
        }
        self.chunks = chunks;
    }

    fn sweep(&mut self) {
        if self.held.len() < self.k {
            return;
        }
        let kth = self.held.select_nth_unstable_by(self.k - 1, |a, b| b.0.total_cmp(&a.0)).1.0;
        self.floor = kth - self.margin;
        let floor = self.floor;
        self.held.retain(|candidate| candidate.0 >= floor);
    }

    pub fn finish(&mut self) -> impl Iterator<Item = usize> {
        self.sweep();
        std::mem::take(&mut self.held).into_iter().map(|(_, index)| index as usize)
    }
}

/// An inner product in f64, in eight fixed partial sums.
pub(super) fn dot_f32(a: &[f64], b: &[f32]) -> f64 {
    arch().dispatch(Dot { a, b })
}

/// A loop that is compiled for every set of instructions, as the two below.
struct Dot<'a> {
    a: &'a [f64],
    b: &'a [f32],
}

impl NullaryFnOnce for Dot<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut sums = [0.0; 8];
        let (a8, b8) = (self.a.as_chunks::<8>(), self.b.as_chunks::<8>());
        for (x, y) in a8.0.iter().zip(b8.0) {
            let y: [f64; 8] = y.map(f64::from);
            for lane in 0..8 {
                sums[lane] += x[lane] * y[lane];
            }
        }
        let rest: f64 = a8.1.iter().zip(b8.1).map(|(x, y)| x * f64::from(*y)).sum();
        let [a, b, c, d, e, f, g, h] = sums;
        ((a + b) + (c + d)) + ((e + f) + (g + h)) + rest
    }
}

/// Adds the numbers of the chunks that hold a value of at least `floor`.
struct ChunksAbove<'a> {
    values: &'a [f32],
    floor: f32,
    found: &'a mut Vec<usize>,
}

impl NullaryFnOnce for ChunksAbove<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (number, chunk) in self.values.chunks(CHUNK).enumerate() {
            // Without a branch in the loop, so that it is done by vectors.
            if chunk.iter().fold(false, |any, value| any | (*value >= self.floor)) {
                self.found.push(number);
            }
        }
    }
}

/// Multiplies values by others.
pub(super) struct Multiply<'a> {
    pub values: &'a mut [f32],
    pub others: &'a [f32],
}

impl NullaryFnOnce for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.values.iter_mut().zip(self.others).for_each(|(value, other)| *value *= other);
    }
}

/// Adds the bank rows whose likeness, a product of two, may be large enough; `likeness` holds one factor, and then both.
pub(super) fn alike(cosines: &[f32], likeness: &mut [f32], margin: f32, first: usize, found: &mut Vec<u32>) {
    let floor = ALIKE as f32 - margin;
    arch().dispatch(Multiply { values: likeness, others: cosines });
    let mut chunks = Vec::new();
    arch().dispatch(ChunksAbove { values: likeness, floor, found: &mut chunks });
    for number in chunks {
        let start = number * CHUNK;
        for (offset, likeness) in likeness[start..].iter().take(CHUNK).enumerate() {
            if *likeness >= floor {
                found.push((first + start + offset) as u32);
            }
        }
    }
}
