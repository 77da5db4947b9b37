//! [`Device`] for CUDA: the driver's memory, copies and graphs.

use super::driver::Driver;
use super::{Cuda, KernelTable, host};
use crate::error::Result;
use crate::ops::{Device, Hardware, HardwareKind};
use crate::tensor::{DType, HostValues, Span};

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
