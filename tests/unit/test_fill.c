// SPDX-License-Identifier: GPL-2.0-only
/*
 * Answers of the helper: what the header of the protocol promises.
 */
#include "../../kmod/fill.h"
#include "kselftest_harness.h"
#include "random.h"

#define GENERATION	5
#define TAG		9
#define HAVE		1000
#define CBYTES		3000

FIXTURE(fill)
{
	struct lazyframe_fill fill;
};

FIXTURE_SETUP(fill)
{
	self->fill = (struct lazyframe_fill){
		.generation = GENERATION,
		.tag = TAG,
		.offset = HAVE,
		.length = 500,
	};
}

FIXTURE_TEARDOWN(fill)
{
}

static int check(const struct lazyframe_fill *fill, size_t payload)
{
	return lf_fill_check(fill, payload, GENERATION, TAG, HAVE, CBYTES);
}

TEST_F(fill, bytes_in_order_are_accepted)
{
	EXPECT_EQ(0, check(&self->fill, 500));
	self->fill.length = CBYTES - HAVE;
	EXPECT_EQ(0, check(&self->fill, CBYTES - HAVE));
	self->fill.length = 1;
	EXPECT_EQ(0, check(&self->fill, 1));
}

TEST_F(fill, another_generation_is_stale_whatever_else_is_wrong)
{
	self->fill.generation = GENERATION - 1;
	EXPECT_EQ(-ESTALE, check(&self->fill, 500));
	self->fill.tag = TAG + 1;
	self->fill.status = ~0U;
	EXPECT_EQ(-ESTALE, check(&self->fill, 0));
	self->fill.generation = GENERATION + 1;
	EXPECT_EQ(-ESTALE, check(&self->fill, 500));
	self->fill.generation = GENERATION | 1ULL << 32;
	EXPECT_EQ(-ESTALE, check(&self->fill, 500));
}

TEST_F(fill, payload_of_another_length_is_a_message_of_wrong_size)
{
	EXPECT_EQ(-EMSGSIZE, check(&self->fill, 499));
	EXPECT_EQ(-EMSGSIZE, check(&self->fill, 501));
	EXPECT_EQ(-EMSGSIZE, check(&self->fill, 0));
	EXPECT_EQ(-EMSGSIZE, check(&self->fill, 500 + (1ULL << 32)));
	self->fill.tag = TAG + 1;
	EXPECT_EQ(-EMSGSIZE, check(&self->fill, 501));
	self->fill.status = EIO;
	self->fill.length = 0;
	EXPECT_EQ(-EMSGSIZE, check(&self->fill, 1));
}

TEST_F(fill, another_tag_fits_no_request)
{
	self->fill.tag = TAG + 1;
	EXPECT_EQ(-EINVAL, check(&self->fill, 500));
	self->fill.status = EIO;
	self->fill.length = 0;
	EXPECT_EQ(-EINVAL, check(&self->fill, 0));
}

TEST_F(fill, bytes_out_of_order_are_refused)
{
	self->fill.offset = HAVE - 1;
	EXPECT_EQ(-EINVAL, check(&self->fill, 500));
	self->fill.offset = HAVE + 1;
	EXPECT_EQ(-EINVAL, check(&self->fill, 500));
	self->fill.offset = 0;
	EXPECT_EQ(-EINVAL, check(&self->fill, 500));
}

TEST_F(fill, more_bytes_than_the_frame_has_are_refused)
{
	self->fill.length = CBYTES - HAVE + 1;
	EXPECT_EQ(-EINVAL, check(&self->fill, CBYTES - HAVE + 1));
	/* offset + length is 99, modulo 2^32 */
	self->fill.length = (u32)(99 - HAVE);
	EXPECT_EQ(-EINVAL, check(&self->fill, (u32)(99 - HAVE)));
}

TEST_F(fill, no_bytes_and_no_status_say_nothing)
{
	self->fill.length = 0;
	EXPECT_EQ(-EINVAL, check(&self->fill, 0));
}

TEST_F(fill, failures_carry_an_errno_and_no_bytes)
{
	self->fill.length = 0;
	self->fill.status = EIO;
	EXPECT_EQ(0, check(&self->fill, 0));
	self->fill.status = 4095;
	EXPECT_EQ(0, check(&self->fill, 0));
	self->fill.status = 4096;
	EXPECT_EQ(-EINVAL, check(&self->fill, 0));
	self->fill.status = (u32)-EIO;
	EXPECT_EQ(-EINVAL, check(&self->fill, 0));
	self->fill.status = EIO;
	self->fill.length = 500;
	EXPECT_EQ(-EINVAL, check(&self->fill, 500));
}

TEST_F(fill, failures_need_no_position)
{
	self->fill.length = 0;
	self->fill.status = ENOENT;
	self->fill.offset = 0;
	EXPECT_EQ(0, check(&self->fill, 0));
}

/* However a frame is cut into answers, they all fit, and only in this order. */
TEST_F(fill, any_cutting_of_a_frame_is_accepted)
{
	unsigned int round;

	for (round = 0; round < 1000; round++) {
		u32 cbytes = 1 + random_below(LAZYFRAME_MAX_CFRAME);
		u32 have = 0;

		while (have < cbytes) {
			u32 n = 1 + random_below(cbytes - have);

			self->fill.offset = have;
			self->fill.length = n;
			ASSERT_EQ(0, lf_fill_check(&self->fill, n, GENERATION,
						   TAG, have, cbytes));
			have += n;
			ASSERT_EQ(-EINVAL, lf_fill_check(&self->fill, n,
							 GENERATION, TAG, have,
							 cbytes));
		}
	}
}

TEST_HARNESS_MAIN
