/* Products of small matrices on one thread. */
#include "product.h"

INLINE void pack_row(const float *from, long columns, float *to) {
    if (columns >= COLUMNS) {
        store(to, load(from));
        store(to + LANES, load(from + LANES));
        return;
    }
    for (long j = 0; j < COLUMNS; j++) to[j] = j < columns ? from[j] : 0;
}

void pack(const float *from, long stride, long depth, long columns, float *to) {
    for (long first = 0; first < columns; first += COLUMNS)
        for (long k = 0; k < depth; k++, to += COLUMNS) pack_row(from + k * stride + first, columns - first, to);
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shuffle)
/* Transpose LANES vectors in place, exchanging blocks of half the width from the widest down. */
INLINE void transpose(Vector *rows) {
#pragma GCC unroll 4
    for (int width = LANES / 2; width; width /= 2) {
        Integers lanes = counting(), upper = (lanes & width) != 0;
        Integers low = lanes + (upper & (LANES - width)), high = lanes + width + (upper & (LANES - width));
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            if (i & width) continue;
            Vector x = rows[i], y = rows[i + width];
            rows[i] = __builtin_shuffle(x, y, low);
            rows[i + width] = __builtin_shuffle(x, y, high);
        }
    }
}
#define HAS_TRANSPOSE
#endif
#endif

/* LANES columns of a panel from the rows of a matrix, LANES values of each at a time; gives how many were copied. */
static long pack_squares(const float *from, long stride, long depth, float *to) {
    long k = 0;
#ifdef HAS_TRANSPOSE
    for (; k + LANES <= depth; k += LANES) {
        Vector rows[LANES];
#pragma GCC unroll 16
        for (int j = 0; j < LANES; j++) rows[j] = load(from + j * stride + k);
        transpose(rows);
#pragma GCC unroll 16
        for (int j = 0; j < LANES; j++) store(to + (k + j) * COLUMNS, rows[j]);
    }
#else
    (void)from, (void)stride, (void)depth, (void)to;
#endif
    return k;
}

void pack_transposed(const float *from, long stride, long depth, long columns, float *to) {
    for (long first = 0; first < columns; first += COLUMNS, to += depth * COLUMNS)
        for (long half = 0; half < COLUMNS; half += LANES) {
            const float *rows = from + (first + half) * stride;
            long there = columns - first - half, k = there >= LANES ? pack_squares(rows, stride, depth, to + half) : 0;
            for (; k < depth; k++)
                for (long j = 0; j < LANES; j++)
                    to[k * COLUMNS + half + j] = j < there ? rows[j * stride + k] : 0;
        }
}

/* Ask for rows of the panel that comes next, so that they are in a cache by then. */
INLINE void fetch(const float *panel, long rows) {
    for (long line = 0; line < rows * COLUMNS; line += 16) __builtin_prefetch(panel + line);
}

void multiply(const float *const *left, const float *right, long m, long n, long k, float *to, long stride) {
    long parts = most((k + DEPTH - 1) / DEPTH, 1), part = (k + parts - 1) / parts;
    for (long begin = 0; begin == 0 || begin < k; begin += most(part, 1))
        for (long first = 0; first < n; first += COLUMNS) {
            const float *panel = right + first * k + begin * COLUMNS;
            long depth = least(part, k - begin), ahead = depth * ROWS / m + 1;
            for (long i = 0; i < m; i += ROWS) {
                const float *rows[ROWS];
                tile_rows(left, i, m, begin, rows);
                fetch(panel + (k + ahead * (i / ROWS)) * COLUMNS, least(ahead, depth - ahead * (i / ROWS)));
                Tile tile = tile_product(depth, rows, 1, panel);
                put(&tile, to + i * stride + first, stride, m - i, n - first, begin > 0);
            }
        }
}
