//! A tensor as a view into a storage: where its elements lie, and what kind they are.

use super::super::ElementType;
use crate::pickle::Global;

/// A reference to a run of elements: `('storage', type, key, device, elements[, view])`.
pub(super) struct StorageReference<'p> {
    pub(super) key: &'p str,
    pub(super) kind: StorageKind<'p>,
    /// Bytes of the whole storage; of an unknown kind its elements.
    pub(super) length: usize,
    /// Bytes before the part that is meant (legacy files only), and the bytes of that part.
    pub(super) view: Option<(usize, usize)>,
}

/// The elements of a storage, by its class.
#[derive(Debug, Clone, Copy)]
pub(super) enum StorageKind<'p> {
    /// Numbers this program reads.
    Numbers(ElementType),
    /// Bytes; the tensor says what they mean.
    Untyped,
    /// Elements of a type that no tensor of this program has (complex or quantized numbers), and their size in bytes.
    Foreign(Global<'p>, usize),
    /// A class of another name.
    Unknown(Global<'p>),
}

impl StorageKind<'_> {
    /// Bytes of an element, if they are known.
    pub(super) fn size(self) -> Option<usize> {
        match self {
            StorageKind::Numbers(element) => Some(element.size()),
            StorageKind::Untyped => Some(1),
            StorageKind::Foreign(_, size) => Some(size),
            StorageKind::Unknown(_) => None,
        }
    }
}

/// A tensor as the pickle describes it.
pub(super) struct View<'p> {
    pub(super) storage: StorageReference<'p>,
    pub(super) element: ElementType,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// Whether the elements are the negatives of those stored (`torch._neg_view`, the imaginary part of a conjugate).
    pub(super) negative: bool,
}

impl View<'_> {
    /// The number of elements, if every one of them lies among the `available` ones of the storage. It may be larger
    /// than `available`: views repeat elements by strides of 0 (`expand`) or by overlapping (`unfold`).
    pub(super) fn element_count(&self, available: usize) -> Option<usize> {
        // Extents beside a zero multiply too, wherever somebody computes with the shape.
        let most = self.shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent.max(&1)));
        let most = most.filter(|&most| most <= isize::MAX as usize / 8)?;
        if self.shape.contains(&0) {
            return Some(0);
        }
        let mut last = self.offset;
        for (extent, stride) in self.shape.iter().zip(&self.strides) {
            last = last.checked_add((extent - 1).checked_mul(*stride)?)?;
        }
        (last < available).then_some(most)
    }

    /// The bytes of the elements in row-major order.
    pub(super) fn gather(&self, storage: &[u8], count: usize) -> Vec<u8> {
        let size = self.element.size();
        if self.is_contiguous() {
            return storage[self.offset * size..(self.offset + count) * size].to_vec();
        }
        let mut out = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..count {
            let at =
                self.offset + index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<usize>();
            out.extend_from_slice(&storage[at * size..(at + 1) * size]);
            for dimension in (0..index.len()).rev() {
                index[dimension] += 1;
                if index[dimension] < self.shape[dimension] {
                    break;
                }
                index[dimension] = 0;
            }
        }
        out
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(extent, stride)| {
            let fits = *extent == 1 || *stride == expected;
            expected *= extent;
            fits
        })
    }
}

/// The elements of a storage class; PyTorch of today writes the CPU's, whichever device they were on.
pub(super) fn storage_kind(class: Global<'_>) -> StorageKind<'_> {
    if !matches!(class.module, "torch" | "torch.cuda" | "torch.storage") {
        return StorageKind::Unknown(class);
    }
    if let Some(element) = ElementType::of_storage(class.name) {
        return StorageKind::Numbers(element);
    }
    match class.name {
        "UntypedStorage" => StorageKind::Untyped,
        "ComplexFloatStorage" => StorageKind::Foreign(class, 8),
        "ComplexDoubleStorage" => StorageKind::Foreign(class, 16),
        "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => {
            StorageKind::Foreign(class, 1)
        }
        "QInt32Storage" => StorageKind::Foreign(class, 4),
        _ => StorageKind::Unknown(class),
    }
}

/// The elements of a `torch.dtype` that this program reads.
pub(super) fn dtype_element(dtype: Global<'_>) -> Option<ElementType> {
    ElementType::of_dtype(dtype.name).filter(|_| dtype.module == "torch")
}
