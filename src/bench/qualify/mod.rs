//! Qualification: kernels are tried in a process of their own before a device uses them, and what fails is left out there.
//!
//! A card, driver, compiler and set of kernels that have no record yet are not trusted. What the plans of a run want to carry out
//! becomes trials (`trial`): each kernel in the form in which it is wanted (prologue, epilogue), at awkward shapes and at one with the
//! network's own channels and images. A child process (`child`) carries them out against the CPU in f64, and says before each what it
//! is about to do; its parent gives each a deadline, ends a child that hangs, and goes on behind the culprit with a fresh one
//! (`supervise`). What was found is kept beside the compiled kernels (`record`), and decides what is used (`session`).

mod child;
mod record;
mod session;
mod supervise;
mod trial;

pub use child::carry_out;
pub use record::{Failure, Record};
pub use session::{Qualification, Qualify, Settings};
pub use supervise::Program;
