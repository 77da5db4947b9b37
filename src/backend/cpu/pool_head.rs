//! The head of a network in one call: the CPU gains nothing by joining its parts.

use super::Cpu;
use super::element::Element;
use crate::error::Result;
use crate::ops::PoolHeadForward;
use crate::tensor::Span;

/// Runs as its parts.
pub(super) fn pool_head<T: Element>(_: &mut Cpu<T>, _: &PoolHeadForward<Span>, _: Span) -> Result<()> {
    unreachable!("a call that expands was prepared as its parts")
}
