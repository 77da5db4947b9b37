//! The parameters of a network: names, shapes, and where they lie in a backend's memory.
//!
//! Memory begins with four regions of equal layout, then the running statistics, then, where activations are narrower
//! than parameters (bf16), room for a copy of all trainable values in that type, then the normalised value of every
//! byte of an image, and whatever else is reserved:
//!
//! ```text
//! [ trainable values ][ gradients ][ optimizer slot 0 ][ optimizer slot 1 ][ running statistics ][ narrow values ]
//! [ normalisation table ][ reserved ]
//! ```
//! so that an optimizer's step is one call over whole regions. Gradients and slots exist only where asked for. Each
//! tensor begins at a multiple of [`ALIGNMENT`](crate::tensor::ALIGNMENT) bytes; the padding between them holds zeros,
//! which every optimizer leaves zero.

use crate::autograd::Parameter;
use crate::tensor::{DType, Shape, Span, aligned};

/// What a parameter is, which decides how it starts and how its layout differs from PyTorch's.
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
    /// Running mean.
    RunningMean,
    /// Running variance.
    RunningVariance,
}

impl Kind {
    /// Whether an optimizer changes it.
    pub fn trainable(self) -> bool {
        !matches!(self, Kind::RunningMean | Kind::RunningVariance)
    }
}

/// One named parameter.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Torchvision's name: `layer1.0.conv1.weight`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it lies.
    pub parameter: Parameter,
}

/// All parameters of a network, in torchvision's order.
#[derive(Debug, Clone)]
pub struct Parameters {
    entries: Vec<Entry>,
    dtype: DType,
    copies: Option<Span>,
    image_table: Span,
    region_bytes: usize,
    slots: Option<usize>,
    bytes: usize,
}

impl Parameters {
    /// Lays out named parameters for activations of type `working`. `slots` is the number of optimizer states per
    /// parameter, `None` for inference (no gradients either).
    pub(super) fn new(
        named: Vec<(String, Kind, Shape)>,
        working: DType,
        slots: Option<usize>,
        image_channels: usize,
    ) -> Parameters {
        let mut entries = Vec::with_capacity(named.len());
        let dtype = working.accumulator();
        // A tensor's copy begins at a multiple of the alignment as well.
        let narrower = dtype.size() / working.size();
        let bytes_of = |shape: &Shape| aligned(shape.elements() * working.size()) * narrower;
        let region_bytes: usize =
            named.iter().filter(|(_, kind, _)| kind.trainable()).map(|(_, _, shape)| bytes_of(shape)).sum();
        let regions = 1 + slots.map_or(0, |slots| 1 + slots);
        let (mut trainable, mut running) = (0, region_bytes * regions);
        for (name, kind, shape) in named {
            let cursor = if kind.trainable() { &mut trainable } else { &mut running };
            let value = Span { offset: *cursor, elements: shape.elements(), dtype };
            *cursor += bytes_of(&shape);
            let has_gradient = kind.trainable() && slots.is_some();
            let gradient = has_gradient.then(|| Span { offset: value.offset + region_bytes, ..value });
            entries.push(Entry { name, kind, parameter: Parameter { value, gradient, copy: None, shape } });
        }
        let image_table = Span { offset: 0, elements: 256 * image_channels, dtype };
        let mut parameters =
            Parameters { entries, dtype, copies: None, image_table, region_bytes, slots, bytes: running };
        if slots.is_some() && working != dtype {
            parameters.add_copies(working);
        }
        parameters.image_table = parameters.reserve(image_table.elements, dtype);
        parameters
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
        for entry in self.entries.iter_mut().filter(|entry| entry.kind.trainable()) {
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

    /// Number of trainable numbers, padding not counted.
    pub fn trainable_elements(&self) -> usize {
        self.entries.iter().filter(|e| e.kind.trainable()).map(|e| e.parameter.shape.elements()).sum()
    }

    fn region(&self, index: usize) -> Span {
        let elements = self.region_bytes / self.dtype.size();
        Span { offset: index * self.region_bytes, elements, dtype: self.dtype }
    }

    /// All trainable values as one span.
    pub fn values(&self) -> Span {
        self.region(0)
    }

    /// All trainable values once more in the activations' type, where that is narrower and they are trained.
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
        let region = self.slot(index).filter(|_| entry.kind.trainable())?;
        Some(Span { offset: entry.parameter.value.offset + region.offset, ..entry.parameter.value })
    }
}
