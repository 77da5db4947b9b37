//! The kernels: their machine code, their launches, the choice among them, and whole trainings by them.

mod compile_gate;
mod configurations;
mod fake_driver;
mod fake_driver_copies;
mod machine_code;
mod model;
mod network_convolutions;
mod qualification;
mod training;
