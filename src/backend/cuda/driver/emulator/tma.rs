//! TMA loads: tensor maps of this device, the boxes or pixels they describe, the swizzled rows in shared memory.

use std::ptr;

use super::abi;
use super::async_proxy::AsyncProxyView;
use crate::backend::cuda::driver::tensor_map::{ELEMENT_BYTES, TensorMap, TensorMapRequest, TmaMode};

/// First 8 bytes of every map of this device.
const MARK: u64 = 0x7265_7369_6475_6101;

/// A tensor map, decoded.
struct Map {
    rank: usize,
    address: u64,
    extents: [i64; 5],
    /// The innermost first.
    strides: [i64; 5],
    im2col: Option<Im2col>,
    /// Extents of the box, or channels and pixels.
    extents_of_load: [u32; 5],
}

/// The pixels that a load in im2col mode collects.
struct Im2col {
    lower: [i32; 2],
    upper: [i32; 2],
    strides: [i32; 2],
}

/// Packs a request that was checked: mark; address; rank and kind; five extents (less one, 32 bits each); four strides;
/// extents of the load; corners and steps.
pub(super) fn encode(request: &TensorMapRequest<'_>) -> TensorMap {
    let mut words = [0; 16];
    words[0] = MARK;
    words[1] = request.address;
    let put = |words: &mut TensorMap, index: usize, value: u32| {
        words[index / 2] |= u64::from(value) << (32 * (index % 2));
    };
    for (dimension, extent) in request.extents.iter().enumerate() {
        put(&mut words, 6 + dimension, (extent - 1) as u32);
    }
    words[6..6 + request.strides.len()].copy_from_slice(request.strides);
    let im2col = match request.mode {
        TmaMode::Tiled(extents) => {
            extents.iter().enumerate().for_each(|(d, &extent)| put(&mut words, 20 + d, extent));
            0
        }
        TmaMode::Im2col { lower, upper, channels, pixels, strides } => {
            put(&mut words, 20, channels);
            put(&mut words, 21, pixels);
            for axis in 0..2 {
                put(&mut words, 26 + axis, lower[axis] as u32);
                put(&mut words, 28 + axis, upper[axis] as u32);
                put(&mut words, 30 + axis, strides[axis]);
            }
            1
        }
    };
    words[2] = request.extents.len() as u64 | im2col << 32;
    words
}

/// # Errors
/// The map is none of this device.
fn decode(words: &TensorMap) -> Result<Map, String> {
    if words[0] != MARK {
        return Err("the tensor map was not made by this device's Driver::tensor_map".into());
    }
    let get = |index: usize| (words[index / 2] >> (32 * (index % 2))) as u32;
    let mut strides = [ELEMENT_BYTES as i64; 5];
    (1..5).for_each(|d| strides[d] = words[5 + d] as i64);
    let pair = |first: usize| [get(first) as i32, get(first + 1) as i32];
    Ok(Map {
        rank: get(4) as usize,
        address: words[1],
        extents: std::array::from_fn(|d| i64::from(get(6 + d)) + 1),
        strides,
        im2col: (get(5) == 1).then(|| Im2col { lower: pair(26), upper: pair(28), strides: pair(30) }),
        extents_of_load: std::array::from_fn(|d| get(20 + d)),
    })
}

/// One row in global memory. Bytes before `first` and from `end` on lie outside the tensor and are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    /// Where the row's first byte would lie.
    from: u64,
    first: u32,
    end: u32,
}

/// A load that was checked: its rows and their target.
#[derive(Clone)]
pub(super) struct TmaLoad {
    to: *mut u8,
    row_bytes: u32,
    rows: Vec<Row>,
    /// Phase of its barrier when it was issued.
    pub phase: u64,
    pub thread: u32,
    /// The thread block of the thread, if it is another than the target's.
    pub sender: Option<abi::Index>,
    /// The intrinsic's line, for errors.
    pub place: String,
}

impl TmaLoad {
    /// Decodes a map and finds the rows that a load moves.
    ///
    /// # Errors
    /// The map is none of this device, or not for this intrinsic; the first pixel lies outside the map's bounding box.
    ///
    /// # Safety
    /// `asked.map` can be read.
    pub unsafe fn new(asked: &abi::TmaLoad, thread: u32, place: String) -> Result<TmaLoad, String> {
        if !(asked.map as usize).is_multiple_of(64) {
            return Err("the tensor map is not aligned to 64 bytes".into());
        }
        // SAFETY: the caller's promise.
        let map = decode(unsafe { &*asked.map.cast::<TensorMap>() })?;
        let kind = |im2col: bool| if im2col { "of images" } else { "of boxes" };
        let fits = map.rank == asked.rank as usize && map.im2col.is_some() == (asked.im2col == 1);
        if !asked.to.is_null() && !fits {
            return Err(format!(
                "the map is {} in {} dimensions, the load {} in {}",
                kind(map.im2col.is_some()),
                map.rank,
                kind(asked.im2col == 1),
                asked.rank
            ));
        }
        let mut copy = TmaLoad {
            to: asked.to,
            row_bytes: map.extents_of_load[0] * ELEMENT_BYTES as u32,
            rows: Vec::new(),
            phase: 0,
            thread,
            sender: None,
            place,
        };
        if !asked.to.is_null() {
            match &map.im2col {
                None => copy.collect_box(&map, asked.coordinates.map(i64::from)),
                Some(im2col) => copy.collect_pixels(&map, im2col, asked)?,
            }
        }
        Ok(copy)
    }

    /// The same load into another thread block of the sender's cluster.
    pub fn to_other(&self, to: *mut u8, sender: abi::Index) -> TmaLoad {
        TmaLoad { to, sender: Some(sender), ..self.clone() }
    }

    /// Bytes that come to shared memory.
    pub fn bytes(&self) -> usize {
        self.row_bytes as usize * self.rows.len()
    }

    /// First address of each row's part in global memory, and its bytes.
    pub fn reads(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let inside = self.rows.iter().filter(|row| row.first < row.end);
        inside.map(|row| (row.from + u64::from(row.first), u64::from(row.end - row.first)))
    }

    fn collect_box(&mut self, map: &Map, first: [i64; 5]) {
        let outer = &map.extents_of_load[1..map.rank];
        let rows = outer.iter().product::<u32>();
        for index in 0..rows {
            let (mut rest, mut at) = (index, first);
            for (coordinate, &extent) in at[1..].iter_mut().zip(outer) {
                *coordinate += i64::from(rest % extent);
                rest /= extent;
            }
            self.push(map, at);
        }
    }

    fn collect_pixels(&mut self, map: &Map, im2col: &Im2col, asked: &abi::TmaLoad) -> Result<(), String> {
        let [c, w, h, n, _] = asked.coordinates.map(i64::from);
        let (mut at, mut image) = ([w, h], n);
        let lower = im2col.lower.map(i64::from);
        let last = [0, 1].map(|axis| map.extents[1 + axis] - 1 + i64::from(im2col.upper[axis]));
        for (axis, name) in ["w", "h"].into_iter().enumerate() {
            if !(lower[axis]..=last[axis]).contains(&at[axis]) {
                return Err(format!(
                    "the first pixel's {name} is {}; the map's bounding box has {} to {}",
                    at[axis], lower[axis], last[axis]
                ));
            }
            if asked.offsets[axis] > 255 {
                return Err(format!("an offset of {} in {name}; 0 to 255 are allowed", asked.offsets[axis]));
            }
        }
        let [offset_w, offset_h] = asked.offsets.map(i64::from);
        for _ in 0..map.extents_of_load[1] {
            self.push(map, [c, at[0] + offset_w, at[1] + offset_h, image, 0]);
            at[0] += i64::from(im2col.strides[0]);
            if at[0] > last[0] {
                at[0] = lower[0];
                at[1] += i64::from(im2col.strides[1]);
                if at[1] > last[1] {
                    at[1] = lower[1];
                    image += 1;
                }
            }
        }
        Ok(())
    }

    /// Adds the row that begins at these coordinates.
    fn push(&mut self, map: &Map, at: [i64; 5]) {
        let outside = (1..map.rank).any(|d| !(0..map.extents[d]).contains(&at[d]));
        if outside {
            return self.rows.push(Row { from: 0, first: 0, end: 0 });
        }
        let row_elements = i64::from(self.row_bytes) / ELEMENT_BYTES as i64;
        let offset: i64 = (0..map.rank).map(|d| at[d] * map.strides[d]).sum();
        let first = (-at[0]).clamp(0, row_elements);
        let end = (map.extents[0] - at[0]).clamp(first, row_elements);
        let bytes = |elements: i64| (elements * ELEMENT_BYTES as i64) as u32;
        self.rows.push(Row {
            from: map.address.wrapping_add_signed(offset),
            first: bytes(first),
            end: bytes(end),
        });
    }

    /// Performs the load, 16 bytes at a time: bits 4 to 6 of the address are replaced by themselves XOR bits 7 to 9.
    ///
    /// # Safety
    /// All addresses of [`TmaLoad::reads`] can be read; the target is shared memory, aligned to 1024 bytes.
    pub unsafe fn perform(&self, view: &mut AsyncProxyView) {
        for (index, row) in self.rows.iter().enumerate() {
            for at in (0..self.row_bytes).step_by(16) {
                let mut chunk = [0_u8; 16];
                let (first, end) = (row.first.clamp(at, at + 16), row.end.clamp(at, at + 16));
                // SAFETY: the caller's promise.
                unsafe {
                    if first < end {
                        let from = (row.from + u64::from(first)) as *const u8;
                        let chunk = chunk.as_mut_ptr().add((first - at) as usize);
                        ptr::copy_nonoverlapping(from, chunk, (end - first) as usize);
                    }
                    let linear = self.to as usize + index * self.row_bytes as usize + at as usize;
                    let swizzled = linear ^ (linear >> 7 & 7) << 4;
                    (swizzled as *mut [u8; 16]).write(chunk);
                }
            }
        }
        // SAFETY: just written.
        unsafe { view.copied(self.to, self.bytes()) };
    }

    /// Fills the target with NaN.
    ///
    /// # Safety
    /// The target is shared memory.
    pub unsafe fn poison(&self, view: &mut AsyncProxyView) {
        // SAFETY: the caller's promise; swizzling stays inside rows of 128 bytes, which the target has whole.
        unsafe {
            ptr::write_bytes(self.to, 0xff, self.bytes());
            view.copied(self.to, self.bytes());
        }
    }
}
