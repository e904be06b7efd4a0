/* RMS normalisation of [N, D], forward and backward in one pass each. */
#include <stdlib.h>

#include "norm.h"

typedef struct {
    long rows, dim;
    const float *x_ND, *weight_D;
    float *scale_N, *to_ND; /* the result, or the gradient of x */
    const float *grad_ND;
    float *parts; /* of the weight's gradient */
    float eps;
} Norm;

static void forward(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Norm *it = problem;
    long each = part_rows(it->rows);
    for (long row = task * each; row < least((task + 1) * each, it->rows); row++)
        it->scale_N[row] =
            normalise(it->x_ND + row * it->dim, it->weight_D, it->eps, it->dim, it->to_ND + row * it->dim);
}

static void backward(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Norm *it = problem;
    long each = part_rows(it->rows), dim = it->dim;
    memset(it->parts + task * dim, 0, dim * sizeof(float));
    for (long row = task * each; row < least((task + 1) * each, it->rows); row++)
        derive_norm(it->grad_ND + row * dim, it->x_ND + row * dim, it->weight_D, it->scale_N[row], dim,
                    it->to_ND + row * dim, it->parts + task * dim);
}

int xck_rms_norm_forward(Fork *fork, int threads, long rows, long dim, const float *x_ND, const float *weight_D,
                         float eps, float *scale_N, float *y_ND) {
    Norm it = {.rows = rows, .dim = dim, .x_ND = x_ND, .weight_D = weight_D, .scale_N = scale_N, .to_ND = y_ND};
    it.eps = eps;
    share((Team){fork, threads}, parts_of(rows), forward, &it, NULL, 0);
    return 0;
}

int xck_rms_norm_backward(Fork *fork, int threads, long rows, long dim, const float *x_ND, const float *weight_D,
                          float *scale_N, const float *grad_ND, float *grad_x_ND, float *grad_weight_D) {
    Norm it = {.rows = rows, .dim = dim, .x_ND = x_ND, .weight_D = weight_D, .scale_N = scale_N, .to_ND = grad_x_ND};
    it.grad_ND = grad_ND;
    it.parts = take_floats(parts_of(rows) * dim);
    if (!it.parts) return 1;
    share((Team){fork, threads}, parts_of(rows), backward, &it, NULL, 0);
    sum_parts(it.parts, parts_of(rows), dim, grad_weight_D);
    free(it.parts);
    return 0;
}
