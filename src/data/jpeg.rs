//! JPEG files to the pixels that Pillow gives: libjpeg's own code with its defaults, through the TurboJPEG interface,
//! which catches the library's errors inside C. No error unwinds through C, and none of its frames calls back here.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_ulong, c_void};
use std::ptr::NonNull;

// The C code comes with this crate; the declarations below are those of its `turbojpeg.h`.
use mozjpeg_sys as _;

use super::{LARGEST_IMAGE, RgbImage};

/// Scans of one image, at most. Pillow and libjpeg write up to ten; a file of a few kilobytes can declare thousands, each of
/// which visits every block of the image.
const MOST_SCANS: usize = 100;

/// Beginnings of libjpeg's warnings: the image is decoded to its end, what is missing or wrong is filled in. Any other
/// message is an error. (The interface's own answer to this question is "warning" also for an error that follows one.)
const WARNINGS: [&str; 9] = [
    "Corrupt JPEG data: bad Huffman code",
    "Corrupt JPEG data: bad arithmetic code",
    "Corrupt JPEG data: bad ICC marker",
    "Corrupt JPEG data: found marker",
    "Corrupt JPEG data: premature end of data segment",
    "Inconsistent progression sequence",
    "Invalid SOS parameters for sequential JPEG",
    "Unknown Adobe color transform code",
    "Warning: unknown JFIF revision number",
];

/// The one warning about well-formed image data: bytes between two segments, skipped.
const EXTRANEOUS: (&str, &str) = ("Corrupt JPEG data: ", " extraneous bytes before marker");

/// A TurboJPEG decompressor.
type Handle = *mut c_void;

const TJPF_RGB: c_int = 0;
const TJPF_CMYK: c_int = 11;
/// More than 500 scans are an error: libjpeg's own bound, behind [`MOST_SCANS`].
const TJFLAG_LIMITSCANS: c_int = 32_768;

unsafe extern "C" {
    fn tjInitDecompress() -> Handle;
    fn tjDecompressHeader3(
        handle: Handle,
        jpeg: *const c_uchar,
        size: c_ulong,
        width: *mut c_int,
        height: *mut c_int,
        subsampling: *mut c_int,
        colorspace: *mut c_int,
    ) -> c_int;
    fn tjDecompress2(
        handle: Handle,
        jpeg: *const c_uchar,
        size: c_ulong,
        pixels: *mut c_uchar,
        width: c_int,
        pitch: c_int,
        height: c_int,
        pixel_format: c_int,
        flags: c_int,
    ) -> c_int;
    fn tjGetErrorStr2(handle: Handle) -> *const c_char;
    fn tjDestroy(handle: Handle) -> c_int;
}

/// Whether bytes begin as a JPEG does.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8])
}

/// Decodes a JPEG: baseline, extended or progressive, Huffman or arithmetic coding, grey, YCbCr, RGB, CMYK or YCCK, upsampled
/// as libjpeg does by default. The EXIF orientation is not applied and ICC profiles are ignored, as by Pillow's
/// `convert("RGB")`.
///
/// # Errors
/// The text says what was found instead of an image that can be decoded.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    let frame = Frame::find(bytes)?;
    let decompressor = Decompressor::new()?;
    // The library's reading of the header counts: it is what decides how much is written.
    let (width, height) = decompressor.dimensions(bytes)?;
    if (width, height) != (frame.width, frame.height) {
        return Err(format!(
            "a JPEG of two headers: {} x {} pixels in one, {width} x {height} in another",
            frame.width, frame.height
        ));
    }
    let (pixels, warning) = match frame.components {
        4 => {
            let (inks, warning) = decompressor.decompress(bytes, width, height, TJPF_CMYK, 4)?;
            (rgb_of_cmyk(&inks), warning)
        }
        _ => decompressor.decompress(bytes, width, height, TJPF_RGB, 3)?,
    };
    Ok(RgbImage { width, height, pixels, warning })
}

/// The RGB bytes of Adobe's inverted CMYK, as Pillow computes them: (255 - C)(255 - K) / 255, rounded.
fn rgb_of_cmyk(inks: &[u8]) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(inks.len() / 4 * 3);
    for &[c, m, y, light] in inks.as_chunks::<4>().0 {
        for inverted in [c, m, y] {
            let product = u32::from(255 - inverted) * u32::from(light) + 128;
            let rounded = ((product >> 8) + product) >> 8;
            pixels.push(light - rounded as u8);
        }
    }
    pixels
}

/// Frame header of a JPEG, read before anything is decoded.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    width: u32,
    height: u32,
    components: u8,
}

impl Frame {
    /// Follows the markers to the end of the image. In entropy-coded data `ff` is followed by `00` or a restart marker
    /// (`d0`..`d7`); every other marker before the end (`d9`) begins a segment with a length.
    fn find(bytes: &[u8]) -> Result<Frame, String> {
        let (mut at, mut frame, mut scans) = (2, None, 0);
        loop {
            let Some(&[first, second]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else {
                // The library would fill what is missing with grey; a network would learn from it.
                return Err(format!("a JPEG that is cut short after {} bytes", bytes.len()));
            };
            match (first, second) {
                (0xff, 0xd9) => break,
                (0xff, 0xff) => at += 1,
                (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
                (0xff, marker) => {
                    let segment = bytes.get(at + 2..).unwrap_or(&[]);
                    match marker {
                        0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                            let found = Frame::of_segment(marker, segment)?;
                            frame.get_or_insert(found);
                        }
                        0xf7 => return Err("a JPEG-LS image; save it as PNG or as baseline JPEG".to_owned()),
                        0xda => scans += 1,
                        _ => {}
                    }
                    let Some(length) = segment.first_chunk() else {
                        return Err(format!("a JPEG that is cut short after {} bytes", bytes.len()));
                    };
                    at += 2 + usize::from(u16::from_be_bytes(*length)).max(2);
                }
                _ => at += 1,
            }
        }
        if scans > MOST_SCANS {
            return Err(format!("a JPEG of {scans} scans, where at most {MOST_SCANS} are read"));
        }
        frame.ok_or_else(|| "a JPEG without a frame header".to_owned())
    }

    /// Reads the frame header behind marker `ff` `marker`: length (2 bytes), precision, height (2), width (2), components.
    fn of_segment(marker: u8, segment: &[u8]) -> Result<Frame, String> {
        let kind = match marker {
            0xc0..=0xc2 | 0xc9 | 0xca => "",
            0xc3 | 0xcb => "lossless",
            _ => "hierarchical",
        };
        if !kind.is_empty() {
            return Err(format!("a {kind} JPEG; save it as PNG or as baseline JPEG"));
        }
        let Some(&[_, _, precision, h1, h0, w1, w0, components]) = segment.first_chunk() else {
            return Err("a JPEG whose frame header is cut short".to_owned());
        };
        let (width, height) =
            (u32::from(u16::from_be_bytes([w1, w0])), u32::from(u16::from_be_bytes([h1, h0])));
        if precision != 8 {
            return Err(format!("a JPEG of {precision} bits a sample; save it with 8, or as PNG"));
        }
        if !matches!(components, 1 | 3 | 4) {
            return Err(format!("a JPEG of {components} components, where grey has 1, colour 3 and CMYK 4"));
        }
        if width == 0 || height == 0 || u64::from(width) * u64::from(height) > LARGEST_IMAGE {
            return Err(format!(
                "a JPEG of {width} x {height} pixels, where 1 pixel to 64 megapixels are read"
            ));
        }
        Ok(Frame { width, height, components })
    }
}

/// A TurboJPEG decompressor for one image: a second would find the tables that the first one left behind.
struct Decompressor(NonNull<c_void>);

impl Decompressor {
    fn new() -> Result<Decompressor, String> {
        // SAFETY: takes no argument; null means there was no memory.
        let handle = unsafe { tjInitDecompress() };
        NonNull::new(handle).map(Decompressor).ok_or_else(|| "no memory for a JPEG decoder".to_owned())
    }

    /// Width and height in pixels.
    fn dimensions(&self, bytes: &[u8]) -> Result<(u32, u32), String> {
        let (mut width, mut height, mut subsampling, mut colorspace) = (0, 0, 0, 0);
        // SAFETY: the bytes are there for the length given, and the call keeps no pointer to them.
        let _ = unsafe {
            tjDecompressHeader3(
                self.0.as_ptr(),
                bytes.as_ptr(),
                bytes.len() as c_ulong,
                &raw mut width,
                &raw mut height,
                &raw mut subsampling,
                &raw mut colorspace,
            )
        };
        // Its answer is -1 also for warnings and for subsamplings without a name, which `decompress` takes.
        match (u32::try_from(width), u32::try_from(height)) {
            (Ok(width @ 1..), Ok(height @ 1..)) => Ok((width, height)),
            _ => Err(self.message()),
        }
    }

    /// The pixels, `channels` bytes each, and the first warning.
    fn decompress(
        &self,
        bytes: &[u8],
        width: u32,
        height: u32,
        format: c_int,
        channels: usize,
    ) -> Result<(Vec<u8>, Option<Box<str>>), String> {
        let pitch = width as usize * channels;
        let mut pixels = vec![0; pitch * height as usize];
        // SAFETY: `pixels` has room for `height` rows of `pitch` bytes, and an image that turned out larger would be scaled down
        // to fit or refused; the bytes are there for the length given, and the call keeps no pointer to either.
        let answer = unsafe {
            tjDecompress2(
                self.0.as_ptr(),
                bytes.as_ptr(),
                bytes.len() as c_ulong,
                pixels.as_mut_ptr(),
                width as c_int,
                pitch as c_int,
                height as c_int,
                format,
                TJFLAG_LIMITSCANS,
            )
        };
        if answer == 0 {
            return Ok((pixels, None));
        }
        let message = self.message();
        let extraneous = message.starts_with(EXTRANEOUS.0) && message.contains(EXTRANEOUS.1);
        if extraneous || WARNINGS.iter().any(|warning| message.starts_with(warning)) {
            return Ok((pixels, Some(message.into())));
        }
        Err(message)
    }

    /// Last message of the library.
    fn message(&self) -> String {
        // SAFETY: the interface answers with a string of its own, ended by zero, that lives until the next call.
        let text = unsafe { CStr::from_ptr(tjGetErrorStr2(self.0.as_ptr())) };
        text.to_string_lossy().into_owned()
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: the handle is one that `tjInitDecompress` gave, and this is its last use.
        unsafe { tjDestroy(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASELINE: &[u8] = include_bytes!("../../tests/fixtures/images/jpeg_420_baseline.jpg");
    const PROGRESSIVE: &[u8] = include_bytes!("../../tests/fixtures/images/jpeg_420_progressive.jpg");

    /// Where marker `ff` `marker` begins.
    fn find(bytes: &[u8], marker: u8) -> usize {
        bytes.windows(2).position(|pair| pair == [0xff, marker]).unwrap()
    }

    /// A file that stops some bytes into its first scan, with an end marker put behind it.
    fn cut(bytes: &[u8], after: usize) -> Vec<u8> {
        [&bytes[..find(bytes, 0xda) + after], &[0xff, 0xd9]].concat()
    }

    #[test]
    fn a_cut_image_with_an_end_marker_is_decoded_as_by_pillow_and_warned_of() {
        for (whole, after) in [(BASELINE, 300), (PROGRESSIVE, 30)] {
            let (image, all) = (decode(&cut(whole, after)).unwrap(), decode(whole).unwrap());
            assert_eq!((image.width, image.height), (all.width, all.height));
            assert_ne!(image.pixels, all.pixels);
            let warning = image.warning.unwrap();
            assert!(warning.contains("premature end of data segment"), "{warning}");
            assert_eq!(all.warning, None);
        }
        // The first rows are there.
        assert_eq!(decode(&cut(BASELINE, 300)).unwrap().pixels[..96], decode(BASELINE).unwrap().pixels[..96]);
    }

    #[test]
    fn an_error_that_follows_a_warning_is_an_error() {
        let mut bytes = cut(BASELINE, 300);
        bytes.truncate(bytes.len() - 2);
        // A marker that no JPEG has, where the image ends, and then the end.
        bytes.extend([0xff, 0x02, 0, 2, 0xff, 0xd9]);
        let error = decode(&bytes).unwrap_err();
        assert!(error.contains("Unsupported marker type 0x02"), "{error}");
    }

    #[test]
    fn tables_of_one_image_do_not_serve_the_next() {
        let tables = find(BASELINE, 0xdb);
        let frame = find(BASELINE, 0xc0);
        let without = [&BASELINE[..tables], &BASELINE[frame..]].concat();
        let before = decode(&without).unwrap_err();
        decode(BASELINE).unwrap();
        assert_eq!(decode(&without).unwrap_err(), before);
        assert!(before.contains("Quantization table 0x00 was not defined"), "{before}");
    }

    #[test]
    fn more_scans_than_any_program_writes_are_refused_before_decoding() {
        let (scan, end) = (find(PROGRESSIVE, 0xda), PROGRESSIVE.len() - 2);
        // All scans of the image over and over, each refining what it has.
        let repeated = |times: usize| {
            [&PROGRESSIVE[..scan], &PROGRESSIVE[scan..end].repeat(times), &[0xff, 0xd9]].concat()
        };
        let error = decode(&repeated(50)).unwrap_err();
        assert!(error.contains("a JPEG of 500 scans, where at most 100 are read"), "{error}");
        assert!(decode(&repeated(1)).unwrap().warning.is_none());
        assert!(decode(&repeated(10)).is_ok());
    }

    #[test]
    fn kinds_of_jpeg_that_are_not_read_are_refused_by_name() {
        let frame = find(BASELINE, 0xc0);
        let patched = |at: usize, new: &[u8]| {
            let mut bytes = BASELINE.to_vec();
            bytes[frame + at..frame + at + new.len()].copy_from_slice(new);
            decode(&bytes).unwrap_err()
        };
        for (at, new, name) in [
            (1, &[0xc3][..], "a lossless JPEG"),
            (1, &[0xc5], "a hierarchical JPEG"),
            (1, &[0xf7], "a JPEG-LS image"),
            (4, &[12], "a JPEG of 12 bits a sample"),
            (9, &[2], "a JPEG of 2 components"),
            (5, &[0xff; 4], "a JPEG of 65535 x 65535 pixels"),
            (5, &[0; 2], "a JPEG of 41 x 0 pixels"),
        ] {
            let found = patched(at, new);
            assert!(found.contains(name), "{name}: {found}");
        }
    }

    #[test]
    fn inverted_inks_become_pillows_colours() {
        // Computed by Pillow: Image.frombytes("CMYK", (1, 4), data, "raw", "CMYK;I").convert("RGB").
        let inks = [255, 255, 255, 255, 0, 128, 255, 200, 17, 99, 201, 3, 250, 1, 77, 254];
        assert_eq!(rgb_of_cmyk(&inks), [255, 255, 255, 0, 100, 200, 0, 1, 2, 249, 1, 77]);
    }
}
