//! Resizing and rotation against what Pillow made of the same pixels (`tests/fixtures/make_data.py`).

use serde::Deserialize;

use super::{Placement, RgbImage, resize};

#[derive(Deserialize)]
struct Goldens {
    resize: Vec<Resized>,
    rotate: Vec<Rotated>,
}

#[derive(Deserialize)]
struct Resized {
    from: [u32; 2],
    to: [u32; 2],
    expected: Vec<u8>,
}

#[derive(Deserialize)]
struct Rotated {
    size: [u32; 2],
    degrees: f64,
    expected: Vec<u8>,
}

fn goldens() -> Goldens {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/data/pillow.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The script's `pixels`.
fn picture(width: u32, height: u32) -> RgbImage {
    let pixels = (0..3 * width * height).map(|i| ((i * 40503) >> 8) as u8).collect();
    RgbImage::new(width, height, pixels)
}

#[test]
fn resizing_is_pillows_pixel_for_pixel() {
    for case in goldens().resize {
        let image = resize(&picture(case.from[0], case.from[1]), case.to[0], case.to[1]).unwrap();
        assert_eq!(image.pixels, case.expected, "{:?} to {:?}", case.from, case.to);
    }
}

#[test]
fn rotation_is_pillows_pixel_for_pixel() {
    for case in goldens().rotate {
        let image = picture(case.size[0], case.size[1]);
        let (width, height) = (case.size[0], case.size[1]);
        let turn = Placement::rotation(width, height, case.degrees);
        let mut turned = Vec::new();
        for y in 0..i64::from(height) {
            for x in 0..i64::from(width) {
                let (from_x, from_y) = turn.source(x, y);
                let inside =
                    (0..i64::from(width)).contains(&from_x) && (0..i64::from(height)).contains(&from_y);
                let at = 3 * (from_y * i64::from(width) + from_x);
                turned.extend_from_slice(if inside { &image.pixels[at as usize..][..3] } else { &[0; 3] });
            }
        }
        assert_eq!(turned, case.expected, "{:?} by {}", case.size, case.degrees);
    }
}
