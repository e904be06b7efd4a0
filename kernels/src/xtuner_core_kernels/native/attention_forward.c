/* Attention forward: for each tile of queries, the scores against some keys at a time, their exponentials, and the
   values weighted by them; what was summed before shrinks where a higher score turns up (Milakov and Gimelshein 2018,
   arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135). */
#include <math.h>
#include <stdlib.h>

#include "attention.h"

typedef struct {
    long document, head, first; /* query */
} Work;

typedef struct {
    Attending run;
    Work *work;
} Forward;

/* A tile of queries on its way through the keys. */
typedef struct {
    const Attention *it;
    const float *keys, *values; /* packed */
    long length, query, count;  /* of the document; first of the tile; how many */
    const float *rows[ROWS];    /* scaled queries */
    float highest[ROWS], sum[ROWS];
    float *scores, *output; /* [ROWS, KEYS], [ROWS, padded V] */
    long padded;
} Queries;

/* Scores against keys [from, to), from aligned to a panel; gives each row's highest in lanes. */
INLINE void score(const Queries *q, long from, long to, Vector *best) {
    long last_query = q->query + q->count - 1;
    for (int i = 0; i < ROWS; i++) best[i] = all(-INFINITY);
    for (long key = from; key < to; key += COLUMNS) {
        Tile tile = tile_product(q->it->channels, q->rows, 1, q->keys + key * q->it->channels);
        int whole = key >= first_seen(q->it, last_query) && key + COLUMNS <= last_seen(q->it, q->query, q->length);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            if (!whole) {
                long query = least(q->query + i, last_query);
                long first = first_seen(q->it, query), last = last_seen(q->it, query, q->length);
                tile.at[i][0] = choose(seen(key, first, last), tile.at[i][0], all(-INFINITY));
                tile.at[i][1] = choose(seen(key + LANES, first, last), tile.at[i][1], all(-INFINITY));
            }
            store(q->scores + i * KEYS + key - from, tile.at[i][0]);
            store(q->scores + i * KEYS + key - from + LANES, tile.at[i][1]);
            best[i] = greater(best[i], greater(tile.at[i][0], tile.at[i][1]));
        }
    }
}

/* Exponentials in place of a row's scores; shrinks what the row has summed so far. */
INLINE void exponentiate(Queries *q, int i, long count, float best) {
    float highest = best > q->highest[i] ? best : q->highest[i];
    /* A row that has seen nothing but minus infinity yet: its exponentials are 0, not those of a difference of two. */
    float base = highest == -INFINITY ? 0 : highest;
    float shrink = exp2_of(all(q->highest[i] - base))[0];
    float *row = q->scores + i * KEYS;
    Vector sum = {0};
    for (long j = 0; j < count; j += LANES) {
        Vector p = exp2_of(load(row + j) - base);
        store(row + j, p);
        sum += p;
    }
    q->sum[i] = q->sum[i] * shrink + sum_of(sum);
    q->highest[i] = highest;
    for (long v = 0; v < q->padded; v += LANES)
        store(q->output + i * q->padded + v, load(q->output + i * q->padded + v) * shrink);
}

INLINE void attend_tile(Queries *q) {
    long begin = first_seen(q->it, q->query) / COLUMNS * COLUMNS;
    long end = last_seen(q->it, q->query + q->count - 1, q->length);
    for (int i = 0; i < ROWS; i++) {
        q->highest[i] = -INFINITY;
        q->sum[i] = 0;
    }
    memset(q->output, 0, ROWS * q->padded * sizeof(float));
    for (long from = begin; from < end; from += KEYS) {
        long to = least(from + KEYS, end);
        Vector best[ROWS];
        score(q, from, to, best);
        for (int i = 0; i < ROWS; i++)
            exponentiate(q, i, panels_of(to - from) * COLUMNS, highest_of(best[i]));
        const float *rows[ROWS];
        for (int i = 0; i < ROWS; i++) rows[i] = q->scores + i * KEYS;
        for (long v = 0; v < q->padded; v += COLUMNS) {
            Tile tile = tile_product(to - from, rows, 1, q->values + v * q->length + from * COLUMNS);
            put(&tile, q->output + v, q->padded, ROWS, COLUMNS, 1);
        }
    }
}

/* The sum divided, and what the backward pass needs; nothing was rounded into one logarithm. */
static void finish(const Queries *q, long token, long head) {
    const Attention *it = q->it;
    for (long i = 0; i < q->count; i++) {
        long row = (token + i) * it->heads + head;
        float inverse = 1 / q->sum[i];
        for (long v = 0; v < it->values; v++) it->output_THV[row * it->values + v] = q->output[i * q->padded + v] * inverse;
        it->highest_TH[row] = q->highest[i];
        it->inverse_TH[row] = inverse;
    }
}

static void compute(const void *problem, long task, float *scratch) {
    const Forward *forward = problem;
    const Attending *run = &forward->run;
    const Attention *it = &run->it;
    Work work = forward->work[task];
    long start = it->start_B[work.document], group = work.head / (it->heads / it->groups);
    float *scaled = scratch + ROWS * KEYS;
    Queries q = {.it = it,
                 .keys = transposed(run, &run->k, work.document, group),
                 .values = straight(run, &run->v, work.document, group),
                 .length = it->start_B[work.document + 1] - start,
                 .scores = scratch,
                 .output = scaled + rounded(ROWS * it->channels),
                 .padded = run->v.padded};
    for (q.query = work.first; q.query < least(work.first + QUERIES, q.length); q.query += ROWS) {
        q.count = least(ROWS, q.length - q.query);
        for (long i = 0; i < q.count; i++) {
            const float *from = it->q_THC + (start + q.query + i) * it->q_stride + work.head * it->channels;
            for (long c = 0; c < it->channels; c++) scaled[i * it->channels + c] = from[c] * (it->scale * LOG2_E);
        }
        for (long i = 0; i < ROWS; i++) q.rows[i] = scaled + least(i, q.count - 1) * it->channels;
        attend_tile(&q);
        finish(&q, start + q.query, work.head);
    }
}

/* Tasks, head by head, from the last queries of a document on; gives how many. */
static long plan(const Attention *it, Work *work) {
    long count = 0;
    for (long document = 0; document < it->documents; document++) {
        long length = it->start_B[document + 1] - it->start_B[document];
        for (long head = 0; head < it->heads; head++)
            for (long block = (length + QUERIES - 1) / QUERIES - 1; block >= 0; block--, count++)
                if (work) work[count] = (Work){document, head, block * QUERIES};
    }
    return count;
}

/* Output, and of each row the highest score and the inverse sum. Returns 0, or 1 where there is no memory. */
int xck_attention_forward(Fork *fork, int threads, const Attention *it) {
    Team team = {fork, threads};
    size_t needed = packed_floats(it, 0);
    size_t each = ROWS * KEYS + rounded(ROWS * it->channels) + rounded(ROWS * panels_of(it->values) * COLUMNS);
    float *floats = take_floats(needed + each * threads);
    long tasks = plan(it, NULL), *key_start_B = malloc((it->documents + 1) * sizeof(long));
    Forward forward = {.run.it = *it, .work = malloc((tasks + 1) * sizeof(Work))};
    int failed = !floats || !key_start_B || !forward.work;
    if (!failed) {
        plan(it, forward.work);
        attend(team, &forward.run, key_start_B, floats, 0);
        share(team, tasks, compute, &forward, floats + needed, each);
    }
    free(floats);
    free(key_start_B);
    free(forward.work);
    return failed;
}
