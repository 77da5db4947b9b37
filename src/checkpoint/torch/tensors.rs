//! From the pickle of a PyTorch file to tensors: what each view covers, and which cannot be read.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::super::{ElementType, HostTensor};
use super::Storages;
use super::view::{StorageKind, StorageReference, View, dtype_element, storage_kind};
use crate::error::{Error, Result};
use crate::pickle::{Global, Node, Pickle};

/// Most wrappers (a parameter around a tensor) that are looked through.
const DEEPEST_WRAPPER: usize = 4;
/// The most bytes a storage's key may have; PyTorch writes small numbers, or addresses.
const LONGEST_KEY: usize = 256;
/// The most dimensions PyTorch itself knows.
const MOST_DIMENSIONS: usize = 64;
/// Tied parameters share storages, so tensors may hold more bytes than are stored: at most `MOST_SHARING` times the bytes of the
/// storages they view.
const MOST_SHARING: usize = 4;
/// Views that repeat elements (`expand`) may hold more bytes than their storage: at most `MOST_REPEATED` more, all
/// views of a file together.
const MOST_REPEATED: usize = 64 << 20;

/// Description of a tensor in a pickle.
pub(super) enum Described<'p> {
    /// A view of numbers this program reads.
    View(View<'p>),
    /// A tensor it does not read: what is special about it, for people.
    Foreign(String),
}

/// Reads tensors of one file.
pub(super) struct Reader<'p, 's> {
    pub(super) path: &'p Path,
    pub(super) root: Node<'p>,
    storages: &'s mut dyn Storages,
    /// Keys of storages that were read.
    loaded: HashSet<&'p str>,
    /// Bytes of tensors that may still be made from them.
    budget: usize,
    /// Bytes that views may still repeat.
    repeated: usize,
    /// Numbers and characters the training record may still take. Each that a pickle writes out costs it at least one byte,
    /// so the budget is the pickle's length; objects that it refers to repeatedly cannot exceed it.
    pub(super) record_budget: usize,
}

impl<'p, 's> Reader<'p, 's> {
    pub(super) fn new(path: &'p Path, pickle: &'p Pickle<'_>, storages: &'s mut dyn Storages) -> Self {
        Reader {
            path,
            root: pickle.root(),
            storages,
            loaded: HashSet::new(),
            budget: 0,
            repeated: MOST_REPEATED,
            record_budget: pickle.length(),
        }
    }

    pub(super) fn malformed(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::malformed(self.path, self.storages.position(), expected, found)
    }

    pub(super) fn wrong(&self, expected: &str, found: Node<'_>) -> Error {
        self.malformed(expected, found.describe())
    }

    /// Makes the tensor that a view describes.
    pub(super) fn tensor(&mut self, view: View<'p>, name: &str) -> Result<(ElementType, HostTensor)> {
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
        let repeated = count.saturating_sub(available / size) * size;
        let Some(budget) = self.budget.checked_sub(count * size - repeated) else {
            drop(storage);
            return Err(self.malformed(
                format!("tensors of at most {MOST_SHARING} times the bytes stored"),
                "more: storages are referred to over and over",
            ));
        };
        let Some(left) = self.repeated.checked_sub(repeated) else {
            drop(storage);
            return Err(self.malformed(
                format!("views that repeat at most {MOST_REPEATED} bytes, all of them together"),
                format!(
                    "`{name}` of {count} elements, in a storage of {}; save it with clone()",
                    available / size
                ),
            ));
        };
        (self.budget, self.repeated) = (budget, left);
        let gathered = view.gather(&storage[start..start + available], count);
        drop(storage);
        let values = view
            .element
            .decode(&gathered)
            .map_err(|found| self.malformed(format!("64-bit signed integers in `{name}`"), found))?;
        let values = if view.negative {
            let found = format!("{} elements with PyTorch's negative flag", view.element);
            let expected = format!("numbers that have negatives in `{name}`");
            view.element.negated(values).ok_or_else(|| self.malformed(expected, found))?
        } else {
            values
        };
        Ok((view.element, HostTensor { shape: view.shape, values }))
    }

    /// The tensor that a call to one of PyTorch's rebuilding functions describes.
    pub(super) fn described(&self, node: Node<'p>) -> Result<Described<'p>> {
        let mut node = node;
        for _ in 0..DEEPEST_WRAPPER {
            let call = node.call().ok_or_else(|| self.wrong("a tensor", node))?;
            let argument = |index: usize| {
                call.argument(index).ok_or_else(|| self.wrong("a tensor with all its parts", call.arguments))
            };
            if call.state.is_some_and(|state| !state.is_none()) {
                return Ok(Described::Foreign(format!(
                    "an object that {} makes, with a state",
                    call.callable
                )));
            }
            match (call.callable.module, call.callable.name) {
                ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                    node = argument(0)?
                }
                ("torch._tensor", "_rebuild_from_type_v2") => {
                    // (function, class, its arguments, attributes): the tensor is function(*arguments).
                    let function = argument(0)?;
                    let function = function.global().ok_or_else(|| self.wrong("a function", function))?;
                    return self.described_by(function, argument(2)?);
                }
                _ => return self.described_by(call.callable, call.arguments),
            }
        }
        Err(self.malformed("a tensor", format!("more than {DEEPEST_WRAPPER} wrappers around one")))
    }

    /// The view that `_rebuild_tensor…(storage, offset, size, stride[, requires_grad, hooks[, dtype][, flags]])` makes.
    fn described_by(&self, function: Global<'p>, arguments: Node<'p>) -> Result<Described<'p>> {
        let foreign = |what: String| Ok(Described::Foreign(what));
        let (dtype_at, flags_at) = match (function.module, function.name) {
            ("torch._utils", "_rebuild_tensor") => (None, None),
            ("torch._utils", "_rebuild_tensor_v2") => (None, Some(6)),
            ("torch._utils", "_rebuild_tensor_v3") => (Some(6), Some(7)),
            _ => return foreign(describe_function(function)),
        };
        let argument = |index: usize| {
            arguments.element(index).ok_or_else(|| self.wrong("a tensor with all its parts", arguments))
        };
        let identity = argument(0)?;
        let identity = identity.persistent().ok_or_else(|| self.wrong("a storage", identity))?;
        let storage = self.storage_reference(identity)?;
        let stated = match dtype_at {
            None => None,
            Some(index) => {
                let dtype = argument(index)?.global().ok_or_else(|| self.wrong("a dtype", arguments))?;
                let Some(element) = dtype_element(dtype) else {
                    return foreign(format!("elements of type {dtype}"));
                };
                Some(element)
            }
        };
        let element = match (stated, storage.kind) {
            (Some(element), StorageKind::Untyped) => element,
            (stated, StorageKind::Numbers(element)) => stated.unwrap_or(element),
            (None, StorageKind::Untyped) => {
                return foreign("a storage without a type of its elements".into());
            }
            (_, StorageKind::Foreign(class, _) | StorageKind::Unknown(class)) => {
                return foreign(format!("elements of a {class}"));
            }
        };
        let flags = flags_at.and_then(|index| arguments.element(index)).filter(|flags| !flags.is_none());
        let mut negative = false;
        for (flag, set) in flags
            .map(|flags| flags.entries().ok_or_else(|| self.wrong("flags", flags)))
            .transpose()?
            .unwrap_or_default()
        {
            match (flag.text(), set.boolean()) {
                (_, Some(false)) => {}
                (Some("neg"), Some(true)) => negative = true,
                (Some("conj"), Some(true)) => {
                    return foreign("PyTorch's conjugate flag; save it with resolve_conj()".into());
                }
                _ => return foreign(format!("a flag that this program does not know: {}", flag.describe())),
            }
        }
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
        Ok(Described::View(View { storage, element, offset, shape, strides, negative }))
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
        let kind = storage_kind(class);
        let key = part(2)?;
        let key = key
            .text()
            .filter(|text| text.len() <= LONGEST_KEY)
            .ok_or_else(|| self.wrong("a short text as the key of a storage", key))?;
        let size = kind.size().unwrap_or(1);
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
        Ok(StorageReference { key, kind, length, view })
    }
}

/// Whether a call makes a tensor.
pub(super) fn is_tensor(node: Node<'_>) -> bool {
    node.call().is_some_and(|call| {
        matches!(call.callable.module, "torch._utils" | "torch._tensor")
            && call.callable.name.starts_with("_rebuild")
    })
}

/// A tensor that is no plain one, by the function that makes it.
fn describe_function(function: Global<'_>) -> String {
    let kind = match function.name {
        "_rebuild_qtensor" => "a quantized tensor; save its dequantize()",
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => "a sparse tensor; save its to_dense()",
        "_rebuild_nested_tensor" => "a nested tensor",
        "_rebuild_meta_tensor_no_storage" => "a tensor on the device `meta`, which holds no numbers",
        "_rebuild_wrapper_subclass" => "a tensor of a class of its own",
        "_rebuild_device_tensor_from_numpy"
        | "_rebuild_device_tensor_from_cpu_tensor"
        | "_rebuild_xla_tensor" => "a tensor of another device; save its cpu()",
        _ => "a tensor that is no plain one",
    };
    format!("{kind} ({function})")
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
        // A class of the model, with its source, where a whole model was saved.
        if identity.element(0).and_then(Node::text) == Some("module") {
            continue;
        }
        let storage = reader.storage_reference(identity)?;
        let Some(size) = storage.kind.size() else {
            let found = format!("{:?}", identity.element(1).unwrap_or(identity));
            return Err(reader.malformed("a storage whose elements have a known size", found));
        };
        let facts = (size, storage.length);
        if sizes.insert(storage.key.to_string(), facts).is_some_and(|other| other != facts) {
            let found = format!("two for storage `{}`", storage.key);
            return Err(reader.malformed("one size per storage", found));
        }
    }
    Ok(sizes)
}
