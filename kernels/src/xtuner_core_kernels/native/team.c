/* Tasks shared among the threads that PyTorch computes with. */
#include "team.h"

#include <stdatomic.h>
#include <stdlib.h>

typedef struct {
    long count;
    Task *task;
    const void *problem;
    float *scratch;
    size_t scratch_each;
    atomic_long next;
    atomic_long threads;
} Job;

static void work(void *data) {
    Job *job = data;
    float *scratch = job->scratch + atomic_fetch_add(&job->threads, 1) * job->scratch_each;
    for (long task; (task = atomic_fetch_add(&job->next, 1)) < job->count;) job->task(job->problem, task, scratch);
}

void share(Team team, long count, Task *task, const void *problem, float *scratch, size_t scratch_each) {
    Job job = {.count = count, .task = task, .problem = problem, .scratch = scratch, .scratch_each = scratch_each};
    /* Never a part of the threads: to change their number costs more than that some of them find nothing to do. */
    if (team.fork && team.threads > 1 && count > 1)
        team.fork(work, &job, (unsigned)team.threads, 0);
    else
        work(&job);
}

float *take_floats(size_t count) { return aligned_alloc(64, (count ? rounded(count) : 16) * sizeof(float)); }
