//! The list of operations, and what is generated from it.

use super::{
    Access, Adam, BatchNorm, BatchNormGradient, ClassGroups, Content, Conv2d, Conv2dBatchNorm,
    Conv2dGradient, Conv2dGradientReduce, Conv2dInference, Conv2dScaled, Conv2dScaledBatchNorm, Cosine,
    CrossEntropy, EnergyMargin, ImageBatch, KlDivergence, Linear, Pool, PoolHead, Rows, ScaleBias, Sgd,
    ShortcutA, StepTotals,
};
use crate::error::Result;
use crate::tensor::Span;

macro_rules! access {
    (read) => {
        Access::Read
    };
    (write) => {
        Access::Write
    };
    (update) => {
        Access::Update
    };
}

/// What an operand holds, activations unless the list says otherwise.
macro_rules! content {
    () => {
        Content::Activation
    };
    (number) => {
        Content::Number
    };
    (integer) => {
        Content::Integer
    };
    (byte) => {
        Content::Byte
    };
}

macro_rules! operations {
    ($( $(#[$doc:meta])* $method:ident = $variant:ident($attributes:ty) { $($operand:ident: $access:ident $($content:ident)?),* $(,)? } )*) => {
        /// Every operation on a device's memory: what a device's [`Device::run`](crate::ops::Device::run) hands calls to.
        pub trait Backend {
            $(
                $(#[$doc])*
                ///
                #[doc = concat!("Operands:", $(" ", stringify!($operand),)* ".")]
                ///
                /// # Errors
                /// The device failed.
                fn $method(
                    &mut self,
                    attributes: &$attributes,
                    operands: [Span; [$(stringify!($operand)),*].len()],
                    workspace: Span,
                ) -> Result<()>;
            )*
        }

        /// An operation with its operands; `B` names a buffer (in a plan), a place in memory, or nothing.
        ///
        /// The variants are documented at the [`Backend`] methods of the same names.
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[allow(missing_docs)]
        pub enum Call<B> {
            $( $variant { attributes: $attributes, $($operand: B),* }, )*
        }

        impl<B: Copy> Call<B> {
            /// The operation's name.
            pub fn name(&self) -> &'static str {
                match self { $( Call::$variant { .. } => stringify!($method), )* }
            }

            /// The operands with their names and how they are used.
            pub fn operands(&self) -> Vec<(&'static str, B, Access)> {
                match *self {
                    $( Call::$variant { attributes: _, $($operand),* } =>
                        vec![$((stringify!($operand), $operand, access!($access))),*], )*
                }
            }

            /// What the operands hold, in the order of [`Call::operands`].
            pub fn contents(&self) -> Vec<Content> {
                match self {
                    $( Call::$variant { .. } => vec![$(content!($($content)?)),*], )*
                }
            }

            /// The same call with other operands.
            #[allow(unused_mut)]
            pub fn map<C>(&self, mut f: impl FnMut(B) -> C) -> Call<C> {
                match *self {
                    $( Call::$variant { attributes, $($operand),* } =>
                        Call::$variant { attributes, $($operand: f($operand)),* }, )*
                }
            }
        }

        impl Call<Span> {
            /// Hands the call to the method of its operation.
            pub(crate) fn dispatch(&self, backend: &mut impl Backend, workspace: Span) -> Result<()> {
                match *self {
                    $( Call::$variant { ref attributes, $($operand),* } =>
                        backend.$method(attributes, [$($operand),*], workspace), )*
                }
            }
        }
    };
}

operations! {
    /// Convolution: `y[n,p,q,k] = sum over r,s,c of x[n, p*stride + r - padding, q*stride + s - padding, c] *
    /// weight[k,r,s,c]`, zero outside the input.
    ///
    /// x (batch, height, width, in_channels), weight KRSC, y (batch, out_height, out_width, out_channels).
    conv2d_forward = Conv2dForward(Conv2d) { x: read, weight: read, y: write }

    /// Convolution with the bias, optional rectifier of inference: `y = act(conv(x, weight) + bias[k])`.
    conv2d_bias = Conv2dBias(Conv2dInference) { x: read, weight: read, bias: read number, y: write }

    /// The same with a residual: `y = act(conv(x, weight) + bias[k] + residual)`; residual has y's shape.
    conv2d_bias_residual = Conv2dBiasResidual(Conv2dInference) {
        x: read, weight: read, bias: read number, residual: read, y: write,
    }

    /// Gradient of a convolution with respect to its input:
    /// `dx[n,h,w,c] (+)= sum over k and the outputs (p,q) that saw (h,w) of dy[n,p,q,k] * weight[k,r,s,c]`.
    conv2d_input_gradient = Conv2dInputGradient(Conv2dGradient) { dy: read, weight: read, dx: update }

    /// Gradient of a convolution with respect to its weight:
    /// `dweight[k,r,s,c] = sum over n,p,q of x[n, p*stride + r - padding, q*stride + s - padding, c] * dy[n,p,q,k]`.
    conv2d_weight_gradient = Conv2dWeightGradient(Conv2d) { x: read, dy: read, dweight: write number }

    /// [`Backend::conv2d_forward`], then [`Backend::batch_norm_statistics`] of y as it is stored: what is normalised is what
    /// later passes read.
    conv2d_batch_norm_statistics = Conv2dBatchNormStatistics(Conv2dBatchNorm) {
        x: read, weight: read, y: write, gamma: read number, beta: read number, mean: write number,
        inverse_std: write number, scale: write number, bias: write number, running_mean: update number,
        running_variance: update number,
    }

    /// [`Backend::conv2d_input_gradient`], then [`Backend::batch_norm_reduce`] of dx as it is stored.
    ///
    /// dx itself stays unmasked: whoever reads it has x, scale and bias at hand.
    conv2d_input_gradient_reduce = Conv2dInputGradientReduce(Conv2dGradientReduce) {
        dy: read, weight: read, x: read, scale: read number, bias: read number, mean: read number,
        inverse_std: read number, dx: update, dgamma: write number, dbeta: write number,
    }

    /// [`Backend::conv2d_input_gradient`], then dx becomes zero where `y > 0` does not hold, y being the rectified sum of a
    /// normalisation and a residual; then [`Backend::batch_norm_reduce`] of that, without a rectifier.
    conv2d_input_gradient_mask_reduce = Conv2dInputGradientMaskReduce(Conv2dGradient) {
        dy: read, weight: read, y: read, x: read, scale: read number, bias: read number, mean: read number,
        inverse_std: read number, dx: update, dgamma: write number, dbeta: write number,
    }

    /// [`Backend::scale_bias`] of x, then [`Backend::conv2d_forward`] of that as it would be stored.
    conv2d_scaled = Conv2dScaledForward(Conv2dScaled) {
        x: read, scale: read number, bias: read number, weight: read, y: write,
    }

    /// [`Backend::scale_bias`] of x, then [`Backend::conv2d_weight_gradient`] of that as it would be stored.
    conv2d_scaled_weight_gradient = Conv2dScaledWeightGradient(Conv2dScaled) {
        x: read, scale: read number, bias: read number, dy: read, dweight: write number,
    }

    /// [`Backend::scale_bias`] of x with the input's scale and bias, then [`Backend::conv2d_batch_norm_statistics`] of that as it
    /// would be stored.
    conv2d_scaled_batch_norm_statistics = Conv2dScaledBatchNormStatistics(Conv2dScaledBatchNorm) {
        x: read, input_scale: read number, input_bias: read number, weight: read, y: write, gamma: read number,
        beta: read number, mean: write number, inverse_std: write number, scale: write number,
        bias: write number, running_mean: update number, running_variance: update number,
    }

    /// Statistics of a batch for batch normalisation, and the affine map they give.
    ///
    /// `mean` and biased variance over the rows (merged stably, never as `E[x²] − E[x]²`), `inverse_std = 1/sqrt(var + epsilon)`,
    /// `scale = gamma * inverse_std`, `bias = beta - mean * scale`; the running statistics move by `momentum` towards the
    /// mean and the **unbiased** variance, as PyTorch's do. All operands but x are (channels).
    batch_norm_statistics = BatchNormStatistics(BatchNorm) {
        x: read, gamma: read number, beta: read number, mean: write number, inverse_std: write number,
        scale: write number, bias: write number, running_mean: update number, running_variance: update number,
    }

    /// The affine map of batch normalisation in eval mode, from running statistics: `inverse_std`, `scale`, `bias`.
    batch_norm_frozen = BatchNormFrozen(BatchNorm) {
        gamma: read number, beta: read number, running_mean: read number, running_variance: read number,
        inverse_std: write number, scale: write number, bias: write number,
    }

    /// Folds a batch normalisation in eval mode into the convolution before it:
    /// `folded[k,..] = weight[k,..] * gamma[k] / sqrt(running_variance[k] + epsilon)`, `bias[k] = beta[k] - running_mean[k] *
    /// gamma[k] / sqrt(..)`. `extent.rows` is the number of output channels, `extent.channels` the elements of one filter.
    batch_norm_fold = BatchNormFold(BatchNorm) {
        weight: read number, gamma: read number, beta: read number, running_mean: read number,
        running_variance: read number, folded: write, bias: write number,
    }

    /// `y = act(scale * x + bias)`, scale and bias per channel.
    scale_bias = ScaleBiasForward(ScaleBias) { x: read, scale: read number, bias: read number, y: write }

    /// `y = act(scale * x + bias + residual)`.
    scale_bias_residual = ScaleBiasResidual(ScaleBias) {
        x: read, scale: read number, bias: read number, residual: read, y: write,
    }

    /// First half of the gradient of batch normalisation: with `d = dy`, zero where a rectifier cut,
    /// `dbeta = sum of d`, `dgamma = sum of d * (x - mean) * inverse_std` over the rows.
    batch_norm_reduce = BatchNormReduce(BatchNormGradient) {
        dy: read, x: read, scale: read number, bias: read number, mean: read number, inverse_std: read number,
        dgamma: write number, dbeta: write number,
    }

    /// Second half: `dx = scale * (d - dbeta/rows - x̂ * dgamma/rows)` with `x̂ = (x - mean) * inverse_std`;
    /// frozen: `dx = scale * d`.
    batch_norm_input_gradient = BatchNormInputGradient(BatchNormGradient) {
        dy: read, x: read, scale: read number, bias: read number, mean: read number, inverse_std: read number,
        dgamma: read number, dbeta: read number, dx: write,
    }

    /// `y = max(x, 0)`: activations, or numbers, such as the cosines between a head's two maps.
    relu = Relu(Rows) { x: read, y: write }

    /// `dx = dy` where `y > 0`, else 0: activations, or numbers.
    relu_gradient = ReluGradient(Rows) { y: read, dy: read, dx: write }

    /// `y = a + b`.
    add = Add(Rows) { a: read, b: read, y: write }

    /// `y = x`.
    copy = Copy(Rows) { x: read, y: write }

    /// `y = x`, from the accumulator type (parameters) to the working type (activations).
    cast = Cast(Rows) { x: read number, y: write }

    /// `y += x`: activations, or numbers, such as the gradients of features that two heads share.
    accumulate = Accumulate(Rows) { x: read, y: update }

    /// Maximum over a window; `argmax` holds the position `h * width + w` of the first maximum in row-major order
    /// (PyTorch's choice among ties). NaN wins.
    max_pool = MaxPool(Pool) { x: read, y: write, argmax: write integer }

    /// `dx` receives each `dy` at the position of its maximum, summed where windows overlap, zero elsewhere.
    max_pool_gradient = MaxPoolGradient(Pool) { dy: read, argmax: read integer, dx: write }

    /// Mean over all pixels: x (batch, height, width, channels) to y (batch, channels). Only `batch`, `height`, `width` and
    /// `channels` of the attributes count.
    global_average_pool = GlobalAveragePool(Pool) { x: read, y: write number }

    /// `dx[n,h,w,c] = dy[n,c] / (height * width)`.
    global_average_pool_gradient = GlobalAveragePoolGradient(Pool) { dy: read number, dx: write }

    /// `y = x weightᵀ + bias`: x (batch, inputs), weight (outputs, inputs), bias (outputs), y (batch, outputs).
    linear = LinearForward(Linear) { x: read number, weight: read number, bias: read number, y: write number }

    /// [`Backend::global_average_pool`] of x to features, then [`Backend::linear`] of these to logits.
    pool_head = PoolHeadForward(PoolHead) {
        x: read, weight: read number, bias: read number, features: write number, logits: write number,
    }

    /// `dx = dy weight`.
    linear_input_gradient = LinearInputGradient(Linear) { dy: read number, weight: read number, dx: write number }

    /// `dweight = dyᵀ x`, `dbias = sum over the batch of dy`.
    linear_weight_gradient = LinearWeightGradient(Linear) {
        x: read number, dy: read number, dweight: write number, dbias: write number,
    }

    /// The cosine classifier: `y[n,o] = s * cosines[n,o]`, `cosines[n,o] = (x[n] . weight[o]) * r[n] * r[batch + o]`.
    ///
    /// x (batch, inputs), weight (outputs, inputs), scale (1), y and cosines (batch, outputs). `inverse_norms`, called r
    /// here, holds `1 / max(|row|, epsilon)` of the rows of x, then of weight. `s = softplus(scale)` or the scale itself.
    /// Its gradients read what it leaves behind.
    cosine = CosineForward(Cosine) {
        x: read number, weight: read number, scale: read number, inverse_norms: write number,
        cosines: write number, y: write number,
    }

    /// `dx[n] = s r[n] (sum over o of dy[n,o] r[batch + o] weight[o]  -  r[n] x[n] * sum over o of dy[n,o] cosines[n,o])`;
    /// without the second term where the norm of x was replaced by epsilon.
    cosine_input_gradient = CosineInputGradient(Cosine) {
        x: read number, weight: read number, scale: read number, inverse_norms: read number,
        cosines: read number, dy: read number, dx: write number,
    }

    /// `dweight` is the same with x and weight exchanged; `dscale = s' * sum of dy * cosines`, with s' the derivative of
    /// softplus at the scale, or 1.
    cosine_weight_gradient = CosineWeightGradient(Cosine) {
        x: read number, weight: read number, scale: read number, inverse_norms: read number,
        cosines: read number, dy: read number, dweight: write number, dscale: write number,
    }

    /// Divergence of two softmaxes, forward and backward in one pass.
    ///
    /// `p = softmax(first[n] / T)`, `q = softmax(second[n] / T)`, logits (batch, classes); `loss[n] = KL(p, q)` or as the
    /// direction says; `dfirst` and `dsecond` are the gradients of the **mean** loss, zero on a detached side.
    kl_divergence = SoftmaxDivergence(KlDivergence) {
        first: read number, second: read number, loss: write number, dfirst: write number,
        dsecond: write number,
    }

    /// Logits of groups of classes: `y[n,g] = T log(sum over c with group_of[c] = g of exp(x[n,c] / T))`, so that
    /// `softmax(y / T)` is `softmax(x / T)` summed within groups.
    ///
    /// x (batch, classes), group_of (classes, i32), y (batch, groups). A class whose group is not among `0..groups` counts
    /// nowhere; a group without classes has `y = -inf`, the logarithm of nothing.
    log_sum_groups = LogSumGroups(ClassGroups) { x: read number, group_of: read integer, y: write number }

    /// `dx[n,c] = dy[n,g] exp((x[n,c] - y[n,g]) / T)` with `g = group_of[c]`, zero for a class that counts nowhere.
    log_sum_groups_gradient = LogSumGroupsGradient(ClassGroups) {
        x: read number, group_of: read integer, y: read number, dy: read number, dx: write number,
    }

    /// Margins for the energy `E[n] = -log(sum over c of exp(logits[n,c]))`, forward and backward in one pass.
    ///
    /// logits (batch, classes); outlier (batch, i32) is 0 for a sample of the classes, anything else for an outlier. `loss[n] =
    /// max(0, E - inside)²` or, for an outlier, `max(0, outside - E)²`; `dlogits` is the gradient of the **mean** loss.
    energy_margin = EnergyMarginLoss(EnergyMargin) {
        logits: read number, outlier: read integer, loss: write number, dlogits: write number,
    }

    /// `x[n,c] *= weights[n]`, in place: weights of samples, applied to a loss (channels 1) and to its gradient.
    weigh_rows = WeighRows(Rows) { weights: read number, x: update number }

    /// Softmax cross-entropy, forward and backward in one pass.
    ///
    /// logits (batch, classes), labels (batch, i32). `loss[n] = -sum over c of t[c] * log_softmax(logits[n])[c]` with
    /// `t = (1 - smoothing) * onehot + smoothing / classes`; `prediction[n]` is the first largest logit;
    /// `dlogits = (softmax - t) / batch`, the gradient of the **mean** loss.
    softmax_cross_entropy = SoftmaxCrossEntropy(CrossEntropy) {
        logits: read number, labels: read integer, loss: write number, prediction: write integer,
        dlogits: write number,
    }

    /// Option A shortcut: `y[n,p,q,(out-in)/2 + c] = x[n, p*stride, q*stride, c]`, other channels zero.
    shortcut_a = ShortcutAForward(ShortcutA) { x: read, y: write }

    /// Its gradient: `dx` is zero but at the pixels that were kept.
    shortcut_a_gradient = ShortcutAGradient(ShortcutA) { dy: read, dx: write }

    /// One step of SGD: `g = gradient + weight_decay * p; v = momentum * v + g; p -= lr * (nesterov ? g + momentum * v : v)`.
    ///
    /// Segments of the parameters have a weight decay and a row of `hyper` (rows, 4) each, whose first number is the learning
    /// rate: numbers that change from step to step live in memory, so that a captured graph can be replayed. A velocity of
    /// zeros gives PyTorch's first step. Without momentum the velocity is not touched. `copies` receives the new parameters in
    /// the working type, if that is asked for, and is empty otherwise.
    sgd = SgdStep(Sgd) {
        parameters: update number, gradients: read number, velocity: update number, hyper: read number,
        copies: write,
    }

    /// One step of Adam or AdamW.
    ///
    /// Segments, rows of `hyper` and `copies` as in [`Backend::sgd`]; `hyper = [lr, 1 - beta1^t, sqrt(1 - beta2^t)]`; `m += (1-beta1)(g - m)`, `v = beta2 v + (1-beta2) g²`,
    /// `p -= lr / hyper[1] * m / (sqrt(v) / hyper[2] + epsilon)`; weight decay joins g, or, decoupled, shrinks p by
    /// `1 - lr * weight_decay` first.
    adam = AdamStep(Adam) {
        parameters: update number, gradients: read number, first: update number, second: update number,
        hyper: read number, copies: write,
    }

    /// A batch of network inputs from pixels in memory: crop, flip, rotation and normalisation in one pass.
    ///
    /// pixels (images, side, side, channels, u8); table (channels, 256) holds the normalised value of every byte; y (batch,
    /// side, side, channels). placement (batch, 8, i32) holds for each image of the batch `[index, left, right_of_x,
    /// right_of_y, top, down_of_x, down_of_y, 0]` in 16.16 fixed point: the pixel (x, y) of the output is the pixel
    /// `((left + x * right_of_x + y * right_of_y) >> 16, (top + x * down_of_x + y * down_of_y) >> 16)` of image `index`, or zero
    /// (before normalisation) outside it.
    load_images = LoadImages(ImageBatch) { pixels: read byte, table: read number, placement: read integer, y: write }

    /// Remembers one loss of a step: `totals[slot, 2 * column] = sum of loss`, `totals[slot, 2 * column + 1] = number of
    /// predictions that equal the label`, with `slot = hyper[3]`; totals is (slots, 2 * columns). A loss without predictions of
    /// its own is given those of any other.
    step_totals = RecordTotals(StepTotals) {
        loss: read number, prediction: read integer, labels: read integer, hyper: read number,
        totals: update number,
    }
}
