//! Fusion of neighbouring calls, where one pass over memory can do the work of several.
//!
//! The tape records every operation by itself; that plan is correct, and every rule here keeps it correct. Most look for a
//! convolution whose result is the next thing some pass over memory reads, and merge the pass into the convolution, whose
//! epilogue has the numbers in registers anyway; one for a pass whose result convolutions alone read, which can do its work
//! where they read. They may do so where no call in between sees the difference, and nobody else, the host included, asks for
//! what is no longer written. A device whose kernel cannot do the work of the pass behind it carries out both, one after the
//! other; whether it does that of the pass before it, it is asked first.

use std::fmt;
use std::str::FromStr;

use super::{BufferId, Plan, Storage};
use crate::error::{Error, Result};
use crate::ops::{
    Access, Affine, BatchNormReduce, Call, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, FpropEpilogue,
    LinearForward, Operand, PoolHead, PoolHeadForward, ReduceEpilogue, ReluBackward,
};

/// The fusions that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fusions {
    /// BN-ReLU prologue: the affine transform of a batch normalisation and its rectifier, in the convolution that alone reads the
    /// result, and in its wgrad. Before [`Fusions::statistics`], which takes such convolutions like others.
    pub prologue: bool,
    /// The statistics of a batch normalisation, in the convolution whose output it normalises.
    pub statistics: bool,
    /// The gradient that came along a shortcut, added in the dgrad whose result it joins.
    pub residual_gradient: bool,
    /// ReLU-backward and BN-reduction epilogue: the mask of the rectifier below and the sums of the normalisation below, in the
    /// dgrad whose result they are taken of. After [`Fusions::residual_gradient`], which lets it see blocks' outputs.
    pub masks: bool,
    /// The linear layer of a head, in the mean over pixels that it is the first to read.
    pub pool_head: bool,
}

impl Fusions {
    /// All of them.
    pub const ALL: Fusions =
        Fusions { prologue: true, statistics: true, residual_gradient: true, masks: true, pool_head: true };
    /// None: calls as the tape records them.
    pub const NONE: Fusions = Fusions {
        prologue: false,
        statistics: false,
        residual_gradient: false,
        masks: false,
        pool_head: false,
    };

    /// The name of each.
    pub const NAMES: [&'static str; 5] =
        ["prologue", "statistics", "residual-gradient", "masks", "pool-head"];

    /// Each by its name.
    fn named(&mut self) -> [(&'static str, &mut bool); 5] {
        let [prologue, statistics, residual_gradient, masks, pool_head] = Fusions::NAMES;
        [
            (prologue, &mut self.prologue),
            (statistics, &mut self.statistics),
            (residual_gradient, &mut self.residual_gradient),
            (masks, &mut self.masks),
            (pool_head, &mut self.pool_head),
        ]
    }
}

impl Default for Fusions {
    fn default() -> Fusions {
        Fusions::ALL
    }
}

impl FromStr for Fusions {
    type Err = Error;

    /// `all`, `none`, or names with commas between them.
    fn from_str(text: &str) -> Result<Fusions> {
        let mut fusions = match text {
            "all" => return Ok(Fusions::ALL),
            _ => Fusions::NONE,
        };
        for name in text.split(',').filter(|_| text != "none") {
            let mut named = fusions.named();
            let Some((_, wanted)) = named.iter_mut().find(|(known, _)| *known == name) else {
                let known = named.map(|(known, _)| known).join(", ");
                return Err(Error::usage(format!(
                    "`{name}` names no fusion: say all, none, or some of {known} with commas between them"
                )));
            };
            **wanted = true;
        }
        Ok(fusions)
    }
}

impl fmt::Display for Fusions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fusions::ALL => f.write_str("all"),
            Fusions::NONE => f.write_str("none"),
            mut some => {
                let named = some.named().into_iter().filter(|(_, wanted)| **wanted).map(|(name, _)| name);
                f.write_str(&named.collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// Fuses calls of a plan wherever one of the wanted rules applies. `fuses_prologue` tells the convolutions whose prologue the
/// device fuses ([`crate::ops::Device::fuses_prologue`]).
pub fn fuse(mut plan: Plan, fusions: &Fusions, fuses_prologue: impl Fn(&Conv2d) -> bool) -> Plan {
    /// Merges calls with the one at an index, if the rule applies to them.
    type Rule<'a> = &'a dyn Fn(&mut Plan, usize) -> Option<()>;
    let rules: [(bool, Rule<'_>); 5] = [
        (fusions.prologue, &|plan, at| prologue(plan, at, &fuses_prologue)),
        (fusions.statistics, &statistics),
        (fusions.residual_gradient, &residual_gradient),
        (fusions.masks, &relu_backward_and_bn_reduction),
        (fusions.pool_head, &pool_head),
    ];
    for (_, rule) in rules.into_iter().filter(|(wanted, _)| *wanted) {
        let mut index = 0;
        while index < plan.calls.len() {
            // Where calls were merged, another may stand here now.
            if rule(&mut plan, index).is_none() {
                index += 1;
            }
        }
    }
    plan
}

/// `z = act(scale * x + bias)`, then `y = conv(z)` and perhaps its wgrad; nobody else reads z, and the operands of the pass still hold
/// the same values.
fn prologue(plan: &mut Plan, at: usize, fuses_prologue: &dyn Fn(&Conv2d) -> bool) -> Option<()> {
    let Call::ScaleBiasForward(pass) = plan.calls[at] else { return None };
    let z = pass.y;
    let users: Vec<usize> = plan.uses(z).filter(|&index| index != at).collect();
    let Call::Conv2dFprop(Conv2dFprop { conv, .. }) = plan.calls[*users.first()?] else { return None };
    let affine = Affine { scale: pass.scale, bias: pass.bias, relu: pass.attributes.relu };
    let prologue = Some(affine);
    let reading_x = |(place, &index): (usize, &usize)| match plan.calls[index] {
        Call::Conv2dFprop(fprop) if fprop.x == z && place == 0 && is_plain(&fprop) => {
            Some(Conv2dFprop { x: pass.x, prologue, ..fprop }.into())
        }
        Call::Conv2dWgrad(wgrad) if wgrad.x == z && wgrad.conv == conv && place == 1 => {
            Some(Conv2dWgrad { x: pass.x, prologue, ..wgrad }.into())
        }
        _ => None,
    };
    let fused: Vec<Call<BufferId>> = users.iter().enumerate().map(reading_x).collect::<Option<_>>()?;
    let fits = conv.is_pointwise() && affine.attributes(&conv) == pass.attributes && fuses_prologue(&conv);
    let unseen = plan.is_private(z) && at < users[0];
    let unchanged = plan.calls[at..=*users.last()?].iter().all(|call| {
        !call.operands().iter().any(|operand| {
            let read = [pass.x, pass.scale, pass.bias];
            operand.access != Access::Read && read.iter().any(|&read| plan.shares(operand.place, read))
        })
    });
    (fits && unseen && unchanged && fused.iter().all(|call| plan.is_disjoint(call))).then(|| {
        for (&index, call) in users.iter().zip(&fused) {
            plan.calls[index] = *call;
        }
        plan.calls.remove(at);
    })
}

fn is_plain(fprop: &Conv2dFprop<BufferId>) -> bool {
    fprop.prologue.is_none() && fprop.epilogue.is_none()
}

/// `y = conv(x)`, then statistics of y.
fn statistics(plan: &mut Plan, at: usize) -> Option<()> {
    let Call::Conv2dFprop(fprop) = plan.calls[at] else { return None };
    let next = plan.next_use(fprop.y, at)?;
    let Call::BatchNormStatistics(pass) = plan.calls[next] else { return None };
    let epilogue = pass.as_epilogue();
    let same = fprop.epilogue.is_none()
        && pass.x == fprop.y
        && pass.attributes.extent == epilogue.attributes(&fprop.conv).extent;
    let fused = Conv2dFprop { epilogue: Some(FpropEpilogue::Statistics(epilogue)), ..fprop }.into();
    (same && plan.moves_up(next, at, None) && plan.is_disjoint(&fused)).then(|| {
        plan.calls[at] = fused;
        plan.calls.remove(next);
    })
}

/// A fresh dgrad, then `other += gradient`, and nobody else reads it.
fn residual_gradient(plan: &mut Plan, at: usize) -> Option<()> {
    let Call::Conv2dDgrad(dgrad) = plan.calls[at] else { return None };
    let next = plan.next_use(dgrad.dx, at)?;
    let Call::Accumulate(pass) = plan.calls[next] else { return None };
    let whole = pass.attributes.elements() == dgrad.conv.inputs().elements();
    let same = pass.x == dgrad.dx && whole && !dgrad.accumulate && dgrad.epilogue.is_none();
    let fused = Conv2dDgrad { accumulate: true, dx: pass.y, ..dgrad }.into();
    let unseen = plan.is_private(dgrad.dx) && plan.uses(dgrad.dx).eq([at, next]);
    (same && unseen && plan.moves_up(next, at, None) && plan.is_disjoint(&fused)).then(|| {
        plan.calls[at] = fused;
        plan.calls.remove(next);
    })
}

/// ReLU-backward and BN-reduction epilogue: a dgrad, then the sums that the normalisation below needs of it: as it is, or masked by the
/// output of the rectifier below, where nobody else reads the unmasked gradient.
fn relu_backward_and_bn_reduction(plan: &mut Plan, at: usize) -> Option<()> {
    let Call::Conv2dDgrad(dgrad) = plan.calls[at] else { return None };
    let dx = dgrad.dx;
    let next = plan.next_use(dx, at)?;
    let mask = match plan.calls[next] {
        Call::ReluGradient(pass) if pass.dy == dx => Some((pass.y, pass.dx)),
        _ => None,
    };
    let reduce = match mask {
        Some((_, masked)) => plan.next_use(masked, next)?,
        None => next,
    };
    let Call::BatchNormReduce(pass) = plan.calls[reduce] else { return None };
    if dgrad.epilogue.is_some() || pass.attributes.extent != dgrad.conv.inputs() {
        return None;
    }
    let with = |relu| {
        let BatchNormReduce { x, scale, bias, mean, inverse_std, dgamma, dbeta, .. } = pass;
        let epilogue = ReduceEpilogue { relu, x, scale, bias, mean, inverse_std, dgamma, dbeta };
        Conv2dDgrad { epilogue: Some(epilogue), ..dgrad }.into()
    };
    match mask {
        None => {
            let fused = with(if pass.attributes.relu { ReluBackward::OfAffine } else { ReluBackward::None });
            (pass.dy == dx && plan.moves_up(reduce, at, None) && plan.is_disjoint(&fused)).then(|| {
                plan.calls[at] = fused;
                plan.calls.remove(reduce);
            })
        }
        Some((y, masked)) => {
            let fused = with(ReluBackward::OfOutput(y));
            let [old, new] = [dx, masked].map(|id| &plan.buffers[id.index()]);
            let alike = old.dtype == new.dtype && old.shape == new.shape;
            let unseen = plan.is_private(dx)
                && plan.is_private(masked)
                && plan.uses(dx).all(|user| user <= next)
                && plan.uses(masked).all(|user| user >= next);
            let moves = plan.moves_up(next, at, None) && plan.moves_up(reduce, at, Some(next));
            let fits = pass.dy == masked && !pass.attributes.relu && alike;
            (fits && unseen && moves && plan.is_disjoint(&fused)).then(|| {
                plan.calls[at] = fused;
                plan.calls.remove(reduce);
                plan.calls.remove(next);
                // The gradient that was masked into another buffer is now masked in place.
                for call in &mut plan.calls[at + 1..] {
                    *call = call.map(|id| if id == masked { dx } else { id });
                }
            })
        }
    }
}

/// `features = mean(x)`, then a linear layer on them; the features stay for other readers.
fn pool_head(plan: &mut Plan, at: usize) -> Option<()> {
    let Call::GlobalAveragePool(pool) = plan.calls[at] else { return None };
    let (x, features) = (pool.x, pool.y);
    let next = plan.next_use(features, at)?;
    let Call::LinearForward(linear) = plan.calls[next] else { return None };
    let attributes = PoolHead { pool: pool.attributes, outputs: linear.attributes.outputs };
    let LinearForward { weight, bias, y: logits, .. } = linear;
    let fused = PoolHeadForward { attributes, x, weight, bias, features, logits }.into();
    let same = linear.x == features && attributes.linear() == linear.attributes;
    (same && plan.moves_up(next, at, None) && plan.is_disjoint(&fused)).then(|| {
        plan.calls[at] = fused;
        plan.calls.remove(next);
    })
}

impl Plan {
    /// Whether two buffers share memory: persistent ones by their bytes, others only if they are the same buffer.
    fn shares(&self, a: BufferId, b: BufferId) -> bool {
        match (self.buffers[a.index()].storage, self.buffers[b.index()].storage) {
            (Storage::Persistent(a), Storage::Persistent(b)) => {
                a.offset < b.offset + b.bytes() && b.offset < a.offset + a.bytes()
            }
            _ => a == b,
        }
    }

    fn touches(&self, call: &Call<BufferId>, id: BufferId) -> bool {
        call.operands().iter().any(|operand| self.shares(operand.place, id))
    }

    /// The calls of a step that touch a buffer, by index.
    fn uses(&self, id: BufferId) -> impl Iterator<Item = usize> {
        (0..self.calls.len()).filter(move |&index| self.touches(&self.calls[index], id))
    }

    /// The first call behind another that touches a buffer.
    fn next_use(&self, id: BufferId, behind: usize) -> Option<usize> {
        (behind + 1..self.calls.len()).find(|&index| self.touches(&self.calls[index], id))
    }

    /// Whether only the calls of a step touch a buffer: neither the host nor the setup does.
    fn is_private(&self, id: BufferId) -> bool {
        self.buffers[id.index()].storage == Storage::Transient
            && !self.setup.iter().any(|call| self.touches(call, id))
    }

    /// Whether the call `from` may as well run directly behind the call `to`: none in between, but the one that comes along,
    /// writes what it touches or touches what it writes.
    fn moves_up(&self, from: usize, to: usize, along: Option<usize>) -> bool {
        let moved = self.calls[from].operands();
        let passes = |index: usize| {
            let others = self.calls[index].operands();
            !moved.iter().any(|a| others.iter().any(|b| self.collide(a, b)))
        };
        (to + 1..from).filter(|index| Some(*index) != along).all(passes)
    }

    /// Whether the operands that a call writes overlap no other.
    fn is_disjoint(&self, call: &Call<BufferId>) -> bool {
        let operands = call.operands();
        operands.iter().enumerate().all(|(index, a)| !operands[..index].iter().any(|b| self.collide(a, b)))
    }

    /// Whether two operands share memory and one of them is written.
    fn collide(&self, a: &Operand<BufferId>, b: &Operand<BufferId>) -> bool {
        (a.access != Access::Read || b.access != Access::Read) && self.shares(a.place, b.place)
    }
}
