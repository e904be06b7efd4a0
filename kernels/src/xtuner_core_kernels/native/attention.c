/* Keys and values of each document, packed once for all that reads them. */
#include "attention.h"

static void prepare(const void *problem, long task, float *scratch) {
    (void)scratch;
    const Attending *run = problem;
    const Attention *it = &run->it;
    long document = task / it->groups, group = task % it->groups;
    long start = it->start_B[document], length = it->start_B[document + 1] - start;
    const float *k = it->k_TGC + start * it->k_stride + group * it->channels;
    const float *v = it->v_TGV + start * it->v_stride + group * it->values;
    pack_transposed(k, it->k_stride, it->channels, length, (float *)transposed(run, &run->k, document, group));
    pack(v, it->v_stride, length, it->values, (float *)straight(run, &run->v, document, group));
    if (!run->k.straight) return;
    pack(k, it->k_stride, length, it->channels, (float *)straight(run, &run->k, document, group));
    pack_transposed(v, it->v_stride, it->values, length, (float *)transposed(run, &run->v, document, group));
}

static long padded_tokens(const Attention *it, long *key_start_B) {
    long sum = 0;
    for (long document = 0; document < it->documents; document++) {
        if (key_start_B) key_start_B[document] = sum;
        sum += panels_of(it->start_B[document + 1] - it->start_B[document]) * COLUMNS;
    }
    if (key_start_B) key_start_B[it->documents] = sum;
    return sum;
}

size_t packed_floats(const Attention *it, int both) {
    size_t tokens = it->start_B[it->documents], padded = padded_tokens(it, NULL), groups = it->groups;
    size_t k = panels_of(it->channels) * COLUMNS, v = panels_of(it->values) * COLUMNS;
    size_t needed = rounded(groups * padded * it->channels) + rounded(groups * tokens * v);
    return both ? needed + rounded(groups * tokens * k) + rounded(groups * padded * it->values) : needed;
}

void attend(Team team, Attending *run, long *key_start_B, float *floats, int both) {
    const Attention *it = &run->it;
    size_t padded = padded_tokens(it, key_start_B), tokens = it->start_B[it->documents], groups = it->groups;
    run->key_start_B = key_start_B;
    run->k = (Packed){.transposed = floats, .channels = it->channels, .padded = panels_of(it->channels) * COLUMNS};
    floats += rounded(groups * padded * it->channels);
    run->v = (Packed){.straight = floats, .channels = it->values, .padded = panels_of(it->values) * COLUMNS};
    floats += rounded(groups * tokens * run->v.padded);
    if (both) {
        run->k.straight = floats;
        run->v.transposed = floats + rounded(groups * tokens * run->k.padded);
    }
    share(team, it->documents * it->groups, prepare, run, NULL, 0);
}
