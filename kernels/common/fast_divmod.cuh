// Division by numbers that the host knows before a launch.
#pragma once
#include "intrinsics/ptx.cuh"

/// Division of numbers below 2^31 by a number known before the launch, as a multiplication and a shift.
struct Divider {
    u32 divisor, factor, shift;
};

__device__ inline u32 divide(u32 number, const Divider& by) {
    return (u32((u64(number) * by.factor) >> 32) + number) >> by.shift;
}
