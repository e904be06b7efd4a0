/* Products of small matrices on one thread, out of tiles of ROWS x COLUMNS that stay in registers.

   The left factor is read as it lies, row by row through pointers or column by column; the right one in panels:
   COLUMNS columns wide, one row after the other, padded with zeros. */
#ifndef XCK_PRODUCT_H
#define XCK_PRODUCT_H

#include <string.h>

#include "vectors.h"

#if LANES == 16
#define ROWS 8
#else
#define ROWS 6
#endif
#define COLUMNS (2 * LANES)
/* Rows of the right factor's panels that are used in one go: a panel of so many lies in the first cache. */
#define DEPTH 256

typedef struct {
    Vector at[ROWS][2];
} Tile;

INLINE long panels_of(long columns) { return (columns + COLUMNS - 1) / COLUMNS; }
INLINE long least(long a, long b) { return a < b ? a : b; }
INLINE long most(long a, long b) { return a > b ? a : b; }

/* Sum over k < depth of left[i][k * step] * panel[k][j]. */
INLINE Tile tile_product(long depth, const float *const *left, long step, const float *panel) {
    Tile tile = {0};
    const float *row[ROWS];
    for (int i = 0; i < ROWS; i++) row[i] = left[i];
    for (long k = 0; k < depth; k++) {
        Vector first = load(panel + k * COLUMNS), second = load(panel + k * COLUMNS + LANES);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            float x = row[i][k * step];
            tile.at[i][0] += x * first;
            tile.at[i][1] += x * second;
        }
    }
    return tile;
}

/* The same with left[k * step + i]. */
INLINE Tile tile_product_transposed(long depth, const float *left, long step, const float *panel) {
    Tile tile = {0};
    for (long k = 0; k < depth; k++, left += step, panel += COLUMNS) {
        Vector first = load(panel), second = load(panel + LANES);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            tile.at[i][0] += left[i] * first;
            tile.at[i][1] += left[i] * second;
        }
    }
    return tile;
}

/* Write the first rows and columns of a tile, or add them. */
INLINE void put(const Tile *tile, float *to, long stride, long rows, long columns, int add) {
    if (rows >= ROWS && columns >= COLUMNS) {
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            float *row = to + i * stride;
            store(row, add ? load(row) + tile->at[i][0] : tile->at[i][0]);
            store(row + LANES, add ? load(row + LANES) + tile->at[i][1] : tile->at[i][1]);
        }
        return;
    }
    float whole[ROWS][COLUMNS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) {
        store(whole[i], tile->at[i][0]);
        store(whole[i] + LANES, tile->at[i][1]);
    }
    for (long i = 0; i < least(rows, ROWS); i++)
        for (long j = 0; j < least(columns, COLUMNS); j++)
            to[i * stride + j] = add ? to[i * stride + j] + whole[i][j] : whole[i][j];
}

/* Pointers to ROWS rows from the first on; those after the last repeat it, and what they give is not written. */
INLINE void tile_rows(const float *const *rows, long first, long count, long offset, const float **tile) {
    for (int i = 0; i < ROWS; i++) tile[i] = rows[least(first + i, count - 1)] + offset;
}

/* Panels of a matrix [depth, columns] with that stride: row k of panel p stands at to[(p * depth + k) * COLUMNS]. */
void pack(const float *from, long stride, long depth, long columns, float *to);

/* Panels of the transpose of a matrix [columns, depth] with that stride. */
void pack_transposed(const float *from, long stride, long depth, long columns, float *to);

/* to[m, n] = left[m, k] right[k, n]: left's rows begin at left[i], right is packed. */
void multiply(const float *const *left, const float *right, long m, long n, long k, float *to, long stride);

#endif
