/* Vectors of floats as wide as the instruction set has them, through the vector extension of GCC and Clang.

   The build compiles every source once for each instruction set; the width follows from what the compiler was told. */
#ifndef XCK_VECTORS_H
#define XCK_VECTORS_H

#include <stdint.h>

#ifndef LANES
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE Vector load(const float *from) { return *(const Unaligned *)from; }
INLINE void store(float *to, Vector x) { *(Unaligned *)to = x; }
INLINE Vector all(float x) { return x - (Vector){0}; }

/* x where the mask's bits are set, else y. */
INLINE Vector choose(Integers mask, Vector x, Vector y) {
    return (Vector)((mask & (Integers)x) | (~mask & (Integers)y));
}

INLINE Vector greater(Vector x, Vector y) { return choose(x > y, x, y); }

INLINE float sum_of(Vector x) {
    float sum[LANES];
    store(sum, x);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) sum[i] += sum[i + width];
    return sum[0];
}

INLINE float dot(const float *x, const float *y, long count) {
    Vector sum = {0};
    float rest = 0;
    long i = 0;
    for (; i + LANES <= count; i += LANES) sum += load(x + i) * load(y + i);
    for (; i < count; i++) rest += x[i] * y[i];
    return sum_of(sum) + rest;
}

INLINE float highest_of(Vector x) {
    float highest = x[0];
    for (int i = 1; i < LANES; i++) highest = x[i] > highest ? x[i] : highest;
    return highest;
}

/* 0, 1, 2, ... */
INLINE Integers counting(void) {
    Integers lanes;
    for (int i = 0; i < LANES; i++) lanes[i] = i;
    return lanes;
}

#define LOG2_E 1.44269504088896341f

/* 2^x within 1 unit in the last place for -126 <= x <= 127; 0 below, 2^127 above, not a number where x is none.

   2^x = 2^n 2^f with n the nearest integer; 2^f by a polynomial of degree 6 through Chebyshev's points, whose
   relative error is 2.5e-9. */
INLINE Vector exp2_of(Vector x) {
    const Vector magic = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer, in the low bits. */
    Integers tiny = x < all(-126.0f);
    x = choose(x > all(127.0f), all(127.0f), x);
    Vector shifted = x + magic;
    Vector f = x - (shifted - magic);
    Integers exponent = ((Integers)shifted + 127) << 23;
    Vector p = all(0x1.4440000000000p-13f);
    p = p * f + 0x1.5f48c00000000p-10f;
    p = p * f + 0x1.3b2a1c0000000p-7f;
    p = p * f + 0x1.c6aecc0000000p-5f;
    p = p * f + 0x1.ebfbe00000000p-3f;
    p = p * f + 0x1.62e4300000000p-1f;
    p = p * f + 1.0f;
    return (Vector)(~tiny & (Integers)(p * (Vector)exponent));
}

INLINE Vector sigmoid_of(Vector x) { return 1.0f / (1.0f + exp2_of(x * -LOG2_E)); }

#endif
