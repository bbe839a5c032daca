// SPDX-License-Identifier: GPL-2.0-only
/*
 * fetch-s3 URL PUT [MIDDLE]: the daemon's fetcher against a real store. "PUT FILE"
 * is run to bring an object there that URL then names; all of it is fetched, in
 * ranges, as fast as it goes, and compared. MIDDLE is run when half of it is
 * there. What stands in the environment about S3 counts. For cli/071-rgw.sh.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../helper/rig.h"

/* The second @half of the object, or the first; the number of frames that failed */
static int fetch(struct rig *rig, int half)
{
	u64 off = half ? OBJECT_BYTES / 2 : 0, end = off + OBJECT_BYTES / 2;
	int failed = 0;
	u32 tag;

	for (tag = 0; off < end; tag++, off += FRAME)
		rig_post(rig, tag, 1, off, FRAME, 0, 0, 60000);
	if (rig_run(rig))
		return 1;
	while (tag-- > 0)
		failed += rig->tag[tag].status != 0;
	return failed;
}

int main(int argc, char **argv)
{
	const char *home = getenv("HOME");
	static struct rig rig;
	char command[4096];
	int n;

	if (argc != 3 && argc != 4)
		return 2;
	rig_up(&rig);
	setenv("HOME", home ? home : "/", 1);
	n = snprintf(command, sizeof(command), "%s %s/object", argv[2],
		     rig.dir);
	if (n < 0 || (size_t)n >= sizeof(command) || system(command)) {
		fprintf(stderr, "cannot put the object\n");
		return 1;
	}
	rig.options.stall_ns = 10 * NSEC_PER_SEC;
	rig.options.range_max = 1 << 20;
	rig_layer(&rig, 1, argv[1], OBJECT_BYTES, "");
	rig_go(&rig);
	n = fetch(&rig, 0);
	if (argc == 4 && system(argv[3])) {
		fprintf(stderr, "%s fails\n", argv[3]);
		return 1;
	}
	n += fetch(&rig, 1);
	printf("%d frames failed, %llu answers were wrong\n", n,
	       (unsigned long long)rig.wrong);
	n += rig.wrong != 0;
	rig_down(&rig);
	return n != 0;
}
