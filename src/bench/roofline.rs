//! The floors below which no time can fall: floating-point operations by the card's rate, bytes by its bandwidth.

use serde::{Deserialize, Serialize};

use super::stage::Stage;
use super::timing::{Patience, time_call};
use super::work::{Work, work};
pub use crate::backend::cuda::card::Rates;
use crate::error::Result;
use crate::ops::{Call, Conv2d, Conv2dFprop, CopyRows, Device, HardwareKind, Rows};
use crate::tensor::DType;

impl Rates {
    /// The rates of a device: from the table, or measured: a copy, and on the CPU a large product in f32. An emulator has none.
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
        let patience = Patience { seconds: 0.5, least: 5, most: 50 };
        let copy = CopyRows::alone(Rows { rows: 1 << 18, channels: 64 });
        let copied = time_call(device, &copy, &patience)?.least_seconds;
        let moved = work(&copy, device.dtype()).bytes;
        let mut source = format!(
            "measured: a copy of {:.0} MB",
            Stage::bytes(device, std::slice::from_ref(&copy))? as f64 / 2e6
        );
        let mut f32 = None;
        if hardware.kind == HardwareKind::Cpu && device.dtype() == DType::F32 {
            let product = large_product();
            let seconds = time_call(device, &product, &patience)?.least_seconds;
            f32 = Some(work(&product, DType::F32).flop / seconds);
            source += &format!(", a product of {}", product.shape());
        }
        Ok(Some(Rates { source, bf16: None, f32, f64: None, bandwidth: moved / copied }))
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

/// A convolution that is one matrix product, of an operand that is read once and one that stays in cache.
fn large_product() -> Call<()> {
    let conv = Conv2d {
        batch: 16,
        height: 16,
        width: 16,
        in_channels: 512,
        out_channels: 256,
        filter_height: 1,
        filter_width: 1,
        stride: 1,
        padding: 0,
    };
    let operands = Conv2dFprop { conv, x: (), weight: (), y: (), prologue: None, epilogue: None };
    Call::Conv2dFprop(operands)
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
