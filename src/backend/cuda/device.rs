//! [`Device`] for CUDA: the driver's memory, copies and graphs; the list of all families of launchers.

use std::sync::PoisonError;

use super::engine::no_memory;
use super::{
    Cuda, GRAPHS, KernelTable, Module, batch_norm, calibration, compiling, convolution, cosine, divergence,
    energy, groups, host, images, linear, loss, optimizer, pointwise, pool_head, pooling, row_scores, rows,
};
use crate::error::Result;
use crate::ops::{
    Call, CallConfig, Conv2d, Device, Event, Graph, Hardware, HardwareKind, Readback, dispatch,
};
use crate::tensor::{ALIGNMENT, DType, HostValues, Span};

/// Steps between two looks at the results: enough that a look, which may let the device wait, is rare, and few enough that
/// progress is shown and a loss that is not finite is found soon. Chosen, not measured.
const STEPS_IN_FLIGHT: usize = 8;

/// Every module the engine can ask for.
pub fn modules() -> Vec<Module> {
    [
        convolution::modules().collect(),
        batch_norm::modules(),
        pointwise::modules(),
        pooling::modules(),
        pool_head::modules(),
        linear::modules(),
        cosine::modules(),
        loss::modules(),
        divergence::modules(),
        groups::modules(),
        energy::modules(),
        optimizer::modules(),
        images::modules(),
        rows::modules(),
        row_scores::modules(),
        calibration::modules(),
    ]
    .concat()
}

impl Device for Cuda {
    fn name(&self) -> String {
        let properties = self.driver.properties();
        format!("{}, {}", properties.name, if self.dtype == DType::Bf16 { "bf16" } else { "f32" })
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn hardware(&self) -> Hardware {
        let properties = self.driver.properties();
        let kind = match properties.architecture.as_str() {
            "host" => HardwareKind::Emulator,
            _ => HardwareKind::Gpu,
        };
        Hardware { kind, name: properties.name.clone(), versions: properties.versions.clone() }
    }

    fn prepare(&self, call: &Call<()>) -> CallConfig {
        let prepared = convolution::prepare(self, call)
            .or_else(|| pool_head::prepare(self, call))
            .unwrap_or_else(|| {
                let bytes = batch_norm::workspace_bytes(self, call)
                    .or_else(|| linear::workspace_bytes(self, call))
                    .or_else(|| rows::workspace_bytes(call));
                CallConfig::with_workspace(bytes.unwrap_or(0))
            });
        // The parts of a call that runs as several were prepared on their own.
        if self.qualifier.is_some() && prepared.expansion.is_none() {
            let mut known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
            if !known.contains(call) {
                known.push(*call);
            }
        }
        prepared
    }

    fn fuses_prologue(&self, conv: &Conv2d) -> bool {
        convolution::fuses_prologue(self, conv)
    }

    fn allocate(&mut self, bytes: usize) -> Result<()> {
        self.ask_for_admission()?;
        // Room for the new before it is asked for.
        self.memory = None;
        self.memory = Some(self.driver.allocate(bytes)?);
        Ok(())
    }

    fn run_prepared(&mut self, call: &Call<Span>, config: &CallConfig, workspace: Span) -> Result<()> {
        call.check(workspace, self.dtype, self.memory()?.bytes())?;
        if config.expansion.is_none() {
            self.driver.expect(self.longest_seconds(call));
        }
        match &config.expansion {
            Some(expansion) => expansion.run(self, call, workspace),
            None => dispatch!(call, self, workspace, config.kernel.as_ref()),
        }
    }

    fn get_ready(&mut self, calls: &mut dyn Iterator<Item = (&Call<Span>, &CallConfig, Span)>) -> Result<()> {
        // What cannot be foreseen is compiled when it runs.
        let Ok(sources) = self.sources_of(calls) else { return Ok(()) };
        compiling::compile_all(&*self.driver, &sources)
    }

    fn write(&mut self, to: Span, values: HostValues<'_>) -> Result<()> {
        self.upload(to.offset, &host::to_device(to, values)?)
    }

    fn write_all(&mut self, writes: &[(Span, HostValues<'_>)]) -> Result<()> {
        let mut pieces = writes
            .iter()
            .map(|&(to, values)| Ok((to.offset, host::to_device(to, values)?)))
            .collect::<Result<Vec<_>>>()?;
        pieces.sort_by_key(|&(offset, _)| offset);
        // Less than this lies behind a buffer before its neighbour begins, and belongs to nobody.
        let room = ALIGNMENT + self.red_zone();
        for neighbours in pieces.chunk_by(|(first, bytes), (next, _)| next - first < bytes.len() + room) {
            match neighbours {
                [(offset, bytes)] => self.upload(*offset, bytes)?,
                [(start, _), .., (last, bytes)] => {
                    let mut together = Vec::with_capacity(last - start + bytes.len());
                    for (offset, bytes) in neighbours {
                        together.resize(offset - start, 0);
                        together.extend_from_slice(bytes);
                    }
                    self.upload(*start, &together)?;
                }
                [] => {}
            }
        }
        Ok(())
    }

    fn read_f32(&self, from: Span, values: &mut [f32]) -> Result<()> {
        self.read(from, values, |value| value as f32)
    }

    fn read_f64(&self, from: Span, values: &mut [f64]) -> Result<()> {
        self.read(from, values, |value| value)
    }

    fn read_i32(&self, from: Span, values: &mut [i32]) -> Result<()> {
        host::check(from, values.len(), from.dtype == DType::I32)?;
        self.driver.download(self.memory()?, from.offset, bytemuck::cast_slice_mut(values))
    }

    fn synchronise(&self) -> Result<()> {
        self.driver.synchronise()
    }

    fn begin_read(&self, from: Span) -> Result<Readback> {
        let download = self.driver.begin_download(self.memory()?, from.offset, from.bytes())?;
        Ok(Readback::new(move || {
            let (dtype, bytes) = (from.dtype, download()?);
            Ok(bytes.chunks_exact(dtype.size()).map(|value| host::float(dtype, value)).collect())
        }))
    }

    fn capture(&mut self, record: &mut dyn FnMut(&mut dyn Device) -> Result<()>) -> Result<Option<Graph>> {
        if self.exclusions.has(GRAPHS) {
            return Ok(None);
        }
        let driver = self.driver.clone();
        driver.capture(&mut || record(self)).map(Some)
    }

    fn replay(&mut self, graph: &Graph) -> Result<()> {
        self.driver.replay(self.memory()?, graph)
    }

    fn event(&self) -> Result<Event> {
        self.driver.event()
    }

    fn seconds_between(&self, from: &Event, to: &Event) -> Result<f64> {
        self.driver.elapsed_seconds(from, to)
    }

    fn own_memory_bytes(&self) -> Option<usize> {
        Some(self.driver.properties().memory_bytes)
    }

    fn kernel_table_hash(&self) -> Option<String> {
        self.table.as_ref().map(KernelTable::hash)
    }

    fn excluded_kernels(&self) -> Option<String> {
        Some(self.exclusions.of_kernels().to_string())
    }

    fn steps_in_flight(&self) -> usize {
        STEPS_IN_FLIGHT
    }

    fn red_zone(&self) -> usize {
        self.driver.properties().red_zone
    }
}

impl Cuda {
    /// About how long a call takes where it goes slowly: without tensor cores, in f64 at a sixty-fourth of the f32 rate, as on cards for
    /// consumers, and nothing hidden behind anything.
    fn longest_seconds(&self, call: &Call<Span>) -> f64 {
        let operands = call.operands();
        let slower =
            if operands.iter().any(|operand| operand.place.dtype == DType::F64) { 64.0 } else { 1.0 };
        let bytes: usize = operands.iter().map(|operand| operand.place.bytes()).sum();
        let rates = &self.card.rates;
        slower * call.flop() / rates.f32.unwrap_or(1e13) + bytes as f64 / rates.bandwidth
    }

    fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        let memory = self.memory.as_mut().ok_or_else(no_memory)?;
        self.driver.upload(memory, offset, bytes)
    }

    fn read<T: Copy>(&self, from: Span, values: &mut [T], convert: impl Fn(f64) -> T) -> Result<()> {
        host::check(from, values.len(), !matches!(from.dtype, DType::I32 | DType::U8))?;
        let mut bytes = vec![0; from.bytes()];
        self.driver.download(self.memory()?, from.offset, &mut bytes)?;
        for (out, value) in values.iter_mut().zip(bytes.chunks_exact(from.dtype.size())) {
            *out = convert(host::float(from.dtype, value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::cuda::Sources;
    use crate::backend::cuda::driver::emulator::{Emulator, Options};

    #[test]
    fn several_writes_reach_their_places_and_nothing_of_other_buffers() {
        let emulator = Emulator::new(Options::default()).expect("a C++ compiler");
        let mut cuda = Cuda::new(Arc::new(emulator), DType::Bf16, Sources::default()).unwrap();
        let span = |offset, elements, dtype| Span { offset, elements, dtype };
        // Two neighbours, a buffer of somebody else, and a third place behind it.
        let slot = ALIGNMENT + cuda.red_zone();
        let places = [0, slot, 2 * slot, 3 * slot].map(|start| start + cuda.red_zone());
        let other = span(places[2], 64, DType::I32);
        cuda.allocate(5 * slot).unwrap();
        let untouched: Vec<i32> = (0..64).collect();
        cuda.write(other, HostValues::I32(&untouched)).unwrap();
        let (labels, rates, last) =
            (span(places[0], 5, DType::I32), span(places[1], 3, DType::F32), span(places[3], 1, DType::F32));
        let writes = [
            (last, HostValues::F64(&[4.5])),
            (labels, HostValues::I32(&[1, 2, 3, 4, 5])),
            (rates, HostValues::F64(&[0.25, 0.5, 0.75])),
        ];
        cuda.write_all(&writes).unwrap();

        let read_i32 = |from: Span| {
            let mut values = vec![0; from.elements];
            cuda.read_i32(from, &mut values).unwrap();
            values
        };
        let read_f64 = |from: Span| {
            let mut values = vec![0.0; from.elements];
            cuda.read_f64(from, &mut values).unwrap();
            values
        };
        assert_eq!(read_i32(labels), [1, 2, 3, 4, 5]);
        assert_eq!(read_f64(rates), [0.25, 0.5, 0.75]);
        assert_eq!(read_f64(last), [4.5]);
        assert_eq!(read_i32(other), untouched);
        let wrong = cuda.write_all(&[(labels, HostValues::F64(&[1.0; 5]))]);
        assert!(wrong.unwrap_err().to_string().contains("another kind than I32"));
    }
}
