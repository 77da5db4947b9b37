//! Feature caches: written, read, and those of other programs.

mod bad_input;
mod caches;
mod extraction;
