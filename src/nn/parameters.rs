//! The parameters of a network: names, shapes, and where they lie in a device's memory.
//!
//! Memory begins with four regions of equal layout, then the values that no optimizer changes (running statistics, frozen values),
//! then, where activations are narrower than parameters (bf16), room for a copy of all learned values in that type, then
//! the normalised value of every byte of an image, and any other reserved memory:
//!
//! ```text
//! [ learned values ][ gradients ][ optimizer slot 0 ][ optimizer slot 1 ][ constants ][ narrow values ]
//! [ normalisation table ][ reserved ]
//! ```
//! Within a region parameters lie by [`Group`], so that an optimizer's step is one call over a whole region, in which groups
//! are segments with settings of their own. Gradients and slots exist only where asked for. Each tensor begins at a multiple of [`ALIGNMENT`](crate::tensor::ALIGNMENT) bytes; the padding between them holds zeros,
//! which every optimizer leaves zero.

use std::ops::Range;

use crate::autograd::Parameter;
use crate::tensor::{DType, Shape, Span, aligned};

/// The kind of a parameter, which decides its initial values and how its layout differs from PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Convolution weight, KRSC (PyTorch: KCRS, "OIHW").
    ConvWeight,
    /// Linear weight (outputs, inputs).
    LinearWeight,
    /// Linear bias; holds the number of inputs of its layer.
    LinearBias {
        /// Inputs of the layer, which bound the initial values.
        inputs: usize,
    },
    /// Scale of a batch normalisation.
    Gamma,
    /// Shift of a batch normalisation.
    Beta,
    /// Class vectors of a cosine classifier (classes, inputs).
    CosineWeight,
    /// Factor on cosines, (1).
    Scale,
    /// The factor on cosines is softplus of this parameter, (1).
    SoftplusScale,
    /// Running mean.
    RunningMean,
    /// Running variance.
    RunningVariance,
}

impl Kind {
    /// Whether it is learned by gradients.
    pub fn trainable(self) -> bool {
        !matches!(self, Kind::RunningMean | Kind::RunningVariance)
    }
}

/// Parameters that share the settings of an optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Convolutions and their normalisations.
    Backbone,
    /// The heads.
    Head,
    /// Parameters that weight decay must leave alone: the scales of cosine heads.
    Undecayed,
}

impl Group {
    /// Every group, in the order in which they lie in memory.
    pub const ALL: [Group; 3] = [Group::Backbone, Group::Head, Group::Undecayed];
}

/// A parameter that has no place yet.
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    pub(super) group: Group,
}

/// One named parameter.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Torchvision's name: `layer1.0.conv1.weight`.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// The group whose optimizer settings it follows.
    pub group: Group,
    /// Whether training leaves it as it is.
    pub frozen: bool,
    /// Where it lies.
    pub parameter: Parameter,
}

impl Entry {
    /// Whether an optimizer changes it.
    pub fn learned(&self) -> bool {
        self.kind.trainable() && !self.frozen
    }
}

/// All parameters of a network, in torchvision's order.
#[derive(Debug, Clone)]
pub struct Parameters {
    entries: Vec<Entry>,
    dtype: DType,
    copies: Option<Span>,
    image_table: Span,
    /// Bytes of each group in a region.
    groups: [Range<usize>; 3],
    region_bytes: usize,
    slots: Option<usize>,
    bytes: usize,
}

impl Parameters {
    /// Lays out parameters for activations of type `working`. `slots` is the number of optimizer states per parameter,
    /// `None` for inference (no gradients either); parameters of group `frozen` get neither.
    pub(super) fn new(
        declared: Vec<Declared>,
        working: DType,
        slots: Option<usize>,
        frozen: Option<Group>,
        image_channels: usize,
    ) -> Parameters {
        let dtype = working.accumulator();
        // A tensor's copy begins at a multiple of the alignment as well.
        let narrower = dtype.size() / working.size();
        let bytes_of = |shape: &Shape| aligned(shape.elements() * working.size()) * narrower;
        let learned = |one: &Declared| one.kind.trainable() && Some(one.group) != frozen;
        let mut end = 0;
        let groups = Group::ALL.map(|group| {
            let members = declared.iter().filter(|one| one.group == group && learned(one));
            let start = end;
            end += members.map(|one| bytes_of(&one.shape)).sum::<usize>();
            start..end
        });
        let region_bytes = end;
        let regions = 1 + slots.map_or(0, |slots| 1 + slots);
        let (mut next, mut constant) = (groups.clone().map(|group| group.start), region_bytes * regions);
        let mut entries = Vec::with_capacity(declared.len());
        for one in declared {
            let is_learned = learned(&one);
            let Declared { name, kind, shape, group } = one;
            let cursor = if is_learned { &mut next[group as usize] } else { &mut constant };
            let value = Span { offset: *cursor, elements: shape.elements(), dtype };
            *cursor += bytes_of(&shape);
            let has_gradient = is_learned && slots.is_some();
            let gradient = has_gradient.then(|| Span { offset: value.offset + region_bytes, ..value });
            let parameter = Parameter { value, gradient, copy: None, shape };
            entries.push(Entry { name, kind, group, frozen: Some(group) == frozen, parameter });
        }
        let image_table = Span { offset: 0, elements: 256 * image_channels, dtype };
        let mut parameters = Parameters {
            entries,
            dtype,
            copies: None,
            image_table,
            groups,
            region_bytes,
            slots,
            bytes: constant,
        };
        // A frozen backbone is folded, which makes narrow weights of its own.
        if slots.is_some() && working != dtype && frozen != Some(Group::Backbone) {
            parameters.add_copies(working);
        }
        parameters.image_table = parameters.reserve(image_table.elements, dtype);
        parameters
    }

    /// The same parameters, for inference, in the memory of another network from byte `offset` on.
    pub(super) fn moved(mut self, offset: usize) -> Parameters {
        for entry in &mut self.entries {
            entry.parameter.value.offset += offset;
        }
        self.image_table.offset += offset;
        self
    }

    /// Sets memory aside that outlives every plan.
    pub(super) fn reserve(&mut self, elements: usize, dtype: DType) -> Span {
        let span = Span { offset: self.bytes, elements, dtype };
        self.bytes += aligned(span.bytes());
        span
    }

    /// The normalised value of every byte of an image, (channels, 256).
    pub fn image_table(&self) -> Span {
        self.image_table
    }

    /// Adds the region of narrow values behind everything else.
    fn add_copies(&mut self, working: DType) {
        let elements = self.region_bytes / self.dtype.size();
        let copies = self.reserve(elements, working);
        for entry in self.entries.iter_mut().filter(|entry| entry.learned()) {
            let value = entry.parameter.value;
            let offset = copies.offset + value.offset / self.dtype.size() * working.size();
            entry.parameter.copy = Some(Span { offset, elements: value.elements, dtype: working });
        }
        self.copies = Some(copies);
    }

    /// The parameters in torchvision's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes of persistent memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of learned numbers, padding not counted.
    pub fn trainable_elements(&self) -> usize {
        self.entries.iter().filter(|entry| entry.learned()).map(|e| e.parameter.shape.elements()).sum()
    }

    fn region(&self, index: usize) -> Span {
        let elements = self.region_bytes / self.dtype.size();
        Span { offset: index * self.region_bytes, elements, dtype: self.dtype }
    }

    /// The elements of a region that are a group's, padding included.
    pub fn group(&self, group: Group) -> Range<usize> {
        let Range { start, end } = self.groups[group as usize];
        start / self.dtype.size()..end / self.dtype.size()
    }

    /// All learned values as one span.
    pub fn values(&self) -> Span {
        self.region(0)
    }

    /// All learned values once more in the activations' type, where that is narrower and they are trained.
    pub fn copies(&self) -> Option<Span> {
        self.copies
    }

    /// All gradients as one span.
    pub fn gradients(&self) -> Option<Span> {
        self.slots.map(|_| self.region(1))
    }

    /// An optimizer state of all parameters as one span.
    pub fn slot(&self, index: usize) -> Option<Span> {
        self.slots.filter(|&slots| index < slots).map(|_| self.region(2 + index))
    }

    /// Number of optimizer states per parameter.
    pub fn slots(&self) -> usize {
        self.slots.unwrap_or(0)
    }

    /// One parameter's part of an optimizer state.
    pub fn slot_of(&self, entry: &Entry, index: usize) -> Option<Span> {
        let region = self.slot(index).filter(|_| entry.learned())?;
        Some(Span { offset: entry.parameter.value.offset + region.offset, ..entry.parameter.value })
    }
}
