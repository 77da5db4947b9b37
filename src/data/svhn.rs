//! Street View House Numbers, cropped digits (`train_32x32.mat`, `test_32x32.mat`): array `X` of 32 x 32 x 3 x N bytes,
//! column-major (row fastest, then column, channel, sample), and `y` with the labels 1..10, where 10 is the digit 0.

use std::path::Path;

use super::mat::{self, Array, MatFile};
use super::{Dataset, LARGEST_IMAGE, RgbImage};
use crate::error::{Error, Position, Result};

/// One file of SVHN.
#[derive(Debug)]
pub(super) struct Svhn {
    file: MatFile,
    images: Array,
    rows: usize,
    columns: usize,
    labels: Vec<u8>,
    class_names: Vec<String>,
}

impl Svhn {
    pub(super) fn open(path: &Path) -> Result<Svhn> {
        let file = MatFile::open(path)?;
        let [images, labels] = file.arrays(["X", "y"])?;
        let member = |name: &str| Position::Member(name.to_owned());
        // MATLAB drops a last extent of one: a file of a single image has three.
        let (rows, columns, count) = match images.extents[..] {
            [rows, columns, 3] => (rows, columns, 1),
            [rows, columns, 3, count] => (rows, columns, count),
            _ => (0, 0, 0),
        };
        let pixels = rows as u128 * columns as u128;
        let fits = pixels * 3 * count as u128 == file.numbers(&images).len() as u128;
        if images.element != mat::UINT8
            || !fits
            || !(1..=u128::from(LARGEST_IMAGE)).contains(&pixels)
            || count == 0
        {
            return Err(Error::malformed(
                path,
                member("X"),
                "bytes (uint8) of extents 32 x 32 x 3 x N",
                format!(
                    "extents {:?} of {}, {} bytes",
                    images.extents,
                    mat::type_name(images.element),
                    file.numbers(&images).len()
                ),
            ));
        }
        let numbers = mat::as_f64(labels.element, file.numbers(&labels))
            .ok_or_else(|| Error::malformed(path, member("y"), "numbers", mat::type_name(labels.element)))?;
        if numbers.len() != count {
            let found = format!("{}", numbers.len());
            let expected = format!("{count} labels, one for each image in X");
            return Err(Error::malformed(path, member("y"), expected, found));
        }
        let labels =
            numbers.iter().enumerate().map(|(row, &label)| digit(path, row, label)).collect::<Result<_>>()?;
        let class_names = (0..10).map(|digit| digit.to_string()).collect();
        Ok(Svhn { file, images, rows, columns, labels, class_names })
    }
}

/// The digit a label means. 0 is read as the digit 0 too: some converted copies use it.
fn digit(path: &Path, row: usize, label: f64) -> Result<u8> {
    if label.fract() != 0.0 || !(0.0..=10.0).contains(&label) {
        let at = Position::Member(format!("y({})", row + 1));
        let found = format!("{label}");
        return Err(Error::malformed(path, at, "a label from 1 to 10 (10 is the digit 0)", found));
    }
    Ok(label as u8 % 10)
}

impl Dataset for Svhn {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> i64 {
        i64::from(self.labels[index])
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        let area = self.rows * self.columns;
        let planes = &self.file.numbers(&self.images)[3 * area * index..3 * area * (index + 1)];
        let mut pixels = Vec::with_capacity(3 * area);
        for row in 0..self.rows {
            for column in 0..self.columns {
                let position = column * self.rows + row;
                pixels.extend((0..3).map(|channel| planes[channel * area + position]));
            }
        }
        Ok(RgbImage::new(self.columns as u32, self.rows as u32, pixels))
    }
}
