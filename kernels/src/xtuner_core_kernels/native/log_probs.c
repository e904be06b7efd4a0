/* Log-probabilities of targets: the logits of a block of tokens, their exponentials while they are near, and backward
   two products of what is left of them.

   N tokens, D model width, V vocabulary. Logits stand in bits (base 2). With e = exp(logit - highest) and s = sum(e) of
   a token, d log p / d logits = onehot - e / s; what is kept is e - s onehot, and the token's own factor -gradient / s
   scales rows of width D. */
#include <math.h>
#include <stdlib.h>

#include "product.h"
#include "team.h"

/* Tokens of a task; columns whose panels are used for all of them before the next; rows of the head's gradient. */
#define BLOCK 96
#define SLICE (16 * ROWS)
#define PACKED 16 /* panels that one task packs */

typedef struct {
    long tokens, dim, vocab, stride, piece; /* from row to row of what is kept; rows of a piece, a multiple of BLOCK */
    const float *hidden_ND, *head_VD;
    const int64_t *targets_N;
    float *const *pieces; /* of what is kept: small ones come from memory that the process has already */
    float *sum_N, *log_probs_N;
} LogProbs;

INLINE float *kept(const LogProbs *it, long token) {
    return it->pieces[token / it->piece] + token % it->piece * it->stride;
}

typedef struct {
    LogProbs it;
    const float *grad_N;
    float *grad_hidden_ND, *grad_head_VD;
    float *panels;        /* of the head */
    float *hidden_panels; /* of the hidden states times their factors */
} Run;

static void prepare_forward(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Run *run = problem;
    long first = task * PACKED * COLUMNS, dim = run->it.dim;
    pack_transposed(run->it.head_VD + first * dim, dim, dim, least(PACKED * COLUMNS, run->it.vocab - first),
                    run->panels + first * dim);
}

/* Exponentials in place of a token's logits; its sum and log-probability. */
static void exponentiate(const LogProbs *it, long token) {
    float *row = kept(it, token);
    Vector best = all(-INFINITY), sum = {0};
    float highest, rest = 0;
    long v = 0, target = it->targets_N[token];
    float chosen = target < 0 ? 0 : row[target];
    for (; v + LANES <= it->vocab; v += LANES) best = greater(load(row + v), best);
    highest = highest_of(best);
    for (; v < it->vocab; v++) highest = row[v] > highest ? row[v] : highest;
    for (v = 0; v + LANES <= it->vocab; v += LANES) {
        Vector e = exp2_of(load(row + v) - highest);
        store(row + v, e);
        sum += e;
    }
    for (; v < it->vocab; v++) {
        row[v] = exp2_of(all(row[v] - highest))[0];
        rest += row[v];
    }
    float total = sum_of(sum) + rest;
    it->sum_N[token] = total;
    it->log_probs_N[token] = target < 0 ? 0 : (chosen - highest) / LOG2_E - logf(total);
    if (target >= 0) row[target] -= total;
}

static void forward(const void *problem, long task, float *scratch) {
    const Run *run = problem;
    const LogProbs *it = &run->it;
    long first = task * BLOCK, count = least(BLOCK, it->tokens - first);
    const float *rows[BLOCK];
    for (long i = 0; i < count; i++) {
        rows[i] = scratch + i * it->dim;
        for (long d = 0; d < it->dim; d++)
            scratch[i * it->dim + d] = it->hidden_ND[(first + i) * it->dim + d] * LOG2_E;
    }
    for (long v = 0; v < it->vocab; v += PACKED * COLUMNS)
        multiply(rows, run->panels + v * it->dim, count, least(PACKED * COLUMNS, it->vocab - v), it->dim,
                 kept(it, first) + v, it->stride);
    for (long i = 0; i < count; i++) exponentiate(it, first + i);
}

/* Fills the pieces, sum_N and log_probs_N. Returns 0, or 1 where there is no memory. */
int xck_log_probs_forward(Fork *fork, int threads, const LogProbs *it) {
    Team team = {fork, threads};
    size_t panels = rounded(panels_of(it->vocab) * COLUMNS * it->dim), each = rounded(BLOCK * it->dim);
    Run run = {.it = *it, .panels = take_floats(panels + each * threads)};
    if (!run.panels) return 1;
    share(team, (panels_of(it->vocab) + PACKED - 1) / PACKED, prepare_forward, &run, NULL, 0);
    share(team, (it->tokens + BLOCK - 1) / BLOCK, forward, &run, run.panels + panels, each);
    free(run.panels);
    return 0;
}

static float factor(const Run *run, long token) {
    return run->it.targets_N[token] < 0 ? 0 : -run->grad_N[token] / run->it.sum_N[token];
}

/* A panel of the head, then one of the hidden states. */
static void prepare_backward(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Run *run = problem;
    const LogProbs *it = &run->it;
    long first = task * COLUMNS, columns = least(COLUMNS, it->dim - first);
    pack(it->head_VD + first, it->dim, it->vocab, columns, run->panels + first * it->vocab);
    float *to = run->hidden_panels + first * it->tokens;
    pack(it->hidden_ND + first, it->dim, it->tokens, columns, to);
    for (long token = 0; token < it->tokens; token++, to += COLUMNS) {
        float scale = factor(run, token);
        for (long j = 0; j < COLUMNS; j++) to[j] *= scale;
    }
}

static void to_hidden(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Run *run = problem;
    const LogProbs *it = &run->it;
    long first = task * BLOCK, count = least(BLOCK, it->tokens - first);
    const float *rows[BLOCK];
    float *to = run->grad_hidden_ND + first * it->dim;
    for (long i = 0; i < count; i++) rows[i] = kept(it, first + i);
    multiply(rows, run->panels, count, it->dim, it->vocab, to, it->dim);
    for (long i = 0; i < count; i++) {
        float scale = factor(run, first + i);
        for (long d = 0; d < it->dim; d++) to[i * it->dim + d] *= scale;
    }
}

/* Strips of ROWS columns of the kept rows [begin, begin + depth), padded with zeros. */
static void cut_strips(const LogProbs *it, long begin, long depth, long first, long columns, float *strips) {
    for (long i = 0; i < columns; i += ROWS, strips += depth * ROWS)
        for (long k = 0; k < depth; k++) {
            const float *row = kept(it, begin + k) + first + i;
            if (i + ROWS <= columns)
                memcpy(strips + k * ROWS, row, ROWS * sizeof(float));
            else
                for (long j = 0; j < ROWS; j++) strips[k * ROWS + j] = i + j < columns ? row[j] : 0;
        }
}

static void to_head(const void *problem, long task, float *scratch) {
    const Run *run = problem;
    const LogProbs *it = &run->it;
    long first = task * SLICE, columns = least(SLICE, it->vocab - first), dim = it->dim;
    for (long begin = 0; begin < it->tokens; begin += DEPTH) {
        long depth = least(DEPTH, it->tokens - begin);
        cut_strips(it, begin, depth, first, columns, scratch);
        for (long j = 0; j < dim; j += COLUMNS)
            for (long i = 0; i < columns; i += ROWS) {
                Tile tile = tile_product_transposed(depth, scratch + i * depth, ROWS,
                                                    run->hidden_panels + j * it->tokens + begin * COLUMNS);
                put(&tile, run->grad_head_VD + (first + i) * dim + j, dim, columns - i, dim - j, 1);
            }
    }
}

/* Gradients of the hidden states and, added to what is there, of the head. Returns 0, or 1 where there is no memory. */
int xck_log_probs_backward(Fork *fork, int threads, const LogProbs *it, const float *grad_N, float *grad_hidden_ND,
                           float *grad_head_VD) {
    Team team = {fork, threads};
    long dim = panels_of(it->dim) * COLUMNS;
    size_t panels = rounded(dim * it->vocab), hidden = rounded(dim * it->tokens), each = rounded(SLICE * DEPTH);
    float *floats = take_floats(panels + hidden + each * threads);
    Run run = {.it = *it,
               .grad_N = grad_N,
               .grad_hidden_ND = grad_hidden_ND,
               .grad_head_VD = grad_head_VD,
               .panels = floats,
               .hidden_panels = floats + panels};
    if (!floats) return 1;
    share(team, panels_of(it->dim), prepare_backward, &run, NULL, 0);
    share(team, (it->tokens + BLOCK - 1) / BLOCK, to_hidden, &run, NULL, 0);
    share(team, (it->vocab + SLICE - 1) / SLICE, to_head, &run, run.hidden_panels + hidden, each);
    free(floats);
    return 0;
}
