//! How a convolution's outputs are cut into tiles of 4x4 pixels, and tiles into blocks.

use super::transform::{OUTPUTS, POINTS};
use crate::backend::cpu::convolution::kernel::NOWHERE;

/// The tiles of a map of outputs, image by image and row by row.
///
/// A row of tiles is a band of up to four rows of pixels. A block is a number of bands that follow each other, so that its
/// pixels are one run of memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    /// Rows and columns of the map that is seen.
    pub seen: [usize; 2],
    /// Rows and columns of the map of outputs.
    pub map: [usize; 2],
    /// Rows and columns of zeros in front of the map that is seen.
    pub padding: usize,
    pub batch: usize,
    /// Bands of a block.
    pub bands: usize,
}

impl Grid {
    /// Blocks of about `tiles` tiles.
    pub(super) fn new(batch: usize, seen: [usize; 2], map: [usize; 2], padding: usize, tiles: usize) -> Grid {
        let bands = (tiles / map[1].div_ceil(OUTPUTS)).max(1);
        Grid { seen, map, padding, batch, bands }
    }

    /// Bands of an image.
    fn rows(&self) -> usize {
        self.map[0].div_ceil(OUTPUTS)
    }

    /// Tiles of a band.
    pub(super) fn columns(&self) -> usize {
        self.map[1].div_ceil(OUTPUTS)
    }

    /// Bands of the whole batch.
    fn all_bands(&self) -> usize {
        self.batch * self.rows()
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.all_bands().div_ceil(self.bands)
    }

    /// Tiles of a block that is not the last.
    pub(super) fn block_tiles(&self) -> usize {
        self.bands.min(self.all_bands()) * self.columns()
    }

    /// The tiles of a block.
    pub(super) fn tiles(&self, block: usize) -> impl Iterator<Item = Tile> + use<> {
        let grid = *self;
        let bands = block * grid.bands..((block + 1) * grid.bands).min(grid.all_bands());
        bands.flat_map(move |band| {
            let (image, row) = (band / grid.rows(), band % grid.rows() * OUTPUTS);
            (0..grid.columns()).map(move |column| Tile { image, row, column: column * OUTPUTS })
        })
    }

    /// Number of tiles of a block.
    pub(super) fn count(&self, block: usize) -> usize {
        (self.all_bands() - block * self.bands).min(self.bands) * self.columns()
    }

    /// The first pixel of a block among all outputs; that of the block behind the last is their number.
    pub(super) fn first_pixel(&self, block: usize) -> usize {
        let band = (block * self.bands).min(self.all_bands());
        let row = band / self.rows() * self.map[0] + band % self.rows() * OUTPUTS;
        row * self.map[1]
    }

    /// The outputs' pixels of a tile, from `first` on; those beyond the map are [`NOWHERE`].
    pub(super) fn outputs(&self, tile: Tile, first: usize) -> [[usize; OUTPUTS]; OUTPUTS] {
        let [rows, columns] = self.map;
        std::array::from_fn(|i| {
            std::array::from_fn(|j| {
                let (row, column) = (tile.row + i, tile.column + j);
                let inside = row < rows && column < columns;
                if inside { (tile.image * rows + row) * columns + column - first } else { NOWHERE }
            })
        })
    }

    /// The pixels that a tile sees; those beyond the map are [`NOWHERE`].
    pub(super) fn inputs(&self, tile: Tile) -> [[usize; POINTS]; POINTS] {
        let [rows, columns] = self.seen;
        std::array::from_fn(|i| {
            std::array::from_fn(|j| {
                let row = (tile.row + i).wrapping_sub(self.padding);
                let column = (tile.column + j).wrapping_sub(self.padding);
                let inside = row < rows && column < columns;
                if inside { (tile.image * rows + row) * columns + column } else { NOWHERE }
            })
        })
    }
}

/// A tile: its image, and its first row and column in the map of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub image: usize,
    pub row: usize,
    pub column: usize,
}
