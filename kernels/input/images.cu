// A batch of network inputs from pixels in memory: crop, flip, rotation and normalisation in one pass.
//
//   pixels (images, side, side, channels) bytes; table (channels, 256): the normalised value of every byte;
//   placement (batch, 8) integers: [index, left, right_of_x, right_of_y, top, down_of_x, down_of_y, 0] in 16.16 fixed point;
//   y (batch, side, side, channels):
//   y[n, row, column, c] = table[c][pixels[index, (top + column down_of_x + row down_of_y) >> 16,
//                                          (left + column right_of_x + row right_of_y) >> 16, c]]
//   with the byte 0 outside the image. An index that names no image gives NaN.
//
// A thread writes one vector of y, 16 bytes, which crosses pixels and perhaps images; the last writes the remaining elements.
#include "intrinsics/ptx.cuh"
#include "common/vectorized.cuh"

constexpr int VECTOR_SIZE = MAX_VECTOR_SIZE<Real>;
/// Numbers of an image in `placement`.
LAUNCHER_CONSTANT u32 PLACEMENT_NUMBERS = 8;

struct ImageBatch {
    const u8* pixels;
    const float* table;
    const int* placement;
    Real* y;
    u64 elements;  // of y
    u32 images, side, channels;
    u32 unused;
};

/// The source of the pixel of y that is being written.
struct Source {
    const u8* pixel;
    bool known, inside;

    __device__ Source(const ImageBatch& p, u32 image, u32 row, u32 column) {
        const Vector<int, 4> a = load_vector<4>(p.placement + u64(image) * PLACEMENT_NUMBERS);
        const Vector<int, 4> b = load_vector<4>(p.placement + u64(image) * PLACEMENT_NUMBERS + 4);
        const i64 x = (a[1] + i64(column) * a[2] + i64(row) * a[3]) >> 16;
        const i64 y = (b[0] + i64(column) * b[1] + i64(row) * b[2]) >> 16;
        known = a[0] >= 0 && u32(a[0]) < p.images;
        inside = known && x >= 0 && x < p.side && y >= 0 && y < p.side;
        pixel = p.pixels + (inside ? ((u64(a[0]) * p.side + y) * p.side + x) * p.channels : 0);
    }
};

KERNEL(THREADS, load_images, ImageBatch) {
    const u64 first = u64(thread_in_small_grid()) * VECTOR_SIZE;
    if (first < p.elements) {
        // The launcher limits the number of elements to 2^31.
        u32 channel = u32(first) % p.channels;
        const u32 pixel = u32(first) / p.channels, line = pixel / p.side;
        u32 column = pixel % p.side;
        u32 row = line % p.side;
        u32 image = line / p.side;
        const u32 count = p.elements - first < VECTOR_SIZE ? u32(p.elements - first) : VECTOR_SIZE;
        Source source(p, image, row, column);
        float values[VECTOR_SIZE];
#pragma unroll
        for (u32 i = 0; i < VECTOR_SIZE; ++i) {
            if (i < count) {
                if (channel == p.channels) {
                    channel = 0;
                    if (++column == p.side) {
                        column = 0;
                        if (++row == p.side) {
                            row = 0;
                            ++image;
                        }
                    }
                    source = Source(p, image, row, column);
                }
                const u32 byte = source.inside ? load(source.pixel + channel) : 0;
                values[i] = source.known ? load(p.table + channel * 256 + byte) : INFINITY_F32 - INFINITY_F32;
                ++channel;
            }
        }
        if (count == VECTOR_SIZE) {
            store_floats(p.y + first, values);
        } else {
            for (u32 i = 0; i < count; ++i) store(p.y + first + i, from_float<Real>(values[i]));
        }
    }
}
