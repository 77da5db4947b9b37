//! The list of operations, and the code generated from it.

use super::convolution::{Conv2dDgrad, Conv2dFprop, Conv2dWgrad};
use super::declare::{access, element, operations, touched};
use super::extents::{Attributes, HYPER_NUMBERS, parameters_of};
use super::{
    Access, Adam, BatchNorm, BatchNormGradient, CentredSoftmax, ClassGroups, ClassProducts, Cosine, Coverage,
    CrossEntropy, ElementType, EnergyMargin, GeneralisedEntropy, GlobalPool, HISTOGRAM_BINS, HeadLogits,
    Histogram, ImageBatch, InverseNorms, KlDivergence, Labelled, LargestFeatures, LargestProducts, Linear,
    LogitRows, LogitScores, Magnitudes, Nearest, OpenMax, PLACEMENT_NUMBERS, Pool, PoolHead, PreparedRows,
    Projection, Relation, Rows, ScaleBias, Scatter, Sgd, ShapedProjection, ShortcutA, StepTotals,
};
use crate::error::Result;

/// An operand of a call: its place, its access, its element type and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand<B> {
    /// Its name in the list.
    pub name: &'static str,
    /// A buffer (in a plan), a place in memory, or nothing.
    pub place: B,
    /// How the operation uses it.
    pub access: Access,
    /// The type of its elements.
    pub element: ElementType,
    /// Number of elements.
    pub elements: usize,
    /// Number of elements that the operation cannot do without.
    pub touched: usize,
}

operations! {
    $ {
        conv2d_fprop = Conv2dFprop in convolution;
        conv2d_dgrad = Conv2dDgrad in convolution;
        conv2d_wgrad = Conv2dWgrad in convolution;
    }

    /// Statistics of a batch for batch normalisation, and the affine map they give.
    ///
    /// `mean` and biased variance over the rows (merged stably, never as `E[x²] − E[x]²`), `inverse_std = 1/sqrt(var + epsilon)`,
    /// `scale = gamma * inverse_std`, `bias = beta - mean * scale`; the running statistics move by `momentum` towards the
    /// mean and the **unbiased** variance, as PyTorch's do. All operands but x are (channels).
    batch_norm_statistics = BatchNormStatistics(n: BatchNorm) in batch_norm {
        x: read working[n.extent.elements()],
        gamma: read accumulator[n.extent.channels],
        beta: read accumulator[n.extent.channels],
        mean: write accumulator[n.extent.channels],
        inverse_std: write accumulator[n.extent.channels],
        scale: write accumulator[n.extent.channels],
        bias: write accumulator[n.extent.channels],
        running_mean: update accumulator[n.extent.channels],
        running_variance: update accumulator[n.extent.channels],
    }

    /// The affine map of batch normalisation in eval mode, from running statistics: `inverse_std`, `scale`, `bias`.
    batch_norm_frozen = BatchNormFrozen(n: BatchNorm) in batch_norm {
        gamma: read accumulator[n.extent.channels],
        beta: read accumulator[n.extent.channels],
        running_mean: read accumulator[n.extent.channels],
        running_variance: read accumulator[n.extent.channels],
        inverse_std: write accumulator[n.extent.channels],
        scale: write accumulator[n.extent.channels],
        bias: write accumulator[n.extent.channels],
    }

    /// Folds a batch normalisation in eval mode into the convolution before it:
    /// `folded[k,..] = weight[k,..] * gamma[k] / sqrt(running_variance[k] + epsilon)`, `bias[k] = beta[k] - running_mean[k] *
    /// gamma[k] / sqrt(..)`. `extent.rows` is the number of output channels, `extent.channels` the elements of one filter.
    batch_norm_fold = BatchNormFold(n: BatchNorm) in batch_norm {
        weight: read accumulator[n.extent.elements()],
        gamma: read accumulator[n.extent.rows],
        beta: read accumulator[n.extent.rows],
        running_mean: read accumulator[n.extent.rows],
        running_variance: read accumulator[n.extent.rows],
        folded: write working[n.extent.elements()],
        bias: write accumulator[n.extent.rows],
    }

    /// `y = act(scale * x + bias)`, scale and bias per channel.
    scale_bias = ScaleBiasForward(a: ScaleBias) in batch_norm {
        x: read working[a.extent.elements()],
        scale: read accumulator[a.extent.channels],
        bias: read accumulator[a.extent.channels],
        y: write working[a.extent.elements()],
    }

    /// `y = act(scale * x + bias + residual)`.
    scale_bias_residual = ScaleBiasResidual(a: ScaleBias) in batch_norm {
        x: read working[a.extent.elements()],
        scale: read accumulator[a.extent.channels],
        bias: read accumulator[a.extent.channels],
        residual: read working[a.extent.elements()],
        y: write working[a.extent.elements()],
    }

    /// First half of the gradient of batch normalisation: with `d = dy`, zero where a rectifier cut,
    /// `dbeta = sum of d`, `dgamma = sum of d * (x - mean) * inverse_std` over the rows.
    batch_norm_reduce = BatchNormReduce(n: BatchNormGradient) in batch_norm {
        dy: read working[n.extent.elements()],
        x: read working[n.extent.elements()],
        scale: read accumulator[n.extent.channels],
        bias: read accumulator[n.extent.channels],
        mean: read accumulator[n.extent.channels],
        inverse_std: read accumulator[n.extent.channels],
        dgamma: write accumulator[n.extent.channels],
        dbeta: write accumulator[n.extent.channels],
    }

    /// Second half: `dx = scale * (d - dbeta/rows - x̂ * dgamma/rows)` with `x̂ = (x - mean) * inverse_std`;
    /// frozen: `dx = scale * d`.
    batch_norm_input_gradient = BatchNormInputGradient(n: BatchNormGradient) in batch_norm {
        dy: read working[n.extent.elements()],
        x: read working[n.extent.elements()],
        scale: read accumulator[n.extent.channels],
        bias: read accumulator[n.extent.channels],
        mean: read accumulator[n.extent.channels],
        inverse_std: read accumulator[n.extent.channels],
        dgamma: read accumulator[n.extent.channels],
        dbeta: read accumulator[n.extent.channels],
        dx: write working[n.extent.elements()],
    }

    /// `y = max(x, 0)`: activations, or numbers, such as the cosines between a head's two maps.
    relu = Relu(r: Rows) in pointwise {
        x: read float[r.elements()],
        y: write float[r.elements()],
    }

    /// `dx = dy` where `y > 0`, else 0: activations, or numbers.
    relu_gradient = ReluGradient(r: Rows) in pointwise {
        y: read float[r.elements()],
        dy: read float[r.elements()],
        dx: write float[r.elements()],
    }

    /// `x` becomes zero where `y > 0` does not hold.
    relu_gradient_in_place = ReluGradientInPlace(r: Rows) in pointwise {
        y: read working[r.elements()],
        x: update working[r.elements()],
    }

    /// `y = a + b`.
    add = Add(r: Rows) in pointwise {
        a: read working[r.elements()],
        b: read working[r.elements()],
        y: write working[r.elements()],
    }

    /// `y = x`.
    copy = CopyRows(r: Rows) in pointwise {
        x: read working[r.elements()],
        y: write working[r.elements()],
    }

    /// `y = x`, from the accumulator type (parameters) to the working type (activations).
    cast = Cast(r: Rows) in pointwise {
        x: read accumulator[r.elements()],
        y: write working[r.elements()],
    }

    /// `y += x`: activations, or numbers, such as the gradients of features that two heads share.
    accumulate = Accumulate(r: Rows) in pointwise {
        x: read float[r.elements()],
        y: update float[r.elements()],
    }

    /// Maximum over a window; `argmax` holds the position `h * width + w` of the first maximum in row-major order
    /// (PyTorch's choice among ties). NaN wins.
    max_pool = MaxPool(p: Pool) in pooling {
        x: read working[p.inputs()],
        y: write working[p.outputs()],
        argmax: write i32[p.outputs()],
    }

    /// `dx` receives each `dy` at the position of its maximum, summed where windows overlap, zero elsewhere.
    max_pool_gradient = MaxPoolGradient(p: Pool) in pooling {
        dy: read working[p.outputs()],
        argmax: read i32[p.outputs()],
        dx: write working[p.inputs()],
    }

    /// Mean over all pixels: x (batch, height, width, channels) to y (batch, channels). Only `batch`, `height`, `width` and
    /// `channels` of the attributes count.
    global_average_pool = GlobalAveragePool(p: GlobalPool) in pooling {
        x: read working[p.inputs()],
        y: write accumulator[p.outputs()],
    }

    /// `dx[n,h,w,c] = dy[n,c] / (height * width)`.
    global_average_pool_gradient = GlobalAveragePoolGradient(p: GlobalPool) in pooling {
        dy: read accumulator[p.outputs()],
        dx: write working[p.inputs()],
    }

    /// `y = x weightᵀ + bias`: x (batch, inputs), weight (outputs, inputs), bias (outputs), y (batch, outputs).
    linear = LinearForward(l: Linear) in linear {
        x: read accumulator[l.batch * l.inputs],
        weight: read accumulator[l.outputs * l.inputs],
        bias: read accumulator[l.outputs],
        y: write accumulator[l.batch * l.outputs],
    }

    /// [`GlobalAveragePool`] of x to features, then [`LinearForward`] of these to logits.
    pool_head = PoolHeadForward(h: PoolHead) in pool_head {
        x: read working[h.pool.inputs()],
        weight: read accumulator[h.outputs * h.pool.channels],
        bias: read accumulator[h.outputs],
        features: write accumulator[h.pool.outputs()],
        logits: write accumulator[h.pool.batch * h.outputs],
    }

    /// `dx = dy weight`.
    linear_input_gradient = LinearInputGradient(l: Linear) in linear {
        dy: read accumulator[l.batch * l.outputs],
        weight: read accumulator[l.outputs * l.inputs],
        dx: write accumulator[l.batch * l.inputs],
    }

    /// `dweight = dyᵀ x`, `dbias = sum over the batch of dy`.
    linear_weight_gradient = LinearWeightGradient(l: Linear) in linear {
        x: read accumulator[l.batch * l.inputs],
        dy: read accumulator[l.batch * l.outputs],
        dweight: write accumulator[l.outputs * l.inputs],
        dbias: write accumulator[l.outputs],
    }

    /// The cosine classifier: `y[n,o] = s * cosines[n,o]`, `cosines[n,o] = (x[n] . weight[o]) * r[n] * r[batch + o]`.
    ///
    /// x (batch, inputs), weight (outputs, inputs), scale (1), y and cosines (batch, outputs). `inverse_norms`, called r
    /// here, holds `1 / max(|row|, epsilon)` of the rows of x, then of weight. `s = softplus(scale)` or the scale itself.
    /// Its gradients read cosines and inverse_norms.
    cosine = CosineForward(c: Cosine) in cosine {
        x: read accumulator[c.batch * c.inputs],
        weight: read accumulator[c.outputs * c.inputs],
        scale: read accumulator[1],
        inverse_norms: write accumulator[c.batch + c.outputs],
        cosines: write accumulator[c.batch * c.outputs],
        y: write accumulator[c.batch * c.outputs],
    }

    /// `dx[n] = s r[n] (sum over o of dy[n,o] r[batch + o] weight[o]  -  r[n] x[n] * sum over o of dy[n,o] cosines[n,o])`;
    /// without the second term where the norm of x was replaced by epsilon.
    cosine_input_gradient = CosineInputGradient(c: Cosine) in cosine {
        x: read accumulator[c.batch * c.inputs],
        weight: read accumulator[c.outputs * c.inputs],
        scale: read accumulator[1],
        inverse_norms: read accumulator[c.batch + c.outputs],
        cosines: read accumulator[c.batch * c.outputs],
        dy: read accumulator[c.batch * c.outputs],
        dx: write accumulator[c.batch * c.inputs],
    }

    /// `dweight` is the same with x and weight exchanged; `dscale = s' * sum of dy * cosines`, with s' the derivative of
    /// softplus at the scale, or 1.
    cosine_weight_gradient = CosineWeightGradient(c: Cosine) in cosine {
        x: read accumulator[c.batch * c.inputs],
        weight: read accumulator[c.outputs * c.inputs],
        scale: read accumulator[1],
        inverse_norms: read accumulator[c.batch + c.outputs],
        cosines: read accumulator[c.batch * c.outputs],
        dy: read accumulator[c.batch * c.outputs],
        dweight: write accumulator[c.outputs * c.inputs],
        dscale: write accumulator[1],
    }

    /// Divergence of two softmaxes, forward and backward in one pass.
    ///
    /// `p = softmax(first[n] / T)`, `q = softmax(second[n] / T)`, logits (batch, classes); `loss[n] = KL(p, q)` or as the
    /// direction says; `dfirst` and `dsecond` are the gradients of the **mean** loss, zero on a detached side.
    kl_divergence = SoftmaxDivergence(d: KlDivergence) in divergence {
        first: read accumulator[d.batch * d.classes],
        second: read accumulator[d.batch * d.classes],
        loss: write accumulator[d.batch],
        dfirst: write accumulator[d.batch * d.classes],
        dsecond: write accumulator[d.batch * d.classes],
    }

    /// Logits of superclasses (class groups): `y[n,g] = T log(sum over c with group_of[c] = g of exp(x[n,c] / T))`, so that
    /// `softmax(y / T)` is `softmax(x / T)` summed within groups.
    ///
    /// x (batch, classes), group_of (classes, i32), y (batch, groups). A class whose group is not among `0..groups` counts
    /// nowhere; a group without classes has `y = -inf`, the logarithm of nothing.
    log_sum_groups = LogSumGroups(g: ClassGroups) in groups {
        x: read accumulator[g.batch * g.classes],
        group_of: read i32[g.classes],
        y: write accumulator[g.batch * g.groups],
    }

    /// `dx[n,c] = dy[n,g] exp((x[n,c] - y[n,g]) / T)` with `g = group_of[c]`, zero for a class that counts nowhere.
    log_sum_groups_gradient = LogSumGroupsGradient(g: ClassGroups) in groups {
        x: read accumulator[g.batch * g.classes],
        group_of: read i32[g.classes],
        y: read accumulator[g.batch * g.groups],
        dy: read accumulator[g.batch * g.groups],
        dx: write accumulator[g.batch * g.classes],
    }

    /// Margins for the energy `E[n] = -log(sum over c of exp(logits[n,c]))`, forward and backward in one pass.
    ///
    /// logits (batch, classes); outlier (batch, i32) is 0 for a sample of the classes, anything else for an outlier. `loss[n] =
    /// max(0, E - inside)²` or, for an outlier, `max(0, outside - E)²`; `dlogits` is the gradient of the **mean** loss.
    energy_margin = EnergyMarginLoss(e: EnergyMargin) in energy {
        logits: read accumulator[e.batch * e.classes],
        outlier: read i32[e.batch],
        loss: write accumulator[e.batch],
        dlogits: write accumulator[e.batch * e.classes],
    }

    /// `x[n,c] *= weights[n]`, in place: weights of samples, applied to a loss (channels 1) and to its gradient.
    scale_rows = ScaleRows(r: Rows) in loss {
        weights: read accumulator[r.rows],
        x: update accumulator[r.elements()],
    }

    /// Softmax cross-entropy, forward and backward in one pass.
    ///
    /// logits (batch, classes), labels (batch, i32). `loss[n] = -sum over c of t[c] * log_softmax(logits[n])[c]` with
    /// `t = (1 - smoothing) * onehot + smoothing / classes`; `prediction[n]` is the first largest logit;
    /// `dlogits = (softmax - t) / batch`, the gradient of the **mean** loss.
    softmax_cross_entropy = SoftmaxCrossEntropy(l: CrossEntropy) in loss {
        logits: read accumulator[l.batch * l.classes],
        labels: read i32[l.batch],
        loss: write accumulator[l.batch],
        prediction: write i32[l.batch],
        dlogits: write accumulator[l.batch * l.classes],
    }

    /// Option A shortcut: `y[n,p,q,(out-in)/2 + c] = x[n, p*stride, q*stride, c]`, other channels zero.
    shortcut_a = ShortcutAForward(s: ShortcutA) in pointwise {
        x: read working[s.inputs()],
        y: write working[s.outputs()],
    }

    /// Its gradient: `dx` is zero but at the pixels that were kept.
    shortcut_a_gradient = ShortcutAGradient(s: ShortcutA) in pointwise {
        dy: read working[s.outputs()],
        dx: write working[s.inputs()],
    }

    /// One step of SGD: `g = gradient + weight_decay * p; v = momentum * v + g; p -= lr * (nesterov ? g + momentum * v : v)`.
    ///
    /// Segments of the parameters have a weight decay and a row of `hyper` (rows, 4) each, whose first number is the learning
    /// rate: numbers that change from step to step live in memory, so that a captured graph can be replayed. A velocity of
    /// zeros gives PyTorch's first step; without momentum it is empty. `copies` receives the new parameters in
    /// the working type, if that is asked for, and is empty otherwise.
    sgd = SgdStep(o: Sgd) in optimizer {
        parameters: update accumulator[parameters_of(&o.segments)],
        gradients: read accumulator[parameters_of(&o.segments)],
        velocity: update accumulator[if o.momentum == 0.0 { 0 } else { parameters_of(&o.segments) }],
        hyper: read accumulator[HYPER_NUMBERS],
        copies: write working[if o.copy { parameters_of(&o.segments) } else { 0 }],
    }

    /// One step of Adam or AdamW.
    ///
    /// Segments, rows of `hyper` and `copies` as in [`SgdStep`]; `hyper = [lr, 1 - beta1^t, sqrt(1 - beta2^t)]`; `m += (1-beta1)(g - m)`, `v = beta2 v + (1-beta2) g²`,
    /// `p -= lr / hyper[1] * m / (sqrt(v) / hyper[2] + epsilon)`; weight decay joins g, or, decoupled, shrinks p by
    /// `1 - lr * weight_decay` first.
    adam = AdamStep(o: Adam) in optimizer {
        parameters: update accumulator[parameters_of(&o.segments)],
        gradients: read accumulator[parameters_of(&o.segments)],
        first: update accumulator[parameters_of(&o.segments)],
        second: update accumulator[parameters_of(&o.segments)],
        hyper: read accumulator[HYPER_NUMBERS],
        copies: write working[if o.copy { parameters_of(&o.segments) } else { 0 }],
    }

    /// A batch of network inputs from pixels in memory: crop, flip, rotation and normalisation in one pass.
    ///
    /// pixels (images, side, side, channels, u8); table (channels, 256) holds the normalised value of every byte; y (batch,
    /// side, side, channels). placement (batch, 8, i32) holds for each image of the batch `[index, left, right_of_x,
    /// right_of_y, top, down_of_x, down_of_y, 0]` in 16.16 fixed point: the pixel (x, y) of the output is the pixel
    /// `((left + x * right_of_x + y * right_of_y) >> 16, (top + x * down_of_x + y * down_of_y) >> 16)` of image `index`, or zero
    /// (before normalisation) outside it.
    load_images = LoadImages(i: ImageBatch) in images {
        pixels: read u8[i.images * i.image_elements()] touching[i.batch * i.image_elements()],
        table: read accumulator[256 * i.channels],
        placement: read i32[i.batch * PLACEMENT_NUMBERS],
        y: write working[i.batch * i.image_elements()],
    }

    /// Remembers one loss of a step: `totals[slot, 2 * column] = sum of loss`, `totals[slot, 2 * column + 1] = number of
    /// predictions that equal the label`, with `slot = hyper[3]`; totals is (slots, 2 * columns). A loss without predictions of
    /// its own is given those of any other.
    step_totals = RecordTotals(t: StepTotals) in loss {
        loss: read accumulator[t.batch],
        prediction: read i32[t.batch],
        labels: read i32[t.batch],
        hyper: read accumulator[HYPER_NUMBERS],
        totals: update accumulator[2 * t.slots * t.columns] touching[2],
    }

    /// Scores of logits `l = scale[n] logits[n] + bias`: `msp`, the largest probability of `softmax(l / T)`; `mls`, the largest
    /// logit; `energy`, `T logsumexp(l / T)`; `entropy`, `sum of p log p`; `deviation`, `sum of |classes p - 1|`; `predicted`, the
    /// class of the largest logit, of equal ones the first.
    row_logit_scores = RowLogitScores(l: LogitScores) in rows {
        logits: read f64[l.rows * l.classes],
        scale: read f64[if l.scaled { l.rows } else { 0 }], bias: read f64[if l.biased { l.classes } else { 0 }],
        msp: write f64[l.rows], mls: write f64[l.rows], energy: write f64[l.rows], entropy: write f64[l.rows],
        deviation: write f64[if l.deviation { l.rows } else { 0 }], predicted: write i32[l.rows],
    }

    /// `z = ((x - shift) / divisor) basis`: basis (columns, outputs), z (rows, outputs).
    row_project = RowProject(p: Projection) in rows {
        x: read f32[p.rows * p.columns],
        shift: read f64[if p.shift { p.columns } else { 0 }],
        divisor: read f64[if p.divisor { p.columns } else { 0 }],
        basis: read f64[p.columns * p.outputs],
        z: write f64[p.rows * p.outputs],
    }

    /// `norms[n] = |(x[n] - shift) / divisor|²`.
    row_square_norms = RowSquareNorms(r: PreparedRows) in rows {
        x: read f32[r.rows * r.columns],
        shift: read f64[if r.shift { r.columns } else { 0 }],
        divisor: read f64[if r.divisor { r.columns } else { 0 }],
        norms: write f64[r.rows],
    }

    /// `norms[n] = |z[n]|²`, z (rows, channels).
    row_square_norms_of_coordinates = RowSquareNormsOfCoordinates(r: Rows) in rows {
        z: read f64[r.elements()],
        norms: write f64[r.rows],
    }

    /// `norms[n] = 1 / (|x[n]| + floor)`.
    row_inverse_norms = RowInverseNorms(r: InverseNorms) in rows {
        x: read f32[r.rows * r.columns],
        norms: write f64[r.rows],
    }

    /// The squared distance of each row of z to the k-th nearest of points.
    row_nearest = RowNearest(n: Nearest) in rows {
        z: read f64[n.rows * n.columns],
        points: read f64[n.points * n.columns],
        nearest: write f64[n.rows],
    }

    /// The same for features and a bank of features, both multiplied by a number a row first:
    /// `|x[n] scale[n] - bank[m] bank_scale[m]|²`.
    row_nearest_normalised = RowNearestNormalised(n: Nearest) in rows {
        x: read f32[n.rows * n.columns],
        scale: read f64[n.rows],
        bank: read f32[n.points * n.columns],
        bank_scale: read f64[n.points],
        nearest: write f64[n.rows],
    }

    /// `y[n] = x[n] / (|x[n]| + floor)`, rounded to f32.
    row_normalise = RowNormalise(n: InverseNorms) in rows {
        x: read f32[n.rows * n.columns],
        y: write f32[n.rows * n.columns],
    }

    /// As [`RowNearest`], of f32: products may be f32, sums over more than 64 of them are f64.
    row_nearest_f32 = RowNearestF32(n: Nearest) in rows {
        z: read f32[n.rows * n.columns],
        points: read f32[n.points * n.columns],
        nearest: write f64[n.rows],
    }

    /// `sums[c] += sum of the rows of class c`.
    row_class_sums = RowClassSums(l: Labelled) in rows {
        x: read f32[l.rows * l.columns],
        labels: read i32[l.rows],
        sums: update f64[l.classes * l.columns],
    }

    /// `deviations[n] = |x[n] - means[label of n]|²`.
    row_class_deviations = RowClassDeviations(l: Labelled) in rows {
        x: read f32[l.rows * l.columns],
        labels: read i32[l.rows],
        means: read f64[l.classes * l.columns],
        deviations: write f64[l.rows],
    }

    /// Adds `sum of (x[n] - means[y]) (x[n] - means[y])ᵀ`, y the label of n, to scatter (slices, columns, columns), on and below
    /// the diagonal: each slice takes a run of the rows, all runs of equal length but the last, which may be shorter. The sum over
    /// slices is the scatter.
    row_within_scatter = RowWithinScatter(s: Scatter) in rows {
        x: read f32[s.labelled.rows * s.labelled.columns],
        labels: read i32[s.labelled.rows],
        means: read f64[s.labelled.classes * s.labelled.columns],
        scatter: update f64[s.slices * s.labelled.columns * s.labelled.columns],
    }

    /// `entropy[n] = -sum of p^gamma (1 - p)^gamma` over the m largest probabilities; the sum under p in numpy's order.
    row_generalised_entropy = RowGeneralisedEntropy(g: GeneralisedEntropy) in row_scores {
        logits: read f64[g.rows * g.classes], entropy: write f64[g.rows],
    }

    /// `sums[n] = sum over c of |l[n, y] - l[n, c]| weights[y, c]`, y the label of n.
    row_margin_sums = RowMarginSums(l: LogitRows) in row_scores {
        logits: read f64[l.rows * l.classes], labels: read i32[l.rows],
        weights: read f64[l.classes * l.classes], sums: write f64[l.rows],
    }

    /// `p[n] = softmax(l[n]) - centre`.
    row_softmax = RowSoftmax(s: CentredSoftmax) in row_scores {
        logits: read f64[s.rows * s.classes], p: write f64[s.rows * s.classes],
    }

    /// Mean over heads of the largest softmax probability of the logits `z[n, head] + bias`.
    row_mean_probability = RowMeanProbability(h: HeadLogits) in row_scores {
        z: read f64[h.rows * h.heads * h.classes], bias: read f64[h.classes], mean: write f64[h.rows],
    }

    /// OpenMax's probability of an unknown class: the alpha largest logits of a row, weighed by rank, are lowered by the share of a Weibull
    /// distribution (`tails`: shape, log scale, least, most of each class) below the distance of the row from the mean logits of the class.
    row_open_max = RowOpenMax(o: OpenMax) in row_scores {
        logits: read f64[o.rows * o.classes], means: read f64[o.classes * o.classes], tails: read f64[4 * o.classes],
        revised: write f64[o.rows * o.classes], unknown: write f64[o.rows],
    }

    /// As [`RowProject`], of rows that are f64.
    row_project_coordinates = RowProjectCoordinates(p: Projection) in row_scores {
        x: read f64[p.rows * p.columns],
        shift: read f64[if p.shift { p.columns } else { 0 }], divisor: read f64[if p.divisor { p.columns } else { 0 }],
        basis: read f64[p.columns * p.outputs], z: write f64[p.rows * p.outputs],
    }

    /// `y[n] = x[n] / |x[n]|`; rows of zeros stay.
    row_unit = RowUnit(r: Rows) in row_scores {
        x: read f32[r.elements()], y: write f64[r.elements()],
    }

    /// The k largest features of each row, of equal ones the first: the least of them, the column of the last that equals it, `exp(sum
    /// of all / sum of them)` (1 where that is 0), and the sum of all divided by k.
    row_largest = RowLargest(l: LargestFeatures) in row_scores {
        x: read f32[l.rows * l.columns],
        bound: write f64[l.rows], last: write f64[l.rows], scale: write f64[l.rows], share: write f64[l.rows],
    }

    /// `z = shape(x) basis`: see [`super::Shaping`].
    row_project_shaped = RowProjectShaped(s: ShapedProjection) in row_scores {
        x: read f32[s.rows * s.columns], low: read f64[s.low()], high: read f64[s.high()],
        basis: read f64[s.columns * s.outputs], z: write f64[s.rows * s.outputs],
    }

    /// `products[n] = <x[n] - shift, points[label of n]>`.
    row_class_products = RowClassProducts(c: ClassProducts) in row_scores {
        x: read f32[c.rows * c.columns], labels: read i32[c.rows], shift: read f64[if c.shift { c.columns } else { 0 }],
        points: read f64[c.classes * c.columns], products: write f64[c.rows],
    }

    /// Sums of the positive parts (`above`) and of the negative parts (`below`) of `(x[n] - means[y]) sign(weights[y])`, y the label of n.
    row_magnitudes = RowMagnitudes(m: Magnitudes) in row_scores {
        x: read f32[m.rows * m.columns], labels: read i32[m.labels()],
        means: read f64[if m.centred { m.classes * m.columns } else { 0 }],
        weights: read f64[if m.signed { m.classes * m.columns } else { 0 }],
        above: write f64[m.rows], below: write f64[m.rows],
    }

    /// The mean over columns of `coverage[i, bin]`, bin the number of edges not above `alpha x[n, i] gradients[n, i]`.
    row_coverage = RowCoverage(c: Coverage) in row_scores {
        x: read f32[c.rows * c.columns], gradients: read f64[c.rows * c.columns], edges: read f64[c.bins - 1],
        coverage: read f64[c.columns * c.bins], covered: write f64[c.rows],
    }

    /// Symmetric divergence of the smoothed histogram of a row's features from `shares`.
    row_histogram = RowHistogram(h: Histogram) in row_scores {
        x: read f32[h.rows * h.columns], edges: read f64[HISTOGRAM_BINS + 1], shares: read f64[HISTOGRAM_BINS],
        divergence: write f64[h.rows],
    }

    /// The same of coordinates `z[n, i] + bias[i % period]`.
    row_histogram_of_coordinates = RowHistogramOfCoordinates(h: Histogram) in row_scores {
        z: read f64[h.rows * h.columns], bias: read f64[h.period], edges: read f64[HISTOGRAM_BINS + 1],
        shares: read f64[HISTOGRAM_BINS], divergence: write f64[h.rows],
    }

    /// The sum of the k largest `<x[n] scale[n], bank[m] bank_scale[m]> guide[m]`.
    row_guided_sum = RowGuidedSum(n: LargestProducts) in row_scores {
        x: read f32[n.rows * n.columns], scale: read f64[n.rows], bank: read f32[n.points * n.columns],
        bank_scale: read f64[n.points], guide: read f64[n.points], sums: write f64[n.rows],
    }

    /// The sum over m of `r^power` where r exceeds `least`, `r = max(<x[n] scale[n], bank[m] bank_scale[m]>, 0) <p[n], bank_p[m]>`.
    row_relation = RowRelation(r: Relation) in row_scores {
        x: read f32[r.rows * r.columns], scale: read f64[r.rows], p: read f64[r.rows * r.classes],
        bank: read f32[r.points * r.columns], bank_scale: read f64[r.points], bank_p: read f32[r.points * r.classes],
        sums: write f64[r.rows],
    }
}
