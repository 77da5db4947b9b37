//! The floors below which no time can fall: floating-point operations by the card's rate, bytes by its bandwidth.

use serde::{Deserialize, Serialize};

use super::stage::Stage;
use super::timing::{Patience, time_call};
use super::work::{Work, work};
use crate::error::Result;
use crate::ops::{CopyRows, Device, HardwareKind, Rows};
use crate::tensor::DType;

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

/// A card: what its name contains, bf16 TFLOP/s, f32 TFLOP/s, GB/s, and where the numbers come from.
type Card = (&'static str, f64, f64, f64, &'static str);

/// The first match counts.
const CARDS: [Card; 5] = [
    ("H200", 788.0, 66.9, 4300.0, "measured on random data (products, copy); f32 from the data sheet"),
    ("H100 PCIe", 756.0, 51.2, 2000.0, "data sheet, dense"),
    ("H100", 989.0, 66.9, 3350.0, "data sheet, dense"),
    ("A100-SXM4-40GB", 312.0, 19.5, 1555.0, "data sheet, dense"),
    ("A100", 312.0, 19.5, 2039.0, "data sheet, dense"),
];

impl Rates {
    /// The rates of a card by its name.
    pub fn of_card(name: &str) -> Option<Rates> {
        let &(_, bf16, f32, bandwidth, source) = CARDS.iter().find(|card| name.contains(card.0))?;
        Some(Rates {
            source: source.to_string(),
            bf16: Some(1e12 * bf16),
            f32: Some(1e12 * f32),
            bandwidth: 1e9 * bandwidth,
        })
    }

    /// The rates of a device: from the table, or the measured speed of a copy. An emulator has none.
    ///
    /// # Errors
    /// The device failed.
    pub fn of(device: &mut dyn Device) -> Result<Option<Rates>> {
        let hardware = device.hardware();
        if hardware.kind == HardwareKind::Emulator {
            return Ok(None);
        }
        if let Some(rates) = Rates::of_card(&hardware.name) {
            return Ok(Some(rates));
        }
        let call = CopyRows::alone(Rows { rows: 1 << 18, channels: 64 });
        let timing = time_call(device, &call, &Patience { seconds: 0.5, least: 5, most: 50 })?;
        let moved = work(&call, device.dtype()).bytes;
        Ok(Some(Rates {
            source: format!(
                "bandwidth: a copy of {:.0} MB, measured",
                Stage::bytes(device, std::slice::from_ref(&call))? as f64 / 2e6
            ),
            bf16: None,
            f32: None,
            bandwidth: moved / timing.seconds,
        }))
    }

    /// f64 without tensor cores, floating-point operations a second: every card of the table has half the units for f64
    /// that it has for f32.
    pub fn f64(&self) -> Option<f64> {
        self.f32.map(|rate| rate / 2.0)
    }

    /// Seconds that the work's operations and its bytes take at the least.
    pub fn floors(&self, work: &Work) -> Floors {
        let rate = match work.products {
            DType::Bf16 => self.bf16,
            DType::F64 => self.f64(),
            _ => self.f32,
        };
        let arithmetic = rate.filter(|_| work.flop > 0.0).map(|rate| work.flop / rate);
        Floors { arithmetic, memory: work.bytes / self.bandwidth }
    }
}

/// The least seconds some work takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Floors {
    /// By its operations, where it has any and the rate is known.
    pub arithmetic: Option<f64>,
    /// By its bytes.
    pub memory: f64,
}

impl Floors {
    /// The larger of the two.
    pub fn larger(&self) -> f64 {
        self.memory.max(self.arithmetic.unwrap_or(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_floor_counts_and_only_tensor_cores_have_the_matrix_rate() {
        let rates = Rates::of_card("NVIDIA H200").unwrap();
        let product = Work { flop: 788e12, bytes: 4.3e9, products: DType::Bf16 };
        assert_eq!(rates.floors(&product), Floors { arithmetic: Some(1.0), memory: 1e-3 });
        let slower = rates.floors(&Work { products: DType::F32, ..product });
        assert!(slower.larger() > 10.0);
        let pass = rates.floors(&Work { flop: 0.0, ..product });
        assert_eq!((pass.arithmetic, pass.larger()), (None, 1e-3));
        assert!(
            Rates::of_card("NVIDIA H100 PCIe").unwrap().bandwidth
                < Rates::of_card("NVIDIA H100 80GB HBM3").unwrap().bandwidth
        );
        assert_eq!(Rates::of_card("GeForce 256"), None);
    }
}
