//! Where the rules of `fuse` make calls into one, and where they must not.

use super::{BufferId, Fusions, Plan, Storage, fuse};
use crate::ops::{
    Accumulate, Affine, BatchNorm, BatchNormGradient, BatchNormReduce, BatchNormStatistics, Call, Conv2d,
    Conv2dDgrad, Conv2dFprop, Conv2dWgrad, CopyRows, GlobalAveragePool, GlobalPool, Linear, LinearForward,
    ReduceEpilogue, ReluBackward, ReluGradient, Rows, ScaleBias, ScaleBiasForward,
};
use crate::tensor::{DType, Shape, Span};

const CONV: Conv2d = Conv2d {
    batch: 2,
    height: 4,
    width: 4,
    in_channels: 3,
    out_channels: 3,
    filter_height: 3,
    filter_width: 3,
    stride: 1,
    padding: 1,
};
/// The same extents, pixel by pixel.
const POINTWISE: Conv2d = Conv2d { filter_height: 1, filter_width: 1, padding: 0, ..CONV };
const POOL: GlobalPool = GlobalPool { batch: 2, height: 4, width: 4, channels: 3 };
const ROWS: Rows = Rows { rows: 32, channels: 3 };

/// A plan by hand: all activations have the same extents.
#[derive(Default)]
struct Bench {
    plan: Plan,
}

impl Bench {
    fn activation(&mut self, name: &str) -> BufferId {
        self.plan.buffer(name, Shape::new(&[32, 3]), DType::F32, Storage::Transient)
    }

    fn number(&mut self, name: &str) -> BufferId {
        self.plan.buffer(name, Shape::new(&[3]), DType::F32, Storage::Transient)
    }

    fn forward(&mut self) -> BufferId {
        let (x, weight, y) = (self.activation("x"), self.activation("weight"), self.activation("y"));
        self.plan.push(Conv2dFprop::new(CONV, [x, weight, y]));
        y
    }

    /// The affine transform of a normalisation, with a rectifier; gives x, scale, bias and z.
    fn scale_bias(&mut self) -> [BufferId; 4] {
        let [x, z] = ["x of the map", "z"].map(|name| self.activation(name));
        let [scale, bias] = ["scale", "bias"].map(|name| self.number(name));
        let attributes = ScaleBias { extent: ROWS, relu: true };
        self.plan.push(ScaleBiasForward { attributes, x, scale, bias, y: z });
        [x, scale, bias, z]
    }

    /// A convolution of z; gives its weight and its output.
    fn convolve(&mut self, conv: Conv2d, x: BufferId) -> [BufferId; 2] {
        let [weight, y] = ["weight", "y"].map(|name| self.activation(name));
        self.plan.push(Conv2dFprop::new(conv, [x, weight, y]));
        [weight, y]
    }

    fn wgrad(&mut self, conv: Conv2d, x: BufferId) {
        let [dy, dweight] = ["dy", "dweight"].map(|name| self.activation(name));
        self.plan.push(Conv2dWgrad::new(conv, [x, dy, dweight]));
    }

    fn statistics(&mut self, x: BufferId) {
        let extent = ROWS;
        let [gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance] =
            ["gamma", "beta", "mean", "inverse std", "scale", "bias", "running mean", "running variance"]
                .map(|name| self.number(name));
        self.plan.push(BatchNormStatistics {
            attributes: BatchNorm { extent, epsilon: 1e-5, momentum: 0.1 },
            x,
            gamma,
            beta,
            mean,
            inverse_std,
            scale,
            bias,
            running_mean,
            running_variance,
        });
    }

    fn dgrad(&mut self, dx: BufferId, accumulate: bool) {
        let (dy, weight) = (self.activation("dy"), self.activation("weight"));
        self.plan.push(Conv2dDgrad { accumulate, ..Conv2dDgrad::new(CONV, [dy, weight, dx]) });
    }

    fn copy(&mut self, x: BufferId, y: BufferId) {
        self.plan.push(CopyRows { attributes: ROWS, x, y });
    }

    fn accumulate(&mut self, x: BufferId, y: BufferId) {
        self.plan.push(Accumulate { attributes: ROWS, x, y });
    }

    fn relu_gradient(&mut self, dy: BufferId) -> BufferId {
        let (y, dx) = (self.activation("rectified"), self.activation("masked"));
        self.plan.push(ReluGradient { attributes: ROWS, y, dy, dx });
        dx
    }

    /// Gives the buffers of x and of dgamma.
    fn reduce(&mut self, dy: BufferId, relu: bool) -> (BufferId, BufferId) {
        let x = self.activation("x of the normalisation");
        let [scale, bias, mean, inverse_std, dgamma, dbeta] =
            ["scale", "bias", "mean", "inverse std", "dgamma", "dbeta"].map(|name| self.number(name));
        let attributes = BatchNormGradient { extent: ROWS, relu, frozen: false };
        self.plan.push(BatchNormReduce { attributes, dy, x, scale, bias, mean, inverse_std, dgamma, dbeta });
        (x, dgamma)
    }

    /// A mean over pixels.
    fn average(&mut self, x: BufferId) -> BufferId {
        let features = self.activation("features");
        self.plan.push(GlobalAveragePool { attributes: POOL, x, y: features });
        features
    }

    /// A linear layer with its weight.
    fn linear(&mut self, x: BufferId, batch: usize) -> BufferId {
        let [weight, bias, y] = ["weight", "bias", "logits"].map(|name| self.number(name));
        let attributes = Linear { batch, inputs: POOL.channels, outputs: 5 };
        self.plan.push(LinearForward { attributes, x, weight, bias, y });
        weight
    }

    /// The calls after fusion.
    fn fused(self, fusions: Fusions) -> Vec<String> {
        named(&fuse(self.plan, &fusions, |_| true))
    }
}

/// The names of a plan's calls; behind that of a convolution, the part of its shape beyond the extents.
fn named(plan: &Plan) -> Vec<String> {
    let named = |call: &Call<BufferId>| {
        let extents = match *call {
            Call::Conv2dFprop(op) => Call::from(Conv2dFprop::new(op.conv, [op.x, op.weight, op.y])).shape(),
            Call::Conv2dDgrad(op) => Call::from(Conv2dDgrad::new(op.conv, [op.dy, op.weight, op.dx])).shape(),
            Call::Conv2dWgrad(op) => Call::from(Conv2dWgrad::new(op.conv, [op.x, op.dy, op.dweight])).shape(),
            _ => return call.name().to_string(),
        };
        format!("{}{}", call.name(), call.shape().strip_prefix(&extents).unwrap())
    };
    plan.calls.iter().map(named).collect()
}

const PROLOGUE: Fusions = Fusions { prologue: true, ..Fusions::NONE };
const STATISTICS: Fusions = Fusions { statistics: true, ..Fusions::NONE };
const RESIDUAL_GRADIENT: Fusions = Fusions { residual_gradient: true, ..Fusions::NONE };
const MASKS: Fusions = Fusions { masks: true, ..Fusions::NONE };
const POOL_HEAD: Fusions = Fusions { pool_head: true, ..Fusions::NONE };

#[test]
fn a_map_that_one_convolution_and_its_weight_gradient_read_is_applied_there() {
    let build = || {
        let mut bench = Bench::default();
        let [.., z] = bench.scale_bias();
        let [_, y] = bench.convolve(POINTWISE, z);
        bench.statistics(y);
        bench.wgrad(POINTWISE, z);
        bench
    };
    let wgrad = "conv2d_wgrad-affine-relu";
    let joined = ["conv2d_fprop-affine-relu", "batch_norm_statistics", wgrad];
    assert_eq!(build().fused(PROLOGUE), joined);
    let all = ["conv2d_fprop-affine-relu-statistics", wgrad];
    assert_eq!(build().fused(Fusions::ALL), all);
    // Both read x through the prologue; the rectifier comes along.
    let bench = build();
    let Call::ScaleBiasForward(pass) = bench.plan.calls[0] else { unreachable!() };
    let plan = fuse(bench.plan, &PROLOGUE, |_| true);
    for call in [plan.calls[0], plan.calls[2]] {
        let (conv, x, prologue) = match call {
            Call::Conv2dFprop(op) => (op.conv, op.x, op.prologue),
            Call::Conv2dWgrad(op) => (op.conv, op.x, op.prologue),
            other => panic!("{other:?}"),
        };
        let affine = Affine { scale: pass.scale, bias: pass.bias, relu: true };
        assert!(conv == POINTWISE && x == pass.x && prologue == Some(affine), "{call:?}");
    }
    // A device that would carry the affine transform out twice.
    let apart = named(&fuse(build().plan, &PROLOGUE, |_| false));
    assert_eq!(apart, ["scale_bias", "conv2d_fprop", "batch_norm_statistics", "conv2d_wgrad"]);
    // In inference, and where two affine transforms stand side by side.
    let mut bench = Bench::default();
    let maps = [bench.scale_bias(), bench.scale_bias()];
    for [.., z] in maps {
        bench.convolve(POINTWISE, z);
    }
    assert_eq!(bench.fused(PROLOGUE), ["conv2d_fprop-affine-relu", "conv2d_fprop-affine-relu"]);
}

#[test]
fn a_map_whose_result_somebody_else_reads_or_whose_input_changes_stays_apart() {
    let plain = ["scale_bias", "conv2d_fprop", "conv2d_wgrad"];
    // Spoils a plan between the convolution and its wgrad.
    let build = |conv, spoil: &dyn Fn(&mut Bench, [BufferId; 4])| {
        let mut bench = Bench::default();
        let [x, scale, bias, z] = bench.scale_bias();
        bench.convolve(conv, z);
        spoil(&mut bench, [x, scale, bias, z]);
        bench.wgrad(conv, z);
        bench.fused(PROLOGUE)
    };
    assert_eq!(build(POINTWISE, &|_, _| ()), ["conv2d_fprop-affine-relu", "conv2d_wgrad-affine-relu"]);
    // Patches of several pixels, some of them zeros around the image; pixels apart.
    assert_eq!(build(CONV, &|_, _| ()), plain);
    assert_eq!(build(Conv2d { stride: 2, ..POINTWISE }, &|_, _| ()), plain);
    // The host reads z, or another call, or another convolution.
    assert_eq!(build(POINTWISE, &|bench, [.., z]| bench.plan.keep(z)), plain);
    let read = build(POINTWISE, &|bench, [.., z]| {
        let other = bench.activation("other");
        bench.copy(z, other);
    });
    assert_eq!(read, ["scale_bias", "conv2d_fprop", "copy", "conv2d_wgrad"]);
    let twice = build(POINTWISE, &|bench, [.., z]| {
        bench.convolve(POINTWISE, z);
    });
    assert_eq!(twice, ["scale_bias", "conv2d_fprop", "conv2d_fprop", "conv2d_wgrad"]);
    // x, scale or bias changes before the last call that would read it, or z itself.
    for changed in 0..4 {
        let names = build(POINTWISE, &|bench, read| {
            let other = bench.activation("other");
            bench.copy(other, read[changed]);
        });
        assert_eq!(names, ["scale_bias", "conv2d_fprop", "copy", "conv2d_wgrad"], "{changed}");
    }
    // The convolution writes an operand of the affine transform.
    let mut bench = Bench::default();
    let [x, .., z] = bench.scale_bias();
    let weight = bench.activation("weight");
    bench.plan.push(Conv2dFprop::new(POINTWISE, [z, weight, x]));
    assert_eq!(bench.fused(PROLOGUE), ["scale_bias", "conv2d_fprop"]);
}

#[test]
fn statistics_join_their_convolution_whoever_else_reads_its_output() {
    let mut bench = Bench::default();
    let y = bench.forward();
    bench.statistics(y);
    let other = bench.activation("other");
    bench.copy(y, other);
    assert_eq!(bench.fused(STATISTICS), ["conv2d_fprop-statistics", "copy"]);
}

#[test]
fn statistics_of_an_output_that_was_changed_or_is_another_stay_apart() {
    // Another writer between.
    let mut bench = Bench::default();
    let (y, other) = (bench.forward(), bench.activation("other"));
    bench.accumulate(other, y);
    bench.statistics(y);
    assert_eq!(bench.fused(Fusions::ALL), ["conv2d_fprop", "accumulate", "batch_norm_statistics"]);
    // Statistics of the convolution's input.
    let mut bench = Bench::default();
    bench.forward();
    let Call::Conv2dFprop(fprop) = bench.plan.calls[0] else { unreachable!() };
    bench.statistics(fprop.x);
    assert_eq!(bench.fused(Fusions::ALL), ["conv2d_fprop", "batch_norm_statistics"]);
}

#[test]
fn statistics_do_not_pass_a_call_that_writes_what_they_read() {
    let mut bench = Bench::default();
    let y = bench.forward();
    let gamma = Storage::Persistent(Span { offset: 64, elements: 3, dtype: DType::F32 });
    let [written, read] =
        ["gamma", "the same"].map(|name| bench.plan.buffer(name, Shape::new(&[3]), DType::F32, gamma));
    let from = bench.number("new gamma");
    bench.plan.push(CopyRows { attributes: Rows { rows: 1, channels: 3 }, x: from, y: written });
    bench.statistics(y);
    let Call::BatchNormStatistics(pass) = &mut bench.plan.calls[2] else { unreachable!() };
    pass.gamma = read;
    assert_eq!(bench.fused(Fusions::ALL), ["conv2d_fprop", "copy", "batch_norm_statistics"]);
}

#[test]
fn a_gradient_that_only_joins_another_is_added_where_it_arises() {
    let mut bench = Bench::default();
    let (fresh, other) = (bench.activation("fresh"), bench.activation("other"));
    bench.dgrad(fresh, false);
    bench.accumulate(fresh, other);
    let plan = fuse(bench.plan, &RESIDUAL_GRADIENT, |_| true);
    let [Call::Conv2dDgrad(dgrad)] = plan.calls[..] else { panic!("{:?}", plan.calls) };
    assert!(dgrad.accumulate && dgrad.dx == other && dgrad.epilogue.is_none());
}

#[test]
fn a_gradient_somebody_else_asks_for_is_not_added_away() {
    let apart = ["conv2d_dgrad", "accumulate"];
    // The host.
    let mut bench = Bench::default();
    let (fresh, other) = (bench.activation("fresh"), bench.activation("other"));
    bench.dgrad(fresh, false);
    bench.accumulate(fresh, other);
    bench.plan.keep(fresh);
    assert_eq!(bench.fused(RESIDUAL_GRADIENT), apart);
    // A later call.
    let mut bench = Bench::default();
    let (fresh, other, third) =
        (bench.activation("fresh"), bench.activation("other"), bench.activation("third"));
    bench.dgrad(fresh, false);
    bench.accumulate(fresh, other);
    bench.copy(fresh, third);
    assert_eq!(bench.fused(RESIDUAL_GRADIENT)[..2], apart);
    // A gradient that adds already.
    let mut bench = Bench::default();
    let (sum, other) = (bench.activation("sum"), bench.activation("other"));
    bench.dgrad(sum, true);
    bench.accumulate(sum, other);
    assert_eq!(bench.fused(RESIDUAL_GRADIENT), ["conv2d_dgrad-add", "accumulate"]);
    // A sum that is read, or written, between.
    for read in [false, true] {
        let mut bench = Bench::default();
        let (fresh, other, third) =
            (bench.activation("fresh"), bench.activation("other"), bench.activation("third"));
        bench.dgrad(fresh, false);
        if read {
            bench.copy(other, third)
        } else {
            bench.copy(third, other)
        }
        bench.accumulate(fresh, other);
        assert_eq!(bench.fused(RESIDUAL_GRADIENT), ["conv2d_dgrad", "copy", "accumulate"]);
    }
}

#[test]
fn sums_join_the_input_gradient_past_calls_that_have_nothing_to_do_with_them() {
    let mut bench = Bench::default();
    let (gradient, a, b) = (bench.activation("gradient"), bench.activation("a"), bench.activation("b"));
    bench.dgrad(gradient, false);
    bench.copy(a, b);
    bench.reduce(gradient, true);
    bench.copy(gradient, b);
    bench.plan.keep(gradient);
    assert_eq!(bench.fused(MASKS), ["conv2d_dgrad-reduce-relu", "copy", "copy"]);
}

#[test]
fn a_masked_gradient_takes_the_place_of_the_plain_one_for_all_that_follows() {
    let mut bench = Bench::default();
    let (gradient, last) = (bench.activation("gradient"), bench.activation("last"));
    bench.dgrad(gradient, true);
    let masked = bench.relu_gradient(gradient);
    let Call::ReluGradient(ReluGradient { y: rectified, .. }) = bench.plan.calls[1] else { unreachable!() };
    bench.reduce(masked, false);
    bench.copy(masked, last);
    let plan = fuse(bench.plan, &MASKS, |_| true);
    let [Call::Conv2dDgrad(dgrad), Call::CopyRows(copy)] = plan.calls[..] else { panic!("{:?}", plan.calls) };
    let Some(ReduceEpilogue { relu: ReluBackward::OfOutput(y), .. }) = dgrad.epilogue else {
        panic!("{dgrad:?}")
    };
    assert!(dgrad.accumulate && dgrad.dx == gradient && y == rectified);
    assert!(copy.x == gradient && copy.y == last);
}

#[test]
fn a_plain_gradient_somebody_still_reads_is_not_masked_where_it_stands() {
    let apart = ["conv2d_dgrad", "relu_gradient", "batch_norm_reduce"];
    let build = |spoil: &dyn Fn(&mut Bench, BufferId, BufferId)| {
        let mut bench = Bench::default();
        let gradient = bench.activation("gradient");
        bench.dgrad(gradient, false);
        let masked = bench.relu_gradient(gradient);
        bench.reduce(masked, false);
        spoil(&mut bench, gradient, masked);
        bench.fused(Fusions::ALL)
    };
    assert_eq!(build(&|_, _, _| ()), ["conv2d_dgrad-mask-reduce"]);
    // A later reader of the plain gradient.
    let read = build(&|bench, gradient, _| {
        let other = bench.activation("other");
        bench.copy(gradient, other);
    });
    assert_eq!(read[..3], apart);
    // The host, of either.
    assert_eq!(build(&|bench, gradient, _| bench.plan.keep(gradient)), apart);
    assert_eq!(build(&|bench, _, masked| bench.plan.keep(masked)), apart);
    // Sums that mask once more, by another rectifier.
    let twice = build(&|bench, _, _| {
        let Call::BatchNormReduce(pass) = &mut bench.plan.calls[2] else { unreachable!() };
        pass.attributes.relu = true;
    });
    assert_eq!(twice, apart);
    // Somebody who changes the masked gradient before it is summed up.
    let changed = build(&|bench, _, masked| {
        let other = bench.activation("other");
        bench.accumulate(other, masked);
        bench.plan.calls.swap(2, 3);
    });
    assert_eq!(changed, [apart[0], apart[1], "accumulate", apart[2]]);
}

#[test]
fn sums_do_not_pass_a_call_that_changes_what_they_read_or_reads_what_they_write() {
    for writes_x in [false, true] {
        let mut bench = Bench::default();
        let (gradient, other) = (bench.activation("gradient"), bench.activation("other"));
        bench.dgrad(gradient, false);
        let (x, dgamma) = bench.reduce(gradient, true);
        if writes_x {
            bench.copy(other, x)
        } else {
            bench.copy(dgamma, other)
        }
        bench.plan.calls.swap(1, 2);
        assert_eq!(bench.fused(Fusions::ALL), ["conv2d_dgrad", "copy", "batch_norm_reduce"]);
    }
}

#[test]
fn the_first_linear_layer_on_pooled_features_joins_the_pool_and_the_second_finds_them() {
    let mut bench = Bench::default();
    let x = bench.activation("x");
    let features = bench.average(x);
    bench.linear(features, POOL.batch);
    bench.linear(features, POOL.batch);
    assert_eq!(bench.fused(POOL_HEAD), ["pool_head", "linear"]);
}

#[test]
fn a_linear_layer_on_other_features_or_with_a_weight_yet_to_be_written_stays_apart() {
    let mut bench = Bench::default();
    let [x, other] = ["x", "other"].map(|name| bench.activation(name));
    let features = bench.average(x);
    bench.linear(other, POOL.batch);
    bench.copy(features, other);
    bench.linear(features, POOL.batch);
    let apart = ["global_average_pool", "linear", "copy", "linear"];
    assert_eq!(bench.fused(POOL_HEAD), apart);

    let mut bench = Bench::default();
    let [x, source] = ["x", "source"].map(|name| bench.activation(name));
    let features = bench.average(x);
    let weight = bench.linear(features, POOL.batch);
    bench.copy(source, weight);
    // The copy comes before the layer that reads what it writes.
    bench.plan.calls.swap(1, 2);
    assert_eq!(bench.fused(POOL_HEAD), ["global_average_pool", "copy", "linear"]);

    // The same number of elements, but seen as another batch.
    let mut bench = Bench::default();
    let x = bench.activation("x");
    let features = bench.average(x);
    bench.linear(features, 1);
    assert_eq!(bench.fused(POOL_HEAD), ["global_average_pool", "linear"]);
}

#[test]
fn fusions_are_named_as_they_print() {
    for text in ["all", "none", "statistics", "residual-gradient,masks", "pool-head", "prologue"] {
        assert_eq!(text.parse::<Fusions>().unwrap().to_string(), text);
    }
    assert_eq!("masks,statistics".parse::<Fusions>().unwrap().to_string(), "statistics,masks");
    for text in ["", "mask", "all,none", "masks,"] {
        let error = text.parse::<Fusions>().unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("residual-gradient"), "{error}");
    }
}
