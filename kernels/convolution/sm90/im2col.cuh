// Coordinates of pixels and filter taps, as TMA loads in im2col mode take them.
#pragma once
#include "convolution/sm90/arguments.cuh"

/// The base of a pixel: the position in the image where its patch begins.
struct BasePixel {
    int column, row, image;
};

/// The position of a pixel in its image, or the distance to another pixel.
struct PixelPosition {
    u32 column, row, image;

    __device__ PixelPosition(const Phase& phase, u32 pixel) {
        const u32 line = fast_divide(pixel, phase.width);
        image = fast_divide(line, phase.height);
        row = line - image * phase.height.divisor;
        column = pixel - line * phase.width.divisor;
    }

    /// Moves on by the number of pixels whose position is `distance`.
    __device__ void advance(const Phase& phase, const PixelPosition& distance) {
        column += distance.column;
        row += distance.row;
        image += distance.image;
        if (column >= phase.width.divisor) column -= phase.width.divisor, row++;
        if (row >= phase.height.divisor) row -= phase.height.divisor, image++;
    }

    __device__ BasePixel base(const Arguments& p, const Phase& phase) const {
        return {int(column * p.pixel_step) + phase.first_column, int(row * p.pixel_step) + phase.first_row, int(image)};
    }
};

/// Row of the output matrix that holds a pixel's result.
__device__ inline u32 out_row_of(const Arguments& p, const Phase& phase, u32 pixel) {
    const PixelPosition at(phase, pixel);
    return (at.image * p.out_height + at.row * p.out_step + phase.out_row) * p.out_width + at.column * p.out_step +
           phase.out_column;
}

/// Iterates over GEMM K of fprop and dgrad: filter taps, and within a tap chunks of 64 channels.
struct TapIterator {
    u32 chunk = 0, tap_w = 0, tap_h = 0;

    __device__ void advance(u32 chunks, u32 taps_w) {
        if (++chunk < chunks) return;
        chunk = 0;
        if (++tap_w < taps_w) return;
        tap_w = 0;
        tap_h++;
    }
};
