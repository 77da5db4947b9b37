//! The dictionaries of tensors in a PyTorch file, and what is read of the one that is chosen.

use std::collections::{BTreeSet, HashSet};

use super::super::contents::Contents;
use super::super::selection::{self, Ignored, Listing, STATE_KEYS};
use super::Wanted;
use super::tensors::{Described, Reader, is_tensor};
use crate::error::Result;
use crate::pickle::Node;

/// Most dictionaries that may lie one inside the other.
const DEEPEST_STATE: usize = 4;
/// The most entries that are listed as left out, one by one.
const MOST_IGNORED: usize = 1_000;

/// A dictionary of tensors.
struct State<'p> {
    listing: Listing,
    /// Its tensors, in the order of the listing.
    nodes: Vec<Node<'p>>,
}

/// The tensors and the training record of a file.
pub(super) fn contents(mut reader: Reader<'_, '_>, wanted: Wanted<'_>) -> Result<Contents> {
    let Wanted::Everything(key) = wanted else {
        let (training, _) = reader.training_record()?;
        return Ok(Contents { training, ..Contents::default() });
    };
    let states = states(&reader)?;
    let listings: Vec<Listing> = states.iter().map(|state| state.listing.clone()).collect();
    let chosen = match selection::choose(&listings, key) {
        Ok(chosen) => chosen,
        Err(selection::Refusal::Nothing) => return Err(nothing(&reader)),
        Err(refusal) => return Err(selection::refuse(reader.path, refusal)),
    };
    let state = &states[chosen.listing];
    refuse_a_name_twice(&reader, &state.listing)?;
    let mut contents = Contents::default();
    let named = state.listing.tensors.iter().map(|(name, _)| name.as_str()).zip(&state.nodes);
    let (taken, rest) = chosen.split(&listings, named);
    for (name, node) in taken {
        match reader.described(*node)? {
            Described::View(view) => {
                let (element, tensor) = reader.tensor(view, &name)?;
                contents.tensors.push((name, element, tensor));
            }
            Described::Foreign(what) => contents.unreadable.push((name, what)),
        }
    }
    let averaged = rest.iter().find(|(name, _)| name.rsplit('.').next() == Some("n_averaged"));
    let mut selection = chosen.selection(&listings);
    if let Some((_, node)) = averaged
        && let Described::View(view) = reader.described(**node)?
    {
        let (_, tensor) = reader.tensor(view, "n_averaged")?;
        selection.averaged = tensor.to_f64().first().map(|count| *count as u64);
    }
    let (training, used) = reader.training_record()?;
    contents.ignored = ignored(&reader, &state.listing.key, &used);
    contents.ignored.extend(selection::left_out(rest.iter().map(|(name, _)| *name)));
    contents.training = training;
    contents.selection = selection;
    Ok(contents)
}

fn refuse_a_name_twice(reader: &Reader<'_, '_>, listing: &Listing) -> Result<()> {
    let mut names = HashSet::new();
    match listing.tensors.iter().find(|(name, _)| !names.insert(name)) {
        None => Ok(()),
        Some((name, _)) => {
            Err(reader.malformed("each tensor named once", format!("the name `{name}` twice")))
        }
    }
}

/// Every dictionary that holds tensors under text keys, reached over text keys; each once.
fn states<'p>(reader: &Reader<'p, '_>) -> Result<Vec<State<'p>>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    // Outermost first, and at each level the customary keys first, which is also the order of preference.
    let mut level = vec![(String::new(), reader.root)];
    for _ in 0..=DEEPEST_STATE {
        let mut next = Vec::new();
        for (key, node) in level {
            let Some(entries) = node.entries() else { continue };
            if !node.identity().is_some_and(|identity| seen.insert(identity)) {
                continue;
            }
            let mut state =
                State { listing: Listing { key: key.clone(), tensors: Vec::new() }, nodes: Vec::new() };
            for (name, value) in entries {
                let Some(name) = name.text() else { continue };
                if is_tensor(value) {
                    let shape = match reader.described(value)? {
                        Described::View(view) => view.shape,
                        Described::Foreign(_) => Vec::new(),
                    };
                    state.listing.tensors.push((name.to_string(), shape));
                    state.nodes.push(value);
                } else if value.entries().is_some() && !name.contains("optim") {
                    let inner = if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
                    next.push((inner, value));
                }
            }
            if !state.nodes.is_empty() {
                found.push(state);
            }
        }
        next.sort_by_key(|(key, _)| rank(key));
        level = next;
    }
    Ok(found)
}

/// The place of a dictionary's key among the customary ones.
fn rank(key: &str) -> usize {
    let last = key.rsplit('.').next().unwrap_or(key);
    STATE_KEYS.iter().position(|customary| *customary == last).unwrap_or(STATE_KEYS.len())
}

/// The error for a file without tensors.
fn nothing(reader: &Reader<'_, '_>) -> crate::error::Error {
    let root = reader.root;
    let entries = root.entries().unwrap_or_default();
    let keys: Vec<_> = entries
        .iter()
        .take(12)
        .map(|(key, value)| match value.call() {
            Some(call) => format!("{} ({})", key.describe(), call.callable),
            None => key.describe(),
        })
        .collect();
    let expected = format!(
        "tensors, or a dictionary of tensors under one of {} (nothing from a pickle is ever executed)",
        STATE_KEYS.join(", ")
    );
    if root.entries().is_none() {
        let found = format!("{}; save a model's state_dict(), not the model", root.describe());
        return reader.malformed(expected, found);
    }
    let keys = if keys.is_empty() { "none".to_string() } else { keys.join(", ") };
    reader.malformed(expected, format!("{} with the keys {keys}", root.describe()))
}

/// Entries beside the tensors that were taken and the training record, along the keys that lead there.
fn ignored(reader: &Reader<'_, '_>, taken: &str, used: &BTreeSet<&str>) -> Vec<Ignored> {
    let mut ignored = Vec::new();
    let mut here = reader.root;
    let mut prefix = String::new();
    let mut parts = taken.split('.').filter(|part| !part.is_empty());
    loop {
        let next = parts.next();
        for (key, value) in here.entries().unwrap_or_default() {
            let name = key.text().map_or_else(|| key.describe(), str::to_string);
            let recorded = prefix.is_empty() && used.contains(name.as_str());
            let is_own = next.is_none() && is_tensor(value) && key.text().is_some();
            if next == Some(name.as_str()) || recorded || is_own {
                continue;
            }
            ignored.push(Ignored { name: format!("{prefix}{name}"), what: value.describe() });
            if ignored.len() == MOST_IGNORED {
                return ignored;
            }
        }
        let Some(next) = next else { return ignored };
        let Some(inner) = here.get(next) else { return ignored };
        here = inner;
        prefix += &format!("{next}.");
    }
}
