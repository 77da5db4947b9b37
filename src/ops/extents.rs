//! Checks of extents, how they are written in a word, and the arithmetic they ask for.

use std::fmt::Debug;

use super::{
    Adam, BatchNorm, BatchNormGradient, ClassGroups, Conv2d, Cosine, CrossEntropy, Direction, EnergyMargin,
    GlobalPool, HYPER_ROW, HYPER_ROWS, ImageBatch, KlDivergence, Linear, Pool, PoolHead, Rows, ScaleBias,
    Segments, Sgd, ShortcutA, StepTotals,
};
use crate::error::{Error, Result};

/// Numbers an optimizer and the totals of a step read from memory.
pub(super) const HYPER_NUMBERS: usize = HYPER_ROWS * HYPER_ROW;

/// The fixed numbers of an operation.
pub(super) trait Attributes: Debug {
    /// Refuses extents that no kernel can compute: extents of zero, windows that hang outside their input.
    fn check(&self) -> Result<()> {
        if self.make_sense() { Ok(()) } else { Err(senseless(self)) }
    }

    /// Whether every kernel can do them.
    fn make_sense(&self) -> bool;

    /// The extents in one word.
    fn shape(&self) -> String;

    /// Floating-point operations of matrix products, two per multiply-add.
    fn flop(&self) -> f64 {
        0.0
    }

    /// Takes fewer rows or images where an operand would have more than about so many elements; at least one.
    fn cut(&mut self, _elements: usize) {}
}

/// The part of `count` things of `each` elements that has no more than `elements`.
pub(super) fn cut(count: &mut usize, each: usize, elements: usize) {
    *count = (*count).min((elements / each.max(1)).max(1));
}

/// The refusal of extents that make no sense.
pub(super) fn senseless(extents: impl Debug) -> Error {
    Error::invalid(format!(
        "an operation cannot have the extents {extents:?}: all must be positive and windows fit"
    ))
}

pub(super) fn positive<const N: usize>(extents: [usize; N]) -> bool {
    !extents.contains(&0)
}

fn flag(set: bool, word: &str) -> String {
    if set { format!("-{word}") } else { String::new() }
}

impl Attributes for Conv2d {
    fn make_sense(&self) -> bool {
        let Conv2d { batch, height, width, in_channels, out_channels, filter_height, filter_width, .. } =
            *self;
        positive([batch, height, width, in_channels, out_channels, filter_height, filter_width, self.stride])
            && height + 2 * self.padding >= filter_height
            && width + 2 * self.padding >= filter_width
    }

    fn shape(&self) -> String {
        format!(
            "{}x{}x{}x{}-k{}-{}x{}-s{}p{}",
            self.batch,
            self.height,
            self.width,
            self.in_channels,
            self.out_channels,
            self.filter_height,
            self.filter_width,
            self.stride,
            self.padding
        )
    }

    fn flop(&self) -> f64 {
        Conv2d::flop(self)
    }
}

impl Attributes for Rows {
    fn make_sense(&self) -> bool {
        positive([self.rows, self.channels])
    }

    fn shape(&self) -> String {
        format!("{}x{}", self.rows, self.channels)
    }

    fn cut(&mut self, elements: usize) {
        cut(&mut self.rows, self.channels, elements);
    }
}

impl Attributes for BatchNorm {
    fn make_sense(&self) -> bool {
        self.extent.make_sense()
    }

    fn shape(&self) -> String {
        self.extent.shape()
    }

    fn cut(&mut self, elements: usize) {
        self.extent.cut(elements);
    }
}

impl Attributes for ScaleBias {
    fn make_sense(&self) -> bool {
        self.extent.make_sense()
    }

    fn shape(&self) -> String {
        self.extent.shape() + &flag(self.relu, "relu")
    }

    fn cut(&mut self, elements: usize) {
        self.extent.cut(elements);
    }
}

impl Attributes for BatchNormGradient {
    fn make_sense(&self) -> bool {
        self.extent.make_sense()
    }

    fn shape(&self) -> String {
        self.extent.shape() + &flag(self.relu, "relu") + &flag(self.frozen, "frozen")
    }

    fn cut(&mut self, elements: usize) {
        self.extent.cut(elements);
    }
}

impl Attributes for Pool {
    fn make_sense(&self) -> bool {
        positive([self.batch, self.height, self.width, self.channels, self.window, self.stride])
            && 2 * self.padding <= self.window
            && self.height.min(self.width) + 2 * self.padding >= self.window
            && i32::try_from(self.height * self.width).is_ok()
    }

    fn shape(&self) -> String {
        let Pool { batch, height, width, channels, window, stride, padding } = self;
        format!("{batch}x{height}x{width}x{channels}-{window}x{window}-s{stride}p{padding}")
    }

    fn cut(&mut self, elements: usize) {
        cut(&mut self.batch, self.height * self.width * self.channels, elements);
    }
}

impl Attributes for GlobalPool {
    fn make_sense(&self) -> bool {
        positive([self.batch, self.height, self.width, self.channels])
    }

    fn shape(&self) -> String {
        let GlobalPool { batch, height, width, channels } = self;
        format!("{batch}x{height}x{width}x{channels}")
    }

    fn cut(&mut self, elements: usize) {
        cut(&mut self.batch, self.height * self.width * self.channels, elements);
    }
}

impl Attributes for ShortcutA {
    fn make_sense(&self) -> bool {
        positive([self.batch, self.height, self.width, self.in_channels, self.stride])
            && self.out_channels >= self.in_channels
    }

    fn shape(&self) -> String {
        let ShortcutA { batch, height, width, in_channels, out_channels, stride } = self;
        format!("{batch}x{height}x{width}x{in_channels}-k{out_channels}-s{stride}")
    }

    fn cut(&mut self, elements: usize) {
        cut(&mut self.batch, self.height * self.width * self.out_channels, elements);
    }
}

impl Attributes for Linear {
    fn make_sense(&self) -> bool {
        positive([self.batch, self.inputs, self.outputs])
    }

    fn shape(&self) -> String {
        format!("{}x{}-k{}", self.batch, self.inputs, self.outputs)
    }

    fn flop(&self) -> f64 {
        2.0 * self.batch as f64 * self.inputs as f64 * self.outputs as f64
    }
}

impl Attributes for PoolHead {
    fn make_sense(&self) -> bool {
        self.pool.make_sense() && self.outputs > 0
    }

    fn shape(&self) -> String {
        format!("{}-k{}", self.pool.shape(), self.outputs)
    }

    fn flop(&self) -> f64 {
        self.linear().flop()
    }

    fn cut(&mut self, elements: usize) {
        self.pool.cut(elements);
    }
}

impl Attributes for Cosine {
    fn make_sense(&self) -> bool {
        positive([self.batch, self.inputs, self.outputs]) && self.epsilon > 0.0
    }

    fn shape(&self) -> String {
        format!("{}x{}-k{}", self.batch, self.inputs, self.outputs) + &flag(self.softplus, "softplus")
    }

    fn flop(&self) -> f64 {
        2.0 * self.batch as f64 * self.inputs as f64 * self.outputs as f64
    }
}

fn is_temperature(temperature: f64) -> bool {
    temperature > 0.0 && temperature.is_finite()
}

impl Attributes for KlDivergence {
    fn make_sense(&self) -> bool {
        positive([self.batch, self.classes]) && is_temperature(self.temperature)
    }

    fn shape(&self) -> String {
        let direction = match self.direction {
            Direction::FirstToSecond => "forward",
            Direction::SecondToFirst => "backward",
            Direction::Both => "both",
        };
        format!("{}x{}-{direction}", self.batch, self.classes)
    }
}

impl Attributes for ClassGroups {
    fn make_sense(&self) -> bool {
        positive([self.batch, self.classes, self.groups]) && is_temperature(self.temperature)
    }

    fn shape(&self) -> String {
        format!("{}x{}-g{}", self.batch, self.classes, self.groups)
    }
}

impl Attributes for EnergyMargin {
    fn make_sense(&self) -> bool {
        positive([self.batch, self.classes]) && self.inside.is_finite() && self.outside.is_finite()
    }

    fn shape(&self) -> String {
        format!("{}x{}", self.batch, self.classes)
    }
}

impl Attributes for CrossEntropy {
    fn make_sense(&self) -> bool {
        positive([self.batch, self.classes])
    }

    fn shape(&self) -> String {
        format!("{}x{}", self.batch, self.classes) + &flag(self.smoothing > 0.0, "smooth")
    }
}

/// Parameters of an optimizer's step.
pub(super) fn parameters_of(segments: &Segments) -> usize {
    segments.iter().map(|segment| segment.elements).sum()
}

fn segments_shape(segments: &Segments) -> String {
    let used = segments.iter().filter(|segment| segment.elements > 0);
    used.map(|segment| segment.elements.to_string()).collect::<Vec<_>>().join("+")
}

/// Refuses segments that an optimizer, which moves parameters in fours with one setting each, cannot do.
fn check_segments(segments: &Segments) -> Result<()> {
    let used = || segments.iter().filter(|segment| segment.elements > 0);
    if used().rev().skip(1).all(|segment| segment.elements.is_multiple_of(4)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "an optimizer moves parameters in fours, each with one setting: all segments but the last must have a multiple of \
         four, not {segments:?}"
    )))
}

fn segments_make_sense(segments: &Segments) -> bool {
    parameters_of(segments) > 0
        && segments.iter().all(|segment| segment.elements == 0 || segment.row < HYPER_ROWS)
}

/// The questions that both optimizers answer alike.
macro_rules! optimizer {
    ($($Optimizer:ident: $($flag:literal if |$o:ident| $set:expr),*;)*) => { $(
        impl Attributes for $Optimizer {
            fn check(&self) -> Result<()> {
                check_segments(&self.segments)?;
                if self.make_sense() { Ok(()) } else { Err(senseless(self.segments)) }
            }

            fn make_sense(&self) -> bool {
                segments_make_sense(&self.segments)
            }

            fn shape(&self) -> String {
                segments_shape(&self.segments) $(+ &flag((|$o: &$Optimizer| $set)(self), $flag))*
            }

            /// Parameters go in fours.
            fn cut(&mut self, elements: usize) {
                let most = elements.next_multiple_of(4);
                self.segments.iter_mut().for_each(|segment| segment.elements = segment.elements.min(most));
            }
        }
    )* };
}

optimizer! {
    Sgd: "copy" if |o| o.copy, "nesterov" if |o| o.nesterov, "plain" if |o| o.momentum == 0.0;
    Adam: "copy" if |o| o.copy, "decoupled" if |o| o.decoupled;
}

impl Attributes for StepTotals {
    fn make_sense(&self) -> bool {
        positive([self.batch, self.slots]) && self.column < self.columns
    }

    fn shape(&self) -> String {
        self.batch.to_string()
    }
}

impl Attributes for ImageBatch {
    fn make_sense(&self) -> bool {
        positive([self.images, self.batch, self.side, self.channels]) && self.side < 1 << 15
    }

    fn shape(&self) -> String {
        format!("{}x{side}x{side}x{}", self.batch, self.channels, side = self.side)
    }

    fn cut(&mut self, elements: usize) {
        let each = self.image_elements();
        cut(&mut self.batch, each, elements);
        cut(&mut self.images, each, elements);
    }
}
