//! What carries operations out, apart from the operations.

use crate::error::Result;
use crate::tensor::{DType, HostValues, Span};

/// What carries calls out, for reports: figures without it are worth nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Of which kind it is.
    pub kind: HardwareKind,
    /// The card's or the processor's name.
    pub name: String,
    /// Versions of driver and compiler; empty where there are none.
    pub versions: String,
}

/// Of which kind a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardwareKind {
    /// The host's processor.
    Cpu,
    /// A graphics card.
    Gpu,
    /// A graphics card's stand-in: what it computes is right, how long it takes says nothing.
    Emulator,
}

/// What a device is to a plan: memory, ways in and out of it, and a series of calls that can be repeated.
///
/// All methods may return before the work is done; [`Device::synchronise`] and the `read_*` methods wait.
pub trait Device: Send + Sync {
    /// One flat piece of device memory.
    type Memory: Send;

    /// A name for people: "cpu, f32, 2 threads".
    fn name(&self) -> String;

    /// The type of activations, parameters and gradients.
    fn dtype(&self) -> DType;

    /// Allocates zeroed memory.
    ///
    /// # Errors
    /// Not enough memory.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory>;

    /// Copies host values to a span, converting floating-point types.
    ///
    /// # Errors
    /// The device failed.
    fn write(&self, memory: &mut Self::Memory, to: Span, values: HostValues<'_>) -> Result<()>;

    /// The same for several spans; in as few copies as they lie apart, where copies cost.
    ///
    /// # Errors
    /// The device failed.
    fn write_all(&self, memory: &mut Self::Memory, writes: &[(Span, HostValues<'_>)]) -> Result<()> {
        writes.iter().try_for_each(|&(to, values)| self.write(memory, to, values))
    }

    /// Copies a floating-point span to the host.
    ///
    /// # Errors
    /// The device failed.
    fn read_f32(&self, memory: &Self::Memory, from: Span, values: &mut [f32]) -> Result<()>;

    /// Copies a floating-point span to the host in double precision.
    ///
    /// # Errors
    /// The device failed.
    fn read_f64(&self, memory: &Self::Memory, from: Span, values: &mut [f64]) -> Result<()>;

    /// Copies an integer span to the host.
    ///
    /// # Errors
    /// The device failed.
    fn read_i32(&self, memory: &Self::Memory, from: Span, values: &mut [i32]) -> Result<()>;

    /// Waits until all work is done.
    ///
    /// # Errors
    /// The device failed.
    fn synchronise(&self) -> Result<()>;

    /// A copy of numbers to the host that is under way.
    type Reading: Send;

    /// Begins to copy a floating-point span to the host; work that is queued later does not wait for it.
    ///
    /// # Errors
    /// The device failed.
    fn begin_read(&self, memory: &Self::Memory, from: Span) -> Result<Self::Reading>;

    /// Waits for the copy alone, not for what was queued behind it.
    ///
    /// # Errors
    /// The device failed.
    fn finish_read(&self, reading: Self::Reading) -> Result<Vec<f64>>;

    /// The same in single precision.
    ///
    /// # Errors
    /// The device failed.
    fn finish_read_f32(&self, reading: Self::Reading) -> Result<Vec<f32>>;

    /// A series of calls that the device can repeat by itself. What it was given other than by memory is
    /// frozen in it.
    type Captured: Send;

    /// Records the calls that `record` makes, without running them; `None` if the device runs calls as they
    /// come. `record` may call nothing but operations, each of which has run before.
    ///
    /// # Errors
    /// The device failed, or `record` did.
    fn capture(
        &self,
        memory: &mut Self::Memory,
        record: &mut dyn FnMut(&mut Self::Memory) -> Result<()>,
    ) -> Result<Option<Self::Captured>>;

    /// Runs captured calls.
    ///
    /// # Errors
    /// The device failed.
    fn replay(&self, memory: &mut Self::Memory, captured: &Self::Captured) -> Result<()>;

    /// What the device is, for reports.
    fn hardware(&self) -> Hardware;

    /// A moment among the work that was queued.
    type Moment: Send;

    /// Marks this moment: it has come when everything queued so far is done.
    ///
    /// # Errors
    /// The device failed.
    fn moment(&self) -> Result<Self::Moment>;

    /// Waits for `to`, and tells the seconds between two moments.
    ///
    /// # Errors
    /// The device failed.
    fn seconds_between(&self, from: &Self::Moment, to: &Self::Moment) -> Result<f64>;

    /// Bytes of memory the device has of its own; `None` where it shares the host's.
    fn own_memory_bytes(&self) -> Option<usize> {
        None
    }

    /// Hash of the table of measured kernels that is used, if one is: it decides the last bits of results.
    fn kernel_table_hash(&self) -> Option<String> {
        None
    }

    /// Steps that should be queued before the host looks at the result of the first: more than one where
    /// looking would let the device wait.
    fn steps_in_flight(&self) -> usize {
        1
    }

    /// Bytes between buffers that nothing may touch: more than 0 where stray accesses are looked for.
    fn red_zone(&self) -> usize {
        0
    }
}
