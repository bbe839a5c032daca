// SPDX-License-Identifier: GPL-2.0-only
/* Names and entries of a shared directory. */
#include <stdio.h>
#include <stdlib.h>

#include "kselftest_harness.h"

#include "../../helper/shared.h"
#include "random.h"

#define KEYS	20000

static void make_key(struct shared_key *key)
{
	int i;

	for (i = 0; i < 16; i++)
		key->layer[i] = random_u64();
	key->offset = random_u64() >> random_below(64);
	key->length = 1 + random_below(SHARED_MAX);
}

static u8 *make_entry(const struct shared_key *key, const u8 *bytes, u32 length)
{
	u8 *entry = malloc(sizeof(struct shared_head) + length);
	struct shared_head head;
	u64 sum = shared_begin(&head, key);
	u32 at;

	for (at = 0; at < length; at += SHARED_PIECE)
		sum = shared_sum(sum, bytes + at, length - at < SHARED_PIECE ?
				 length - at : SHARED_PIECE);
	head.sum = cpu_to_le64(sum);
	memcpy(entry, &head, sizeof(head));
	memcpy(entry + sizeof(head), bytes, length);
	return entry;
}

TEST(the_layout_is_this)
{
	struct shared_key key = { .offset = 0x1234, .length = 5 };
	char name[SHARED_NAME];
	u8 *entry;

	EXPECT_EQ(48, sizeof(struct shared_head));
	memcpy(key.layer, "\x01\x23\x45\x67\x89\xab\xcd\xef"
	       "\x10\x32\x54\x76\x98\xba\xdc\xfe", 16);
	shared_entry_name(&key, name);
	EXPECT_STREQ("a5/0123456789abcdef1032547698badcfe-1234-5.frame", name);
	entry = make_entry(&key, (const u8 *)"hello", 5);
	EXPECT_EQ(0, memcmp(entry, "lazyfram\1\0\0\0\5\0\0\0\x34\x12\0\0\0\0\0\0",
			    24));
	free(entry);
}

/* Each name leads back to its key, and to no other folder. */
TEST(names_are_read_as_they_are_written)
{
	u32 in[SHARED_FOLDERS] = {}, i, least = KEYS;
	char name[SHARED_NAME], part[SHARED_NAME];
	struct shared_key key, back;

	random_seed(1);
	for (i = 0; i < KEYS; i++) {
		unsigned int folder;

		make_key(&key);
		shared_entry_name(&key, name);
		ASSERT_EQ('/', name[2]);
		folder = strtoul(name, NULL, 16);
		in[folder]++;
		memset(&back, 0, sizeof(back));
		ASSERT_EQ(SHARED_ENTRY, shared_parse(name + 3, folder, &back));
		ASSERT_EQ(0, memcmp(key.layer, back.layer, 16));
		ASSERT_EQ(key.offset, back.offset);
		ASSERT_EQ(key.length, back.length);
		ASSERT_EQ(SHARED_FOREIGN, shared_parse(name + 3,
				(folder + 1) % SHARED_FOLDERS, &back));

		shared_part_name(&key, "0123456789abcdef-7fffffff",
				 random_u64(), part);
		ASSERT_EQ(0, strncmp(name, part, 3));
		ASSERT_EQ(SHARED_PART, shared_parse(part + 3, folder, &back));
		ASSERT_EQ(key.length, back.length);
	}
	for (i = 0; i < SHARED_FOLDERS; i++)
		least = in[i] < least ? in[i] : least;
	EXPECT_GT(least, KEYS / SHARED_FOLDERS / 2);
}

TEST(other_files_are_nobodys_business)
{
	static const char *const names[] = {
		"", ".", "..", "x", ".frame", "-5.frame", "holiday.jpg",
		"0123456789abcdef1032547698badcfe-1234-5",
		"0123456789abcdef1032547698badcfe-1234-5.frame~",
		"0123456789abcdef1032547698badcfe-1234-0.frame",
		"0123456789abcdef1032547698badcfe-1234-05.frame",
		"0123456789abcdef1032547698badcfe-1234-5.Frame",
		"0123456789ABCDEF1032547698badcfe-1234-5.frame",
		"0123456789abcdef1032547698badcf-1234-5.frame",
		"0123456789abcdef1032547698badcfe-12345678901234567-5.frame",
		"0123456789abcdef1032547698badcfe-1234-fffffffff.frame",
		"0123456789abcdef1032547698badcfe-1234-f00000.frame",
		"0123456789abcdef1032547698badcfe--5.frame",
		"0123456789abcdef1032547698badcfe-5.frame",
		"0123456789abcdef-1-2-.part", "0123456789abcdef-1-2.part",
		"my-1-2-3.part", "backup-3.part",
	};
	struct shared_key key;
	unsigned int i, folder;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		for (folder = 0; folder < SHARED_FOLDERS; folder++)
			ASSERT_EQ(SHARED_FOREIGN,
				  shared_parse(names[i], folder, &key))
				TH_LOG("name %u", i);
}

/* A whole entry passes; any bit of it changed, any part of it, none does. */
TEST(damage_is_seen)
{
	static const u32 lengths[] = { 1, 100, SHARED_PIECE - 1, SHARED_PIECE,
				       SHARED_PIECE + 1, 3 * SHARED_PIECE + 5 };
	const char *why = NULL;
	unsigned int i;

	random_seed(2);
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		u32 length = lengths[i], at;
		u32 size = sizeof(struct shared_head) + length;
		struct shared_key key, other;
		u8 *bytes = malloc(length), *entry, *part;

		random_fill(bytes, length);
		make_key(&key);
		key.length = length;
		entry = make_entry(&key, bytes, length);
		ASSERT_EQ(0, shared_check(entry, size, &key, &why));
		for (at = 0; at < size; at++) {
			u8 bit = 1 << random_below(8);

			/* all of the head, and spots of the rest */
			if (at > 60 && at != size - 1 && random_below(500))
				continue;
			entry[at] ^= bit;
			why = NULL;
			ASSERT_EQ(-EINVAL, shared_check(entry, size, &key, &why))
				TH_LOG("byte %u of %u", at, size);
			ASSERT_TRUE(why && *why);
			entry[at] ^= bit;
		}
		for (at = 0; at < size; at += at < 60 ? 1 : 1 + length / 9) {
			/* of that size exactly, so that ASan sees what is read */
			part = malloc(at + !at);
			memcpy(part, entry, at);
			ASSERT_EQ(-EINVAL, shared_check(part, at, &key, &why));
			free(part);
		}
		part = calloc(1, size + 1);
		memcpy(part, entry, size);
		EXPECT_EQ(-EINVAL, shared_check(part, size + 1, &key, &why));
		free(part);
		other = key;
		other.offset++;
		EXPECT_EQ(-EINVAL, shared_check(entry, size, &other, &why));
		other = key;
		other.layer[15]++;
		EXPECT_EQ(-EINVAL, shared_check(entry, size, &other, &why));
		free(entry);
		free(bytes);
	}
}

TEST(room_is_in_blocks)
{
	struct shared_key key = { .length = 0 };

	EXPECT_EQ(4096, shared_room(1));
	EXPECT_EQ(4096, shared_room(4096 - 48));
	EXPECT_EQ(8192, shared_room(4096 - 47));
	EXPECT_FALSE(shared_fits(&key));
	key.length = SHARED_MAX;
	EXPECT_TRUE(shared_fits(&key));
	key.length++;
	EXPECT_FALSE(shared_fits(&key));
}

TEST_HARNESS_MAIN
