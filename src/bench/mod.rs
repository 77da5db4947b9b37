//! Measuring: every operation and whole steps, timed and checked against the CPU, with the floors of the roofline beside each.
//!
//! | file | holds |
//! |---|---|
//! | `networks` | the networks by name; their plans say which calls there are |
//! | `edge_cases` | calls of awkward extents, and the operations no plan of those networks has |
//! | [`configurations`] | every kernel of convolutions in every form, and its awkward calls |
//! | `work` | the least work of a call: elements, bytes, floating-point operations |
//! | `values`, `stage` | a call alone in memory on random values, with copies to rotate over |
//! | `row_scores` | passes over rows of features, which no plan of those networks has |
//! | `timing` | medians, twice |
//! | `roofline` | the rates of known cards, and the floors they set |
//! | `suite`, `steps` | the measurements of `bench` |
//! | [`model`] | the predicted time of every call on a card that need not be there |
//! | [`calibrate`] | what the model assumes of a card, measured on it and written into a card file |
//! | [`tune`] | the fastest kernel of every convolution, measured and written into a table |
//! | `check`, `whole_steps` | the checks of `doctor --full`: operations, kernels, and whole training steps |
//! | [`qualify`] | kernels are tried in a process of their own before a device uses them |
//! | `results`, `compare`, `merge`, `table` | JSON, an earlier run, PyTorch beside it, and how it all prints |

pub mod calibrate;
mod check;
mod compare;
pub mod configurations;
mod edge_cases;
mod merge;
pub mod model;
mod networks;
pub mod qualify;
mod results;
mod roofline;
mod row_scores;
mod stage;
mod steps;
mod suite;
mod table;
mod timing;
pub mod tune;
mod values;
mod whole_steps;
mod work;

pub use check::{Check, CheckObserver, CheckOptions, Checks, check};
pub use compare::Comparison;
pub use edge_cases::edge_cases;
pub use merge::{Merged, merge};
pub use networks::NetworkName;
pub use results::{Kind, Results, Row, Summary};
pub use roofline::{Floors, Rates};
pub use steps::StepKind;
pub use suite::{Filter, Observer, Suite, bench};
pub use timing::{Patience, Timing, Until};
pub use work::{Work, work};

use crate::tensor::DType;

/// How a type of activations is called on the command line and in names of rows.
fn precision(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::F64 => "f64",
        DType::Bf16 => "bf16",
        DType::I32 => "i32",
        DType::U8 => "u8",
    }
}
