//! The integration tests: one binary, so that everything is linked once.

mod architecture;
mod collapse;
mod compile_gate;
mod data_bad_input;
mod data_files;
mod data_mutations;
mod data_readers;
mod data_verb;
mod experiment;
mod fake_driver;
mod features_bad_input;
mod golden;
mod gradients;
mod metrics;
mod ood_scores;
mod ood_verb;
mod ops;
mod ops_passes;
mod ops_step;
mod parity;
mod reference;
mod report;
mod results_mutations;
mod synthetic;
mod training;
mod weights;
