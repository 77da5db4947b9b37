//! From the pickle of a PyTorch file to tensors: which dictionary holds the parameters, what each view covers.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::super::import::TrainingRecord;
use super::super::{ElementType, HostTensor};
use super::view::{StorageReference, View, dtype_element, storage_element};
use super::{Storages, Wanted};
use crate::error::{Error, Result};
use crate::pickle::{Global, Node, Pickle};

/// What a PyTorch file holds, under the names in the file.
pub(in crate::checkpoint) struct Contents {
    pub(in crate::checkpoint) tensors: Vec<(String, ElementType, HostTensor)>,
    pub(in crate::checkpoint) training: TrainingRecord,
}

/// Keys under which training scripts put the parameters, the most telling first.
const STATE_KEYS: [&str; 7] =
    ["model_state_dict", "state_dict", "model_state", "model", "net", "network", "module"];
/// How many such keys may lie one inside the other.
const DEEPEST_STATE: usize = 4;
/// How many wrappers (a parameter around a tensor) are looked through.
const DEEPEST_WRAPPER: usize = 4;
/// The most bytes a storage's key may have; PyTorch writes small numbers, or addresses.
const LONGEST_KEY: usize = 256;
/// The most dimensions PyTorch itself knows.
const MOST_DIMENSIONS: usize = 64;
/// Tied parameters share storages, so tensors may hold more bytes than the file; so many times as much at most.
const MOST_SHARING: usize = 4;

/// Reads tensors of one file.
pub(super) struct Reader<'p, 's> {
    path: &'p Path,
    root: Node<'p>,
    storages: &'s mut dyn Storages,
    /// Keys of storages that were read.
    loaded: HashSet<&'p str>,
    /// Bytes of tensors that may still be made from them.
    budget: usize,
    /// Numbers and characters the training record may still take: what a pickle says once costs a byte at least, and
    /// what it refers to over and over must not multiply.
    record_budget: usize,
}

impl<'p, 's> Reader<'p, 's> {
    pub(super) fn new(path: &'p Path, pickle: &'p Pickle<'_>, storages: &'s mut dyn Storages) -> Self {
        Reader {
            path,
            root: pickle.root(),
            storages,
            loaded: HashSet::new(),
            budget: 0,
            record_budget: pickle.length(),
        }
    }

    pub(super) fn contents(mut self, wanted: Wanted) -> Result<Contents> {
        let state = match wanted {
            Wanted::Everything => self.state_dictionary()?,
            Wanted::TrainingRecord => Vec::new(),
        };
        let mut tensors: Vec<(String, ElementType, HostTensor)> = Vec::new();
        let mut names = HashSet::new();
        for (key, value) in state {
            if !is_tensor(value) {
                continue;
            }
            let name = key.text().ok_or_else(|| self.wrong("a text as the name of a tensor", key))?;
            if !names.insert(name) {
                return Err(self.malformed("each tensor named once", format!("the name `{name}` twice")));
            }
            let (element, tensor) = self.tensor(value, name)?;
            tensors.push((name.to_string(), element, tensor));
        }
        let training = self.training_record()?;
        Ok(Contents { tensors, training })
    }

    fn malformed(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::malformed(self.path, self.storages.position(), expected, found)
    }

    fn wrong(&self, expected: &str, found: Node<'_>) -> Error {
        self.malformed(expected, found.describe())
    }

    /// The dictionary of parameters: the root itself, or under one of the customary keys.
    fn state_dictionary(&self) -> Result<Vec<(Node<'p>, Node<'p>)>> {
        let mut here = self.root;
        for _ in 0..DEEPEST_STATE {
            if let Some(inner) =
                STATE_KEYS.iter().find_map(|key| here.get(key).filter(|n| n.entries().is_some()))
            {
                here = inner;
                continue;
            }
            let entries = here.entries().ok_or_else(|| self.wrong("a dictionary of tensors", here))?;
            if entries.iter().any(|(_, value)| is_tensor(*value)) {
                return Ok(entries);
            }
            break;
        }
        let keys: Vec<_> =
            here.entries().unwrap_or_default().iter().take(12).map(|(key, _)| key.describe()).collect();
        let keys = if keys.is_empty() { "none".to_string() } else { keys.join(", ") };
        Err(self.malformed(
            format!("tensors, or a dictionary of tensors under one of {}", STATE_KEYS.join(", ")),
            format!("{} with the keys {keys}", here.describe()),
        ))
    }

    /// Losses, accuracies and the epoch, from the entries beside the parameters.
    fn training_record(&mut self) -> Result<TrainingRecord> {
        let mut record = TrainingRecord::default();
        // Where the root is the dictionary of parameters itself, its tensors are no record of anything.
        let bare = !STATE_KEYS.iter().any(|key| self.root.get(key).is_some());
        for (key, value) in self.root.entries().unwrap_or_default() {
            let Some(key) = key.text().filter(|_| !(bare && is_tensor(value))) else { continue };
            if let Some(text) = value.text() {
                self.spend(text.len())?;
                record.texts.insert(key.to_string(), text.to_string());
            } else if let Some(number) = self.number(value)? {
                record.numbers.insert(key.to_string(), number);
            } else if let Some(elements) = value.elements() {
                self.spend(elements.len())?;
                let series: Option<Vec<f64>> = elements.map(|e| self.number(e)).collect::<Result<_>>()?;
                if let Some(series) = series {
                    record.series.insert(key.to_string(), series);
                }
            } else {
                let array = value.array().map_err(|found| self.malformed("a NumPy array", found))?;
                if let Some(array) = array.filter(|array| array.shape.len() == 1) {
                    self.spend(array.element_count())?;
                    let series =
                        (0..array.element_count()).filter_map(|index| array.float_at(index)).collect();
                    record.series.insert(key.to_string(), series);
                }
            }
        }
        Ok(record)
    }

    /// Takes from the budget of the training record.
    fn spend(&mut self, amount: usize) -> Result<()> {
        match self.record_budget.checked_sub(amount) {
            Some(rest) => self.record_budget = rest,
            None => {
                let found = "lists or texts that are referred to over and over";
                return Err(self.malformed("a training record no longer than the pickle", found));
            }
        }
        Ok(())
    }

    /// A number: Python's, NumPy's, or a tensor of no dimensions.
    fn number(&mut self, node: Node<'p>) -> Result<Option<f64>> {
        if let Some(number) = node.float() {
            return Ok(Some(number));
        }
        if !is_tensor(node) {
            return Ok(None);
        }
        let view = self.view(node)?;
        if !view.shape.is_empty() {
            return Ok(None);
        }
        let (_, tensor) = self.tensor(node, "a training record")?;
        Ok(tensor.to_f64().first().copied())
    }

    /// Makes the tensor a node describes.
    fn tensor(&mut self, node: Node<'p>, name: &str) -> Result<(ElementType, HostTensor)> {
        let view = self.view(node)?;
        let size = view.element.size();
        let misfit = |reader: &Self, found: String| {
            reader.malformed(format!("a tensor `{name}` that lies inside its storage"), found)
        };
        let (start, available) = view.storage.view.unwrap_or((0, view.storage.length));
        let Some(count) = view.element_count(available / size) else {
            let found = format!(
                "shape {:?} with strides {:?} from element {} of {}",
                view.shape,
                view.strides,
                view.offset,
                available / size
            );
            return Err(misfit(self, found));
        };
        if start.checked_add(available).is_none_or(|end| end > view.storage.length) {
            return Err(misfit(self, "a view beyond its end".into()));
        }
        if count == 0 {
            let values = view.element.decode(&[]).map_err(|found| misfit(self, found))?;
            return Ok((view.element, HostTensor { shape: view.shape, values }));
        }
        let storage = self.storages.bytes(view.storage.key, view.storage.length)?;
        if self.loaded.insert(view.storage.key) {
            self.budget = self.budget.saturating_add(storage.len().saturating_mul(MOST_SHARING));
        }
        let Some(budget) = self.budget.checked_sub(count * size) else {
            drop(storage);
            return Err(self.malformed(
                format!("tensors of at most {MOST_SHARING} times the bytes stored"),
                "more: storages are referred to over and over",
            ));
        };
        self.budget = budget;
        let gathered = view.gather(&storage[start..start + available], count);
        drop(storage);
        let values = view
            .element
            .decode(&gathered)
            .map_err(|found| self.malformed(format!("64-bit signed integers in `{name}`"), found))?;
        Ok((view.element, HostTensor { shape: view.shape, values }))
    }

    /// What a call to one of PyTorch's rebuilding functions describes.
    fn view(&self, node: Node<'p>) -> Result<View<'p>> {
        let mut node = node;
        for _ in 0..DEEPEST_WRAPPER {
            let call = node.call().ok_or_else(|| self.wrong("a tensor", node))?;
            let argument = |index: usize| {
                call.argument(index).ok_or_else(|| self.wrong("a tensor with all its parts", call.arguments))
            };
            match (call.callable.module, call.callable.name) {
                ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                    node = argument(0)?
                }
                ("torch._tensor", "_rebuild_from_type_v2") => {
                    // (function, class, its arguments, attributes): the tensor is function(*arguments).
                    let function = argument(0)?.global();
                    if function.is_none_or(|function| !function.name.starts_with("_rebuild_tensor")) {
                        return Err(self.wrong("a plain tensor", node));
                    }
                    return self.view_of(function, argument(2)?);
                }
                ("torch._utils", _) => return self.view_of(Some(call.callable), call.arguments),
                _ => return Err(self.wrong("a tensor", node)),
            }
        }
        Err(self.malformed("a tensor", format!("more than {DEEPEST_WRAPPER} wrappers around one")))
    }

    /// The view that `_rebuild_tensor…(storage, offset, size, stride, requires_grad, hooks[, dtype])` makes.
    fn view_of(&self, function: Option<Global>, arguments: Node<'p>) -> Result<View<'p>> {
        let argument = |index: usize| {
            arguments.element(index).ok_or_else(|| self.wrong("a tensor with all its parts", arguments))
        };
        let identity = argument(0)?;
        let identity = identity.persistent().ok_or_else(|| self.wrong("a storage", identity))?;
        let storage = self.storage_reference(identity)?;
        let explicit = match function {
            Some(Global { name: "_rebuild_tensor_v3", .. }) => {
                let dtype = argument(6)?;
                Some(dtype.global().and_then(dtype_element).ok_or_else(|| self.wrong("a dtype", dtype))?)
            }
            _ => None,
        };
        let element = explicit
            .or(storage.element)
            .ok_or_else(|| self.malformed("a tensor whose element type is stated", "an untyped storage"))?;
        let offset = argument(1)?;
        let offset = self.natural(offset, "an offset of zero or more")?;
        let shape = self.naturals(argument(2)?, "extents of zero or more")?;
        let strides = self.naturals(argument(3)?, "strides of zero or more")?;
        if shape.len() != strides.len() {
            return Err(self.malformed(
                "as many strides as extents",
                format!("{} strides for {} extents", strides.len(), shape.len()),
            ));
        }
        Ok(View { storage, element, offset, shape, strides })
    }

    fn natural(&self, node: Node<'p>, expected: &str) -> Result<usize> {
        node.integer().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| self.wrong(expected, node))
    }

    /// The numbers in a tuple or a `torch.Size`.
    fn naturals(&self, node: Node<'p>, expected: &str) -> Result<Vec<usize>> {
        let tuple = match node.call() {
            Some(call) if call.callable == Global::new("torch", "Size") => call.argument(0).unwrap_or(node),
            _ => node,
        };
        if tuple.element_count().is_none_or(|count| count > MOST_DIMENSIONS) {
            return Err(self.wrong(expected, tuple));
        }
        let elements = tuple.elements().ok_or_else(|| self.wrong(expected, tuple))?;
        elements.map(|element| self.natural(element, expected)).collect()
    }

    fn storage_reference(&self, identity: Node<'p>) -> Result<StorageReference<'p>> {
        let part = |index: usize| {
            identity
                .element(index)
                .ok_or_else(|| self.wrong("a storage reference of five or six parts", identity))
        };
        if part(0)?.text() != Some("storage") {
            return Err(self.wrong("a storage reference", identity));
        }
        let class = part(1)?.global().ok_or_else(|| self.wrong("a storage class", identity))?;
        let element = storage_element(class).ok_or_else(|| {
            self.malformed("a storage of numbers", format!("a {}.{}", class.module, class.name))
        })?;
        let key = part(2)?;
        let key = key
            .text()
            .filter(|text| text.len() <= LONGEST_KEY)
            .ok_or_else(|| self.wrong("a short text as the key of a storage", key))?;
        let size = element.map_or(1, ElementType::size);
        let bytes = |node: Node<'p>, expected: &str| {
            let count = self.natural(node, expected)?;
            count.checked_mul(size).ok_or_else(|| self.wrong(expected, node))
        };
        let length = bytes(part(4)?, "a storage size")?;
        // Legacy files: (key of the view, offset, size) in elements, for storages that are parts of others.
        let view = match identity.element(5).filter(|view| !view.is_none()) {
            None => None,
            Some(view) => match (view.element(1), view.element(2)) {
                (Some(offset), Some(count)) => {
                    Some((bytes(offset, "a view offset")?, bytes(count, "a view size")?))
                }
                _ => return Err(self.wrong("a view of three parts", view)),
            },
        };
        Ok(StorageReference { key, element, length, view })
    }
}

fn is_tensor(node: Node<'_>) -> bool {
    node.call().is_some_and(|call| {
        matches!(call.callable.module, "torch._utils" | "torch._tensor")
            && call.callable.name.starts_with("_rebuild")
    })
}

/// Storages of the pickle, each once: key, bytes of an element, bytes of the whole.
pub(super) fn storage_sizes(
    path: &Path,
    pickle: &Pickle<'_>,
    storages: &mut dyn Storages,
) -> Result<BTreeMap<String, (usize, usize)>> {
    let reader = Reader::new(path, pickle, storages);
    let mut sizes = BTreeMap::new();
    for identity in pickle.persistent_identities() {
        let storage = reader.storage_reference(identity)?;
        let size = storage.element.map_or(1, ElementType::size);
        let facts = (size, storage.length);
        if sizes.insert(storage.key.to_string(), facts).is_some_and(|other| other != facts) {
            let found = format!("two for storage `{}`", storage.key);
            return Err(reader.malformed("one size per storage", found));
        }
    }
    Ok(sizes)
}
