//! Cards in numbers: every number that the cost model rests on, with where it comes from. Those marked as assumed wait for a
//! measurement.

use serde::{Deserialize, Serialize};

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
    /// Bytes a second.
    pub bandwidth: f64,
}

/// Part of a card's name, bf16 TFLOP/s, f32 TFLOP/s, GB/s, and where the numbers come from.
type Published = (&'static str, f64, f64, f64, &'static str);

/// The first match counts.
const PUBLISHED: [Published; 5] = [
    ("H200", 788.0, 66.9, 4300.0, "measured on random data (products, copy); f32 from the data sheet"),
    ("H100 PCIe", 756.0, 51.2, 2000.0, "data sheet, dense"),
    ("H100", 989.0, 66.9, 3350.0, "data sheet, dense"),
    ("A100-SXM4-40GB", 312.0, 19.5, 1555.0, "data sheet, dense"),
    ("A100", 312.0, 19.5, 2039.0, "data sheet, dense"),
];

impl Rates {
    /// The rates of a card by its name.
    pub fn of_card(name: &str) -> Option<Rates> {
        let &(_, bf16, f32, bandwidth, source) = PUBLISHED.iter().find(|card| name.contains(card.0))?;
        Some(Rates {
            source: source.to_string(),
            bf16: Some(1e12 * bf16),
            f32: Some(1e12 * f32),
            bandwidth: 1e9 * bandwidth,
        })
    }

    /// f64 without tensor cores, floating-point operations a second: every card of the table has half the units for f64
    /// that it has for f32.
    pub fn f64(&self) -> Option<f64> {
        self.f32.map(|rate| rate / 2.0)
    }
}

/// Floating-point operations of WGMMA (tensor cores) in a cycle of a Hopper SM: m64nNk16 takes N/2
/// cycles (CUDA's throughput tables: 4096 for dense bf16).
const HOPPER_MATRIX_FLOP: f64 = 4096.0;
/// The same on an A100: 312 TFLOP/s on 108 SMs at 1.41 GHz.
const AMPERE_MATRIX_FLOP: f64 = 2048.0;
/// Share of Hopper's tensor core rate that `mma.sync` reaches (Luo et al. 2024, arXiv 2402.13499, measured for dense bf16 on an H100).
const WARP_SHARE_ON_HOPPER: f64 = 0.62;
/// Bytes that shared memory delivers in a cycle: 32 banks of 4 bytes.
const SHARED_BYTES_PER_CYCLE: f64 = 128.0;
/// Bytes a second from L2 to all SMs. Assumed: the wires carry 5120 bytes a cycle (9.0 TB/s on an
/// H100, 7.2 TB/s on an A100), of which published read tests reach between two thirds and four fifths.
const HOPPER_CACHE_RATE: f64 = 7.5e12;
const AMPERE_CACHE_RATE: f64 = 5.0e12;
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

/// A card as the model sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// Bytes a second from L2; assumed.
    pub cache_rate: f64,
    /// Bytes a second that one SM takes from L2; assumed.
    pub port_rate: f64,
    /// How kernels follow each other.
    pub launches: Launches,
    /// Seconds a launch costs; assumed.
    pub launch_seconds: f64,
    /// Seconds until the first product of an output tile; assumed.
    pub prologue_seconds: f64,
    /// Seconds after the last product of an output tile; assumed.
    pub epilogue_seconds: f64,
}

/// A card's name on the command line, a part of its full name, its capability and its number of SMs.
const CARDS: [(&str, &str, (u32, u32), u32); 3] = [
    ("H200", "NVIDIA H200", (9, 0), 132),
    ("H100", "NVIDIA H100 80GB HBM3", (9, 0), 132),
    ("A100", "NVIDIA A100-SXM4-80GB", (8, 0), 108),
];

impl Card {
    /// A card by its name on the command line.
    ///
    /// # Errors
    /// No such card; names those there are.
    pub fn named(text: &str) -> Result<Card> {
        let found = CARDS.iter().find(|card| card.0.eq_ignore_ascii_case(text));
        let Some(&(_, name, capability, sms)) = found else {
            let known = CARDS.map(|card| card.0).join(", ");
            return Err(Error::usage(format!("--card {text}: the model knows {known}")));
        };
        let rates = Rates::of_card(name).expect("every card of the model has rates");
        Ok(Card::new(name, capability, sms, rates))
    }

    /// The card that a device is, if its rates are known.
    pub fn of_device(device: &Properties) -> Option<Card> {
        let rates = Rates::of_card(&device.name)?;
        Some(Card::new(&device.name, device.capability, device.sms, rates))
    }

    /// The same; of another device, with the rates of as many SMs of the nearest card that is known.
    pub fn nearest(device: &Properties) -> Card {
        Card::of_device(device).unwrap_or_else(|| {
            let &(_, name, _, sms) =
                CARDS.iter().find(|card| device.capability >= card.2).unwrap_or(&CARDS[2]);
            let known = Rates::of_card(name).expect("every card of the model has rates");
            let share = f64::from(device.sms.max(1)) / f64::from(sms);
            let rates = Rates {
                source: format!("{} SMs as those of an {name}; assumed", device.sms),
                bf16: known.bf16.map(|rate| rate * share),
                f32: known.f32.map(|rate| rate * share),
                bandwidth: known.bandwidth * share,
            };
            let card = Card::new(&device.name, device.capability, device.sms.max(1), rates);
            Card { cache_rate: card.cache_rate * share, ..card }
        })
    }

    fn new(name: &str, capability: (u32, u32), sms: u32, rates: Rates) -> Card {
        let hopper = capability.0 >= 9;
        let matrix_flop_per_cycle = if hopper { HOPPER_MATRIX_FLOP } else { AMPERE_MATRIX_FLOP };
        let bf16 = rates.bf16.expect("the cards of the table have tensor cores");
        let clock = bf16 / (f64::from(sms) * matrix_flop_per_cycle);
        let card = Card {
            name: name.to_string(),
            architecture: if hopper { "sm_90a".into() } else { "sm_80".into() },
            capability,
            sms,
            matrix_flop_per_cycle,
            warp_share: if hopper { WARP_SHARE_ON_HOPPER } else { 1.0 },
            clock,
            shared_bytes_per_cycle: SHARED_BYTES_PER_CYCLE,
            cache_rate: if hopper { HOPPER_CACHE_RATE } else { AMPERE_CACHE_RATE },
            port_rate: PORT_BYTES_PER_CYCLE * clock,
            launches: Launches::Serial,
            launch_seconds: SERIAL_LAUNCH_SECONDS,
            prologue_seconds: PROLOGUE_SECONDS,
            epilogue_seconds: EPILOGUE_SECONDS,
            rates,
        };
        card.with_launches(Launches::default())
    }

    /// The card whose kernels follow each other like this, as far as it can.
    #[must_use]
    pub fn with_launches(self, launches: Launches) -> Card {
        let overlaps = self.capability >= Properties::OVERLAPS_LAUNCHES;
        let launches = if overlaps { launches } else { Launches::Serial };
        let launch_seconds = match launches {
            Launches::Overlapped => OVERLAPPED_LAUNCH_SECONDS,
            Launches::Serial => SERIAL_LAUNCH_SECONDS,
        };
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
        let a100 = Card::named("A100").unwrap();
        let half = Card::nearest(&device("a card", (8, 6), 54));
        let near = |value: f64, expected: f64| assert!((value / expected - 1.0).abs() < 1e-12, "{value:e}");
        near(half.clock, a100.clock);
        near(half.cache_rate, a100.cache_rate / 2.0);
        near(half.rates.bandwidth, a100.rates.bandwidth / 2.0);
        near(half.rates.f32.unwrap(), a100.rates.f32.unwrap() / 2.0);
        assert!(half.rates.source.contains("54 SMs") && half.rates.source.contains("assumed"));
        // The emulator passes for a Hopper; a device that reports no SMs has one; a known card is itself.
        near(Card::nearest(&device("emulator", (9, 0), 4)).clock, Card::named("H200").unwrap().clock);
        assert_eq!(Card::nearest(&device("a card", (8, 0), 0)).sms, 1);
        let known = device("NVIDIA H100 80GB HBM3", (9, 0), 132);
        assert_eq!(Card::nearest(&known), Card::named("H100").unwrap());
    }

    #[test]
    fn the_clock_of_a_card_makes_its_rate_out_of_its_units() {
        let h100 = Card::named("h100").unwrap();
        // The data sheet's rate is that of 1.83 GHz.
        assert!((h100.clock / 1e9 - 1.83).abs() < 0.01, "{}", h100.clock);
        let a100 = Card::named("A100").unwrap();
        assert!((a100.clock / 1e9 - 1.41).abs() < 0.01, "{}", a100.clock);
        let unknown = Card::named("B300").unwrap_err();
        assert!(unknown.exit_code() == 2 && unknown.to_string().contains("H200, H100, A100"));
    }
}
