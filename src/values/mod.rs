//! Values that a user writes: names from a list, numbers in a range, and the name that was probably meant.

mod digits;
mod names;
mod nearest;
mod numbers;
mod text;

pub(crate) use digits::{shown, shown_apart, significant};
pub(crate) use names::named;
pub use names::{NameParser, Named, same_name};
pub use nearest::{did_you_mean, nearest};
pub use numbers::{Reals, Wholes};
pub(crate) use text::serde_as_text;
