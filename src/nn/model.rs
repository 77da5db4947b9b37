//! A network in a device's memory.

use std::collections::HashMap;

use super::initialise;
use super::parameters::Entry;
use super::resnet::Network;
use crate::error::Result;
use crate::ops::{Call, Cast, Device, Graph, Readback, Rows};
use crate::plan::{Executable, Plan, PlanId, fuse};
use crate::tensor::{HostValues, Span};

/// A network together with the device in whose memory its parameters and activations live.
pub struct Model {
    network: Network,
    // Captured plans are dropped before the device they run on.
    captured: HashMap<PlanId, Seen>,
    device: Box<dyn Device>,
    bytes: usize,
    /// Whether the host wrote learned values that their copies do not know of.
    copies_are_old: bool,
}

/// State of a plan that ran.
enum Seen {
    /// It ran once, so everything it needs is compiled.
    Once,
    /// It is repeated by the device.
    Captured(Graph),
    /// The device runs calls as they come.
    Plain,
}

impl Model {
    /// Puts a network into a device's memory, all parameters zero, with room for the largest of the plans that will run on it.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(network: Network, mut device: Box<dyn Device>, plan_bytes: usize) -> Result<Model> {
        let bytes = plan_bytes.max(network.parameters().bytes());
        device.allocate(bytes)?;
        Ok(Model { network, captured: HashMap::new(), device, bytes, copies_are_old: true })
    }

    /// Draws initial values from PyTorch's default distributions.
    ///
    /// # Errors
    /// The device failed.
    pub fn initialise(&mut self, seed: u64) -> Result<()> {
        for (index, entry) in self.network.parameters().entries().iter().enumerate() {
            let values = initialise::values(entry, index, seed);
            self.copies_are_old = true;
            self.device.write(entry.parameter.value, HostValues::F64(&values))?;
        }
        Ok(())
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The device.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// Writes to a place in memory.
    ///
    /// # Errors
    /// The device failed.
    pub fn write(&mut self, to: Span, values: HostValues<'_>) -> Result<()> {
        self.note_write(to);
        self.device.write(to, values)
    }

    /// Writes to several places in memory, neighbouring places in one copy.
    ///
    /// # Errors
    /// The device failed.
    pub fn write_all(&mut self, writes: &[(Span, HostValues<'_>)]) -> Result<()> {
        writes.iter().for_each(|(to, _)| self.note_write(*to));
        self.device.write_all(writes)
    }

    /// Remembers whether learned values are about to change.
    fn note_write(&mut self, to: Span) {
        let learned = self.network.parameters().values();
        self.copies_are_old |=
            to.offset < learned.offset + learned.bytes() && learned.offset < to.offset + to.bytes();
    }

    /// Copies the learned values, converted to the type of the activations, where these are narrower and the host changed
    /// values since. An optimizer's step changes both.
    fn renew_copies(&mut self) -> Result<()> {
        let parameters = self.network.parameters();
        if let Some(copies) = parameters.copies().filter(|_| self.copies_are_old) {
            let (x, nothing) = (parameters.values(), Span { elements: 0, ..parameters.values() });
            let attributes = Rows { rows: 1, channels: x.elements };
            self.device.run(&Call::Cast(Cast { attributes, x, y: copies }), nothing)?;
        }
        self.copies_are_old = false;
        Ok(())
    }

    /// Reads a floating-point span.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_f32(&self, from: Span) -> Result<Vec<f32>> {
        let mut values = vec![0.0; from.elements];
        self.device.read_f32(from, &mut values)?;
        Ok(values)
    }

    /// Reads a floating-point span in double precision.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_f64(&self, from: Span) -> Result<Vec<f64>> {
        let mut values = vec![0.0; from.elements];
        self.device.read_f64(from, &mut values)?;
        Ok(values)
    }

    /// Reads an integer span.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_i32(&self, from: Span) -> Result<Vec<i32>> {
        let mut values = vec![0; from.elements];
        self.device.read_i32(from, &mut values)?;
        Ok(values)
    }

    /// One parameter's values in the device's own layout, in double precision.
    ///
    /// # Errors
    /// The device failed.
    pub fn parameter(&self, entry: &Entry) -> Result<Vec<f64>> {
        self.read_f64(entry.parameter.value)
    }

    /// Runs a plan's setup calls.
    ///
    /// # Errors
    /// The device failed.
    pub fn set_up(&mut self, executable: &Executable) -> Result<()> {
        self.assert_room(executable);
        executable.set_up(&mut *self.device)
    }

    /// Runs one step of a plan: call by call the first time, captured where the device can from the second on.
    ///
    /// # Errors
    /// The device failed.
    pub fn run(&mut self, executable: &Executable) -> Result<()> {
        self.assert_room(executable);
        self.renew_copies()?;
        let Model { captured, device, .. } = self;
        if let Some(Seen::Once) = captured.get(&executable.id()) {
            let graph = device.capture(&mut |device| executable.run(device))?;
            captured.insert(executable.id(), graph.map_or(Seen::Plain, Seen::Captured));
        }
        match captured.get(&executable.id()) {
            Some(Seen::Captured(graph)) => device.replay(graph),
            Some(_) => executable.run(&mut **device),
            None => {
                captured.insert(executable.id(), Seen::Once);
                executable.run(&mut **device)
            }
        }
    }

    /// Begins to copy numbers to the host.
    ///
    /// # Errors
    /// The device failed.
    pub fn begin_read(&self, from: Span) -> Result<Readback> {
        self.device.begin_read(from)
    }

    /// Waits until all work is done.
    ///
    /// # Errors
    /// The device failed.
    pub fn synchronise(&self) -> Result<()> {
        self.device.synchronise()
    }

    /// Runs one step and reports each call's name and seconds.
    ///
    /// # Errors
    /// The device failed.
    pub fn run_timed(
        &mut self,
        executable: &Executable,
        observe: impl FnMut(&Call<Span>, f64),
    ) -> Result<()> {
        self.assert_room(executable);
        self.renew_copies()?;
        executable.run_timed(&mut *self.device, observe)
    }

    fn assert_room(&self, executable: &Executable) {
        assert!(executable.bytes() <= self.bytes, "a plan larger than the memory this model was made with");
    }
}

/// Compiles a plan: fuses its calls as the network's settings say, and lays it out behind the network's parameters.
pub fn compile(network: &Network, device: &dyn Device, plan: Plan) -> Executable {
    Executable::new(
        fuse(plan, network.fusions(), |conv| device.fuses_prologue(conv)),
        device,
        network.parameters().bytes(),
    )
}
