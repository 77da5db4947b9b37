// Division by divisors that the host knows before a launch.
#pragma once
#include "intrinsics/ptx.cuh"

/// Division of numbers below 2^31 by a divisor known before the launch, as a multiplication and a shift.
struct FastDivmod {
    u32 divisor, factor, shift;
};

__device__ inline u32 fast_divide(u32 number, const FastDivmod& by) {
    return (u32((u64(number) * by.factor) >> 32) + number) >> by.shift;
}
