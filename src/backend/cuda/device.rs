//! [`Device`] for CUDA: the driver's memory, copies and graphs.

use super::driver::Driver;
use super::{Cuda, KernelTable, host};
use crate::error::Result;
use crate::ops::{Device, Hardware, HardwareKind};
use crate::tensor::{ALIGNMENT, DType, HostValues, Span};

/// Steps between two looks at the results: enough that a look, which may let the device wait, is rare, and few enough that
/// progress is shown and a loss that is not finite is found soon. Chosen, not measured.
const STEPS_IN_FLIGHT: usize = 8;

impl<D: Driver> Device for Cuda<D> {
    type Memory = D::Memory;

    fn name(&self) -> String {
        let properties = self.driver.properties();
        format!("{}, {}", properties.name, if self.dtype == DType::Bf16 { "bf16" } else { "f32" })
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn allocate(&self, bytes: usize) -> Result<D::Memory> {
        self.driver.allocate(bytes)
    }

    fn write(&self, memory: &mut D::Memory, to: Span, values: HostValues<'_>) -> Result<()> {
        self.driver.upload(memory, to.offset, &host::to_device(to, values)?)
    }

    fn write_all(&self, memory: &mut D::Memory, writes: &[(Span, HostValues<'_>)]) -> Result<()> {
        let mut pieces = writes
            .iter()
            .map(|&(to, values)| Ok((to.offset, host::to_device(to, values)?)))
            .collect::<Result<Vec<_>>>()?;
        pieces.sort_by_key(|&(offset, _)| offset);
        // Less than this lies behind a buffer before its neighbour begins, and belongs to nobody.
        let room = ALIGNMENT + self.red_zone();
        for neighbours in pieces.chunk_by(|(first, bytes), (next, _)| next - first < bytes.len() + room) {
            match neighbours {
                [(offset, bytes)] => self.driver.upload(memory, *offset, bytes)?,
                [(start, _), .., (last, bytes)] => {
                    let mut together = Vec::with_capacity(last - start + bytes.len());
                    for (offset, bytes) in neighbours {
                        together.resize(offset - start, 0);
                        together.extend_from_slice(bytes);
                    }
                    self.driver.upload(memory, *start, &together)?;
                }
                [] => {}
            }
        }
        Ok(())
    }

    fn read_f32(&self, memory: &D::Memory, from: Span, values: &mut [f32]) -> Result<()> {
        host::read_f32(&self.driver, memory, from, values)
    }

    fn read_f64(&self, memory: &D::Memory, from: Span, values: &mut [f64]) -> Result<()> {
        host::read_f64(&self.driver, memory, from, values)
    }

    fn read_i32(&self, memory: &D::Memory, from: Span, values: &mut [i32]) -> Result<()> {
        host::read_i32(&self.driver, memory, from, values)
    }

    type Reading = (DType, D::Download);

    fn begin_read(&self, memory: &D::Memory, from: Span) -> Result<(DType, D::Download)> {
        Ok((from.dtype, self.driver.begin_download(memory, from.offset, from.bytes())?))
    }

    fn finish_read(&self, (dtype, download): (DType, D::Download)) -> Result<Vec<f64>> {
        let bytes = self.driver.finish_download(download)?;
        Ok(bytes.chunks_exact(dtype.size()).map(|value| host::float(dtype, value)).collect())
    }

    fn finish_read_f32(&self, (dtype, download): (DType, D::Download)) -> Result<Vec<f32>> {
        let bytes = self.driver.finish_download(download)?;
        Ok(bytes.chunks_exact(dtype.size()).map(|value| host::float(dtype, value) as f32).collect())
    }

    type Captured = D::Graph;

    fn capture(
        &self,
        memory: &mut D::Memory,
        record: &mut dyn FnMut(&mut D::Memory) -> Result<()>,
    ) -> Result<Option<D::Graph>> {
        self.driver.capture(memory, record).map(Some)
    }

    fn replay(&self, memory: &mut D::Memory, captured: &D::Graph) -> Result<()> {
        self.driver.replay(memory, captured)
    }

    fn hardware(&self) -> Hardware {
        let properties = self.driver.properties();
        let kind = match properties.architecture.as_str() {
            "host" => HardwareKind::Emulator,
            _ => HardwareKind::Gpu,
        };
        Hardware { kind, name: properties.name.clone(), versions: properties.versions.clone() }
    }

    type Moment = D::Event;

    fn moment(&self) -> Result<D::Event> {
        self.driver.event()
    }

    fn seconds_between(&self, from: &D::Event, to: &D::Event) -> Result<f64> {
        self.driver.elapsed_seconds(from, to)
    }

    fn own_memory_bytes(&self) -> Option<usize> {
        Some(self.driver.properties().memory_bytes)
    }

    fn kernel_table_hash(&self) -> Option<String> {
        self.table.as_ref().map(KernelTable::hash)
    }

    fn steps_in_flight(&self) -> usize {
        STEPS_IN_FLIGHT
    }

    fn red_zone(&self) -> usize {
        self.driver.properties().red_zone
    }

    fn synchronise(&self) -> Result<()> {
        self.driver.synchronise()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::Sources;
    use crate::backend::cuda::driver::emulator::{Emulator, Options};

    #[test]
    fn several_writes_reach_their_places_and_nothing_of_other_buffers() {
        let emulator = Emulator::new(Options::default()).expect("a C++ compiler");
        let cuda = Cuda::new(emulator, DType::Bf16, Sources::default()).unwrap();
        let span = |offset, elements, dtype| Span { offset, elements, dtype };
        // Two neighbours, a buffer of somebody else, and a third place behind it.
        let slot = ALIGNMENT + cuda.red_zone();
        let places = [0, slot, 2 * slot, 3 * slot].map(|start| start + cuda.red_zone());
        let other = span(places[2], 64, DType::I32);
        let mut memory = cuda.allocate(5 * slot).unwrap();
        let untouched: Vec<i32> = (0..64).collect();
        cuda.write(&mut memory, other, HostValues::I32(&untouched)).unwrap();
        let (labels, rates, last) =
            (span(places[0], 5, DType::I32), span(places[1], 3, DType::F32), span(places[3], 1, DType::F32));
        let writes = [
            (last, HostValues::F64(&[4.5])),
            (labels, HostValues::I32(&[1, 2, 3, 4, 5])),
            (rates, HostValues::F64(&[0.25, 0.5, 0.75])),
        ];
        cuda.write_all(&mut memory, &writes).unwrap();

        let read_i32 = |from: Span| {
            let mut values = vec![0; from.elements];
            cuda.read_i32(&memory, from, &mut values).unwrap();
            values
        };
        let read_f64 = |from: Span| {
            let mut values = vec![0.0; from.elements];
            cuda.read_f64(&memory, from, &mut values).unwrap();
            values
        };
        assert_eq!(read_i32(labels), [1, 2, 3, 4, 5]);
        assert_eq!(read_f64(rates), [0.25, 0.5, 0.75]);
        assert_eq!(read_f64(last), [4.5]);
        assert_eq!(read_i32(other), untouched);
        let wrong = cuda.write_all(&mut memory, &[(labels, HostValues::F64(&[1.0; 5]))]);
        assert!(wrong.unwrap_err().to_string().contains("another kind than I32"));
    }
}
