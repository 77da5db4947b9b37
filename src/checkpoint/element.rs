//! The number types tensors are stored as, and how their little-endian bytes become [`Values`].

use std::fmt;

use half::{bf16, f16};
use safetensors::tensor::Dtype;

use super::Values;

/// How the elements of a tensor are stored in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// One byte, 0 or 1.
    Bool,
    /// 8-bit two's complement.
    I8,
    /// 16-bit two's complement.
    I16,
    /// 32-bit two's complement.
    I32,
    /// 64-bit two's complement.
    I64,
    /// 8-bit unsigned.
    U8,
    /// 16-bit unsigned.
    U16,
    /// 32-bit unsigned.
    U32,
    /// 64-bit unsigned; values from 2⁶³ on are refused.
    U64,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

/// Of each type: bytes of an element, the short name PyTorch and safetensors users know, the name of its `torch.dtype`, its
/// storage class in torch (wide unsigned ones have none), and its type in safetensors.
type Row = (ElementType, usize, &'static str, &'static str, Option<&'static str>, Dtype);

/// The rows stand in the order of the variants.
const TYPES: [Row; 13] = [
    (ElementType::Bool, 1, "bool", "bool", Some("BoolStorage"), Dtype::BOOL),
    (ElementType::I8, 1, "i8", "int8", Some("CharStorage"), Dtype::I8),
    (ElementType::I16, 2, "i16", "int16", Some("ShortStorage"), Dtype::I16),
    (ElementType::I32, 4, "i32", "int32", Some("IntStorage"), Dtype::I32),
    (ElementType::I64, 8, "i64", "int64", Some("LongStorage"), Dtype::I64),
    (ElementType::U8, 1, "u8", "uint8", Some("ByteStorage"), Dtype::U8),
    (ElementType::U16, 2, "u16", "uint16", None, Dtype::U16),
    (ElementType::U32, 4, "u32", "uint32", None, Dtype::U32),
    (ElementType::U64, 8, "u64", "uint64", None, Dtype::U64),
    (ElementType::F16, 2, "f16", "float16", Some("HalfStorage"), Dtype::F16),
    (ElementType::Bf16, 2, "bf16", "bfloat16", Some("BFloat16Storage"), Dtype::BF16),
    (ElementType::F32, 4, "f32", "float32", Some("FloatStorage"), Dtype::F32),
    (ElementType::F64, 8, "f64", "float64", Some("DoubleStorage"), Dtype::F64),
];

fn find(wanted: impl Fn(&Row) -> bool) -> Option<ElementType> {
    TYPES.iter().find(|row| wanted(row)).map(|row| row.0)
}

impl ElementType {
    /// The type a `torch.dtype` names.
    pub(super) fn of_dtype(name: &str) -> Option<ElementType> {
        find(|row| row.3 == name)
    }

    /// The type of the elements of a storage class of torch.
    pub(super) fn of_storage(class: &str) -> Option<ElementType> {
        find(|row| row.4 == Some(class))
    }

    /// The type a safetensors file names.
    pub(super) fn of_safetensors(dtype: Dtype) -> Option<ElementType> {
        find(|row| row.5 == dtype)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        TYPES[self as usize].1
    }

    /// The short name PyTorch and safetensors users know: `f32`, `bf16`, `i64`.
    pub fn name(self) -> &'static str {
        TYPES[self as usize].2
    }

    pub(super) fn storage_class(self) -> Option<&'static str> {
        TYPES[self as usize].4
    }

    pub(super) fn in_safetensors(self) -> Dtype {
        TYPES[self as usize].5
    }

    /// Widens the little-endian elements in `bytes` to the nearest of f32, f64 and i64.
    ///
    /// # Errors
    /// An unsigned 64-bit value beyond i64: the text says which.
    pub(super) fn decode(self, bytes: &[u8]) -> Result<Values, String> {
        Ok(match self {
            ElementType::Bool => Values::I64(elements(bytes, |[b]| i64::from(b != 0))),
            ElementType::I8 => Values::I64(elements(bytes, |b| i64::from(i8::from_le_bytes(b)))),
            ElementType::I16 => Values::I64(elements(bytes, |b| i64::from(i16::from_le_bytes(b)))),
            ElementType::I32 => Values::I64(elements(bytes, |b| i64::from(i32::from_le_bytes(b)))),
            ElementType::I64 => Values::I64(elements(bytes, i64::from_le_bytes)),
            ElementType::U8 => Values::I64(elements(bytes, |[b]| i64::from(b))),
            ElementType::U16 => Values::I64(elements(bytes, |b| i64::from(u16::from_le_bytes(b)))),
            ElementType::U32 => Values::I64(elements(bytes, |b| i64::from(u32::from_le_bytes(b)))),
            ElementType::U64 => {
                let wide = elements(bytes, u64::from_le_bytes);
                let narrow: Result<_, _> = wide
                    .into_iter()
                    .map(|value| i64::try_from(value).map_err(|_| format!("the unsigned value {value}")))
                    .collect();
                Values::I64(narrow?)
            }
            ElementType::F16 => Values::F32(elements(bytes, |b| f16::from_le_bytes(b).to_f32())),
            ElementType::Bf16 => Values::F32(elements(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            ElementType::F32 => Values::F32(elements(bytes, f32::from_le_bytes)),
            ElementType::F64 => Values::F64(elements(bytes, f64::from_le_bytes)),
        })
    }
}

impl ElementType {
    /// The negatives of decoded elements, as arithmetic of this width gives them: unsigned ones and the least signed
    /// one wrap around. `None` for booleans, which have none.
    pub(super) fn negated(self, values: Values) -> Option<Values> {
        let wrapped = |value: i64| match self {
            ElementType::I8 => i64::from((value as i8).wrapping_neg()),
            ElementType::I16 => i64::from((value as i16).wrapping_neg()),
            ElementType::I32 => i64::from((value as i32).wrapping_neg()),
            ElementType::U8 => i64::from((value as u8).wrapping_neg()),
            ElementType::U16 => i64::from((value as u16).wrapping_neg()),
            ElementType::U32 => i64::from((value as u32).wrapping_neg()),
            _ => value.wrapping_neg(),
        };
        Some(match values {
            Values::F32(values) => Values::F32(values.into_iter().map(|value| -value).collect()),
            Values::F64(values) => Values::F64(values.into_iter().map(|value| -value).collect()),
            // A large unsigned number may wrap to one beyond i64.
            Values::I64(_) if matches!(self, ElementType::Bool | ElementType::U64) => return None,
            Values::I64(values) => Values::I64(values.into_iter().map(wrapped).collect()),
        })
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn elements<const WIDTH: usize, T>(bytes: &[u8], read: impl Fn([u8; WIDTH]) -> T) -> Vec<T> {
    bytes.as_chunks::<WIDTH>().0.iter().map(|&element| read(element)).collect()
}

impl Values {
    /// The type the elements have in memory, and are written as: f32, f64 or i64.
    pub fn element_type(&self) -> ElementType {
        match self {
            Values::F32(_) => ElementType::F32,
            Values::F64(_) => ElementType::F64,
            Values::I64(_) => ElementType::I64,
        }
    }
}

/// The elements as little-endian bytes.
pub(super) fn encode(values: &Values) -> Vec<u8> {
    match values {
        Values::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Values::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Values::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_and_integers_widen_to_the_value_they_hold() {
        assert_eq!(ElementType::F16.decode(&[0x00, 0xb8]), Ok(Values::F32(vec![-0.5])));
        assert_eq!(ElementType::Bf16.decode(&[0xc0, 0x3f]), Ok(Values::F32(vec![1.5])));
        assert_eq!(ElementType::I8.decode(&[0xff, 3]), Ok(Values::I64(vec![-1, 3])));
        assert_eq!(ElementType::U16.decode(&[0xff, 0xff]), Ok(Values::I64(vec![65_535])));
        assert_eq!(ElementType::Bool.decode(&[0, 2]), Ok(Values::I64(vec![0, 1])));
        assert!(ElementType::U64.decode(&[0xff; 8]).is_err());
    }

    #[test]
    fn negatives_wrap_at_the_width_of_the_element() {
        assert_eq!(ElementType::U8.negated(Values::I64(vec![0, 1, 255])), Some(Values::I64(vec![0, 255, 1])));
        assert_eq!(ElementType::I8.negated(Values::I64(vec![-128, 5])), Some(Values::I64(vec![-128, -5])));
        assert_eq!(
            ElementType::F16.negated(Values::F32(vec![1.5, -2.0])),
            Some(Values::F32(vec![-1.5, 2.0]))
        );
        assert_eq!(ElementType::Bool.negated(Values::I64(vec![1])), None);
    }
}
