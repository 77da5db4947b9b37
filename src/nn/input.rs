//! Input images of a network: as numbers from the host, or as bytes that the device places and normalises itself.

use super::{Model, Network};
use crate::autograd::{Tape, Var};
use crate::error::Result;
use crate::ops::{ImageBatch, PLACEMENT_NUMBERS};
use crate::plan::{BufferId, Executable};
use crate::tensor::{DType, HostValues, Shape, Span};

/// Extents of an image: rows, columns, channels.
pub type ImageExtent = [usize; 3];

/// Where a plan's images come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSource {
    /// The host writes normalised numbers before every step.
    Numbers,
    /// The host writes the bytes of the batch before every step.
    Bytes,
    /// The bytes of all images lie in memory; the host writes the indices of the batch.
    Resident {
        /// Where they lie.
        pixels: Span,
        /// Their number.
        images: usize,
    },
}

/// The images of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    /// Images in a batch.
    pub batch: usize,
    /// Their extents.
    pub extent: ImageExtent,
    /// Where they come from.
    pub source: ImageSource,
}

/// The buffers of a plan that its images come through.
#[derive(Debug, Clone, Copy)]
pub enum ImageInput {
    /// Normalised numbers.
    Numbers(BufferId),
    /// Bytes, and where they go.
    Bytes {
        /// The pixels, unless they are resident.
        pixels: Option<BufferId>,
        /// The placements.
        placement: BufferId,
    },
}

impl ImageInput {
    /// Records the images of a network's step.
    ///
    /// # Panics
    /// Images that come as bytes are not square.
    pub fn record(tape: &mut Tape, network: &Network, images: &Images) -> (ImageInput, Var) {
        let Images { batch, extent: [height, width, channels], source } = *images;
        let (in_memory, resident) = match source {
            ImageSource::Numbers => {
                let var = tape.activation_input("images", [batch, height, width, channels]);
                return (ImageInput::Numbers(var.buffer), var);
            }
            ImageSource::Bytes => (batch, None),
            ImageSource::Resident { pixels, images } => (images, Some(pixels)),
        };
        assert_eq!(height, width, "images that a device places are square");
        let attributes = ImageBatch { images: in_memory, batch, side: height, channels };
        let table = tape.persistent("normalisation table", network.parameters().image_table());
        let placement = tape.input("placement", Shape::from([batch, PLACEMENT_NUMBERS]), DType::I32).buffer;
        let pixels = match resident {
            Some(span) => tape.persistent("pixels", span),
            None => tape.input("pixels", [batch, height, width, channels], DType::U8).buffer,
        };
        let var = tape.load_images(attributes, pixels, table, placement);
        (ImageInput::Bytes { pixels: resident.is_none().then_some(pixels), placement }, var)
    }

    /// Writes a batch of normalised numbers, NHWC.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// The plan wants bytes.
    pub fn write_numbers(
        &self,
        model: &mut Model,
        executable: &Executable,
        values: HostValues<'_>,
    ) -> Result<()> {
        let (to, values) = self.numbers(executable, values);
        model.write(to, values)
    }

    /// Where a batch of normalised numbers goes.
    ///
    /// # Panics
    /// The plan wants bytes.
    pub fn numbers<'a>(&self, executable: &Executable, values: HostValues<'a>) -> (Span, HostValues<'a>) {
        let ImageInput::Numbers(images) = *self else { panic!("this plan takes its images as bytes") };
        (executable.span(images), values)
    }

    /// Writes a batch of bytes (none if they are resident) and their placements.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// The plan wants numbers.
    pub fn write_bytes(
        &self,
        model: &mut Model,
        executable: &Executable,
        bytes: &[u8],
        places: &[i32],
    ) -> Result<()> {
        model.write_all(&self.bytes(executable, bytes, places))
    }

    /// Where a batch of bytes and their placements go.
    ///
    /// # Panics
    /// The plan wants numbers.
    pub fn bytes<'a>(
        &self,
        executable: &Executable,
        bytes: &'a [u8],
        places: &'a [i32],
    ) -> Vec<(Span, HostValues<'a>)> {
        let ImageInput::Bytes { pixels, placement } = *self else {
            panic!("this plan takes its images as numbers")
        };
        let pixels = pixels.map(|pixels| (executable.span(pixels), HostValues::U8(bytes)));
        pixels.into_iter().chain([(executable.span(placement), HostValues::I32(places))]).collect()
    }
}
