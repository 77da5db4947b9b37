//! The program as a user calls it, where no other folder has the subject.

mod bench;
mod compare;
mod doctor;
mod experiment;
mod names_and_numbers;
mod outputs;
mod report;
mod report_samples;
mod results_mutations;
#[cfg(unix)]
mod terminal;
