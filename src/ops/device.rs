//! Devices, which carry operations out.

use std::any::Any;

use super::{Call, CallConfig, Conv2d};
use crate::error::Result;
use crate::tensor::{DType, HostValues, Span};

/// The hardware that carries calls out, for reports: figures without it are worth nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Its kind.
    pub kind: HardwareKind,
    /// The card's or the processor's name.
    pub name: String,
    /// Versions of driver and compiler; empty where there are none.
    pub versions: String,
}

/// The kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardwareKind {
    /// The host's processor.
    Cpu,
    /// A graphics card.
    Gpu,
    /// An emulated graphics card: its results are those of the kernels, its times say nothing.
    Emulator,
}

/// Something a device made and only that device understands: a captured graph, an event.
macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident),*) => { $(
        $(#[$doc])*
        pub struct $name(Box<dyn Any + Send>);

        impl $name {
            /// Wraps the device's own object.
            pub fn new(inner: impl Any + Send) -> $name {
                $name(Box::new(inner))
            }

            /// The wrapped value.
            ///
            /// # Panics
            /// It was another type's: it was handed to a device that did not make it.
            pub fn inner<T: Any>(&self) -> &T {
                self.0.downcast_ref().expect(concat!(stringify!($name), " of another device"))
            }
        }
    )* };
}

handles! {
    /// A series of calls that a device can repeat by itself. What it was given other than by memory is frozen in it.
    Graph,
    /// A point in the queue of a device's work.
    Event
}

/// A copy of numbers to the host that is under way.
pub struct Readback(Box<dyn FnOnce() -> Result<Vec<f64>> + Send>);

impl Readback {
    /// A copy that `wait` waits for; nothing but that copy.
    pub fn new(wait: impl FnOnce() -> Result<Vec<f64>> + Send + 'static) -> Readback {
        Readback(Box::new(wait))
    }

    /// Waits for the copy alone, not for work queued behind it.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(self) -> Result<Vec<f64>> {
        (self.0)()
    }

    /// The same in single precision.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait_f32(self) -> Result<Vec<f32>> {
        Ok(self.wait()?.into_iter().map(|value| value as f32).collect())
    }
}

/// One object that carries calls out: it owns one flat memory, in which spans are places, and a queue of work.
///
/// All methods may return before the work is done; [`Device::synchronise`], [`Readback::wait`] and the `read_*` methods wait.
/// The same calls on the same values give the same bits, whatever the number of threads.
pub trait Device: Send {
    /// A name for people: "cpu, f32, 2 threads".
    fn name(&self) -> String;

    /// The type of activations, parameters and gradients.
    fn dtype(&self) -> DType;

    /// The device's hardware, for reports.
    fn hardware(&self) -> Hardware;

    /// Decides how a call is carried out: once, when a plan is compiled.
    fn prepare(&self, call: &Call<()>) -> CallConfig;

    /// Bytes of scratch memory that a call wants for its duration.
    fn workspace_bytes(&self, call: &Call<()>) -> usize {
        self.prepare(call).workspace_bytes
    }

    /// Whether a convolution and its wgrad apply a BN-ReLU prologue where they read its input, so that the transformed input need
    /// not be stored, and whether that is faster. Where each would run it as a pass of its own, one pass for both is faster.
    fn fuses_prologue(&self, _: &Conv2d) -> bool {
        false
    }

    /// Allocates zeroed memory, which replaces the memory it had.
    ///
    /// # Errors
    /// Not enough memory.
    fn allocate(&mut self, bytes: usize) -> Result<()>;

    /// Carries a call out as it was prepared.
    ///
    /// # Errors
    /// Operands that do not fit the call, a configuration that is not the call's on this device, or the device failed.
    fn run_prepared(&mut self, call: &Call<Span>, config: &CallConfig, workspace: Span) -> Result<()>;

    /// Makes everything ready that calls need when they first run, which may take long: kernels that are not compiled yet.
    ///
    /// # Errors
    /// It cannot be had.
    fn get_ready(
        &mut self,
        _calls: &mut dyn Iterator<Item = (&Call<Span>, &CallConfig, Span)>,
    ) -> Result<()> {
        Ok(())
    }

    /// Prepares a call and carries it out.
    ///
    /// # Errors
    /// Operands that do not fit the call, or the device failed.
    fn run(&mut self, call: &Call<Span>, workspace: Span) -> Result<()> {
        let config = self.prepare(&call.map(|_| ()));
        self.run_prepared(call, &config, workspace)
    }

    /// Copies host values to a span, converting floating-point types.
    ///
    /// # Errors
    /// The device failed.
    fn write(&mut self, to: Span, values: HostValues<'_>) -> Result<()>;

    /// The same for several spans; in as few copies as they lie apart, where copies cost.
    ///
    /// # Errors
    /// The device failed.
    fn write_all(&mut self, writes: &[(Span, HostValues<'_>)]) -> Result<()> {
        writes.iter().try_for_each(|&(to, values)| self.write(to, values))
    }

    /// Copies a floating-point span to the host.
    ///
    /// # Errors
    /// The device failed.
    fn read_f32(&self, from: Span, values: &mut [f32]) -> Result<()>;

    /// Copies a floating-point span to the host in double precision.
    ///
    /// # Errors
    /// The device failed.
    fn read_f64(&self, from: Span, values: &mut [f64]) -> Result<()>;

    /// Copies an integer span to the host.
    ///
    /// # Errors
    /// The device failed.
    fn read_i32(&self, from: Span, values: &mut [i32]) -> Result<()>;

    /// Waits until all work is done.
    ///
    /// # Errors
    /// The device failed.
    fn synchronise(&self) -> Result<()>;

    /// Begins to copy a floating-point span to the host; work that is queued later does not wait for it.
    ///
    /// # Errors
    /// The device failed.
    fn begin_read(&self, from: Span) -> Result<Readback>;

    /// Captures the calls that `record` makes, without running them; `None` if the device runs calls as they
    /// come. `record` may call nothing but [`Device::run_prepared`], with calls each of which has run before.
    ///
    /// # Errors
    /// The device failed, or `record` did.
    fn capture(&mut self, record: &mut dyn FnMut(&mut dyn Device) -> Result<()>) -> Result<Option<Graph>>;

    /// Runs captured calls.
    ///
    /// # Errors
    /// The device failed.
    fn replay(&mut self, graph: &Graph) -> Result<()>;

    /// Marks this point of the queue: it is reached when everything queued so far is done.
    ///
    /// # Errors
    /// The device failed.
    fn event(&self) -> Result<Event>;

    /// Waits for `to`, and tells the seconds between two events.
    ///
    /// # Errors
    /// The device failed.
    fn seconds_between(&self, from: &Event, to: &Event) -> Result<f64>;

    /// Bytes of memory the device has of its own; `None` where it shares the host's.
    fn own_memory_bytes(&self) -> Option<usize> {
        None
    }

    /// The way in which results are rounded, where it is known to decide their last bits: a name that changes when they do.
    fn arithmetic(&self) -> Option<String> {
        None
    }

    /// Hash of the table of measured kernels that is used, if one is: it decides the last bits of results.
    fn kernel_table_hash(&self) -> Option<String> {
        None
    }

    /// The kernels that are left out on this device, in the words of `--exclude`; `None` where there are no kernels. Other kernels
    /// decide the last bits of results.
    fn excluded_kernels(&self) -> Option<String> {
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
