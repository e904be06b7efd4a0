/* Grouped experts, forward: each block of an expert's rows from end to end while it is in a cache. */
#include <stdlib.h>

#include "experts.h"

typedef struct {
    Experts it;
    const Block *blocks;
    float *gate_up_panels, *down_panels; /* of the wave's experts */
    size_t gate_up_each, down_each;
    long first; /* expert of the wave */
    float *output_RD, *y_TD;
} Forward;

static void prepare(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Forward *run = problem;
    const Experts *it = &run->it;
    long slot = task / 2, expert = run->first + slot, dim = it->dim, width = it->width;
    if (it->start_E[expert] == it->start_E[expert + 1]) return;
    if (task % 2)
        pack_transposed(it->gate_up_EFD + expert * 2 * width * dim, dim, dim, 2 * width,
                        run->gate_up_panels + slot * run->gate_up_each);
    else
        pack_transposed(it->down_EDF + expert * dim * width, width, width, dim,
                        run->down_panels + slot * run->down_each);
}

/* hidden = silu(gate) * up * weight. */
static void activate(const float *restrict gate, long width, float weight, float *restrict hidden) {
    const float *restrict up = gate + width;
    long f = 0;
    for (; f + LANES <= width; f += LANES)
        store(hidden + f, load(gate + f) * sigmoid_of(load(gate + f)) * load(up + f) * weight);
    for (; f < width; f++) hidden[f] = gate[f] * sigmoid_of(all(gate[f]))[0] * up[f] * weight;
}

static void compute(const void *problem, long task, float *scratch) {
    const Forward *run = problem;
    const Experts *it = &run->it;
    Block block = run->blocks[task];
    long slot = block.expert - run->first;
    const float *rows[BLOCK];
    for (long i = 0; i < block.count; i++) rows[i] = it->x_TD + it->place_R[block.first + i] / it->chosen * it->dim;
    float *gate_up = it->gate_up_RF + block.first * 2 * it->width;
    multiply(rows, run->gate_up_panels + slot * run->gate_up_each, block.count, 2 * it->width, it->dim, gate_up,
             2 * it->width);
    for (long i = 0; i < block.count; i++) {
        float weight = it->weights_R ? it->weights_R[it->place_R[block.first + i]] : 1;
        activate(gate_up + i * 2 * it->width, it->width, weight, scratch + i * it->width);
        rows[i] = scratch + i * it->width;
    }
    multiply(rows, run->down_panels + slot * run->down_each, block.count, it->dim, it->width,
             run->output_RD + block.first * it->dim, it->dim);
}

static void gather(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Forward *run = problem;
    combine(&run->it, run->output_RD, run->y_TD, task);
}

static void run_waves(Team team, Forward *run, Block *blocks, float *scratch, size_t each) {
    const Experts *it = &run->it;
    run->blocks = blocks;
    for (long last; run->first < it->experts; run->first = last) {
        last = wave_end(it, run->first, run->gate_up_each + run->down_each);
        share(team, 2 * (last - run->first), prepare, run, NULL, 0);
        share(team, cut(it, run->first, last, blocks), compute, run, scratch, each);
    }
    share(team, (it->tokens + TOKENS - 1) / TOKENS, gather, run, NULL, 0);
}

/* y_TD, and gate_up_RF for the backward pass. Returns 0, or 1 where there is no memory. */
int xck_experts_forward(Fork *fork, int threads, const Experts *it, float *y_TD) {
    Forward run = {.it = *it,
                   .y_TD = y_TD,
                   .gate_up_each = panels_of(2 * it->width) * COLUMNS * it->dim,
                   .down_each = panels_of(it->dim) * COLUMNS * it->width};
    long wave_rows, wave;
    widest(it, run.gate_up_each + run.down_each, &wave_rows, &wave);
    size_t rows = rounded(it->tokens * it->chosen * it->dim), each = rounded(BLOCK * it->width);
    size_t gate_up = rounded(wave * run.gate_up_each), down = rounded(wave * run.down_each);
    float *floats = take_floats(rows + gate_up + down + each * threads);
    Block *blocks = malloc((most_blocks(it) + 1) * sizeof(Block));
    int failed = !floats || !blocks;
    if (!failed) {
        run.output_RD = floats;
        run.gate_up_panels = floats + rows;
        run.down_panels = run.gate_up_panels + gate_up;
        run_waves((Team){fork, threads}, &run, blocks, run.down_panels + down, each);
    }
    free(floats);
    free(blocks);
    return failed;
}
