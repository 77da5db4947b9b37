//! Data sets: the readers, the verb `data`, and the names of classes.

mod bad_input;
mod class_names;
mod from_others;
mod images;
pub mod mutations;
mod readers;
mod two_levels;
mod verb;
