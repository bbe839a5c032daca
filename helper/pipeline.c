// SPDX-License-Identifier: GPL-2.0-only
/*
 * The jobs form a ring of slots. Three counters run over it, each moved by
 * one stage: consumed <= started <= produced <= consumed + jobs. A slot between
 * consumed and started is done once its flag says so.
 */
#include "pipeline.h"

#include <pthread.h>
#include <stdlib.h>

#include "../kmod/pure.h"

/* @err: of whichever stage failed; later stages pass it on */
struct slot {
	void *job;
	bool done;
	int err;
	struct error error;
};

/* Everything below @lock is covered by it. */
struct run {
	const struct pipeline *ops;
	void *ctx;
	struct slot *slot;
	unsigned int slots;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	u64 produced;
	u64 started;
	u64 consumed;
	bool end;			/* nothing more will be produced */
	bool stop;			/* an error: all go home */
};

struct worker {
	struct run *run;
	unsigned int number;
	pthread_t thread;
};

static struct slot *slot_at(struct run *run, u64 index)
{
	return &run->slot[index % run->slots];
}

static void *producer(void *arg)
{
	struct run *run = arg;
	struct slot *slot;
	int got;

	pthread_mutex_lock(&run->lock);
	while (!run->end && !run->stop) {
		if (run->produced - run->consumed == run->slots) {
			pthread_cond_wait(&run->changed, &run->lock);
			continue;
		}
		slot = slot_at(run, run->produced);
		slot->done = false;
		slot->err = 0;
		pthread_mutex_unlock(&run->lock);

		got = run->ops->produce(run->ctx, slot->job, &slot->error);

		pthread_mutex_lock(&run->lock);
		if (got < 0)
			slot->err = got;
		if (got)
			run->produced++;
		if (got <= 0)
			run->end = true;
		pthread_cond_broadcast(&run->changed);
	}
	pthread_mutex_unlock(&run->lock);
	return NULL;
}

static void *worker(void *arg)
{
	struct worker *me = arg;
	struct run *run = me->run;
	struct slot *slot;

	pthread_mutex_lock(&run->lock);
	while (!run->stop) {
		if (run->started == run->produced) {
			if (run->end)
				break;
			pthread_cond_wait(&run->changed, &run->lock);
			continue;
		}
		slot = slot_at(run, run->started++);
		pthread_mutex_unlock(&run->lock);

		if (!slot->err)
			slot->err = run->ops->work(run->ctx, me->number,
						   slot->job, &slot->error);

		pthread_mutex_lock(&run->lock);
		slot->done = true;
		pthread_cond_broadcast(&run->changed);
	}
	pthread_mutex_unlock(&run->lock);
	return NULL;
}

static int consume_all(struct run *run, struct error *e)
{
	struct slot *slot;
	int err = 0;

	pthread_mutex_lock(&run->lock);
	for (;;) {
		if (run->consumed == run->produced && run->end)
			break;
		slot = slot_at(run, run->consumed);
		if (run->consumed == run->started || !slot->done) {
			pthread_cond_wait(&run->changed, &run->lock);
			continue;
		}
		pthread_mutex_unlock(&run->lock);

		err = slot->err;
		if (err && e)
			*e = slot->error;
		if (!err)
			err = run->ops->consume(run->ctx, slot->job, e);

		pthread_mutex_lock(&run->lock);
		if (err)
			break;
		run->consumed++;
		pthread_cond_broadcast(&run->changed);
	}
	run->stop = true;
	pthread_cond_broadcast(&run->changed);
	pthread_mutex_unlock(&run->lock);
	return err;
}

int pipeline_run(const struct pipeline *ops, void *ctx, void *const *job,
		 unsigned int jobs, unsigned int threads, struct error *e)
{
	struct run run = {
		.ops = ops,
		.ctx = ctx,
		.slots = jobs,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER,
	};
	unsigned int i, running = 0;
	struct worker *work;
	pthread_t reader;
	int err;

	run.slot = calloc(jobs, sizeof(*run.slot));
	work = calloc(threads, sizeof(*work));
	if (!run.slot || !work) {
		err = no_memory(e);
		goto out_free;
	}
	for (i = 0; i < jobs; i++)
		run.slot[i].job = job[i];

	err = pthread_create(&reader, NULL, producer, &run);
	if (err) {
		err = error_set(e, -err, "cannot start a thread: %s",
				strerror(err));
		goto out_free;
	}
	for (; running < threads; running++) {
		work[running].run = &run;
		work[running].number = running;
		err = pthread_create(&work[running].thread, NULL, worker,
				     &work[running]);
		if (err)
			break;
	}
	if (running) {
		/* Fewer threads than asked for do the same work. */
		err = consume_all(&run, e);
	} else {
		err = error_set(e, -err, "cannot start a thread: %s",
				strerror(err));
		pthread_mutex_lock(&run.lock);
		run.stop = true;
		pthread_cond_broadcast(&run.changed);
		pthread_mutex_unlock(&run.lock);
	}

	pthread_join(reader, NULL);
	for (i = 0; i < running; i++)
		pthread_join(work[i].thread, NULL);
out_free:
	free(work);
	free(run.slot);
	return err;
}
