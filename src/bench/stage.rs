//! Calls in a memory of their own, as a plan would run them: their operands, their workspace, and copies of them to rotate over.

use super::values::{Values, values};
use crate::error::Result;
use crate::ops::{Access, Call, CallConfig, CopyRows, Device, ElementType, Graph, Operand, Rows};
use crate::tensor::{ALIGNMENT, DType, HostValues, Span, aligned};

/// Number of elements that random numbers are drawn for; longer operands repeat them. A multiple of every alignment.
const TILE: usize = 1 << 18;

/// A call ready to run, once or several times over with different places in memory.
pub(super) struct Stage<'d> {
    device: &'d mut dyn Device,
    copies: Vec<Placed>,
}

/// Calls with their places.
#[derive(Debug, Clone)]
struct Placed {
    calls: Vec<(Call<Span>, CallConfig)>,
    workspace: Span,
}

/// The memory of the device, as far as it is handed out.
struct Places {
    end: usize,
    red_zone: usize,
}

impl Places {
    fn span(&mut self, elements: usize, dtype: DType) -> Span {
        let span = Span { offset: self.end, elements, dtype };
        self.end += aligned(span.bytes() + self.red_zone);
        span
    }
}

impl<'d> Stage<'d> {
    /// Places calls `copies` times. Operands of one name and size are the same place.
    ///
    /// # Errors
    /// Extents that make no sense, or not enough memory.
    pub(super) fn new(device: &'d mut dyn Device, calls: &[Call<()>], copies: usize) -> Result<Stage<'d>> {
        calls.iter().try_for_each(Call::check_attributes)?;
        let scratch = device.dtype().accumulator();
        let configs: Vec<CallConfig> = calls.iter().map(|call| device.prepare(call)).collect();
        let workspace = configs.iter().map(|config| config.workspace_bytes).max().unwrap_or(0);
        let mut places = Places { end: aligned(device.red_zone()), red_zone: device.red_zone() };
        let copies = (0..copies)
            .map(|_| {
                let mut known: Vec<(&str, Span)> = Vec::new();
                let mut placed = |operand: &Operand<()>| {
                    let Operand { name, elements, element, .. } = *operand;
                    let same = |(other, span): &&(&str, Span)| *other == name && span.elements == elements;
                    if let Some((_, span)) = known.iter().find(same) {
                        return *span;
                    }
                    let span = places.span(elements, element.dtype(device.dtype()));
                    known.push((name, span));
                    span
                };
                let calls = calls.iter().map(|call| {
                    let wanted = call.operands();
                    let mut operands = wanted.iter();
                    call.map(|()| placed(operands.next().expect("one for each operand of the call")))
                });
                let calls = calls.zip(configs.iter().cloned()).collect();
                Placed { calls, workspace: places.span(workspace.div_ceil(scratch.size()), scratch) }
            })
            .collect();
        device.allocate(places.end.max(ALIGNMENT))?;
        Ok(Stage { device, copies })
    }

    /// Number of copies.
    pub(super) fn copies(&self) -> usize {
        self.copies.len()
    }

    /// Bytes one copy of the calls takes.
    pub(super) fn bytes(device: &dyn Device, calls: &[Call<()>]) -> Result<usize> {
        calls.iter().try_for_each(Call::check_attributes)?;
        let operands = calls.iter().flat_map(Call::operands);
        let operands =
            operands.map(|operand| aligned(operand.elements * operand.element.dtype(device.dtype()).size()));
        let workspace = calls.iter().map(|call| aligned(device.workspace_bytes(call))).max();
        Ok(operands.sum::<usize>() + workspace.unwrap_or(0))
    }

    /// Fills everything with random values: drawn for the first [`TILE`] elements, then repeated.
    pub(super) fn fill(&mut self) -> Result<()> {
        for (call, _) in self.copies.clone().iter().flat_map(|placed| &placed.calls) {
            for Operand { name, place: span, element, .. } in call.operands() {
                // The position of a maximum and the placement of an image depend on the place: no repeating.
                let tile = if element == ElementType::I32 { span.elements } else { span.elements.min(TILE) };
                let values = values(call, (name, element), tile, self.device.dtype());
                self.repeat(span, element, &values)?;
            }
        }
        Ok(())
    }

    /// Writes values to the front of a span and repeats them to its end.
    fn repeat(&mut self, span: Span, element: ElementType, values: &Values) -> Result<()> {
        let part = |from: usize, elements: usize| Span {
            offset: span.offset + from * span.dtype.size(),
            elements,
            dtype: span.dtype,
        };
        let mut done = span.elements.min(TILE);
        if element == ElementType::I32 {
            return write(self.device, span, values);
        }
        write(self.device, part(0, done), values)?;
        while done < span.elements {
            let next = (span.elements - done).min(if element == ElementType::Working { done } else { TILE });
            if element == ElementType::Working {
                // On the device: gigabytes of activations need not come from the host.
                let (x, y) = (part(0, next), part(done, next));
                let attributes = Rows { rows: next, channels: 1 };
                let nothing = part(0, 0);
                self.device.run(&CopyRows { attributes, x, y }.into(), nothing)?;
            } else {
                write(self.device, part(done, next), &first(values, next))?;
            }
            done += next;
        }
        Ok(())
    }

    /// Writes the inputs of the first call of the first copy; its results and its workspace become NaN.
    pub(super) fn load(&mut self, inputs: &[Values]) -> Result<()> {
        let Placed { calls, workspace } = self.copies[0].clone();
        for (Operand { place: span, access, .. }, values) in calls[0].0.operands().into_iter().zip(inputs) {
            if access == Access::Write { self.poison(span)? } else { write(self.device, span, values)? }
        }
        self.poison(workspace)
    }

    fn poison(&mut self, span: Span) -> Result<()> {
        let values = match span.dtype {
            DType::I32 => Values::Integers(vec![i32::MIN; span.elements]),
            DType::U8 => Values::Bytes(vec![0xff; span.elements]),
            _ => Values::Numbers(vec![f64::NAN; span.elements]),
        };
        if span.elements == 0 { Ok(()) } else { write(self.device, span, &values) }
    }

    /// Runs one of the copies.
    pub(super) fn run(&mut self, copy: usize) -> Result<()> {
        let Placed { calls, workspace } = &self.copies[copy % self.copies.len()];
        calls.iter().try_for_each(|(call, config)| self.device.run_prepared(call, config, *workspace))
    }

    /// Runs the calls `repeats` times, one copy after the other, or records them for a device that can repeat them by itself.
    pub(super) fn capture(&mut self, repeats: usize) -> Result<Option<Graph>> {
        let Stage { device, copies } = self;
        device.capture(&mut |device| {
            copies
                .iter()
                .cycle()
                .take(repeats)
                .flat_map(|placed| placed.calls.iter().map(|prepared| (prepared, placed.workspace)))
                .try_for_each(|((call, config), workspace)| device.run_prepared(call, config, workspace))
        })
    }

    /// Runs the captured calls.
    pub(super) fn replay(&mut self, graph: &Graph) -> Result<()> {
        self.device.replay(graph)
    }

    /// The device.
    pub(super) fn device(&self) -> &dyn Device {
        self.device
    }

    /// A hash of every bit that the calls of the first copy have written.
    pub(super) fn fingerprint(&self) -> Result<String> {
        let operands = self.copies[0].calls.iter().flat_map(|(call, _)| call.operands());
        let written = operands.filter(|operand| operand.access != Access::Read).map(|operand| operand.place);
        let mut seen: Vec<Span> = Vec::new();
        let mut hasher = blake3::Hasher::new();
        for span in written.filter(|span| !matches!(span.dtype, DType::I32 | DType::U8)) {
            if !seen.contains(&span) {
                seen.push(span);
                let mut values = vec![0.0; span.elements];
                self.device.read_f64(span, &mut values)?;
                values.iter().for_each(|value| {
                    hasher.update(&value.to_le_bytes());
                });
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// The values of the operands of the first call of the first copy.
    pub(super) fn read(&self) -> Result<Vec<Values>> {
        let operands = self.copies[0].calls[0].0.operands();
        operands
            .into_iter()
            .map(|Operand { place: span, .. }| match span.dtype {
                DType::I32 => {
                    let mut values = vec![0; span.elements];
                    self.device.read_i32(span, &mut values)?;
                    Ok(Values::Integers(values))
                }
                // Bytes are only ever read.
                DType::U8 => Ok(Values::Bytes(Vec::new())),
                DType::F32 | DType::F64 | DType::Bf16 => {
                    let mut values = vec![0.0; span.elements];
                    self.device.read_f64(span, &mut values)?;
                    Ok(Values::Numbers(values))
                }
            })
            .collect()
    }
}

fn write(device: &mut dyn Device, span: Span, values: &Values) -> Result<()> {
    let values = match values {
        Values::Numbers(values) => HostValues::F64(values),
        Values::Integers(values) => HostValues::I32(values),
        Values::Bytes(values) => HostValues::U8(values),
    };
    device.write(span, values)
}

fn first(values: &Values, elements: usize) -> Values {
    match values {
        Values::Numbers(values) => Values::Numbers(values[..elements].to_vec()),
        Values::Integers(values) => Values::Integers(values[..elements].to_vec()),
        Values::Bytes(values) => Values::Bytes(values[..elements].to_vec()),
    }
}
