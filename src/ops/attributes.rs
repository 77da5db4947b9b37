//! The fixed numbers of each operation: extents, strides, constants. Tensors come separately, as operands.

use serde::{Deserialize, Serialize};

/// A 2-d convolution (cross-correlation, as in every deep-learning library), without bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Images in the batch.
    pub batch: usize,
    /// Input rows.
    pub height: usize,
    /// Input columns.
    pub width: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Filter rows.
    pub filter_height: usize,
    /// Filter columns.
    pub filter_width: usize,
    /// Step between neighbouring outputs, in both directions; at least 1.
    pub stride: usize,
    /// Zero rows and columns around the input, on every side.
    pub padding: usize,
}

impl Conv2d {
    /// Output rows.
    pub fn out_height(&self) -> usize {
        (self.height + 2 * self.padding - self.filter_height) / self.stride + 1
    }

    /// Output columns.
    pub fn out_width(&self) -> usize {
        (self.width + 2 * self.padding - self.filter_width) / self.stride + 1
    }

    /// The output as a matrix: every pixel of the batch is a row.
    pub fn outputs(&self) -> Rows {
        Rows { rows: self.out_pixels(), channels: self.out_channels }
    }

    /// The input as a matrix.
    pub fn inputs(&self) -> Rows {
        Rows { rows: self.batch * self.height * self.width, channels: self.in_channels }
    }

    /// Output positions in the whole batch: M of the implicit GEMM.
    pub fn out_pixels(&self) -> usize {
        self.batch * self.out_height() * self.out_width()
    }

    /// Whether every output is made of the one input pixel at its place.
    pub fn is_pointwise(&self) -> bool {
        (self.filter_height, self.filter_width, self.stride, self.padding) == (1, 1, 1, 0)
    }

    /// Elements of one filter: filter rows x filter columns x input channels.
    pub fn filter_elements(&self) -> usize {
        self.filter_height * self.filter_width * self.in_channels
    }

    /// Elements of all filters.
    pub fn weights(&self) -> usize {
        self.out_channels * self.filter_elements()
    }

    /// Elements of the input that some filter sees: with a stride beyond the filter, not all.
    pub fn inputs_seen(&self) -> usize {
        let rows = self.height.min(self.out_height() * self.filter_height);
        let columns = self.width.min(self.out_width() * self.filter_width);
        self.batch * rows * columns * self.in_channels
    }

    /// Floating-point operations of one pass (fprop, dgrad or wgrad), two per multiply-add.
    pub fn flop(&self) -> f64 {
        2.0 * self.out_pixels() as f64 * self.out_channels as f64 * self.filter_elements() as f64
    }
}

/// A matrix of activations seen as rows (batch x height x width) of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rows {
    /// Number of rows.
    pub rows: usize,
    /// Elements in a row.
    pub channels: usize,
}

impl Rows {
    /// Elements of the matrix.
    pub fn elements(&self) -> usize {
        self.rows * self.channels
    }
}

/// Batch normalisation over the rows of a matrix (Ioffe & Szegedy 2015), with PyTorch's conventions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BatchNorm {
    /// Extent of the input.
    pub extent: Rows,
    /// Added to the variance under the square root (PyTorch: 1e-5).
    pub epsilon: f64,
    /// Weight of the new batch in the running statistics (PyTorch: 0.1).
    pub momentum: f64,
}

/// The per-channel affine map that applies a batch normalisation, with an optional rectifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ScaleBias {
    /// Extent of the input.
    pub extent: Rows,
    /// Whether negative results become zero.
    pub relu: bool,
}

/// The gradient of batch normalisation, optionally through the rectifier behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BatchNormGradient {
    /// Extent of the input.
    pub extent: Rows,
    /// Whether `dy` is the gradient behind a rectifier: it then counts only where `scale * x + bias > 0`.
    pub relu: bool,
    /// Whether mean and variance were constants (eval mode) and pass no gradient.
    pub frozen: bool,
}

/// A square pooling window over an NHWC tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pool {
    /// Images in the batch.
    pub batch: usize,
    /// Input rows.
    pub height: usize,
    /// Input columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Rows and columns of the window.
    pub window: usize,
    /// Step between windows.
    pub stride: usize,
    /// Rows and columns around the input that never win.
    pub padding: usize,
}

impl Pool {
    /// Output rows.
    pub fn out_height(&self) -> usize {
        (self.height + 2 * self.padding - self.window) / self.stride + 1
    }

    /// Output columns.
    pub fn out_width(&self) -> usize {
        (self.width + 2 * self.padding - self.window) / self.stride + 1
    }

    /// Elements of the input.
    pub fn inputs(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    /// Elements of the output.
    pub fn outputs(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.channels
    }
}

/// All pixels of NHWC images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GlobalPool {
    /// Images in the batch.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl GlobalPool {
    /// Elements of the input.
    pub fn inputs(&self) -> usize {
        self.outputs() * self.height * self.width
    }

    /// Elements of the output.
    pub fn outputs(&self) -> usize {
        self.batch * self.channels
    }
}

/// A fully connected layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Linear {
    /// Samples.
    pub batch: usize,
    /// Inputs per sample.
    pub inputs: usize,
    /// Outputs per sample.
    pub outputs: usize,
}

/// A mean over all pixels, and a fully connected layer on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PoolHead {
    /// The input.
    pub pool: GlobalPool,
    /// Outputs of the layer.
    pub outputs: usize,
}

impl PoolHead {
    /// The fully connected layer.
    pub fn linear(&self) -> Linear {
        Linear { batch: self.pool.batch, inputs: self.pool.channels, outputs: self.outputs }
    }
}

/// Softmax and cross-entropy, averaged over the batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CrossEntropy {
    /// Samples.
    pub batch: usize,
    /// Classes.
    pub classes: usize,
    /// Share of the target spread evenly over all classes (PyTorch's `label_smoothing`).
    pub smoothing: f64,
}

/// A classifier that compares directions: `scale * cos(x, weight)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cosine {
    /// Samples.
    pub batch: usize,
    /// Features of a sample.
    pub inputs: usize,
    /// Classes.
    pub outputs: usize,
    /// The smallest norm that is divided by (PyTorch's `normalize`: 1e-12); shorter vectors are divided by it.
    pub epsilon: f64,
    /// Whether the scale is `softplus` of the parameter, so that it stays positive, or the parameter itself.
    pub softplus: bool,
}

/// The Kullback-Leibler divergence between two softmaxes, averaged over the batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KlDivergence {
    /// Samples.
    pub batch: usize,
    /// Classes.
    pub classes: usize,
    /// The temperature that divides both logits.
    pub temperature: f64,
    /// From which distribution to which.
    pub direction: Direction,
    /// The side that is taken as given and receives no gradient.
    pub detached: Option<Side>,
}

/// One of the two distributions of a divergence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The first operand.
    First,
    /// The second.
    Second,
}

/// Which divergence between p, the softmax of the first logits, and q, that of the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// KL(p, q) = `sum of p (log p - log q)`: q must be wherever p is.
    FirstToSecond,
    /// KL(q, p).
    SecondToFirst,
    /// Jensen-Shannon: the mean of KL(p, m) and KL(q, m), with m halfway between p and q.
    Both,
}

/// Logits summed up, as probabilities, within class groups: subclasses within their superclass.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassGroups {
    /// Samples.
    pub batch: usize,
    /// Classes.
    pub classes: usize,
    /// Groups.
    pub groups: usize,
    /// The temperature that divides the logits before their softmax; it multiplies the sums, so that they are logits again.
    pub temperature: f64,
}

/// Margins for the energy of samples that were seen and of outliers (Liu et al. 2020).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EnergyMargin {
    /// Samples.
    pub batch: usize,
    /// Classes.
    pub classes: usize,
    /// The energy that samples of the classes should not exceed.
    pub inside: f64,
    /// The energy that outliers should reach.
    pub outside: f64,
}

/// He et al.'s parameter-free shortcut (option A): every second pixel, new channels filled with zeros on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShortcutA {
    /// Images in the batch.
    pub batch: usize,
    /// Input rows.
    pub height: usize,
    /// Input columns.
    pub width: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels; the first `(out - in) / 2` are zero, then come the input's.
    pub out_channels: usize,
    /// Step between the pixels that are kept.
    pub stride: usize,
}

impl ShortcutA {
    /// Output rows: those of `x[::stride]`.
    pub fn out_height(&self) -> usize {
        self.height.div_ceil(self.stride)
    }

    /// Output columns.
    pub fn out_width(&self) -> usize {
        self.width.div_ceil(self.stride)
    }

    /// Elements of the input.
    pub fn inputs(&self) -> usize {
        self.batch * self.height * self.width * self.in_channels
    }

    /// Elements of the output.
    pub fn outputs(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.out_channels
    }
}

/// Numbers of a row of an optimizer's `hyper`, which change from step to step: the learning rate, Adam's two corrections, and
/// the slot of the step's totals.
pub const HYPER_ROW: usize = 4;
/// Rows of it: of the network or its backbone, and of heads that have a rate of their own.
pub const HYPER_ROWS: usize = 2;

/// Parameters that lie side by side and share the settings of an optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Number of parameters; in all but the last segment that has some a multiple of four.
    pub elements: usize,
    /// L2 penalty added to the gradient, or, where it is decoupled, shrinkage of the parameter itself.
    pub weight_decay: f64,
    /// Row of `hyper`.
    pub row: usize,
}

/// The parameters of an optimizer's step, one segment behind the other; segments that are not needed are empty.
pub type Segments = [Segment; 3];

impl Segment {
    /// No parameters.
    pub const EMPTY: Segment = Segment { elements: 0, weight_decay: 0.0, row: 0 };

    /// Parameters that all have the same settings.
    pub fn alone(elements: usize, weight_decay: f64) -> Segments {
        [Segment { elements, weight_decay, row: 0 }, Segment::EMPTY, Segment::EMPTY]
    }
}

/// Stochastic gradient descent (PyTorch's `SGD`, dampening 0).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sgd {
    /// The parameters and their weight decays.
    pub segments: Segments,
    /// Decay of the velocity.
    pub momentum: f64,
    /// Whether to look ahead along the velocity.
    pub nesterov: bool,
    /// Whether the new parameters are copied.
    pub copy: bool,
}

/// Adam and AdamW (PyTorch's formulas).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    /// The parameters and their weight decays.
    pub segments: Segments,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay (AdamW).
    pub decoupled: bool,
    /// Whether the new parameters are copied.
    pub copy: bool,
}

/// Images of a batch, taken from pixels that lie in memory as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImageBatch {
    /// Images in memory.
    pub images: usize,
    /// Images in the batch.
    pub batch: usize,
    /// Rows and columns of an image.
    pub side: usize,
    /// Channels.
    pub channels: usize,
}

impl ImageBatch {
    /// Elements of an image.
    pub fn image_elements(&self) -> usize {
        self.side * self.side * self.channels
    }
}

/// Numbers that say where the pixels of one image of a batch come from; see `load_images` in [`crate::ops::Call`].
pub const PLACEMENT_NUMBERS: usize = 8;

/// Where the total of one of a step's losses, and the hits that belong to it, are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepTotals {
    /// Samples.
    pub batch: usize,
    /// Steps that are remembered.
    pub slots: usize,
    /// Losses of a step that are remembered: cross-entropies of its heads, divergences, margins.
    pub columns: usize,
    /// Which of them this is.
    pub column: usize,
}
