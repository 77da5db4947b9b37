//! Cards in numbers: every number that the cost model rests on, with where it comes from. Those marked as assumed wait for a
//! measurement.

use serde::{Deserialize, Serialize};

use super::driver::native::nvrtc::architecture;
use super::driver::{Launches, Properties};
use crate::error::{Error, Result};

/// The best rates of a card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Where the numbers come from.
    pub source: String,
    /// Dense products of bf16 on tensor cores, floating-point operations a second.
    pub bf16: Option<f64>,
    /// f32 without tensor cores, floating-point operations a second.
    pub f32: Option<f64>,
    /// f64 without tensor cores, floating-point operations a second; half of f32 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub f64: Option<f64>,
    /// Bytes a second.
    pub bandwidth: f64,
}

/// A card whose numbers are published or were measured.
struct Known {
    /// Its name on the command line; nothing where another of the list stands for it there.
    short: Option<&'static str>,
    /// A part of the name that its driver tells.
    name: &'static str,
    capability: (u32, u32),
    sms: u32,
    /// TFLOP/s of dense bf16 products on tensor cores that sum in f32, and of f32 without tensor cores.
    bf16: f64,
    f32: f64,
    /// f32 operations for each f64 operation.
    f32_of_f64: f64,
    /// GB/s.
    bandwidth: f64,
    /// Megabytes of L2.
    cache: f64,
    units: Units,
    source: &'static str,
}

/// Rates of an SM that cards of a kind share.
struct Units {
    /// Floating-point operations of tensor cores in a cycle, dense bf16 summed in f32.
    matrix_flop: f64,
    /// Share of it that `mma.sync`, the instruction of single warps, reaches.
    warp_share: f64,
    /// Bytes in a cycle from L2 to all SMs of the card.
    cache_bytes_per_cycle: f64,
}

/// WGMMA m64nNk16 takes N/2 cycles (CUDA's throughput tables: 4096 for dense bf16). `mma.sync` reaches 0.62 of it (Luo et al. 2024,
/// arXiv 2402.13499, measured for dense bf16 on an H100). L2 was measured on an H200: 9.6 to 10.2 TB/s of reads at 1.98 GHz, 5000 bytes a
/// cycle; that it keeps pace with the clock under load is assumed.
const HOPPER: Units = Units { matrix_flop: 4096.0, warp_share: 0.62, cache_bytes_per_cycle: 5000.0 };
/// 312 TFLOP/s on 108 SMs at 1.41 GHz; of L2 5 TB/s are assumed (7.2 on the wires).
const AMPERE: Units = Units { matrix_flop: 2048.0, warp_share: 1.0, cache_bytes_per_cycle: 3550.0 };
/// tcgen05 multiplies twice what WGMMA does in a cycle. `mma.sync` is assumed to be what it is on Hopper; L2 too.
const BLACKWELL: Units = Units { matrix_flop: 8192.0, warp_share: 0.31, cache_bytes_per_cycle: 5000.0 };
/// Cards for graphics: L2 is assumed to give each SM 16 bytes a cycle. GeForce cards multiply bf16 at half rate where sums are f32.
const fn graphics(matrix_flop: f64, sms: u32) -> Units {
    Units { matrix_flop, warp_share: 1.0, cache_bytes_per_cycle: 16.0 * sms as f64 }
}

/// The cards, newer before older; the first whose name matches counts, and of a card that none matches the first that is not newer.
#[rustfmt::skip]
const CARDS: [Known; 10] = [
    Known {
        short: Some("5090"), name: "RTX 5090", capability: (12, 0), sms: 170, bf16: 209.5, f32: 104.8, f32_of_f64: 64.0,
        bandwidth: 1792.0, cache: 98.3, units: graphics(512.0, 170), source: "RTX Blackwell white paper, dense, sums in f32",
    },
    Known {
        short: Some("B200"), name: "B200", capability: (10, 0), sms: 148, bf16: 2250.0, f32: 75.0, f32_of_f64: 2.0,
        bandwidth: 8000.0, cache: 126.0, units: BLACKWELL, source: "data sheet, dense",
    },
    Known {
        short: Some("H200"), name: "H200", capability: (9, 0), sms: 132, bf16: 788.0, f32: 66.9, f32_of_f64: 2.0,
        bandwidth: 4300.0, cache: 50.0, units: HOPPER, source: "measured on random data (products, copy); f32 from the data sheet",
    },
    Known {
        short: None, name: "H100 PCIe", capability: (9, 0), sms: 114, bf16: 756.0, f32: 51.2, f32_of_f64: 2.0,
        bandwidth: 2000.0, cache: 50.0, units: HOPPER, source: "data sheet, dense",
    },
    Known {
        short: Some("H100"), name: "H100", capability: (9, 0), sms: 132, bf16: 989.0, f32: 66.9, f32_of_f64: 2.0,
        bandwidth: 3350.0, cache: 50.0, units: HOPPER, source: "data sheet, dense",
    },
    Known {
        short: Some("4090"), name: "RTX 4090", capability: (8, 9), sms: 128, bf16: 165.2, f32: 82.6, f32_of_f64: 64.0,
        bandwidth: 1008.0, cache: 72.0, units: graphics(512.0, 128), source: "Ada white paper, dense, sums in f32",
    },
    Known {
        short: Some("3090"), name: "RTX 3090", capability: (8, 6), sms: 82, bf16: 71.0, f32: 35.6, f32_of_f64: 64.0,
        bandwidth: 936.0, cache: 6.0, units: graphics(512.0, 82), source: "GA102 white paper, dense, sums in f32",
    },
    Known {
        short: Some("A6000"), name: "RTX A6000", capability: (8, 6), sms: 84, bf16: 154.8, f32: 38.7, f32_of_f64: 64.0,
        bandwidth: 768.0, cache: 6.0, units: graphics(1024.0, 84), source: "data sheet, dense",
    },
    Known {
        short: None, name: "A100-SXM4-40GB", capability: (8, 0), sms: 108, bf16: 312.0, f32: 19.5, f32_of_f64: 2.0,
        bandwidth: 1555.0, cache: 40.0, units: AMPERE, source: "data sheet, dense",
    },
    Known {
        short: Some("A100"), name: "A100", capability: (8, 0), sms: 108, bf16: 312.0, f32: 19.5, f32_of_f64: 2.0,
        bandwidth: 2039.0, cache: 40.0, units: AMPERE, source: "data sheet, dense",
    },
];

/// The rate of reads from L2 by how many bytes are read again and again, both in units of the card's own: of its L2, and of the
/// full rate. Measured on an H200 (50 MB: 9.9 TB/s up to 40 MB, 7.5 at 48, 5.1 at 58); assumed of other cards. Far beyond, reads come
/// from memory.
const CACHE_BY_SIZE: [[f64; 2]; 3] = [[0.8, 1.0], [0.96, 0.757], [1.16, 0.515]];
/// The multiple of L2 from where on hardly anything is found there. Assumed.
const FAR_BEYOND_CACHE: f64 = 3.0;
/// Rate of reads far beyond L2, as a share of the rate of a copy. Measured on an H200 (3.89 TB/s of 4.3); assumed of other cards.
const READ_OF_COPY: f64 = 0.905;

/// Bytes of shared memory for all thread blocks of an SM, by compute capability (CUDA's programming guide).
pub fn shared_bytes_per_sm(capability: (u32, u32)) -> usize {
    let kilobytes = match capability {
        (8, 0 | 7) => 164,
        (8 | 12, _) => 100,
        _ => 228,
    };
    kilobytes << 10
}

impl Known {
    fn rates(&self) -> Rates {
        Rates {
            source: self.source.to_string(),
            bf16: Some(1e12 * self.bf16),
            f32: Some(1e12 * self.f32),
            f64: Some(1e12 * self.f32 / self.f32_of_f64),
            bandwidth: 1e9 * self.bandwidth,
        }
    }
}

impl Rates {
    /// The rates of a card by its name.
    pub fn of_card(name: &str) -> Option<Rates> {
        CARDS.iter().find(|card| name.contains(card.name)).map(Known::rates)
    }

    /// f64 without tensor cores, floating-point operations a second.
    pub fn f64(&self) -> Option<f64> {
        self.f64.or_else(|| self.f32.map(|rate| rate / 2.0))
    }
}

/// Bytes that shared memory delivers in a cycle: 32 banks of 4 bytes.
const SHARED_BYTES_PER_CYCLE: f64 = 128.0;
/// Bytes in a cycle that one SM takes from L2, and from memory, which it reaches through L2. The
/// figure commonly given for V100, A100 and H100; assumed. All ports together carry more than L2 delivers, so this counts
/// where a few SMs have most of the work.
const PORT_BYTES_PER_CYCLE: f64 = 64.0;
/// Seconds from the end of one kernel of a graph to the first instruction of the next. Assumed.
const SERIAL_LAUNCH_SECONDS: f64 = 1.5e-6;
/// The same where launches overlap, so that the next kernel's blocks are already placed and wait. The rest remains: the last block's end
/// and its stores become visible, the waiting blocks are told, and go on. Assumed, at half of it, until it is measured.
const OVERLAPPED_LAUNCH_SECONDS: f64 = 0.7e-6;
/// Seconds until the first product of an output tile, from its first load. Assumed: a trip to memory and back, and a barrier.
const PROLOGUE_SECONDS: f64 = 0.9e-6;
/// Seconds from the last product of an output tile to its last store. Assumed.
const EPILOGUE_SECONDS: f64 = 0.7e-6;

/// The measured rate of a mainloop whose operands are there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WgmmaRate {
    /// WGMMA instructions of a consumer for a K block, one below the other.
    pub wgmmas: usize,
    /// N of each.
    pub n: usize,
    /// Consumers that multiply at the same time.
    pub consumers: usize,
    /// Floating-point operations a second of all SMs.
    pub flop_per_second: f64,
}

/// A card as the model sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// The architecture that kernels are compiled for.
    pub architecture: String,
    /// Compute capability.
    pub capability: (u32, u32),
    /// SMs (streaming multiprocessors).
    #[serde(rename = "multiprocessors")]
    pub sms: u32,
    /// When some of its numbers were measured, in UTC; nothing where all of them are the table's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<String>,
    /// The rates of the floors.
    pub rates: Rates,
    /// Floating-point operations of tensor cores in a cycle of one SM.
    pub matrix_flop_per_cycle: f64,
    /// Share of it that instructions of single warps reach.
    pub warp_share: f64,
    /// Cycles a second under load: the rate of products over the SMs and their operations in a cycle.
    pub clock: f64,
    /// Bytes of shared memory of an SM in a cycle.
    pub shared_bytes_per_cycle: f64,
    /// Bytes of shared memory for all thread blocks of an SM.
    pub shared_bytes: usize,
    /// Bytes a second from L2.
    pub cache_rate: f64,
    /// Bytes that are read again and again, and bytes a second that they come at: from L2, and, of the last, from memory.
    pub cache_by_size: Vec<[f64; 2]>,
    /// Bytes a second of reads from memory alone.
    pub read_rate: f64,
    /// Rates of mainloops that were measured; the others take the rate of products.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wgmma_rates: Vec<WgmmaRate>,
    /// Bytes a second that TMA loads in im2col mode, where it was measured; else as from L2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub im2col_rate: Option<f64>,
    /// Bytes a second that one SM takes from L2; assumed.
    pub port_rate: f64,
    /// How kernels follow each other.
    pub launches: Launches,
    /// Seconds a launch costs.
    pub launch_seconds: f64,
    /// The same where launches are overlapped, and where they are serial.
    pub seconds_by_launches: [f64; 2],
    /// Seconds until the first product of an output tile; assumed.
    pub prologue_seconds: f64,
    /// Seconds after the last product of an output tile; assumed.
    pub epilogue_seconds: f64,
}

impl Card {
    /// The short names of all cards that have one.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CARDS.iter().filter_map(|card| card.short)
    }

    /// A card by its name on the command line.
    ///
    /// # Errors
    /// No such card; names those there are.
    pub fn named(text: &str) -> Result<Card> {
        let is_called = |card: &&Known| card.short.is_some_and(|short| short.eq_ignore_ascii_case(text));
        let Some(card) = CARDS.iter().find(is_called) else {
            let known: Vec<&str> = Card::names().collect();
            return Err(Error::usage(format!("--card {text}: the model knows {}", known.join(", "))));
        };
        Ok(Card::new(&format!("NVIDIA {}", card.name), card.capability, card.sms, card, 1.0))
    }

    /// The card that a device is, if its rates are known.
    pub fn of_device(device: &Properties) -> Option<Card> {
        let card = CARDS.iter().find(|card| device.name.contains(card.name))?;
        Some(Card::new(&device.name, device.capability, device.sms, card, 1.0))
    }

    /// The same; of another device, with the rates of as many SMs of the nearest card that is known: the newest that is not newer.
    pub fn nearest(device: &Properties) -> Card {
        Card::of_device(device).unwrap_or_else(|| {
            let not_newer = |card: &&Known| card.short.is_some() && device.capability >= card.capability;
            let oldest = CARDS.last().expect("cards are known");
            let card = CARDS.iter().find(not_newer).unwrap_or(oldest);
            let sms = device.sms.max(1);
            let share = f64::from(sms) / f64::from(card.sms);
            let mut known = Card::new(&device.name, device.capability, sms, card, share);
            known.rates.source = format!("{sms} SMs as those of an NVIDIA {}; assumed", card.name);
            known
        })
    }

    /// A card with `share` times the rates of a known one.
    fn new(name: &str, capability: (u32, u32), sms: u32, known: &Known, share: f64) -> Card {
        let mut rates = known.rates();
        for rate in [&mut rates.bf16, &mut rates.f32, &mut rates.f64].into_iter().flatten() {
            *rate *= share;
        }
        rates.bandwidth *= share;
        let clock = 1e12 * known.bf16 * share / (f64::from(sms) * known.units.matrix_flop);
        let cache_rate = known.units.cache_bytes_per_cycle * share * clock;
        let (cache, read_rate) = (1e6 * known.cache * share, READ_OF_COPY * rates.bandwidth);
        let mut cache_by_size =
            CACHE_BY_SIZE.map(|[size, rate]| [cache * size, (cache_rate * rate).max(read_rate)]).to_vec();
        cache_by_size.push([cache * FAR_BEYOND_CACHE, read_rate]);
        let card = Card {
            name: name.to_string(),
            architecture: architecture(capability).unwrap_or_else(|_| "sm_80".into()),
            capability,
            sms,
            matrix_flop_per_cycle: known.units.matrix_flop,
            warp_share: known.units.warp_share,
            clock,
            shared_bytes_per_cycle: SHARED_BYTES_PER_CYCLE,
            shared_bytes: shared_bytes_per_sm(capability),
            cache_rate,
            cache_by_size,
            read_rate,
            wgmma_rates: Vec::new(),
            im2col_rate: None,
            calibrated: None,
            port_rate: PORT_BYTES_PER_CYCLE * clock,
            launches: Launches::Serial,
            launch_seconds: SERIAL_LAUNCH_SECONDS,
            seconds_by_launches: [OVERLAPPED_LAUNCH_SECONDS, SERIAL_LAUNCH_SECONDS],
            prologue_seconds: PROLOGUE_SECONDS,
            epilogue_seconds: EPILOGUE_SECONDS,
            rates,
        };
        card.with_launches(Launches::default())
    }

    /// Bytes a second of reads of so many bytes that were written or read just before.
    pub fn cache_rate_of(&self, bytes: f64) -> f64 {
        let points = &self.cache_by_size;
        let Some(next) = points.iter().position(|[size, _]| bytes <= *size) else { return self.read_rate };
        let [size, rate] = points[next];
        match next.checked_sub(1).map(|before| points[before]) {
            None => rate,
            Some([from, before]) => before + (rate - before) * (bytes - from) / (size - from),
        }
    }

    /// Bytes a second of a pass over memory, by the share of its bytes that it writes: from reads alone to a copy.
    pub fn memory_rate(&self, written_share: f64) -> f64 {
        self.read_rate + (self.rates.bandwidth - self.read_rate) * (2.0 * written_share).min(1.0)
    }

    /// Floating-point operations in a cycle of one SM of a mainloop by WGMMA, whose consumers have so many elements of a tile each.
    pub fn wgmma_flop_per_cycle(&self, n: usize, elements: usize, cooperative: bool) -> f64 {
        let (wgmmas, consumers) = (elements / (64 * n.max(1)), if cooperative { 2 } else { 1 });
        let same = |rate: &&WgmmaRate| (rate.wgmmas, rate.n, rate.consumers) == (wgmmas, n, consumers);
        match self.wgmma_rates.iter().find(same) {
            Some(measured) => measured.flop_per_second / (self.clock * f64::from(self.sms)),
            None => self.matrix_flop_per_cycle,
        }
    }

    /// The card whose kernels follow each other like this, as far as it can.
    #[must_use]
    pub fn with_launches(self, launches: Launches) -> Card {
        let overlaps = self.capability >= Properties::OVERLAPS_LAUNCHES;
        let launches = if overlaps { launches } else { Launches::Serial };
        let [overlapped, serial] = self.seconds_by_launches;
        let launch_seconds = if launches == Launches::Overlapped { overlapped } else { serial };
        Card { launches, launch_seconds, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_overlap_on_cards_that_can_do_so_unless_they_are_to_be_serial() {
        let launch = |name, launches| Card::named(name).unwrap().with_launches(launches).launch_seconds;
        assert_eq!(launch("H200", Launches::Overlapped), Card::named("H200").unwrap().launch_seconds);
        assert!(launch("H200", Launches::Overlapped) < launch("H200", Launches::Serial));
        assert_eq!(launch("A100", Launches::Overlapped), launch("H200", Launches::Serial));
        assert_eq!(Card::named("A100").unwrap().launches, Launches::Serial);
    }

    #[test]
    fn a_card_without_published_rates_has_sms_like_those_of_the_nearest() {
        let device = |name: &str, capability, sms| Properties {
            name: name.into(),
            architecture: String::new(),
            capability,
            sms,
            memory_bytes: 1 << 36,
            shared_bytes_per_block: 160 << 10,
            red_zone: 0,
            versions: String::new(),
        };
        let known = Card::named("3090").unwrap();
        let half = Card::nearest(&device("a card", (8, 7), 41));
        let near = |value: f64, expected: f64| assert!((value / expected - 1.0).abs() < 1e-12, "{value:e}");
        near(half.clock, known.clock);
        near(half.cache_rate, known.cache_rate / 2.0);
        near(half.cache_by_size[0][0], known.cache_by_size[0][0] / 2.0);
        near(half.rates.bandwidth, known.rates.bandwidth / 2.0);
        near(half.rates.f32.unwrap(), known.rates.f32.unwrap() / 2.0);
        assert!(half.rates.source.contains("41 SMs") && half.rates.source.contains("assumed"));
        let nearest = |capability| Card::nearest(&device("a card", capability, 100)).rates.source;
        for (capability, name) in [
            ((8, 0), "A100"),
            ((8, 6), "3090"),
            ((8, 9), "4090"),
            ((9, 0), "H200"),
            ((10, 3), "B200"),
            ((12, 1), "5090"),
        ] {
            assert!(nearest(capability).contains(name), "{capability:?}: {}", nearest(capability));
        }
        // The emulator passes for a Hopper; a device that reports no SMs has one; a known card is itself.
        near(Card::nearest(&device("emulator", (9, 0), 4)).clock, Card::named("H200").unwrap().clock);
        assert_eq!(Card::nearest(&device("a card", (8, 0), 0)).sms, 1);
        let known = device("NVIDIA H100", (9, 0), 132);
        assert_eq!(Card::nearest(&known), Card::named("H100").unwrap());
    }

    #[test]
    fn reads_come_at_the_rates_that_were_measured_on_an_h200() {
        let card = Card::named("H200").unwrap();
        // At 1.98 GHz; under the load of products the clock is lower.
        let full = |rate: f64| rate * 1.98e9 / card.clock;
        let within = |value: f64, low: f64, high: f64| assert!((low..=high).contains(&value), "{value:e}");
        within(full(card.cache_rate_of(7e6)), 9.6e12, 10.2e12);
        within(full(card.cache_rate_of(40e6)), 9.6e12, 10.2e12);
        within(full(card.cache_rate_of(48e6)), 7.4e12, 7.6e12);
        within(full(card.cache_rate_of(58e6)), 5.0e12, 5.4e12);
        within(card.cache_rate_of(1e9), 3.88e12, 3.90e12);
        within(card.memory_rate(0.0), 3.88e12, 3.90e12);
        assert_eq!(card.memory_rate(0.5), card.rates.bandwidth);
        for size in 1..200 {
            let [smaller, larger] = [size, size + 1].map(|size| card.cache_rate_of(1e6 * f64::from(size)));
            assert!(smaller >= larger && larger >= card.read_rate, "{size} MB");
        }
    }

    #[test]
    fn the_clock_of_a_card_makes_its_rate_out_of_its_units() {
        let h100 = Card::named("h100").unwrap();
        // The data sheet's rate is that of 1.83 GHz.
        assert!((h100.clock / 1e9 - 1.83).abs() < 0.01, "{}", h100.clock);
        let a100 = Card::named("A100").unwrap();
        assert!((a100.clock / 1e9 - 1.41).abs() < 0.01, "{}", a100.clock);
        // Boost clocks of the white papers.
        for (name, gigahertz) in [("3090", 1.695), ("A6000", 1.80), ("4090", 2.52), ("5090", 2.407)] {
            let card = Card::named(name).unwrap();
            assert!((card.clock / 1e9 / gigahertz - 1.0).abs() < 0.01, "{name}: {}", card.clock);
            assert_eq!(card.rates.f64().unwrap(), card.rates.f32.unwrap() / 64.0);
        }
        let unknown = Card::named("B300").unwrap_err();
        let known = "5090, B200, H200, H100, 4090, 3090, A6000, A100";
        assert!(unknown.exit_code() == 2 && unknown.to_string().contains(known), "{unknown}");
    }
}
