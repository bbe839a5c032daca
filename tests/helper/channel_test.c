// SPDX-License-Identifier: GPL-2.0-only
/* The daemon's end of the ring, with a ring of our own and an eventfd. */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../../helper/channel.h"
#include "../../helper/log.h"
#include "kselftest_harness.h"

#define ENTRIES	8

FIXTURE(ring) {
	struct channel c;
	struct lazyframe_ring *ring;
	u64 posted;
	u32 taken[64];
	u32 count;
};

FIXTURE_SETUP(ring)
{
	self->ring = calloc(1, sizeof(*self->ring) +
			    ENTRIES * sizeof(self->ring->request[0]));
	self->ring->entries = ENTRIES;
	self->ring->entry_bytes = sizeof(self->ring->request[0]);
	self->c = (struct channel){
		.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
		.generation = 5,
		.tags = ENTRIES / 2,
		.ring = self->ring,
	};
}

FIXTURE_TEARDOWN(ring)
{
	close(self->c.fd);
	free(self->ring);
}

static void post(FIXTURE_DATA(ring) *self, u32 tag)
{
	struct lazyframe_request *req =
		&self->ring->request[self->posted % ENTRIES];

	*req = (struct lazyframe_request){
		.seq = self->posted++,
		.generation = 5,
		.tag = tag,
	};
	__atomic_store_n(&self->ring->head, self->posted, __ATOMIC_RELEASE);
	eventfd_write(self->c.fd, 1);
}

static void take(void *arg, const struct lazyframe_request *req)
{
	FIXTURE_DATA(ring) *self = arg;

	self->taken[self->count++ % 64] = req->tag;
}

TEST_F(ring, everything_once_and_in_order)
{
	u32 i, n = 0;

	for (i = 0; i < 50; i++) {
		post(self, i);
		if (i % 7 == 0 || i % 7 == 3) {
			ASSERT_EQ(0, channel_take(&self->c, take, self));
			for (; n <= i; n++)
				EXPECT_EQ(n, self->taken[n]);
		}
	}
	ASSERT_EQ(0, channel_take(&self->c, take, self));
	EXPECT_EQ(50, self->count);
	/* Nothing new is fine. */
	ASSERT_EQ(0, channel_take(&self->c, take, self));
	EXPECT_EQ(50, self->count);
}

TEST_F(ring, overwritten_entries_end_the_session)
{
	u32 i;

	for (i = 0; i < ENTRIES + 1; i++)
		post(self, i);
	EXPECT_EQ(-EPROTO, channel_take(&self->c, take, self));
	EXPECT_EQ(0, self->count);
}

TEST_F(ring, another_number_ends_the_session)
{
	post(self, 0);
	self->ring->request[0].seq = ENTRIES;
	EXPECT_EQ(-EPROTO, channel_take(&self->c, take, self));
	EXPECT_EQ(0, self->count);
}

TEST_F(ring, another_session_ends_this_one)
{
	post(self, 0);
	self->ring->request[0].generation = 4;
	EXPECT_EQ(-EPROTO, channel_take(&self->c, take, self));
	EXPECT_EQ(0, self->count);
}

TEST_HARNESS_MAIN
