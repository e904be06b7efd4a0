/* Attention within packed documents: what the forward and backward pass share.

   T tokens, H query heads, G key-value heads, C channels of queries and keys, V channels of values. Positions count
   within a document. Scores stand in bits (base 2): queries are multiplied by log2(e) besides the scale. */
#ifndef XCK_ATTENTION_H
#define XCK_ATTENTION_H

#include "product.h"
#include "team.h"

/* Queries of a task, a multiple of a tile's rows; keys of a part: what both leave fits into the second cache. */
#define QUERIES 96
#define KEYS 256

typedef struct {
    long documents, heads, groups, channels, values, causal, window; /* window 0: none */
    const int64_t *start_B;                                          /* [B + 1], in tokens */
    const float *q_THC, *k_TGC, *v_TGV;
    long q_stride, k_stride, v_stride; /* from token to token */
    float *output_THV, *highest_TH, *inverse_TH;
    float scale;
} Attention;

/* Keys and values of every document and key-value head, packed. Transposed: the right factor of products over channels;
   straight: of products over keys. */
typedef struct {
    float *transposed, *straight;
    long channels, padded; /* padded to whole panels */
} Packed;

typedef struct {
    Attention it;
    Packed k, v;
    long *key_start_B; /* [B + 1]: as start_B, each document padded to whole panels */
} Attending;

/* The first key that a query sees, and the one behind the last. */
INLINE long first_seen(const Attention *it, long query) {
    return it->window ? most(0, query - it->window + 1) : 0;
}
INLINE long last_seen(const Attention *it, long query, long length) {
    if (it->causal) return query + 1;
    return it->window ? least(length, query + it->window) : length;
}

INLINE const float *transposed(const Attending *run, const Packed *x, long document, long group) {
    return x->transposed + (group * run->key_start_B[run->it.documents] + run->key_start_B[document]) * x->channels;
}
INLINE const float *straight(const Attending *run, const Packed *x, long document, long group) {
    return x->straight + (group * run->it.start_B[run->it.documents] + run->it.start_B[document]) * x->padded;
}

/* Floats that attend() needs for packed keys and values; both ways where the backward pass is to come. */
size_t packed_floats(const Attention *it, int both);
/* Set up and pack. Keys transposed and values straight, or both both ways. */
void attend(Team team, Attending *run, long *key_start_B, float *floats, int both);

/* Which lanes of two vectors that begin at a key lie in [first, last). */
INLINE Integers seen(long key, long first, long last) {
    Integers keys = counting() + (int32_t)key;
    return (keys >= (int32_t)first) & (keys < (int32_t)last);
}

#endif
