//! Finds the network's tensors among those of a file: the dictionary they lie in, and the prefix of their names.
//!
//! Training scripts put parameters under a key of their checkpoint (`state_dict`), often beside averaged ones
//! (`state_dict_ema`), and modules put a prefix before every name (`module.`, `encoder.`, `student.`). Key and
//! prefix are found where only one can be meant, and always reported; where several can, the user is asked for the key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{HostTensor, StateDict, Values, guess_architecture, names, network};
use crate::error::{Error, Position};
use crate::nn::Network;
use crate::tensor::DType;

/// Keys under which training scripts put the parameters, the most telling first.
pub(super) const STATE_KEYS: [&str; 7] =
    ["model_state_dict", "state_dict", "model_state", "model", "net", "network", "module"];
/// The most networks in one file that are told apart.
const MOST_NETWORKS: usize = 64;
/// The key of tensors that lie in no dictionary of their own and have no prefix.
const BARE: &str = ".";

/// A dictionary of tensors in a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    /// Keys that lead to it, joined by dots; empty for the outermost.
    pub(super) key: String,
    /// Names and extents of its tensors.
    pub(super) tensors: Vec<(String, Vec<usize>)>,
}

impl Listing {
    /// Whether the outermost dictionary leads to it over the customary keys alone.
    fn is_customary(&self) -> bool {
        is_customary(&self.key)
    }

    /// Prefixes (with the dot at the end) behind which names of a ResNet begin.
    fn prefixes(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.tensors.iter().map(|(name, _)| name.as_str()).collect();
        let has = |prefix: &str, one: &str, other: &str| {
            names.contains(format!("{prefix}{one}").as_str())
                || names.contains(format!("{prefix}{other}").as_str())
        };
        let stem = |name: &str| {
            let prefix = name.strip_suffix("conv1.weight").or_else(|| name.strip_suffix("c1.weight"))?;
            (prefix.is_empty() || prefix.ends_with('.')).then(|| prefix.to_string())
        };
        let found: BTreeSet<String> = names
            .iter()
            .filter_map(|name| stem(name))
            .filter(|prefix| has(prefix, "layer1.0.conv1.weight", "layer1.0.c1.weight"))
            .collect();
        found.into_iter().collect()
    }
}

fn is_customary(key: &str) -> bool {
    !key.is_empty() && key.split('.').all(|part| STATE_KEYS.contains(&part))
}

/// The network taken from a weights file, and the others that it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Selection {
    /// Keys that lead to the dictionary of tensors, joined by dots; empty for the outermost.
    pub key: String,
    /// The prefix that every name of the network had, with its dot.
    pub prefix: String,
    /// Other networks in the file, as `--weights-key` names them.
    pub others: Vec<String>,
    /// The number of models that the parameters are an average of, where the file says so (`AveragedModel`).
    pub averaged: Option<u64>,
    /// Whether a user's key chose something else than what is taken without one.
    pub by_key: bool,
}

impl Selection {
    /// The choice that was made, for people; `None` where the file leaves none.
    pub fn note(&self) -> Option<String> {
        let mut parts = Vec::new();
        let chosen_aloud = self.by_key || !self.others.is_empty() || !self.prefix.is_empty();
        if !self.key.is_empty() && (chosen_aloud || !is_customary(&self.key)) {
            parts.push(format!("weights taken from `{}`", self.key));
        }
        if !self.prefix.is_empty() {
            parts.push(format!("names taken without `{}`", self.prefix));
        }
        if let Some(count) = self.averaged {
            parts.push(format!("the parameters are an average over {count} models (AveragedModel)"));
        }
        if !self.others.is_empty() {
            let others = self.others.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            parts.push(format!("there are also {others}, which --weights-key chooses"));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// An entry of a weights file that was not read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Ignored {
    /// The keys that lead to it, joined by dots.
    pub name: String,
    /// Its kind, for people.
    pub what: String,
}

/// Why no dictionary could be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The user's key means nothing in this file.
    Key(String),
    /// Several networks, none of them more likely than the others.
    Several(Vec<String>),
    /// No tensors at all.
    Nothing,
}

/// A network in the file: the dictionary and the prefix of its names. Without a prefix the dictionary may also be no
/// network of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    listing: usize,
    prefix: Option<String>,
    label: String,
}

/// The dictionary that was chosen, by its place in the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) listing: usize,
    /// The prefix of the network's names; `None` where names show no ResNet.
    pub(super) prefix: Option<String>,
    pub(super) others: Vec<String>,
    pub(super) by_key: bool,
}

/// Chooses among the dictionaries of a file, by a user's key if there is one.
pub(super) fn choose(listings: &[Listing], wanted: Option<&str>) -> Result<Chosen, Refusal> {
    let networks = networks(listings);
    if networks.len() > MOST_NETWORKS {
        return Err(Refusal::Several(labels(&networks)));
    }
    let usual = usual(listings, &networks);
    let chosen = match wanted {
        None => usual.clone()?,
        Some(key) => by_key(listings, &networks, key)?,
    };
    let by_key = usual.ok().as_ref() != Some(&chosen);
    let others = networks
        .iter()
        .filter(|other| (other.listing, &other.prefix) != (chosen.listing, &chosen.prefix))
        .map(|other| other.label.clone())
        .collect();
    Ok(Chosen { listing: chosen.listing, prefix: chosen.prefix, others, by_key })
}

impl Chosen {
    /// Splits the tensors of the chosen dictionary into the network's, under names without the prefix, and the others.
    pub(super) fn split<'n, T>(
        &self,
        listings: &[Listing],
        tensors: impl Iterator<Item = (&'n str, T)>,
    ) -> Split<'n, T> {
        let Some(prefix) = &self.prefix else {
            return (tensors.map(|(name, tensor)| (name.to_string(), tensor)).collect(), Vec::new());
        };
        let prefixes = listings[self.listing].prefixes();
        let others: Vec<&str> = prefixes.iter().map(String::as_str).filter(|other| other != prefix).collect();
        split(tensors, prefix, &others)
    }

    /// The same for people and files.
    pub(super) fn selection(&self, listings: &[Listing]) -> Selection {
        Selection {
            key: listings[self.listing].key.clone(),
            prefix: self.prefix.clone().unwrap_or_default(),
            others: self.others.clone(),
            averaged: None,
            by_key: self.by_key,
        }
    }
}

/// The error for a file of which nothing was taken.
pub(super) fn refuse(path: &Path, refusal: Refusal) -> Error {
    let expected = "the weights of one network";
    match refusal {
        Refusal::Key(found) => Error::usage(format!("{}: {found}", path.display())),
        Refusal::Nothing => Error::malformed(path, Position::File, expected, "no tensors"),
        Refusal::Several(labels) => {
            let named: Vec<String> = labels.iter().take(12).map(|label| format!("`{label}`")).collect();
            let more = if labels.len() > 12 { " and more" } else { "" };
            let found = format!(
                "{} of them: {}{more}; say which with --weights-key, such as --weights-key {}",
                labels.len(),
                named.join(", "),
                labels[0]
            );
            Error::malformed(path, Position::File, expected, found)
        }
    }
}

/// Tensors that were not taken, by the first part of their names.
pub(super) fn left_out<'n>(names: impl Iterator<Item = &'n str>) -> Vec<Ignored> {
    let mut groups: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for name in names {
        let first = name.split_once('.').map_or(name, |(first, _)| first);
        groups.entry(first).or_insert((0, name)).0 += 1;
    }
    let describe = |(first, (count, name)): (&str, (usize, &str))| match count {
        1 => Ignored { name: name.to_string(), what: "a tensor that is not the network's".into() },
        _ => Ignored {
            name: format!("{first}.*"),
            what: format!("{count} tensors that are not the network's"),
        },
    };
    groups.into_iter().map(describe).collect()
}

/// Everything that looks like a ResNet by its names.
fn networks(listings: &[Listing]) -> Vec<Candidate> {
    let mut found = Vec::new();
    for (listing, dictionary) in listings.iter().enumerate() {
        for prefix in dictionary.prefixes() {
            let label = label(&dictionary.key, &prefix);
            found.push(Candidate { listing, prefix: Some(prefix), label });
            if found.len() > MOST_NETWORKS {
                return found;
            }
        }
    }
    found
}

fn label(key: &str, prefix: &str) -> String {
    let prefix = prefix.trim_end_matches('.');
    match (key, prefix) {
        ("", "") => BARE.to_string(),
        (key, "") => key.to_string(),
        ("", prefix) => prefix.to_string(),
        (key, prefix) => format!("{key}.{prefix}"),
    }
}

fn labels(candidates: &[Candidate]) -> Vec<String> {
    candidates.iter().map(|candidate| candidate.label.clone()).collect()
}

/// Without a key: the networks under a customary key, else all; of several the only one whose tensors are all there.
fn usual(listings: &[Listing], networks: &[Candidate]) -> Result<Candidate, Refusal> {
    let customary = customary(listings);
    let within: Vec<&Candidate> =
        networks.iter().filter(|candidate| Some(candidate.listing) == customary).collect();
    let root = listings.iter().position(|listing| listing.key.is_empty());
    let at_root: Vec<&Candidate> =
        networks.iter().filter(|candidate| Some(candidate.listing) == root).collect();
    let considered = if !within.is_empty() {
        within
    } else if !at_root.is_empty() {
        at_root
    } else {
        networks.iter().collect()
    };
    if !considered.is_empty() {
        return only(listings, &considered, networks);
    }
    // No ResNet anywhere: the dictionary itself, if it is clear which.
    let listing = customary.or(root).or((listings.len() == 1).then_some(0));
    match listing {
        Some(listing) => Ok(whole(listings, listing)),
        None if listings.is_empty() => Err(Refusal::Nothing),
        None => Err(Refusal::Several(listings.iter().map(|listing| listing.key.clone()).collect())),
    }
}

/// The dictionary that the customary keys lead to, the most telling one at each level, as far down as they go.
fn customary(listings: &[Listing]) -> Option<usize> {
    let known: Vec<&str> = listings
        .iter()
        .filter(|listing| listing.is_customary())
        .map(|listing| listing.key.as_str())
        .collect();
    let mut path = String::new();
    loop {
        let below = |key: &&str| {
            let inner = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
            known.iter().any(|known| {
                known
                    .strip_prefix(inner.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let Some(key) = STATE_KEYS.iter().find(|key| below(key)) else { break };
        path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    }
    listings.iter().position(|listing| !path.is_empty() && listing.key == path)
}

fn whole(listings: &[Listing], listing: usize) -> Candidate {
    Candidate { listing, prefix: None, label: label(&listings[listing].key, "") }
}

/// The only candidate, or the only one that makes a network.
fn only(
    listings: &[Listing],
    considered: &[&Candidate],
    networks: &[Candidate],
) -> Result<Candidate, Refusal> {
    if let [one] = considered {
        return Ok((*one).clone());
    }
    let mut complete = considered.iter().filter(|candidate| makes_a_network(listings, candidate, networks));
    match (complete.next(), complete.next()) {
        (Some(one), None) => Ok((*one).clone()),
        _ => Err(Refusal::Several(considered.iter().map(|candidate| candidate.label.clone()).collect())),
    }
}

/// Whether names and extents are those of a network of this program, none missing and none left over.
fn makes_a_network(listings: &[Listing], candidate: &Candidate, networks: &[Candidate]) -> bool {
    let listing = &listings[candidate.listing];
    let prefix = candidate.prefix.as_deref().unwrap_or("");
    let others: Vec<&str> = networks
        .iter()
        .filter(|other| other.listing == candidate.listing)
        .filter_map(|other| other.prefix.as_deref())
        .filter(|other| *other != prefix)
        .collect();
    let named = listing.tensors.iter().map(|(name, shape)| (name.as_str(), shape));
    let (taken, _) = split(named, prefix, &others);
    let Ok(renamed) = names::rename(taken) else { return false };
    let state: StateDict = renamed
        .into_iter()
        .map(|(name, shape)| (name, HostTensor { shape: shape.clone(), values: Values::F32(Vec::new()) }))
        .collect();
    guess_architecture(&state).is_ok_and(|architecture| {
        let network = Network::new(&architecture, DType::F32, None);
        network::check(&network, &state, Path::new("")).is_ok()
    })
}

/// The candidate that a user's key names: its label, its prefix, the key of its dictionary, or a key above that.
fn by_key(listings: &[Listing], networks: &[Candidate], key: &str) -> Result<Candidate, Refusal> {
    let bare = if key == BARE { key } else { key.trim_end_matches('.') };
    if let Some(exact) = networks.iter().find(|candidate| candidate.label == bare) {
        return Ok(exact.clone());
    }
    let of = |listing: usize| -> Vec<&Candidate> {
        networks.iter().filter(|candidate| candidate.listing == listing).collect()
    };
    let below = format!("{bare}.");
    let inside: Vec<usize> = (0..listings.len())
        .filter(|&index| listings[index].key == bare || listings[index].key.starts_with(&below))
        .collect();
    let considered: Vec<&Candidate> = inside.iter().flat_map(|&listing| of(listing)).collect();
    if !considered.is_empty() {
        return only(listings, &considered, networks);
    }
    if let [listing] = inside[..] {
        return Ok(whole(listings, listing));
    }
    let by_prefix: Vec<&Candidate> =
        networks.iter().filter(|candidate| candidate.prefix.as_deref() == Some(below.as_str())).collect();
    match by_prefix[..] {
        [one] => Ok(one.clone()),
        [] => {
            let mut known = labels(networks);
            known.extend(listings.iter().map(|listing| label(&listing.key, "")).filter(|key| key != BARE));
            known.sort();
            known.dedup();
            let known: Vec<String> = known.iter().take(12).map(|label| format!("`{label}`")).collect();
            Err(Refusal::Key(format!("there are no tensors under `{key}`; there are {}", known.join(", "))))
        }
        _ => Err(Refusal::Several(by_prefix.iter().map(|candidate| candidate.label.clone()).collect())),
    }
}

/// Tensors that are taken, under their names without the prefix, and the others.
type Split<'n, T> = (Vec<(String, T)>, Vec<(&'n str, T)>);

/// First parts of the names of heads, as other programs write them.
const HEADS: [&str; 5] = ["fc", "linear", "head", "super_head", "sub_head"];

/// Splits tensors into those of the network with this prefix, without it, and the others. A head may lie beside the
/// module that a prefix names (`backbone.conv1.weight`, `head.weight`): the nearest one belongs to the network.
fn split<'n, T>(tensors: impl Iterator<Item = (&'n str, T)>, prefix: &str, others: &[&str]) -> Split<'n, T> {
    let foreign = |name: &str| {
        others
            .iter()
            .any(|other| name.starts_with(other) && (other.len() > prefix.len() || !name.starts_with(prefix)))
    };
    let (mut taken, mut rest) = (Vec::new(), Vec::new());
    for (name, tensor) in tensors {
        match name.strip_prefix(prefix) {
            Some(bare) if !foreign(name) => taken.push((bare.to_string(), tensor)),
            _ => rest.push((name, tensor)),
        }
    }
    let is_head = |bare: &str| bare.split_once('.').is_some_and(|(first, _)| HEADS.contains(&first));
    if taken.iter().any(|(bare, _)| is_head(bare)) {
        return (taken, rest);
    }
    let mut around = prefix;
    while let Some(end) =
        around.trim_end_matches('.').rfind('.').map(|dot| dot + 1).or((!around.is_empty()).then_some(0))
    {
        around = &around[..end];
        let beside = |name: &str| name.strip_prefix(around).is_some_and(is_head) && !foreign(name);
        if rest.iter().any(|(name, _)| beside(name)) {
            let (heads, left) = rest.into_iter().partition(|(name, _)| beside(name));
            let heads: Vec<(&'n str, T)> = heads;
            taken.extend(heads.into_iter().map(|(name, tensor)| (name[around.len()..].to_string(), tensor)));
            return (taken, left);
        }
    }
    (taken, rest)
}

#[cfg(test)]
#[path = "selection_tests.rs"]
mod tests;
