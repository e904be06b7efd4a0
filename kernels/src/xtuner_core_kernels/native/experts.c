/* The order of the routed rows, their blocks, and the sum over the rows of a token. */
#include "experts.h"

/* A stable counting sort: fills place_R, row_R and start_E. Returns 0, or 1 where an expert is out of range. */
int xck_experts_order(long places, long experts, const int64_t *expert_R, int32_t *place_R, int32_t *row_R,
                      long *start_E) {
    memset(start_E, 0, (experts + 1) * sizeof(long));
    for (long place = 0; place < places; place++) {
        if (expert_R[place] < 0 || expert_R[place] >= experts) return 1;
        start_E[expert_R[place]]++;
    }
    for (long expert = 0, sum = 0; expert <= experts; expert++) {
        long count = start_E[expert];
        start_E[expert] = sum;
        sum += count;
    }
    for (long place = 0; place < places; place++) {
        long row = start_E[expert_R[place]]++;
        place_R[row] = (int32_t)place;
        row_R[place] = (int32_t)row;
    }
    for (long expert = experts; expert > 0; expert--) start_E[expert] = start_E[expert - 1];
    start_E[0] = 0;
    return 0;
}

long cut(const Experts *it, long first, long last, Block *blocks) {
    long found = 0;
    for (long expert = first; expert < last; expert++) {
        long begin = it->start_E[expert], rows = it->start_E[expert + 1] - begin;
        long parts = (rows + BLOCK - 1) / BLOCK;
        for (long part = 0, tiles = (rows + ROWS - 1) / ROWS; part < parts; part++) {
            long from = tiles * part / parts * ROWS, to = least(tiles * (part + 1) / parts * ROWS, rows);
            blocks[found++] = (Block){expert, begin + from, to - from};
        }
    }
    return found;
}

long wave_end(const Experts *it, long first, size_t matrices) {
    long last = first + 1;
    while (last < it->experts && it->start_E[last + 1] - it->start_E[first] <= WAVE_ROWS &&
           (last + 1 - first) * matrices <= WAVE_FLOATS)
        last++;
    return last;
}

void widest(const Experts *it, size_t matrices, long *rows, long *experts) {
    *rows = *experts = 0;
    for (long first = 0, last; first < it->experts; first = last) {
        last = wave_end(it, first, matrices);
        *rows = most(*rows, it->start_E[last] - it->start_E[first]);
        *experts = most(*experts, last - first);
    }
}

void combine(const Experts *it, const float *rows_RD, float *to_TD, long task) {
    long dim = it->dim;
    for (long token = task * TOKENS; token < least((task + 1) * TOKENS, it->tokens); token++) {
        const int32_t *rows = it->row_R + token * it->chosen;
        float *restrict to = to_TD + token * dim;
        memcpy(to, rows_RD + rows[0] * dim, dim * sizeof(float));
        for (long k = 1; k < it->chosen; k++) {
            const float *restrict from = rows_RD + rows[k] * dim;
            for (long d = 0; d < dim; d++) to[d] += from[d];
        }
    }
}
