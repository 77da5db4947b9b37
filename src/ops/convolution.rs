//! Convolutions: three operations, each with an optional prologue (a transform of its input on the way in) and an optional epilogue
//! (a transform of its result on the way out, or sums of it).

use serde::{Deserialize, Serialize};

use super::extents::Attributes;
use super::{
    Access, BatchNorm, BatchNormGradient, BatchNormStatistics, Call, Conv2d, ElementType, Operand, ScaleBias,
};
use crate::error::Result;

/// Forward propagation: `y[n,p,q,k] = sum over r,s,c of x[n, p*stride + r - padding, q*stride + s - padding, c] *
/// weight[k,r,s,c]`, zero outside the input.
///
/// x (batch, height, width, in_channels), weight KRSC, y (batch, out_height, out_width, out_channels).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Conv2dFprop<B> {
    /// The extents.
    pub conv: Conv2d,
    /// The input.
    pub x: B,
    /// The filters.
    pub weight: B,
    /// The output.
    pub y: B,
    /// The prologue on x; the zero padding comes after it.
    pub prologue: Option<Affine<B>>,
    /// The epilogue on y: before it is stored, or on the stored values.
    pub epilogue: Option<FpropEpilogue<B>>,
}

/// The gradient with respect to the input (dgrad):
/// `dx[n,h,w,c] (+)= sum over k and the outputs (p,q) that saw (h,w) of dy[n,p,q,k] * weight[k,r,s,c]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Conv2dDgrad<B> {
    /// The extents of the forward convolution.
    pub conv: Conv2d,
    /// Whether the result is added to what `dx` holds (the gradient that came along a shortcut) or replaces it.
    pub accumulate: bool,
    /// The gradient of the output.
    pub dy: B,
    /// The filters.
    pub weight: B,
    /// The gradient of the input.
    pub dx: B,
    /// The sums that the batch normalisation below takes of dx as it is stored.
    pub epilogue: Option<ReduceEpilogue<B>>,
}

/// The gradient with respect to the weights (wgrad):
/// `dweight[k,r,s,c] = sum over n,p,q of x[n, p*stride + r - padding, q*stride + s - padding, c] * dy[n,p,q,k]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Conv2dWgrad<B> {
    /// The extents of the forward convolution.
    pub conv: Conv2d,
    /// The input.
    pub x: B,
    /// The gradient of the output.
    pub dy: B,
    /// The gradient of the filters.
    pub dweight: B,
    /// The prologue on x, as in the forward pass.
    pub prologue: Option<Affine<B>>,
}

/// A batch normalisation and its rectifier as a prologue: `act(scale * x + bias)` per channel, rounded as if it had been stored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Affine<B> {
    /// Per channel of the input.
    pub scale: B,
    /// Per channel of the input.
    pub bias: B,
    /// Whether negative results become zero.
    pub relu: bool,
}

/// The epilogue of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum FpropEpilogue<B> {
    /// `y = act(conv + bias[k] + residual)`, as in inference.
    Bias(BiasEpilogue<B>),
    /// [`BatchNormStatistics`](super::BatchNormStatistics) of y as it is stored: the values that later passes read and normalise.
    Statistics(StatisticsEpilogue<B>),
}

/// A bias, and perhaps a residual and a rectifier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BiasEpilogue<B> {
    /// Per channel of the output.
    pub bias: B,
    /// Of the output's shape.
    pub residual: Option<B>,
    /// Whether negative results become zero.
    pub relu: bool,
}

/// Operands and constants of [`BatchNormStatistics`](super::BatchNormStatistics), but for the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StatisticsEpilogue<B> {
    pub epsilon: f64,
    pub momentum: f64,
    pub gamma: B,
    pub beta: B,
    pub mean: B,
    pub inverse_std: B,
    pub scale: B,
    pub bias: B,
    pub running_mean: B,
    pub running_variance: B,
}

impl<B: Copy> BatchNormStatistics<B> {
    /// All but the matrix.
    pub(crate) fn as_epilogue(&self) -> StatisticsEpilogue<B> {
        let BatchNorm { epsilon, momentum, .. } = self.attributes;
        let BatchNormStatistics {
            gamma,
            beta,
            mean,
            inverse_std,
            scale,
            bias,
            running_mean,
            running_variance,
            ..
        } = *self;
        StatisticsEpilogue {
            epsilon,
            momentum,
            gamma,
            beta,
            mean,
            inverse_std,
            scale,
            bias,
            running_mean,
            running_variance,
        }
    }
}

/// [`BatchNormReduce`](super::BatchNormReduce) of dx as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ReduceEpilogue<B> {
    /// The rectifier above the normalisation.
    pub relu: ReluBackward<B>,
    pub x: B,
    pub scale: B,
    pub bias: B,
    pub mean: B,
    pub inverse_std: B,
    pub dgamma: B,
    pub dbeta: B,
}

/// The gradient of a rectifier, on the way to the batch normalisation below it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum ReluBackward<B> {
    /// There is no rectifier.
    None,
    /// The sums count dx only where `scale * x + bias > 0`; dx itself is not masked: its readers have x, scale and bias.
    OfAffine,
    /// dx becomes zero where this operand, the rectified sum of a normalisation and a residual, is not positive; the sums are of
    /// that.
    OfOutput(B),
}

impl<B: Copy> Affine<B> {
    /// The pass that it stands for.
    pub fn attributes(&self, conv: &Conv2d) -> ScaleBias {
        ScaleBias { extent: conv.inputs(), relu: self.relu }
    }

    fn operands(&self, conv: &Conv2d) -> [Operand<B>; 2] {
        let per_channel =
            |name, place| Operand::new(name, place, Access::Read, ACCUMULATOR, conv.in_channels);
        [per_channel("input_scale", self.scale), per_channel("input_bias", self.bias)]
    }

    fn map<C>(&self, f: &mut dyn FnMut(B) -> C) -> Affine<C> {
        Affine { scale: f(self.scale), bias: f(self.bias), relu: self.relu }
    }

    fn form(&self) -> &'static str {
        if self.relu { "-affine-relu" } else { "-affine" }
    }
}

const ACCUMULATOR: ElementType = ElementType::Accumulator;
const WORKING: ElementType = ElementType::Working;

impl<B: Copy> StatisticsEpilogue<B> {
    /// The pass that it stands for.
    pub fn attributes(&self, conv: &Conv2d) -> BatchNorm {
        BatchNorm { extent: conv.outputs(), epsilon: self.epsilon, momentum: self.momentum }
    }
}

impl<B: Copy> ReduceEpilogue<B> {
    /// The pass that it stands for: behind a rectifier that has zeroed dx where it stands, one without.
    pub fn attributes(&self, conv: &Conv2d) -> BatchNormGradient {
        let relu = matches!(self.relu, ReluBackward::OfAffine);
        BatchNormGradient { extent: conv.inputs(), relu, frozen: false }
    }

    /// The output that says where dx becomes zero.
    pub fn mask(&self) -> Option<B> {
        match self.relu {
            ReluBackward::OfOutput(y) => Some(y),
            ReluBackward::None | ReluBackward::OfAffine => None,
        }
    }
}

impl<B: Copy> FpropEpilogue<B> {
    fn operands(&self, conv: &Conv2d) -> Vec<Operand<B>> {
        let channels = conv.out_channels;
        let per_channel = |name, place, access| Operand::new(name, place, access, ACCUMULATOR, channels);
        match *self {
            FpropEpilogue::Bias(BiasEpilogue { bias, residual, .. }) => {
                let elements = conv.outputs().elements();
                let residual =
                    residual.map(|place| Operand::new("residual", place, Access::Read, WORKING, elements));
                [per_channel("bias", bias, Access::Read)].into_iter().chain(residual).collect()
            }
            FpropEpilogue::Statistics(s) => vec![
                per_channel("gamma", s.gamma, Access::Read),
                per_channel("beta", s.beta, Access::Read),
                per_channel("mean", s.mean, Access::Write),
                per_channel("inverse_std", s.inverse_std, Access::Write),
                per_channel("scale", s.scale, Access::Write),
                per_channel("bias", s.bias, Access::Write),
                per_channel("running_mean", s.running_mean, Access::Update),
                per_channel("running_variance", s.running_variance, Access::Update),
            ],
        }
    }

    fn map<C>(&self, f: &mut dyn FnMut(B) -> C) -> FpropEpilogue<C> {
        match *self {
            FpropEpilogue::Bias(BiasEpilogue { bias, residual, relu }) => {
                FpropEpilogue::Bias(BiasEpilogue { bias: f(bias), residual: residual.map(f), relu })
            }
            FpropEpilogue::Statistics(s) => FpropEpilogue::Statistics(StatisticsEpilogue {
                epsilon: s.epsilon,
                momentum: s.momentum,
                gamma: f(s.gamma),
                beta: f(s.beta),
                mean: f(s.mean),
                inverse_std: f(s.inverse_std),
                scale: f(s.scale),
                bias: f(s.bias),
                running_mean: f(s.running_mean),
                running_variance: f(s.running_variance),
            }),
        }
    }

    fn form(&self) -> String {
        match self {
            FpropEpilogue::Bias(BiasEpilogue { residual, relu, .. }) => {
                let residual = if residual.is_some() { "-residual" } else { "" };
                format!("-bias{residual}{}", if *relu { "-relu" } else { "" })
            }
            FpropEpilogue::Statistics(_) => "-statistics".into(),
        }
    }
}

impl<B: Copy> Conv2dFprop<B> {
    /// A convolution alone.
    pub fn new(conv: Conv2d, [x, weight, y]: [B; 3]) -> Conv2dFprop<B> {
        Conv2dFprop { conv, x, weight, y, prologue: None, epilogue: None }
    }

    /// The operands, with the type, size and access of each.
    pub fn operands(&self) -> Vec<Operand<B>> {
        let Conv2dFprop { conv, x, weight, y, prologue, epilogue } = self;
        let mut operands = vec![
            Operand {
                touched: conv.inputs_seen(),
                ..Operand::new("x", *x, Access::Read, WORKING, conv.inputs().elements())
            },
            Operand::new("weight", *weight, Access::Read, WORKING, conv.weights()),
            Operand::new("y", *y, Access::Write, WORKING, conv.outputs().elements()),
        ];
        operands.extend(prologue.iter().flat_map(|affine| affine.operands(conv)));
        operands.extend(epilogue.iter().flat_map(|epilogue| epilogue.operands(conv)));
        operands
    }

    /// The same operation with other operands.
    pub fn map<C>(&self, f: &mut dyn FnMut(B) -> C) -> Conv2dFprop<C> {
        Conv2dFprop {
            conv: self.conv,
            x: f(self.x),
            weight: f(self.weight),
            y: f(self.y),
            prologue: self.prologue.map(|affine| affine.map(f)),
            epilogue: self.epilogue.map(|epilogue| epilogue.map(f)),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.conv.check()
    }

    pub(super) fn shape(&self) -> String {
        self.conv.shape() + &self.form()
    }

    pub(super) fn form(&self) -> String {
        let epilogue = self.epilogue.as_ref().map_or_else(String::new, FpropEpilogue::form);
        self.prologue.as_ref().map_or("", Affine::form).to_string() + &epilogue
    }

    pub(super) fn flop(&self) -> f64 {
        self.conv.flop()
    }
}

impl<B: Copy> Conv2dDgrad<B> {
    /// The gradient alone, which replaces the content of dx.
    pub fn new(conv: Conv2d, [dy, weight, dx]: [B; 3]) -> Conv2dDgrad<B> {
        Conv2dDgrad { conv, accumulate: false, dy, weight, dx, epilogue: None }
    }

    /// The operands, with the type, size and access of each.
    pub fn operands(&self) -> Vec<Operand<B>> {
        let Conv2dDgrad { conv, accumulate, dy, weight, dx, epilogue } = self;
        let access = if *accumulate { Access::Update } else { Access::Write };
        let inputs = conv.inputs().elements();
        let mut operands = vec![
            Operand::new("dy", *dy, Access::Read, WORKING, conv.outputs().elements()),
            Operand::new("weight", *weight, Access::Read, WORKING, conv.weights()),
            Operand::new("dx", *dx, access, WORKING, inputs),
        ];
        if let Some(r) = epilogue {
            operands.extend(r.mask().map(|y| Operand::new("y", y, Access::Read, WORKING, inputs)));
            operands.push(Operand::new("x", r.x, Access::Read, WORKING, inputs));
            let read =
                [("scale", r.scale), ("bias", r.bias), ("mean", r.mean), ("inverse_std", r.inverse_std)];
            let write = [("dgamma", r.dgamma), ("dbeta", r.dbeta)];
            let all = read.map(|operand| (operand, Access::Read)).into_iter();
            let all = all.chain(write.map(|operand| (operand, Access::Write)));
            operands.extend(all.map(|((name, place), access)| {
                Operand::new(name, place, access, ACCUMULATOR, conv.in_channels)
            }));
        }
        operands
    }

    /// The same operation with other operands.
    pub fn map<C>(&self, f: &mut dyn FnMut(B) -> C) -> Conv2dDgrad<C> {
        Conv2dDgrad {
            conv: self.conv,
            accumulate: self.accumulate,
            dy: f(self.dy),
            weight: f(self.weight),
            dx: f(self.dx),
            epilogue: self.epilogue.map(|r| ReduceEpilogue {
                relu: match r.relu {
                    ReluBackward::None => ReluBackward::None,
                    ReluBackward::OfAffine => ReluBackward::OfAffine,
                    ReluBackward::OfOutput(y) => ReluBackward::OfOutput(f(y)),
                },
                x: f(r.x),
                scale: f(r.scale),
                bias: f(r.bias),
                mean: f(r.mean),
                inverse_std: f(r.inverse_std),
                dgamma: f(r.dgamma),
                dbeta: f(r.dbeta),
            }),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.conv.check()
    }

    pub(super) fn shape(&self) -> String {
        self.conv.shape() + &self.form()
    }

    pub(super) fn form(&self) -> String {
        let epilogue = match self.epilogue.as_ref().map(|reduce| &reduce.relu) {
            None => "",
            Some(ReluBackward::None) => "-reduce",
            Some(ReluBackward::OfAffine) => "-reduce-relu",
            Some(ReluBackward::OfOutput(_)) => "-mask-reduce",
        };
        format!("{}{epilogue}", if self.accumulate { "-add" } else { "" })
    }

    pub(super) fn flop(&self) -> f64 {
        self.conv.flop()
    }
}

impl<B: Copy> Conv2dWgrad<B> {
    /// The gradient alone.
    pub fn new(conv: Conv2d, [x, dy, dweight]: [B; 3]) -> Conv2dWgrad<B> {
        Conv2dWgrad { conv, x, dy, dweight, prologue: None }
    }

    /// The operands, with the type, size and access of each.
    pub fn operands(&self) -> Vec<Operand<B>> {
        let Conv2dWgrad { conv, x, dy, dweight, prologue } = self;
        let mut operands = vec![
            Operand {
                touched: conv.inputs_seen(),
                ..Operand::new("x", *x, Access::Read, WORKING, conv.inputs().elements())
            },
            Operand::new("dy", *dy, Access::Read, WORKING, conv.outputs().elements()),
            Operand::new("dweight", *dweight, Access::Write, ACCUMULATOR, conv.weights()),
        ];
        operands.extend(prologue.iter().flat_map(|affine| affine.operands(conv)));
        operands
    }

    /// The same operation with other operands.
    pub fn map<C>(&self, f: &mut dyn FnMut(B) -> C) -> Conv2dWgrad<C> {
        Conv2dWgrad {
            conv: self.conv,
            x: f(self.x),
            dy: f(self.dy),
            dweight: f(self.dweight),
            prologue: self.prologue.map(|affine| affine.map(f)),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.conv.check()
    }

    pub(super) fn shape(&self) -> String {
        self.conv.shape() + &self.form()
    }

    pub(super) fn form(&self) -> String {
        self.prologue.as_ref().map_or("", Affine::form).to_string()
    }

    pub(super) fn flop(&self) -> f64 {
        self.conv.flop()
    }
}

macro_rules! calls {
    ($($Op:ident),*) => { $(
        impl<B> From<$Op<B>> for Call<B> {
            fn from(operation: $Op<B>) -> Call<B> {
                Call::$Op(operation)
            }
        }
    )* };
}

calls!(Conv2dFprop, Conv2dDgrad, Conv2dWgrad);
