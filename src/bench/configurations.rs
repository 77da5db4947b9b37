//! Every kernel of convolutions in every form that it carries out alone (with which prologue, with which epilogue), and the awkward
//! calls on which it is checked.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::edge_cases::edge_cases;
use super::precision;
use super::work::computes_in;
use crate::backend::cuda::driver::recorder::Recorder;
use crate::backend::cuda::{Cuda, KernelTable, MeasuredOn, Pass, TableRow};
use crate::error::Result;
use crate::ops::{Call, Device};

/// Awkward shapes of a kernel in one form, at most.
const MOST_SHAPES: usize = 3;

/// A kernel of convolutions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelName {
    /// The pass.
    pub pass: Pass,
    /// The name within the pass and the type.
    pub name: String,
    /// The name among all.
    pub full_name: String,
}

/// What carries a call out on a device, and in which form: `fprop.sm90-rows-256x128.bf16-statistics`, `batch_norm_reduce.bf16`.
pub fn subject(cuda: &Cuda, call: &Call<()>) -> String {
    match cuda.convolution_kernel(call) {
        Some(kernel) => format!("{}{}", kernel.full_name, call.form()),
        None => format!("{}.{}", call.name(), precision(computes_in(call, cuda.dtype()))),
    }
}

/// The rows of a table that make a device use a kernel for convolutions; those that it cannot compute are left out.
///
/// # Errors
/// A kernel of a name that no kernel has.
pub fn table(cuda: &Cuda, kernel: &KernelName, calls: &[Call<()>]) -> Result<KernelTable> {
    let device = MeasuredOn::this(cuda.driver().properties());
    let mut table = KernelTable::new(device, "a kernel is checked");
    for (pass, conv) in calls.iter().filter_map(Pass::of) {
        let candidates = cuda.candidates(pass, conv);
        let found = candidates.iter().find(|(name, ..)| pass == kernel.pass && *name == kernel.name);
        let Some(&(_, splits, _)) = found else { continue };
        let row = TableRow {
            pass,
            dtype: precision(cuda.dtype()).to_string(),
            kernel: kernel.name.clone(),
            splits,
            microseconds: None,
            convolution: *conv,
        };
        if !table.has(&row) {
            table.push(row)?;
        }
    }
    Ok(table)
}

/// A device like another that computes nothing, and what remembers its launches.
///
/// # Errors
/// None that the other does not have.
pub fn on_paper(cuda: &Cuda) -> Result<(Cuda, Arc<Recorder>)> {
    let recorder = Arc::new(Recorder::new(cuda.driver().properties().clone()));
    let device = Cuda::new(recorder.clone(), cuda.dtype(), cuda.sources().clone())?;
    Ok((device.without(cuda.exclusions().clone()), recorder))
}

/// The awkward calls of one operation and form; of convolutions those that a kernel carries out alone.
///
/// # Errors
/// A kernel of a name that no kernel has.
pub fn awkward_calls(cuda: &Cuda, kernel: Option<&KernelName>, wanted: &Call<()>) -> Result<Vec<Call<()>>> {
    let dtype = |call: &Call<()>| computes_in(call, cuda.dtype());
    let is_alike = |call: &Call<()>| {
        call.name() == wanted.name() && call.form() == wanted.form() && dtype(call) == dtype(wanted)
    };
    let calls: Vec<Call<()>> = edge_cases().into_iter().filter(is_alike).collect();
    let calls = match kernel {
        Some(kernel) => carried_out_alone(cuda, kernel, calls)?,
        None => calls,
    };
    Ok(spread(&calls))
}

/// Every kernel of a device, and the calls on which it is checked: in every form in which it carries out an awkward call alone.
///
/// # Errors
/// None.
pub fn configurations(cuda: &Cuda) -> Result<Vec<(KernelName, Vec<Call<()>>)>> {
    let edge_cases = edge_cases();
    let mut all = Vec::new();
    for kernel in cuda.convolution_kernels() {
        let kernel =
            KernelName { pass: kernel.pass, name: kernel.name.to_string(), full_name: kernel.full_name };
        let alone = carried_out_alone(cuda, &kernel, edge_cases.clone())?;
        let mut forms: Vec<String> = alone.iter().map(Call::form).collect();
        forms.sort_unstable();
        forms.dedup();
        let of_form = |form: String| {
            spread(&alone.iter().filter(|call| call.form() == form).copied().collect::<Vec<_>>())
        };
        all.push((kernel, forms.into_iter().flat_map(of_form).collect()));
    }
    Ok(all)
}

/// The calls that a kernel carries out, in the form in which they are.
fn carried_out_alone(cuda: &Cuda, kernel: &KernelName, calls: Vec<Call<()>>) -> Result<Vec<Call<()>>> {
    let table = table(cuda, kernel, &calls)?;
    let (device, _) = on_paper(cuda)?;
    let device = device.with_table(table)?;
    let is_alone = |call: &Call<()>| {
        let is_own = device.convolution_kernel(call).is_some_and(|own| own.full_name == kernel.full_name);
        is_own && device.prepare(call).expansion.is_none()
    };
    Ok(calls.into_iter().filter(is_alone).collect())
}

/// Of many calls those that differ most: the first, the last, and one between.
fn spread(calls: &[Call<()>]) -> Vec<Call<()>> {
    let last = calls.len().saturating_sub(1);
    let mut places: Vec<usize> = (0..MOST_SHAPES).map(|i| i * last / (MOST_SHAPES - 1)).collect();
    places.dedup();
    places.into_iter().filter_map(|place| calls.get(place).copied()).collect()
}
