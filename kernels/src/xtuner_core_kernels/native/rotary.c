/* Rotary position embedding, with the normalisation of heads before it where there is one; one pass each way. */
#include <stdlib.h>

#include "norm.h"

typedef struct {
    long tokens, heads, channels, rotating, interleaved, x_stride, grad_stride; /* strides from token to token */
    const float *x_THC, *cos_TP, *sin_TP, *weight_C; /* no weight: no normalisation, and x is not read backward */
    float *scale_TH, *to_THC;
    const float *grad_THC;
    float *parts; /* of the weight's gradient */
    float eps;
} Rotary;

/* to = x turned by the angles; back turns against them. */
INLINE void turn(const Rotary *it, const float *restrict x, long token, int back, float *restrict to) {
    const float *restrict cosine = it->cos_TP + token * it->rotating, *restrict sine = it->sin_TP + token * it->rotating;
    long half = it->rotating / 2;
    /* Backward is the transpose: each channel takes the other's sine with the other sign. */
    if (it->interleaved) {
        for (long i = 0; i < it->rotating; i += 2) {
            to[i] = x[i] * cosine[i] + (back ? x[i + 1] * sine[i + 1] : -x[i + 1] * sine[i]);
            to[i + 1] = x[i + 1] * cosine[i + 1] + (back ? -x[i] * sine[i] : x[i] * sine[i + 1]);
        }
    } else if (back) {
        for (long i = 0; i < half; i++) to[i] = x[i] * cosine[i] + x[half + i] * sine[half + i];
        for (long i = 0; i < half; i++) to[half + i] = x[half + i] * cosine[half + i] - x[i] * sine[i];
    } else {
        for (long i = 0; i < half; i++) to[i] = x[i] * cosine[i] - x[half + i] * sine[i];
        for (long i = 0; i < half; i++) to[half + i] = x[half + i] * cosine[half + i] + x[i] * sine[half + i];
    }
    for (long i = it->rotating; i < it->channels; i++) to[i] = x[i];
}

static void forward(const void *problem, long task, float *scratch) {
    const Rotary *it = problem;
    long each = part_rows(it->tokens);
    for (long token = task * each; token < least((task + 1) * each, it->tokens); token++)
        for (long head = 0; head < it->heads; head++) {
            const float *x = it->x_THC + token * it->x_stride + head * it->channels;
            long row = token * it->heads + head;
            if (it->weight_C) {
                it->scale_TH[row] = normalise(x, it->weight_C, it->eps, it->channels, scratch);
                x = scratch;
            }
            turn(it, x, token, 0, it->to_THC + row * it->channels);
        }
}

static void backward(const void *problem, long task, float *scratch) {
    const Rotary *it = problem;
    long each = part_rows(it->tokens);
    float *part = it->parts + task * it->channels;
    if (it->weight_C) memset(part, 0, it->channels * sizeof(float));
    for (long token = task * each; token < least((task + 1) * each, it->tokens); token++)
        for (long head = 0; head < it->heads; head++) {
            long row = token * it->heads + head;
            float *to = it->to_THC + row * it->channels;
            turn(it, it->grad_THC + token * it->grad_stride + head * it->channels, token, 1, it->weight_C ? scratch : to);
            if (it->weight_C)
                derive_norm(scratch, it->x_THC + token * it->x_stride + head * it->channels, it->weight_C,
                            it->scale_TH[row], it->channels, to, part);
        }
}

/* to_THC, and the scales for the backward pass. Returns 0, or 1 where there is no memory. */
int xck_rotary_forward(Fork *fork, int threads, const Rotary *it) {
    size_t each = rounded(it->channels);
    float *scratch = take_floats(each * threads);
    if (!scratch) return 1;
    share((Team){fork, threads}, parts_of(it->tokens), forward, it, scratch, each);
    free(scratch);
    return 0;
}

/* to_THC is the gradient of x. Returns 0, or 1 where there is no memory. */
int xck_rotary_backward(Fork *fork, int threads, const Rotary *problem, float *grad_weight_C) {
    Rotary it = *problem;
    size_t each = rounded(it.channels), parts = rounded(parts_of(it.tokens) * it.channels);
    it.parts = take_floats(parts + each * threads);
    if (!it.parts) return 1;
    share((Team){fork, threads}, parts_of(it.tokens), backward, &it, it.parts + parts, each);
    if (it.weight_C) sum_parts(it.parts, parts_of(it.tokens), it.channels, grad_weight_C);
    free(it.parts);
    return 0;
}
