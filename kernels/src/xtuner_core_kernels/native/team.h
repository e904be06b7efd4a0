/* Tasks shared among the threads that PyTorch computes with. */
#ifndef XCK_TEAM_H
#define XCK_TEAM_H

#include <stddef.h>

/* GOMP_parallel of the OpenMP runtime that PyTorch loaded: a second one would fight with it over the cores. */
typedef void Fork(void (*work)(void *), void *data, unsigned threads, unsigned flags);

typedef struct {
    Fork *fork; /* NULL: this thread alone */
    int threads;
} Team;

/* One task; the scratch belongs to the thread that runs it. */
typedef void Task(const void *problem, long task, float *scratch);

/* Run tasks 0 to count - 1, each on whichever thread is free; returns when all are done. What a task writes must not
   depend on another's, nor on its thread: then neither timing nor the number of threads changes a bit.

   scratch holds scratch_each floats for each thread. */
void share(Team team, long count, Task *task, const void *problem, float *scratch, size_t scratch_each);

/* Floats aligned to a cache line, or NULL. free() gives them back. */
float *take_floats(size_t count);

/* So many floats that what follows them is aligned again. */
static inline size_t rounded(size_t count) { return (count + 15) / 16 * 16; }

#endif
