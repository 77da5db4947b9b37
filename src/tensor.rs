//! A tensor: a shape, an element type, and where its bytes lie in a backend's memory.
//!
//! Activations are NHWC: element (n, y, x, c) of a tensor of shape (N, H, W, C) lies at `((n * H + y) * W + x) * C + c`.
//! Convolution weights are KRSC: (output channel, filter row, filter column, input channel). PyTorch's NCHW and OIHW
//! appear only where files are read and written.

use std::fmt;

/// Element types that backends compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision: the CPU's oracle.
    F64,
    /// The upper half of an f32; storage on GPUs, with f32 accumulation.
    Bf16,
    /// Labels, predictions, positions of maxima.
    I32,
    /// Pixels as they lie in image files.
    U8,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::Bf16 => 2,
            DType::U8 => 1,
        }
    }

    /// The type of sums, statistics, heads, losses, gradients of weights and the weights themselves where activations
    /// have this type: one that a long sum does not ruin.
    pub const fn accumulator(self) -> DType {
        match self {
            DType::F64 => DType::F64,
            DType::F32 | DType::Bf16 | DType::I32 | DType::U8 => DType::F32,
        }
    }
}

/// The extents of a tensor, slowest first; at most four.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    extents: [usize; 4],
    rank: usize,
}

impl Shape {
    /// A shape from its extents, slowest first.
    pub fn new(extents: &[usize]) -> Shape {
        assert!(extents.len() <= 4, "tensors have at most four dimensions, not {}", extents.len());
        let mut all = [1; 4];
        all[..extents.len()].copy_from_slice(extents);
        Shape { extents: all, rank: extents.len() }
    }

    /// The extents, slowest first.
    pub fn extents(&self) -> &[usize] {
        &self.extents[..self.rank]
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.extents.iter().product()
    }

    /// The extents of an NHWC tensor, or of any tensor of rank four.
    pub fn nhwc(&self) -> [usize; 4] {
        assert_eq!(self.rank, 4, "expected an NHWC tensor, found shape {self}");
        self.extents
    }

    /// The fastest extent: channels, features or classes.
    pub fn channels(&self) -> usize {
        self.extents[self.rank.saturating_sub(1)]
    }

    /// Product of all extents but the fastest.
    pub fn rows(&self) -> usize {
        self.elements() / self.channels().max(1)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(extents: [usize; N]) -> Shape {
        Shape::new(&extents)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.extents())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A tensor's place in a backend's memory: a contiguous run of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte; a multiple of [`ALIGNMENT`].
    pub offset: usize,
    /// Number of elements.
    pub elements: usize,
    /// Their type.
    pub dtype: DType,
}

impl Span {
    /// Number of bytes.
    pub fn bytes(&self) -> usize {
        self.elements * self.dtype.size()
    }
}

/// Every tensor begins at a multiple of this many bytes: a cache line, an AVX-512 register, and more than the 16 bytes
/// that vectorised loads on a GPU need.
pub const ALIGNMENT: usize = 64;

/// Rounds a number of bytes up to a multiple of [`ALIGNMENT`].
pub const fn aligned(bytes: usize) -> usize {
    bytes.div_ceil(ALIGNMENT) * ALIGNMENT
}

/// Values that go from the host to a backend's memory; the backend converts to the tensor's own type.
#[derive(Debug, Clone, Copy)]
pub enum HostValues<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
    /// Integers, for integer tensors only.
    I32(&'a [i32]),
    /// Bytes, for pixels only.
    U8(&'a [u8]),
}
