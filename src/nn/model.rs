//! A network in a backend's memory.

use super::initialise;
use super::parameters::Entry;
use super::resnet::Network;
use crate::error::Result;
use crate::ops::Backend;
use crate::plan::{Plan, Prepared};
use crate::tensor::{HostValues, Span};

/// A network together with the device and the memory its parameters and activations live in.
pub struct Model<B: Backend> {
    network: Network,
    backend: B,
    memory: B::Memory,
    bytes: usize,
}

impl<B: Backend> Model<B> {
    /// Puts a network into memory, all parameters zero, with room for the largest of the plans that will run on it.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(network: Network, backend: B, plan_bytes: usize) -> Result<Model<B>> {
        let bytes = plan_bytes.max(network.parameters().bytes());
        let memory = backend.allocate(bytes)?;
        Ok(Model { network, backend, memory, bytes })
    }

    /// Draws initial values from PyTorch's default distributions.
    ///
    /// # Errors
    /// The device failed.
    pub fn initialise(&mut self, seed: u64) -> Result<()> {
        for (index, entry) in self.network.parameters().entries().iter().enumerate() {
            let values = initialise::values(entry, index, seed);
            self.backend.write(&mut self.memory, entry.parameter.value, HostValues::F64(&values))?;
        }
        Ok(())
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Writes to a place in memory.
    ///
    /// # Errors
    /// The device failed.
    pub fn write(&mut self, to: Span, values: HostValues<'_>) -> Result<()> {
        self.backend.write(&mut self.memory, to, values)
    }

    /// Reads a floating-point span.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_f32(&self, from: Span) -> Result<Vec<f32>> {
        let mut values = vec![0.0; from.elements];
        self.backend.read_f32(&self.memory, from, &mut values)?;
        Ok(values)
    }

    /// Reads a floating-point span in double precision.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_f64(&self, from: Span) -> Result<Vec<f64>> {
        let mut values = vec![0.0; from.elements];
        self.backend.read_f64(&self.memory, from, &mut values)?;
        Ok(values)
    }

    /// Reads an integer span.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_i32(&self, from: Span) -> Result<Vec<i32>> {
        let mut values = vec![0; from.elements];
        self.backend.read_i32(&self.memory, from, &mut values)?;
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
    pub fn set_up(&mut self, prepared: &Prepared) -> Result<()> {
        self.assert_room(prepared);
        prepared.set_up(&self.backend, &mut self.memory)
    }

    /// Runs one step of a plan.
    ///
    /// # Errors
    /// The device failed.
    pub fn run(&mut self, prepared: &Prepared) -> Result<()> {
        self.assert_room(prepared);
        prepared.run(&self.backend, &mut self.memory)
    }

    /// Runs one step and reports each call's name and seconds.
    ///
    /// # Errors
    /// The device failed.
    pub fn run_timed(
        &mut self,
        prepared: &Prepared,
        observe: impl FnMut(&crate::ops::Call<Span>, f64),
    ) -> Result<()> {
        self.assert_room(prepared);
        prepared.run_timed(&self.backend, &mut self.memory, observe)
    }

    fn assert_room(&self, prepared: &Prepared) {
        assert!(prepared.bytes() <= self.bytes, "a plan larger than the memory this model was made with");
    }
}

/// Lays out a plan behind a network's parameters.
pub fn prepare<B: Backend>(network: &Network, backend: &B, plan: Plan) -> Prepared {
    Prepared::new(plan, backend, network.parameters().bytes())
}
