// SPDX-License-Identifier: GPL-2.0-only
/*
 * fetch-s3 URL PUT...: the daemon's fetcher against a real store. "PUT... FILE"
 * is run to bring an object there that URL then names; all of it is fetched, in
 * ranges, as fast as it goes, and compared. What stands in the environment
 * about S3 counts. For cli/071-rgw.sh.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../helper/rig.h"

int main(int argc, char **argv)
{
	const char *home = getenv("HOME");
	static struct rig rig;
	char command[4096];
	u64 off = 0;
	u32 tag;
	int n;

	if (argc != 3)
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
	for (tag = 0; off < OBJECT_BYTES; tag++, off += FRAME)
		rig_post(&rig, tag, 1, off, FRAME, 0, 0, 60000);
	if (rig_run(&rig))
		return 1;
	for (n = 0; tag-- > 0;)
		n += rig.tag[tag].status != 0;
	printf("%d frames failed, %llu answers were wrong\n", n,
	       (unsigned long long)rig.wrong);
	n += rig.wrong != 0;
	rig_down(&rig);
	return n != 0;
}
