/* Grouped experts, backward, some experts at a time: first what belongs to rows, and, while it is still in a cache, the
   products over the rows of an expert that make the gradients of its matrices. */
#include <stdlib.h>

#include "experts.h"

/* Rows of a matrix's gradient in one task. */
#define SLICE (16 * ROWS)

typedef struct {
    Experts it;
    const float *grad_TD;
    float *grad_x_TD, *grad_gate_up_EFD, *grad_down_EDF, *grad_weights_R; /* the last by place, or NULL */
    float *grad_x_RD;
    float *gate_up_panels, *down_panels; /* of the wave's experts */
    size_t gate_up_each, down_each;
    const Block *blocks;
    long first, first_row; /* of the wave */
    /* What the rows of the wave leave for the products over rows: left factors in strips of ROWS columns, right ones in
       panels; those of an expert begin at its first row. */
    float *gate_up_strips, *grad_strips, *x_panels, *hidden_panels;
    long gate_up_padded, grad_padded, x_padded, hidden_padded; /* widths */
} Backward;

static void prepare(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Backward *run = problem;
    const Experts *it = &run->it;
    long slot = task / 2, expert = run->first + slot, dim = it->dim, width = it->width;
    if (it->start_E[expert] == it->start_E[expert + 1]) return;
    long depth = task % 2 ? 2 * width : dim, columns = task % 2 ? dim : width;
    const float *from = task % 2 ? it->gate_up_EFD : it->down_EDF;
    float *to = task % 2 ? run->gate_up_panels + slot * run->gate_up_each : run->down_panels + slot * run->down_each;
    pack(from + expert * depth * columns, columns, depth, columns, to);
}

typedef struct {
    Vector hidden, grad_gate, grad_up, grad_weight;
} Activation;

/* With s = sigmoid(gate): silu(gate) = s gate, d silu / d gate = s + silu - s silu. */
INLINE Activation activation(Vector gate, Vector up, Vector grad, float weight) {
    Vector s = sigmoid_of(gate), silu = gate * s, weighted = grad * weight;
    return (Activation){.hidden = silu * up * weight,
                        .grad_gate = weighted * up * (s + silu - s * silu),
                        .grad_up = weighted * silu,
                        .grad_weight = grad * silu * up};
}

/* Overwrites grad_F by the hidden activations; gives the gradient of the weight. */
static float derive(const float *gate_up, float *grad_F, long width, float weight, float *grad_gate_up) {
    Vector sum = {0};
    float rest = 0;
    long f = 0;
    for (; f + LANES <= width; f += LANES) {
        Activation it = activation(load(gate_up + f), load(gate_up + width + f), load(grad_F + f), weight);
        store(grad_F + f, it.hidden);
        store(grad_gate_up + f, it.grad_gate);
        store(grad_gate_up + width + f, it.grad_up);
        sum += it.grad_weight;
    }
    for (; f < width; f++) {
        Activation it = activation(all(gate_up[f]), all(gate_up[width + f]), all(grad_F[f]), weight);
        grad_F[f] = it.hidden[0];
        grad_gate_up[f] = it.grad_gate[0];
        grad_gate_up[width + f] = it.grad_up[0];
        rest += it.grad_weight[0];
    }
    return sum_of(sum) + rest;
}

/* Columns of rows into strips or panels of that breadth, in which an expert has so many rows; padded with zeros. */
INLINE void spread(const float *const *rows, long count, long columns, long breadth, long depth, float *to) {
    for (long first = 0; first < columns; first += breadth, to += depth * breadth) {
        if (first + breadth <= columns)
            for (long i = 0; i < count; i++) memcpy(to + i * breadth, rows[i] + first, breadth * sizeof(float));
        else
            for (long i = 0; i < count; i++)
                for (long j = 0; j < breadth; j++) to[i * breadth + j] = first + j < columns ? rows[i][first + j] : 0;
    }
}

static void compute(const void *problem, long task, float *scratch) {
    const Backward *run = problem;
    const Experts *it = &run->it;
    Block block = run->blocks[task];
    long width = it->width, dim = it->dim, slot = block.expert - run->first;
    long expert_row = it->start_E[block.expert], depth = it->start_E[block.expert + 1] - expert_row;
    long base = expert_row - run->first_row, within = block.first - expert_row;
    float *hidden = scratch, *grad_gate_up = scratch + rounded(BLOCK * width);
    const float *rows[BLOCK];
    for (long i = 0; i < block.count; i++) rows[i] = run->grad_TD + it->place_R[block.first + i] / it->chosen * dim;
    multiply(rows, run->down_panels + slot * run->down_each, block.count, width, dim, hidden, width);
    spread(rows, block.count, dim, ROWS, depth, run->grad_strips + base * run->grad_padded + within * ROWS);
    for (long i = 0; i < block.count; i++) {
        long place = it->place_R[block.first + i];
        rows[i] = hidden + i * width;
        float grad = derive(it->gate_up_RF + (block.first + i) * 2 * width, hidden + i * width, width,
                            it->weights_R ? it->weights_R[place] : 1, grad_gate_up + i * 2 * width);
        if (run->grad_weights_R) run->grad_weights_R[place] = grad;
    }
    spread(rows, block.count, width, COLUMNS, depth, run->hidden_panels + base * run->hidden_padded + within * COLUMNS);
    for (long i = 0; i < block.count; i++) rows[i] = grad_gate_up + i * 2 * width;
    spread(rows, block.count, 2 * width, ROWS, depth, run->gate_up_strips + base * run->gate_up_padded + within * ROWS);
    multiply(rows, run->gate_up_panels + slot * run->gate_up_each, block.count, dim, 2 * width,
             run->grad_x_RD + block.first * dim, dim);
    for (long i = 0; i < block.count; i++) rows[i] = it->x_TD + it->place_R[block.first + i] / it->chosen * dim;
    spread(rows, block.count, dim, COLUMNS, depth, run->x_panels + base * run->x_padded + within * COLUMNS);
}

/* to[m, n] = strips^T panels over all rows of an expert, for the rows [first, last) of to. */
static void contract(const float *strips, const float *panels, long depth, long first, long last, long n, float *to) {
    if (!depth) memset(to + first * n, 0, (last - first) * n * sizeof(float));
    for (long begin = 0; begin < depth; begin += DEPTH)
        for (long j = 0; j < n; j += COLUMNS)
            for (long i = first; i < last; i += ROWS) {
                Tile tile = tile_product_transposed(least(DEPTH, depth - begin), strips + i * depth + begin * ROWS, ROWS,
                                                    panels + j * depth + begin * COLUMNS);
                put(&tile, to + i * n + j, n, last - i, n - j, begin > 0);
            }
}

static void sum_up(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Backward *run = problem;
    const Experts *it = &run->it;
    long width = it->width, dim = it->dim;
    long of_gate_up = (2 * width + SLICE - 1) / SLICE, of_down = (dim + SLICE - 1) / SLICE;
    long expert = run->first + task / (of_gate_up + of_down), slice = task % (of_gate_up + of_down);
    long base = it->start_E[expert] - run->first_row, depth = it->start_E[expert + 1] - it->start_E[expert];
    if (slice < of_gate_up) {
        contract(run->gate_up_strips + base * run->gate_up_padded, run->x_panels + base * run->x_padded, depth,
                 slice * SLICE, least((slice + 1) * SLICE, 2 * width), dim,
                 run->grad_gate_up_EFD + expert * 2 * width * dim);
    } else {
        slice -= of_gate_up;
        contract(run->grad_strips + base * run->grad_padded, run->hidden_panels + base * run->hidden_padded, depth,
                 slice * SLICE, least((slice + 1) * SLICE, dim), width, run->grad_down_EDF + expert * dim * width);
    }
}

static void gather(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Backward *run = problem;
    combine(&run->it, run->grad_x_RD, run->grad_x_TD, task);
}

static void run_waves(Team team, Backward *run, Block *blocks, float *scratch, size_t each) {
    const Experts *it = &run->it;
    long slices = (2 * it->width + SLICE - 1) / SLICE + (it->dim + SLICE - 1) / SLICE;
    run->blocks = blocks;
    for (long last; run->first < it->experts; run->first = last) {
        last = wave_end(it, run->first, run->gate_up_each + run->down_each);
        run->first_row = it->start_E[run->first];
        share(team, 2 * (last - run->first), prepare, run, NULL, 0);
        share(team, cut(it, run->first, last, blocks), compute, run, scratch, each);
        share(team, (last - run->first) * slices, sum_up, run, NULL, 0);
    }
    share(team, (it->tokens + TOKENS - 1) / TOKENS, gather, run, NULL, 0);
}

static long padded(long width, long breadth) { return (width + breadth - 1) / breadth * breadth; }

/* Every gradient. Returns 0, or 1 where there is no memory. */
int xck_experts_backward(Fork *fork, int threads, const Experts *it, const float *grad_TD, float *grad_x_TD,
                         float *grad_gate_up_EFD, float *grad_down_EDF, float *grad_weights_R) {
    Backward run = {.it = *it,
                    .grad_TD = grad_TD,
                    .grad_x_TD = grad_x_TD,
                    .grad_gate_up_EFD = grad_gate_up_EFD,
                    .grad_down_EDF = grad_down_EDF,
                    .grad_weights_R = grad_weights_R,
                    .gate_up_each = padded(it->dim, COLUMNS) * 2 * it->width,
                    .down_each = padded(it->width, COLUMNS) * it->dim,
                    .gate_up_padded = padded(2 * it->width, ROWS),
                    .grad_padded = padded(it->dim, ROWS),
                    .x_padded = padded(it->dim, COLUMNS),
                    .hidden_padded = padded(it->width, COLUMNS)};
    long rows, wave;
    widest(it, run.gate_up_each + run.down_each, &rows, &wave);
    size_t sizes[] = {it->tokens * it->chosen * it->dim, wave * run.gate_up_each, wave * run.down_each,
                      rows * run.gate_up_padded,         rows * run.grad_padded,  rows * run.x_padded,
                      rows * run.hidden_padded};
    float **parts[] = {&run.grad_x_RD,   &run.gate_up_panels, &run.down_panels,  &run.gate_up_strips,
                       &run.grad_strips, &run.x_panels,       &run.hidden_panels};
    size_t each = rounded(BLOCK * it->width) + rounded(BLOCK * 2 * it->width), total = each * threads;
    for (int i = 0; i < 7; i++) total += rounded(sizes[i]);
    float *floats = take_floats(total);
    Block *blocks = malloc((most_blocks(it) + 1) * sizeof(Block));
    int failed = !floats || !blocks;
    if (!failed) {
        float *next = floats;
        for (int i = 0; i < 7; i++) {
            *parts[i] = next;
            next += rounded(sizes[i]);
        }
        run_waves((Team){fork, threads}, &run, blocks, next, each);
    }
    free(floats);
    free(blocks);
    return failed;
}
