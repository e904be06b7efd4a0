/* Attention backward: for the queries of a block and some keys at a time the exponentials are computed again; from them
   and the gradient come those of values, keys and queries (Dao et al. 2022, arXiv 2205.14135, appendix B.4).

   A task is a document and a key-value head with all queries that read it, so that nobody else adds to its gradients. */
#include <stdlib.h>

#include "attention.h"

/* From row to row of a block's scores: rows one power of two apart would share few lines of the first cache. */
#define STRIDE (KEYS + 16)

typedef struct {
    Attending run;
    const float *grad_THV;
    float *grad_q_THC, *grad_k_TGC, *grad_v_TGV;
    long *order; /* tasks, the most expensive first */
} Backward;

/* The queries of one block and head. */
typedef struct {
    const Backward *all;
    const Attention *it;
    long document, head, group, start, length, first, count;
    float *q, *grad;                                /* rows: scaled queries; the outputs' gradient over the sum */
    float *q_panels, *grad_panels;                  /* the same packed */
    float *p, *grad_s, *grad_q;                     /* [count, STRIDE] twice, [count, C] */
    float along[QUERIES + ROWS], highest[QUERIES + ROWS];
} Rows;

/* Scaled queries; gradients divided by the softmax's denominator, and their products with the output. */
static void read_rows(Rows *r) {
    const Attention *it = r->it;
    for (long i = 0; i < r->count; i++) {
        long token = r->start + r->first + i, row = token * it->heads + r->head;
        const float *q = it->q_THC + token * it->q_stride + r->head * it->channels;
        const float *grad = r->all->grad_THV + row * it->values, *output = it->output_THV + row * it->values;
        for (long c = 0; c < it->channels; c++) r->q[i * it->channels + c] = q[c] * (it->scale * LOG2_E);
        for (long v = 0; v < it->values; v++) r->grad[i * it->values + v] = grad[v] * it->inverse_TH[row];
        r->along[i] = dot(r->grad + i * it->values, output, it->values);
        r->highest[i] = it->highest_TH[row];
    }
    pack(r->q, it->channels, r->count, it->channels, r->q_panels);
    pack(r->grad, it->values, r->count, it->values, r->grad_panels);
}

/* Exponentials and the scores' gradients of a tile of rows and the keys [key, key + COLUMNS). */
INLINE void derive_tile(const Rows *r, long i, long key, long from, const float *keys, const float *values, int whole) {
    const Attention *it = r->it;
    const float *q[ROWS], *grad[ROWS];
    for (int j = 0; j < ROWS; j++) {
        q[j] = r->q + least(i + j, r->count - 1) * it->channels;
        grad[j] = r->grad + least(i + j, r->count - 1) * it->values;
    }
    float *p = r->p + i * STRIDE + key - from, *grad_s = r->grad_s + i * STRIDE + key - from;
    Tile tile = tile_product(it->channels, q, 1, keys + key * it->channels);
#pragma GCC unroll 8
    for (int j = 0; j < ROWS; j++)
        for (int half = 0; half < 2; half++) {
            Vector e = exp2_of(tile.at[j][half] - r->highest[i + j]);
            if (!whole) {
                long query = r->first + i + j;
                Integers mask = seen(key + half * LANES, first_seen(it, query), last_seen(it, query, r->length));
                e = (Vector)(mask & (Integers)e);
            }
            store(p + j * STRIDE + half * LANES, e);
        }
    tile = tile_product(it->values, grad, 1, values + key * it->values);
#pragma GCC unroll 8
    for (int j = 0; j < ROWS; j++)
        for (int half = 0; half < 2; half++) {
            Vector e = load(p + j * STRIDE + half * LANES);
            Vector derived = e * (tile.at[j][half] - r->along[i + j]);
            if (!whole) derived = (Vector)((Integers)derived & (e != 0));
            store(grad_s + j * STRIDE + half * LANES, derived);
        }
}

static void derive(const Rows *r, long from, long to, const float *keys, const float *values) {
    const Attention *it = r->it;
    for (long i = 0; i < r->count; i += ROWS) {
        long query = r->first + i, last_query = least(query + ROWS, r->first + r->count) - 1;
        long first = first_seen(it, query), last = last_seen(it, last_query, r->length);
        for (long key = from; key < to; key += COLUMNS) {
            if (key + COLUMNS > first && key < last) {
                int whole = key >= first_seen(it, last_query) && key + COLUMNS <= last_seen(it, query, r->length);
                derive_tile(r, i, key, from, keys, values, whole);
                continue;
            }
            for (int j = 0; j < ROWS; j++) {
                memset(r->p + (i + j) * STRIDE + key - from, 0, COLUMNS * sizeof(float));
                memset(r->grad_s + (i + j) * STRIDE + key - from, 0, COLUMNS * sizeof(float));
            }
        }
    }
}

/* Gradient of the queries from the keys [from, to). */
static void add_to_queries(const Rows *r, long from, long to, const float *keys) {
    const Attention *it = r->it;
    for (long c = 0; c < it->channels; c += COLUMNS)
        for (long i = 0; i < r->count; i += ROWS) {
            long last = least(to, last_seen(it, least(r->first + i + ROWS, r->first + r->count) - 1, r->length));
            const float *rows[ROWS];
            for (int j = 0; j < ROWS; j++) rows[j] = r->grad_s + (i + j) * STRIDE;
            Tile tile = tile_product(last - from, rows, 1, keys + c * r->length + from * COLUMNS);
            put(&tile, r->grad_q + i * it->channels + c, it->channels, r->count - i, it->channels - c, 1);
        }
}

/* to[key] += sum over the block's rows of left[row, key] right[row]: right is packed, width columns wide. */
static void add_to_keys(const Rows *r, const float *left, const float *right, long from, long to, long width, float *grad,
                        long stride) {
    for (long c = 0; c < width; c += COLUMNS)
        for (long key = from; key < to; key += ROWS) {
            /* Queries before the first key see none of them. */
            long skipped = r->it->causal ? most(0, key - r->first) / ROWS * ROWS : 0;
            if (skipped >= r->count) continue;
            Tile tile = tile_product_transposed(r->count - skipped, left + skipped * STRIDE + key - from, STRIDE,
                                                right + (c / COLUMNS * r->count + skipped) * COLUMNS);
            put(&tile, grad + key * stride + c, stride, to - key, width - c, 1);
        }
}

static void compute_block(Rows *r) {
    const Attention *it = r->it;
    const Attending *run = &r->all->run;
    const float *keys = transposed(run, &run->k, r->document, r->group);
    const float *values = transposed(run, &run->v, r->document, r->group);
    float *grad_k = r->all->grad_k_TGC + (r->start * it->groups + r->group) * it->channels;
    float *grad_v = r->all->grad_v_TGV + (r->start * it->groups + r->group) * it->values;
    long end = last_seen(it, r->first + r->count - 1, r->length);
    read_rows(r);
    memset(r->grad_q, 0, r->count * it->channels * sizeof(float));
    for (long from = first_seen(it, r->first) / COLUMNS * COLUMNS; from < end; from += KEYS) {
        long to = least(from + KEYS, end);
        derive(r, from, to, keys, values);
        add_to_queries(r, from, to, straight(run, &run->k, r->document, r->group));
        add_to_keys(r, r->p, r->grad_panels, from, to, it->values, grad_v, it->groups * it->values);
        add_to_keys(r, r->grad_s, r->q_panels, from, to, it->channels, grad_k, it->groups * it->channels);
    }
    for (long i = 0; i < r->count; i++) {
        float *grad_q = r->all->grad_q_THC + ((r->start + r->first + i) * it->heads + r->head) * it->channels;
        for (long c = 0; c < it->channels; c++) grad_q[c] = r->grad_q[i * it->channels + c] * it->scale;
    }
}

static void clear(float *grad, long length, long stride, long width) {
    for (long key = 0; key < length; key++) memset(grad + key * stride, 0, width * sizeof(float));
}

static void compute(const void *problem, long task, float *scratch) {
    const Backward *all = problem;
    const Attention *it = &all->run.it;
    long document = all->order[task] / it->groups, repeats = it->heads / it->groups;
    Rows r = {.all = all, .it = it, .document = document, .group = all->order[task] % it->groups};
    float **parts[] = {&r.p, &r.grad_s, &r.q, &r.grad, &r.grad_q, &r.q_panels, &r.grad_panels};
    long sizes[] = {STRIDE, STRIDE, it->channels, it->values, it->channels, all->run.k.padded, all->run.v.padded};
    for (int i = 0; i < 7; i++) {
        *parts[i] = scratch;
        scratch += rounded(QUERIES * sizes[i]);
    }
    r.start = it->start_B[document];
    r.length = it->start_B[document + 1] - r.start;
    float *grad_k = all->grad_k_TGC + (r.start * it->groups + r.group) * it->channels;
    clear(grad_k, r.length, it->groups * it->channels, it->channels);
    clear(all->grad_v_TGV + (r.start * it->groups + r.group) * it->values, r.length, it->groups * it->values, it->values);
    for (r.head = r.group * repeats; r.head < (r.group + 1) * repeats; r.head++)
        for (r.first = 0; r.first < r.length; r.first += QUERIES) {
            r.count = least(QUERIES, r.length - r.first);
            compute_block(&r);
        }
    /* The gradient reached the scores in nats; the queries, and with them the scores, stand in bits. */
    for (long key = 0; key < r.length; key++)
        for (long c = 0; c < it->channels; c++) grad_k[key * it->groups * it->channels + c] *= 1 / LOG2_E;
}

/* Tasks in order of the length of their documents, the longest first; equal ones as they come. */
static void plan(const Attention *it, long *order) {
    long *rank = order + it->documents * it->groups;
    for (long document = 0; document < it->documents; document++) {
        long place = document, length = it->start_B[document + 1] - it->start_B[document];
        for (; place > 0 && it->start_B[rank[place - 1] + 1] - it->start_B[rank[place - 1]] < length; place--)
            rank[place] = rank[place - 1];
        rank[place] = document;
    }
    for (long task = 0; task < it->documents * it->groups; task++)
        order[task] = rank[task / it->groups] * it->groups + task % it->groups;
}

/* Gradients of queries, keys and values. Returns 0, or 1 where there is no memory. */
int xck_attention_backward(Fork *fork, int threads, const Attention *it, const float *grad_THV, float *grad_q_THC,
                           float *grad_k_TGC, float *grad_v_TGV) {
    Team team = {fork, threads};
    long k = panels_of(it->channels) * COLUMNS, v = panels_of(it->values) * COLUMNS;
    size_t needed = packed_floats(it, 1), each = 0;
    long sizes[] = {STRIDE, STRIDE, it->channels, it->values, it->channels, k, v};
    for (int i = 0; i < 7; i++) each += rounded(QUERIES * sizes[i]);
    float *floats = take_floats(needed + each * threads);
    long *starts = malloc((it->documents * (2 + it->groups) + 1) * sizeof(long));
    int failed = !floats || !starts;
    if (!failed) {
        Backward all = {.run.it = *it,
                        .grad_THV = grad_THV,
                        .grad_q_THC = grad_q_THC,
                        .grad_k_TGC = grad_k_TGC,
                        .grad_v_TGV = grad_v_TGV,
                        .order = starts + it->documents + 1};
        plan(it, all.order);
        attend(team, &all.run, starts, floats, 1);
        share(team, it->documents * it->groups, compute, &all, floats + needed, each);
    }
    free(floats);
    free(starts);
    return failed;
}
