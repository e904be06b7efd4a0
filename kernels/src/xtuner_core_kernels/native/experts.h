/* Grouped experts: what their forward and backward pass share.

   T tokens, D model width, E experts, K experts chosen for a token, F expert width, R = T * K routed rows in the order
   of their experts. A place is the index of a choice in [T, K], a row its index in that order. */
#ifndef XCK_EXPERTS_H
#define XCK_EXPERTS_H

#include "product.h"
#include "team.h"

/* Rows of one task: their activations fit into the second cache, and a tile's rows divide them. */
#define BLOCK 96
#define TOKENS 64

typedef struct {
    long tokens, dim, experts, chosen, width;
    const float *x_TD, *gate_up_EFD, *down_EDF, *weights_R; /* weights by place; NULL for ones */
    int32_t *place_R, *row_R;                               /* place of each row, row of each place */
    long *start_E;                                          /* [E + 1]: where each expert's rows begin */
    float *gate_up_RF;                                      /* [R, 2 F]: before the activation */
} Experts;

typedef struct {
    long expert, first, count; /* rows */
} Block;

/* Rows, and floats of packed matrices, of the experts that are computed at a time, where one does not have more: what
   they leave stays in a cache, and its memory is taken once. */
#define WAVE_ROWS 2048
#define WAVE_FLOATS (2 << 20)

/* The experts [first, last) that come next; matrices are the floats of one's, packed. */
long wave_end(const Experts *it, long first, size_t matrices);
/* Most rows and most experts of any wave. */
void widest(const Experts *it, size_t matrices, long *rows, long *experts);

/* Most blocks that R rows of E experts can make. */
static inline long most_blocks(const Experts *it) { return it->tokens * it->chosen / BLOCK + it->experts; }

/* Cut the rows of experts [first, last) into blocks of nearly equal size; gives how many. */
long cut(const Experts *it, long first, long last, Block *blocks);

/* to[t] = sum of rows_RD over the rows of token t, for the tokens of one task. */
void combine(const Experts *it, const float *rows_RD, float *to_TD, long task);

#endif
