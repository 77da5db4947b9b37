//! The head of a network in one call: the CPU gains nothing by joining its parts.

use super::Cpu;
use super::element::Element;
use crate::error::Result;
use crate::ops::{PoolHeadForward, run_parts};
use crate::tensor::Span;

pub(super) fn pool_head<T: Element>(
    cpu: &mut Cpu<T>,
    op: &PoolHeadForward<Span>,
    workspace: Span,
) -> Result<()> {
    run_parts(cpu, &op.parts(), workspace)
}
