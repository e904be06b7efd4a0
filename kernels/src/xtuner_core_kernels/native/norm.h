/* RMS normalisation of a row, and its derivative; sums over rows that nobody's timing changes. */
#ifndef XCK_NORM_H
#define XCK_NORM_H

#include <math.h>

#include "product.h"
#include "team.h"

/* Rows of a task: so many that there are at most PARTS, whose sums are added in order. */
#define PARTS 64
INLINE long part_rows(long rows) { return most(32, (rows + PARTS - 1) / PARTS); }
INLINE long parts_of(long rows) { return (rows + part_rows(rows) - 1) / part_rows(rows); }

/* to = weight * x / rms(x); gives 1 / rms(x). */
INLINE float normalise(const float *restrict x, const float *restrict weight, float eps, long dim, float *restrict to) {
    float scale = 1 / sqrtf(dot(x, x, dim) / dim + eps);
    for (long d = 0; d < dim; d++) to[d] = weight[d] * (x[d] * scale);
    return scale;
}

/* From the gradient of what normalise() gave: that of x, and what the row adds to the weight's. */
INLINE void derive_norm(const float *restrict grad, const float *restrict x, const float *restrict weight, float scale,
                        long dim, float *restrict grad_x, float *restrict grad_weight) {
    Vector sum = {0};
    float rest = 0;
    long d = 0;
    for (; d + LANES <= dim; d += LANES) {
        Vector product = load(grad + d) * load(x + d);
        store(grad_weight + d, load(grad_weight + d) + product * scale);
        sum += product * load(weight + d);
    }
    for (; d < dim; d++) {
        grad_weight[d] += grad[d] * x[d] * scale;
        rest += grad[d] * x[d] * weight[d];
    }
    float along = (sum_of(sum) + rest) * scale * scale * scale / dim;
    for (d = 0; d < dim; d++) grad_x[d] = grad[d] * weight[d] * scale - x[d] * along;
}

/* to = the sum of so many rows, in order. */
INLINE void sum_parts(const float *parts, long count, long dim, float *restrict to) {
    memset(to, 0, dim * sizeof(float));
    for (long part = 0; part < count; part++)
        for (long d = 0; d < dim; d++) to[d] += parts[part * dim + d];
}

#endif
