//! The cost model: the predicted time of one launch. It chooses the kernels of convolutions, and `bench --model` prints it.
//!
//! It is the longest of the times of a launch's products, its reads of shared memory, its traffic with L2 and its traffic with
//! memory; plus the cost of beginning and ending. Of products and shared memory the SM with most work decides; L2 and memory serve all
//! SMs, so their traffic takes the time of all its bytes at their rate, or the time of the busiest SM's bytes through its own port,
//! whichever is longer.

use serde::Serialize;

use super::kernel::Units;
use super::products::{Items, Products};
use crate::backend::cuda::card::Card;
use crate::tensor::DType;

/// The part of a launch that takes longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Arithmetic units or tensor cores.
    Products,
    /// Reads and writes of shared memory.
    Shared,
    /// L2.
    Cache,
    /// Memory.
    Memory,
    /// Launching, and the beginnings and ends of output tiles.
    Ends,
}

/// A prediction and its parts, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Predicted {
    /// All of it.
    pub seconds: f64,
    /// Products of the busiest SM.
    pub products: f64,
    /// Its traffic with shared memory.
    pub shared: f64,
    /// The traffic with L2.
    pub cache: f64,
    /// The traffic with memory.
    pub memory: f64,
    /// The launch, and beginnings and ends that nothing hides.
    pub ends: f64,
    /// Waves: how often the device is filled with output tiles.
    pub waves: f64,
    /// How much more the busiest SM has to do than the mean: 1 is even.
    pub tail: f64,
}

impl Predicted {
    /// The prediction of a launch by the times of its parts, its waves and its tail.
    fn new([products, shared, cache, memory]: [f64; 4], ends: f64, waves: f64, tail: f64) -> Predicted {
        let seconds = products.max(shared).max(cache).max(memory) + ends;
        Predicted { seconds, products, shared, cache, memory, ends, waves, tail }
    }

    /// Seconds of all parts, were none hidden by another.
    pub fn unhidden(&self) -> f64 {
        self.products + self.shared + self.cache + self.memory + self.ends
    }

    /// The part that takes longest.
    pub fn bound(&self) -> Bound {
        self.longest_part().1
    }

    /// Seconds of the part that takes longest.
    pub fn longest(&self) -> f64 {
        self.longest_part().0
    }

    fn longest_part(&self) -> (f64, Bound) {
        let all = [
            (self.products, Bound::Products),
            (self.shared, Bound::Shared),
            (self.cache, Bound::Cache),
            (self.memory, Bound::Memory),
            (self.ends, Bound::Ends),
        ];
        all.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).expect("five parts")
    }
}

/// The bytes of a pass.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// From memory.
    pub read: f64,
    /// To memory.
    pub written: f64,
    /// Read of what an earlier launch of the same call has just written, from L2 where it fits.
    pub just_written: f64,
}

/// A pass over memory: its bytes by the bandwidth, or, of few blocks, by the rate of their SMs' ports; its products by the rate of the type
/// that they are computed in.
pub fn pass(card: &Card, bytes: Traffic, (flop, dtype): (f64, DType), blocks: usize) -> Predicted {
    let sms = card.sms as usize;
    let busiest = blocks.div_ceil(sms) as f64 / blocks.max(1) as f64;
    let both = bytes.read + bytes.written;
    let memory = traffic(card, card.memory_rate(bytes.written / both.max(1.0)), both, busiest);
    let cache = traffic(card, card.cache_rate_of(bytes.just_written), bytes.just_written, busiest);
    let reach = blocks.clamp(1, sms) as f64 / sms as f64;
    let rate = if dtype == DType::F64 { card.rates.f64() } else { card.rates.f32 };
    let products = rate.map_or(0.0, |rate| flop / (rate * reach));
    Predicted::new([products, 0.0, cache, memory], card.launch_seconds, 0.0, 1.0)
}

/// The products of a convolution, with `resident` blocks on an SM, that move at least `bytes` bytes.
pub fn products(card: &Card, work: &Products, resident: u32, bytes: f64) -> Predicted {
    let sms = card.sms as usize;
    let load = Load::of(&work.items, sms);
    let step = Step::of(card, work);
    let (at_once, begun, ended) = match work.units {
        // A producer runs ahead, so that only the first beginning shows; consumers that take turns hide all ends but one.
        Units::Warpgroups { cooperate: true, .. } => (1.0, 1, load.items),
        Units::Warpgroups { cooperate: false, .. } => (2.0, 1, 1),
        // Blocks that share an SM hide each other's beginnings and ends, but for the first and the last.
        Units::Scalar | Units::Warps(_) if resident > 1 => (f64::from(resident), 1, 1),
        Units::Scalar | Units::Warps(_) => (1.0, load.items, load.items),
    };
    let ends = card.launch_seconds
        + begun.min(load.items) as f64 * card.prologue_seconds
        + ended.min(load.items) as f64 * card.epilogue_seconds;
    let products = load.busiest * step.products;
    let shared = load.busiest * step.shared;
    let rate =
        card.im2col_rate.filter(|_| work.im2col).map_or(card.cache_rate, |rate| rate.min(card.cache_rate));
    let cache = traffic(card, rate, load.total * work.fetched, load.share());
    let memory = traffic(card, card.rates.bandwidth, bytes, load.share());
    let waves = load.count as f64 / (sms as f64 * at_once);
    Predicted::new([products, shared, cache, memory], ends, waves, load.tail())
}

/// Seconds for bytes that come at a rate, and of which the busiest SM takes a share through its port.
fn traffic(card: &Card, rate: f64, bytes: f64, share: f64) -> f64 {
    (bytes / rate).max(bytes * share / card.port_rate)
}

/// Seconds of an SM for one element of an output tile's K loop.
struct Step {
    products: f64,
    shared: f64,
}

impl Step {
    fn of(card: &Card, work: &Products) -> Step {
        let [rows, columns] = work.tile.map(|extent| extent as f64);
        let (size, flop) = (work.element_bytes as f64, 2.0 * rows * columns);
        let of_sm = |rate: f64| rate / f64::from(card.sms);
        let matrix = card.matrix_flop_per_cycle * card.clock;
        let (rate, read) = match work.units {
            Units::Scalar => (of_sm(card.rates.f32.unwrap_or(f64::INFINITY)), 0.0),
            // Each warp reads its own rows and columns.
            Units::Warps([down, across]) => {
                (matrix * card.warp_share, (across as f64 * rows + down as f64 * columns) * size)
            }
            // Each product reads its 64 rows and its columns.
            Units::Warpgroups { wide, cooperate } => {
                let elements = work.tile[0] * work.tile[1] / if cooperate { 2 } else { 1 };
                let rate = card.wgmma_flop_per_cycle(wide, elements, cooperate) * card.clock;
                let wide = wide as f64;
                (rate, flop / 2.0 / (64.0 * wide) * (64.0 + wide) * size)
            }
        };
        Step {
            products: flop / rate,
            shared: (work.copied + read) / (card.shared_bytes_per_cycle * card.clock),
        }
    }
}

/// The distribution of output tiles over SMs, handed out in turn.
struct Load {
    /// Output tiles in all.
    count: usize,
    /// Output tiles of the SM with most work.
    items: usize,
    /// Elements of its sums.
    busiest: f64,
    /// Elements of all sums.
    total: f64,
    sms: usize,
}

impl Load {
    fn of(items: &[Items], sms: usize) -> Load {
        let count = items.iter().map(|items| items.count).sum();
        let total = items.iter().map(|items| items.count as f64 * items.sum as f64).sum();
        let of_one = |index: usize| {
            let (mut begun, mut own, mut sum) = (0, 0, 0.0);
            for items in items {
                // The tiles of begun..begun + count whose number modulo `sms` is this index.
                let before = (begun + sms - 1 - index) / sms;
                begun += items.count;
                let after = (begun + sms - 1 - index) / sms;
                own += after - before;
                sum += (after - before) as f64 * items.sum as f64;
            }
            (own, sum)
        };
        // Of equal tiles, the first SM has the most.
        let several = if items.len() > 1 { sms } else { 1 };
        let (items, busiest) = (0..several)
            .map(of_one)
            .max_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)))
            .unwrap_or((0, 0.0));
        Load { count, items, busiest, total, sms }
    }

    /// The part of all sums that the busiest SM has.
    fn share(&self) -> f64 {
        if self.total > 0.0 { self.busiest / self.total } else { 1.0 / self.sms as f64 }
    }

    fn tail(&self) -> f64 {
        self.share() * self.sms as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: (f64, DType) = (0.0, DType::F32);
    use crate::backend::cuda::card::WgmmaRate;

    fn near(value: f64, expected: f64) {
        assert!((value / expected - 1.0).abs() < 1e-9, "{value:e} instead of {expected:e}");
    }

    /// Products in bf16 whose blocks share nothing.
    fn of_tile(tile: [usize; 2], units: Units, items: &[Items]) -> Products {
        let copied = 2.0 * (tile[0] + tile[1]) as f64;
        let items = items.to_vec();
        Products {
            kernel: "k",
            entry: "k",
            tile,
            units,
            element_bytes: 2,
            copied,
            fetched: copied,
            im2col: false,
            items,
            splits: 1,
        }
    }

    fn work(tile: [usize; 2], warps: [usize; 2], items: &[Items]) -> Products {
        of_tile(tile, Units::Warps(warps), items)
    }

    #[test]
    fn products_of_a_full_wave_take_the_time_of_one_output_tile() {
        let card = Card::named("A100").unwrap();
        // 108 tiles of 128 x 128, sums of 576: 128 * 128 * 2 * 576 FLOP at 2048 a cycle are 9216 cycles.
        let one = work([128, 128], [2, 4], &[Items { count: 108, sum: 576 }]);
        let predicted = products(&card, &one, 2, 0.0);
        near(predicted.products, 9216.0 / card.clock);
        // Per element of the sum 512 bytes are written, 4 x 256 + 2 x 256 read: 16 cycles as well.
        near(predicted.shared, 576.0 * 16.0 / card.clock);
        near(predicted.cache, 108.0 * 576.0 * 512.0 / card.cache_rate);
        assert_eq!((predicted.tail, predicted.waves), (1.0, 0.5));
        near(predicted.ends, card.launch_seconds + card.prologue_seconds + card.epilogue_seconds);

        // One tile more, and an SM has two; a block alone on it hides neither beginning nor end.
        let more = work([128, 128], [2, 4], &[Items { count: 109, sum: 576 }]);
        let two = products(&card, &more, 1, 0.0);
        near(two.ends, card.launch_seconds + 2.0 * (card.prologue_seconds + card.epilogue_seconds));
        near(two.products, 2.0 * predicted.products);
        near(two.tail, 2.0 * 108.0 / 109.0);
    }

    #[test]
    fn few_sms_are_held_up_by_their_ports_and_many_by_the_cache() {
        let card = Card::named("H200").unwrap();
        // 128 x 128 in bf16 fetch 512 bytes for an element of the sum: eight cycles of 64 bytes.
        let of = |count, bytes| {
            products(&card, &work([128, 128], [2, 4], &[Items { count, sum: 1000 }]), 1, bytes)
        };
        near(of(32, 0.0).cache, 8000.0 / card.clock);
        near(of(32, 0.0).tail, 132.0 / 32.0);
        // All of them together ask for 132 x 64 bytes in a cycle, which is more than the cache has.
        near(of(132, 0.0).cache, 132.0 * 512e3 / card.cache_rate);
        // One more, and the busiest brings in 16000 cycles' worth, which takes its port longer than the cache takes for all 133.
        near(of(133, 0.0).cache, 16000.0 / card.clock);
        // Memory stands behind the same ports: each of eight brings in 64 kB.
        near(of(8, 512e3).memory, 1000.0 / card.clock);
        near(of(132, 4.3e9).memory, 1e-3);
    }

    #[test]
    fn bytes_that_blocks_share_are_asked_of_the_cache_once_and_written_to_shared_memory_by_each() {
        let card = Card::named("H100").unwrap();
        let alone = work([128, 128], [2, 4], &[Items { count: 132, sum: 64 }]);
        let shared = Products { fetched: alone.fetched / 2.0, ..alone.clone() };
        let [alone, shared] = [alone, shared].map(|work| products(&card, &work, 1, 0.0));
        near(shared.cache, alone.cache / 2.0);
        near(shared.shared, alone.shared);
    }

    #[test]
    fn an_instruction_of_a_warpgroup_takes_half_as_many_cycles_as_it_has_columns_and_reads_both_operands() {
        let card = Card::named("H100").unwrap();
        let units = Units::Warpgroups { wide: 128, cooperate: false };
        // Two items of a sum of 16 on each SM: four instructions of m64n128k16.
        let work = of_tile([128, 128], units, &[Items { count: 264, sum: 16 }]);
        let predicted = products(&card, &work, 1, 0.0);
        near(predicted.products, 4.0 * 64.0 / card.clock);
        // Each reads 2048 bytes of the one operand and 32 for each of 128 columns; each tile was written once, 8192 bytes.
        near(predicted.shared, (4.0 * (2048.0 + 32.0 * 128.0) + 2.0 * 8192.0) / 128.0 / card.clock);
        assert_eq!(predicted.waves, 1.0);
        near(predicted.ends, card.launch_seconds + card.prologue_seconds + card.epilogue_seconds);
        // Together, consumers store one tile before they multiply the next.
        let units = Units::Warpgroups { wide: 128, cooperate: true };
        let together = products(&card, &Products { units, ..work }, 1, 0.0);
        near(together.ends, card.launch_seconds + card.prologue_seconds + 2.0 * card.epilogue_seconds);
    }

    #[test]
    fn the_busiest_sm_is_found_among_output_tiles_of_different_lengths() {
        // Three SMs: 0 1 2 0 get the long sums, 1 2 0 1 the short ones.
        let items = [Items { count: 4, sum: 100 }, Items { count: 4, sum: 10 }];
        let load = Load::of(&items, 3);
        assert_eq!((load.count, load.items, load.busiest, load.total), (8, 3, 210.0, 440.0));
        near(load.tail(), 210.0 * 3.0 / 440.0);
    }

    #[test]
    fn a_pass_takes_its_bytes_and_a_launch_and_longer_on_few_blocks() {
        let card = Card::named("H200").unwrap();
        let copy = |bytes| Traffic { read: bytes / 2.0, written: bytes / 2.0, just_written: 0.0 };
        near(pass(&card, copy(4.3e9), NONE, 1000).seconds, 1e-3 + card.launch_seconds);
        // Reads alone come more slowly.
        let read = Traffic { read: 4.3e9, ..Traffic::default() };
        near(pass(&card, read, NONE, 1000).memory, 4.3e9 / card.read_rate);
        // Eight SMs take 512 bytes in a cycle; memory delivers nearly three thousand.
        near(pass(&card, copy(5.12e6), NONE, 8).memory, 1e4 / card.clock);
        // Half of them take all that memory delivers.
        near(pass(&card, copy(4.3e9), NONE, 66).memory, 1e-3);
        // What was just written is still in L2, if there is room.
        let again = |bytes| pass(&card, Traffic { just_written: bytes, ..Traffic::default() }, NONE, 1000);
        near(again(20e6).cache, 20e6 / card.cache_rate);
        near(again(1e9).cache, 1e9 / card.read_rate);
        assert_eq!(again(20e6).memory, 0.0);
        // Arithmetic is theirs alone.
        near(pass(&card, Traffic::default(), (card.rates.f32.unwrap(), DType::F32), 66).products, 2.0);
        assert_eq!(pass(&card, Traffic::default(), NONE, 1).bound(), Bound::Ends);
    }

    #[test]
    fn what_was_measured_takes_the_place_of_what_is_assumed() {
        let mut card = Card::named("H200").unwrap();
        let units = Units::Warpgroups { wide: 128, cooperate: true };
        let of = |card: &Card, im2col| {
            let work = of_tile([256, 128], units, &[Items { count: 132, sum: 64 }]);
            products(card, &Products { im2col, ..work }, 1, 0.0)
        };
        let before = of(&card, true);
        let rate =
            |wgmmas, n, consumers, flop_per_second| WgmmaRate { wgmmas, n, consumers, flop_per_second };
        // Two instructions of 64 rows for each of both consumers; another tile's rate is not theirs.
        card.wgmma_rates = vec![rate(1, 128, 2, 1.0), rate(2, 128, 2, 394e12)];
        card.im2col_rate = Some(card.cache_rate / 4.0);
        near(of(&card, true).products, 2.0 * before.products);
        near(of(&card, true).cache, 4.0 * before.cache);
        near(of(&card, false).cache, before.cache);
    }
}
