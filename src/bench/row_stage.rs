//! Passes over rows on a device: placed in memory, run, timed, and held to plain loops.

use super::row_passes::{Operand, Role, RowPass};
use super::timing::{Patience, Timing, measure};
use crate::error::Result;
use crate::ops::RowOps;
use crate::tensor::{DType, HostValues, Span, aligned};

/// Random numbers are drawn for so many elements; longer operands repeat them. A multiple of every alignment.
const TILE: usize = 1 << 18;

/// Passes one after the other in one memory; operands of one name and extent are the same place.
pub(super) struct RowStage {
    passes: Vec<(RowPass, Vec<Span>)>,
    places: Vec<(Operand, Span)>,
}

impl RowStage {
    /// Places the operands.
    ///
    /// # Errors
    /// Not enough memory.
    pub(super) fn new(device: &mut dyn RowOps, passes: &[RowPass]) -> Result<RowStage> {
        let red_zone = aligned(device.red_zone());
        let (mut end, mut places) = (red_zone, Vec::<(Operand, Span)>::new());
        let mut place = |operand: Operand| {
            let (name, elements, dtype, _) = operand;
            let known = places.iter().find(|((other, ..), span)| *other == name && span.elements == elements);
            if let Some(&(_, span)) = known {
                return span;
            }
            let span = Span { offset: end, elements, dtype };
            end += aligned(span.bytes()) + red_zone;
            places.push((operand, span));
            span
        };
        let passes = passes
            .iter()
            .map(|pass| (*pass, pass.operands().into_iter().map(&mut place).collect()))
            .collect();
        device.allocate(end)?;
        Ok(RowStage { passes, places })
    }

    /// Random inputs, drawn for the first [`TILE`] elements and then repeated; sums begin at zero.
    ///
    /// # Errors
    /// The device failed.
    pub(super) fn fill(&mut self, device: &mut dyn RowOps) -> Result<()> {
        let pass = self.passes[0].0;
        for ((name, elements, dtype, role), span) in self.places.clone() {
            if role == Role::Scratch {
                continue;
            }
            let drawn = pass.values((name, elements.min(TILE), dtype, role));
            let drawn = if role == Role::Sum { vec![0.0; drawn.len()] } else { drawn };
            for first in (0..elements).step_by(TILE) {
                let some = TILE.min(elements - first);
                let part = Span { offset: span.offset + first * dtype.size(), elements: some, dtype };
                write(device, part, &drawn[..some])?;
            }
        }
        Ok(())
    }

    /// Queues all passes.
    ///
    /// # Errors
    /// The device failed.
    pub(super) fn run(&mut self, device: &mut dyn RowOps) -> Result<()> {
        self.passes.iter().try_for_each(|(pass, spans)| pass.run(device, spans))
    }
}

fn write(device: &mut dyn RowOps, to: Span, values: &[f64]) -> Result<()> {
    match to.dtype {
        DType::I32 => {
            let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
            device.write(to, HostValues::I32(&values))
        }
        _ => device.write(to, HostValues::F64(values)),
    }
}

/// Times passes on random values, one after the other.
///
/// # Errors
/// The device failed.
pub(super) fn time_passes(
    device: &mut dyn RowOps,
    passes: &[RowPass],
    patience: &Patience,
) -> Result<Timing> {
    let mut stage = RowStage::new(device, passes)?;
    stage.fill(device)?;
    stage.run(device)?;
    device.synchronise()?;
    measure(patience, || {
        let from = device.event()?;
        stage.run(device)?;
        device.seconds_between(&from, &device.event()?)
    })
}

/// Runs a pass on fresh random values: the name of its worst result, and how far that is from the plain loop, ‖out − reference‖ /
/// ‖reference‖. Results are NaN before.
///
/// # Errors
/// The device failed.
pub(super) fn worst_result(device: &mut dyn RowOps, pass: RowPass) -> Result<(&'static str, f64)> {
    let mut stage = RowStage::new(device, &[pass])?;
    let mut inputs = Vec::new();
    for (operand, span) in stage.places.clone() {
        let values = match operand.3 {
            Role::Input => pass.values(operand),
            Role::Output | Role::Scratch => vec![f64::NAN; operand.1],
            Role::Sum => vec![0.0; operand.1],
        };
        write(device, span, &values)?;
        if operand.3 == Role::Input {
            inputs.push(values);
        }
    }
    stage.run(device)?;
    let results = stage.places.iter().filter(|(operand, _)| matches!(operand.3, Role::Output | Role::Sum));
    let mut worst = ("", 0.0);
    for ((operand, span), expected) in results.zip(pass.expected(&inputs)) {
        let mut found = vec![0.0; span.elements];
        device.read_f64(*span, &mut found)?;
        let error = super::check::relative_error(&pass.compared(found), &expected);
        if error > worst.1 || worst.0.is_empty() {
            worst = (operand.0, error);
        }
    }
    Ok(worst)
}
