//! How a device carries a call out: the kernel it chose, or the parts it runs instead, and the scratch memory of either. Decided once,
//! when a plan is compiled, and carried by the call.

use std::any::Any;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use super::{Call, Device, Part, Parts};
use crate::error::{Error, Result};
use crate::tensor::{DType, Span, aligned};

/// How a device carries a call out.
#[derive(Debug, Clone, Default)]
pub struct CallConfig {
    /// Bytes of scratch memory.
    pub workspace_bytes: usize,
    /// The kernel, where the device had a choice.
    pub kernel: Option<KernelConfig>,
    /// The parts of a fused call that the device has no kernel for.
    pub expansion: Option<Expansion>,
}

impl CallConfig {
    /// A call of one kernel that needs scratch memory.
    pub fn with_workspace(workspace_bytes: usize) -> CallConfig {
        CallConfig { workspace_bytes, ..CallConfig::default() }
    }
}

/// A kernel and its configuration, as the device that chose them knows them.
#[derive(Clone)]
pub struct KernelConfig(Arc<dyn Any + Send + Sync>);

impl KernelConfig {
    /// Wraps the device's own choice.
    pub fn new(inner: impl Any + Send + Sync) -> KernelConfig {
        KernelConfig(Arc::new(inner))
    }

    /// The device's own choice, if it is of that type.
    pub fn inner<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl Debug for KernelConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("KernelConfig")
    }
}

/// The parts that a call runs as, in order.
#[derive(Debug, Clone)]
pub struct Expansion {
    /// Bytes of the tensor between parts, at the front of the workspace.
    pub between_bytes: usize,
    /// The parts; their operands are those of the call, by position.
    pub parts: Vec<(Call<Part<usize>>, CallConfig)>,
}

impl Expansion {
    /// The configuration of a call that runs as `parts` on `device`.
    pub fn on(device: &dyn Device, parts: Parts<usize>) -> CallConfig {
        let operands = parts.iter().flat_map(Call::operands);
        let between = operands.map(|operand| match operand.place {
            Part::Between(elements) => aligned(elements * device.dtype().size()),
            Part::Own(_) => 0,
        });
        let between_bytes = between.max().unwrap_or(0);
        let configured = |part: Call<Part<usize>>| (part, device.prepare(&part.map(|_| ())));
        let parts: Vec<_> = parts.into_iter().map(configured).collect();
        let most = parts.iter().map(|(_, config)| config.workspace_bytes).max().unwrap_or(0);
        CallConfig {
            workspace_bytes: between_bytes + most,
            expansion: Some(Expansion { between_bytes, parts }),
            ..CallConfig::default()
        }
    }

    /// Runs the parts of `call` one after the other.
    ///
    /// # Errors
    /// The workspace is too small, or the device failed.
    pub fn run(&self, device: &mut dyn Device, call: &Call<Span>, workspace: Span) -> Result<()> {
        let Some(left) = workspace.bytes().checked_sub(self.between_bytes) else {
            return Err(Error::invalid(format!(
                "a fused operation needs {} bytes of workspace for what lies between its parts and was given {}; ask \
                 workspace_bytes for the size",
                self.between_bytes,
                workspace.bytes()
            )));
        };
        let rest = Span {
            offset: workspace.offset + self.between_bytes,
            elements: left / workspace.dtype.size(),
            dtype: workspace.dtype,
        };
        let (own, dtype): (Vec<Span>, DType) =
            (call.operands().iter().map(|operand| operand.place).collect(), device.dtype());
        for (part, config) in &self.parts {
            let part = part.map(|operand| match operand {
                Part::Own(index) => own[index],
                Part::Between(elements) => Span { offset: workspace.offset, elements, dtype },
            });
            device.run_prepared(&part, config, rest)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::ops::{Affine, Conv2d, Conv2dFprop};
    use crate::tensor::HostValues;

    #[test]
    fn what_lies_between_parts_is_in_front_and_too_little_scratch_memory_is_told_with_both_sizes() {
        let conv = Conv2d {
            batch: 1,
            height: 3,
            width: 5,
            in_channels: 8,
            out_channels: 16,
            filter_height: 1,
            filter_width: 1,
            stride: 1,
            padding: 0,
        };
        let mut device = Cpu::<f32>::new(1).unwrap();
        let place = |offset, elements| Span { offset, elements, dtype: DType::F32 };
        let [x, scale, bias] = [(0, 120), (512, 8), (576, 8)].map(|(at, elements)| place(at, elements));
        let [weight, y] = [place(640, 128), place(1152, 240)];
        let prologue = Some(Affine { scale, bias, relu: true });
        let call = Conv2dFprop { prologue, ..Conv2dFprop::new(conv, [x, weight, y]) };
        let config = device.prepare(&call.map(&mut |_| ()).into());
        let (bytes, expansion) = (config.workspace_bytes, config.expansion.unwrap());
        assert!(bytes >= 3 * 5 * 8 * 4);
        device.allocate(4096 + bytes).unwrap();
        let from: Vec<f64> = (0..120).map(f64::from).collect();
        // Every channel twice.
        let twice: Vec<f64> = (0..128).map(|i| f64::from(u8::from(i % 8 == i / 8 % 8))).collect();
        for (to, values) in [(x, &from[..]), (scale, &[2.0; 8]), (bias, &[-50.0; 8]), (weight, &twice)] {
            device.write(to, HostValues::F64(values)).unwrap();
        }
        expansion.run(&mut device, &call.into(), place(4096, bytes / 4)).unwrap();
        let read = |from: Span| {
            let mut values = vec![f64::NAN; from.elements];
            device.read_f64(from, &mut values).unwrap();
            values
        };
        let z: Vec<f64> = from.iter().map(|x| (2.0 * x - 50.0).max(0.0)).collect();
        assert_eq!(read(place(4096, 120)), z);
        assert_eq!(read(y), z.chunks(8).flat_map(|pixel| pixel.repeat(2)).collect::<Vec<_>>());
        let between = aligned(120 * 4);
        let short = place(4096, between / 4 - 1);
        let error = expansion.run(&mut device, &call.into(), short).unwrap_err().to_string();
        let sizes = [format!("needs {between} bytes"), format!("was given {}", between - 4)];
        assert!(sizes.iter().all(|size| error.contains(size)), "{error}");
    }
}
