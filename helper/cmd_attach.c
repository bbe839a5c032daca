// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cmd.h"
#include "dm.h"
#include "loopdev.h"
#include "meta.h"
#include "metafile.h"
#include "state.h"
#include "uuid.h"

/* DEVICE_UUID_PREFIX, the image's UUID, a dash and the name have to fit. */
#define NAME_MAX_ATTACH	(DEVICE_UUID_MAX - (int)strlen(DEVICE_UUID_PREFIX) - \
			 UUID_TEXT)
#define MAX_SECONDS	86400

static const char usage[] =
	"Usage: lazyframe attach NAME URL [option]...\n"
	"\n"
	"Show the image at URL as the read-only block device /dev/mapper/NAME.\n"
	"\n"
	"  --meta PATH                block device or file for the image's tables\n"
	"  --error-if-no-helper       reads that need lazyframed fail while it is away\n"
	"                             (they wait without this option)\n"
	"  --no-helper-timeout SEC    reads fail after waiting so long for lazyframed\n"
	"  --fetch-timeout SEC        reads fail after waiting so long for their bytes\n"
	"                             (0: never)\n"
	"  --help                     this text\n";

struct request {
	const char *name;
	const char *url;
	const char *meta;		/* NULL: ours to choose and to remove */
	bool error_if_no_helper;
	int no_helper_timeout;		/* seconds, -1: not given */
	int fetch_timeout;
};

static int parse_seconds(const char *option, const char *text, int *value)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno ||
	    n > MAX_SECONDS) {
		fprintf(stderr,
			"lazyframe attach: --%s \"%s\" is no number of seconds from 0 to %d\n",
			option, text, MAX_SECONDS);
		return -EINVAL;
	}
	*value = n;
	return 0;
}

/* Return: -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct request *request)
{
	static const struct option options[] = {
		{ "meta", required_argument, NULL, 'm' },
		{ "error-if-no-helper", no_argument, NULL, 'e' },
		{ "no-helper-timeout", required_argument, NULL, 'n' },
		{ "fetch-timeout", required_argument, NULL, 'f' },
		{ "store", required_argument, NULL, 's' },
		{ "cow", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'm':
			request->meta = optarg;
			break;
		case 'e':
			request->error_if_no_helper = true;
			break;
		case 'n':
			if (parse_seconds("no-helper-timeout", optarg,
					  &request->no_helper_timeout))
				return 2;
			break;
		case 'f':
			if (parse_seconds("fetch-timeout", optarg,
					  &request->fetch_timeout))
				return 2;
			break;
		case 's':
		case 'c':
			fprintf(stderr,
				"lazyframe attach: --%s is not supported by this version: devices are read-only and cached in memory\n",
				opt == 's' ? "store" : "cow");
			return 2;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (argc - optind != 2) {
		fputs(usage, stderr);
		return 2;
	}
	request->name = argv[optind];
	request->url = argv[optind + 1];
	return -1;
}

static int check_name(const char *name, struct error *e)
{
	struct device device;
	int err;

	err = device_name_check(name, e);
	if (err)
		return err;
	if (strlen(name) > (size_t)NAME_MAX_ATTACH)
		return error_set(e, -EINVAL,
				 "a name of %zu characters is longer than %d",
				 strlen(name), NAME_MAX_ATTACH);
	err = device_read(name, &device, e);
	if (err == -ENXIO)
		return 0;
	if (err)
		return err;
	error_set(e, -EEXIST, "there is a device %s already%s", name,
		  device_is_ours(&device) ?
		  ": detach it or choose another name" :
		  ", not one of lazyframe's: choose another name");
	device_drop(&device);
	return -EEXIST;
}

static void features(const struct request *request, char *text, size_t bytes)
{
	char timeouts[2][40] = {};
	u32 words = 0;

	if (request->error_if_no_helper)
		words++;
	if (request->no_helper_timeout >= 0) {
		snprintf(timeouts[0], sizeof(timeouts[0]),
			 " no_helper_timeout %d", request->no_helper_timeout);
		words += 2;
	}
	if (request->fetch_timeout >= 0) {
		snprintf(timeouts[1], sizeof(timeouts[1]),
			 " fetch_timeout %d", request->fetch_timeout);
		words += 2;
	}
	text[0] = 0;
	if (words)
		snprintf(text, bytes, " %u%s%s%s", words,
			 request->error_if_no_helper ?
			 " error_if_no_helper" : "", timeouts[0], timeouts[1]);
}

/* The device number for the table; a loop device lives as long as *@fd. */
static int meta_number(const char *path, bool is_file, int *fd, dev_t *number,
		       struct error *e)
{
	char loop[LOOPDEV_PATH];
	struct stat st;

	if (is_file) {
		*fd = loopdev_attach(path, loop, e);
		if (*fd < 0)
			return *fd;
		path = loop;
	}
	if (stat(path, &st))
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	*number = st.st_rdev;
	return 0;
}

static void note_helper(const struct request *request)
{
	struct device_info info;
	struct device device;
	struct error e = {};

	if (device_read(request->name, &device, &e))
		goto failed;
	if (device_info_parse(device.info, &info, &e)) {
		device_drop(&device);
		goto failed;
	}
	if (!info.helper)
		fprintf(stderr,
			"lazyframe attach: no helper is attached: reads %s lazyframed runs\n",
			info.error_policy ? "fail unless" : "wait until");
	device_drop(&device);
	return;
failed:
	fprintf(stderr, "lazyframe attach: status unknown: %s\n", e.text);
}

static int attach(const struct request *request, const struct image *image,
		  struct error *e)
{
	char path[STATE_PATH], uuid[UUID_TEXT], feature[128], params[192];
	char device_uuid[DEVICE_UUID_MAX + 1];
	const char *meta = request->meta;
	struct metafile made = {};
	dev_t number = 0;
	int fd = -1, err;

	err = state_lock(e);
	if (err)
		return err;
	err = check_name(request->name, e);
	if (err)
		return err;

	if (!meta) {
		err = state_meta_path(request->name, path, e);
		if (err)
			return err;
		meta = path;
	}
	/* A file of ours that no device uses is from before the last boot. */
	err = metafile_format(meta, image, !request->meta, &made, e);
	if (err)
		return err;

	err = meta_number(meta, made.is_file, &fd, &number, e);
	if (err)
		goto out;
	features(request, feature, sizeof(feature));
	snprintf(params, sizeof(params), "%u:%u - -%s", major(number),
		 minor(number), feature);
	uuid_text(image->uuid, uuid);
	snprintf(device_uuid, sizeof(device_uuid), "%s%s-%s",
		 DEVICE_UUID_PREFIX, uuid, request->name);
	err = device_create(request->name, device_uuid,
			    meta_sectors(image->bytes), params, e);
out:
	if (fd >= 0)
		close(fd);
	if (err && (made.created || !request->meta))
		unlink(meta);
	return err;
}

int cmd_attach(int argc, char **argv)
{
	struct request request = {
		.no_helper_timeout = -1,
		.fetch_timeout = -1,
	};
	struct image *image;
	struct error e = {};
	int err, status;

	status = parse(argc, argv, &request);
	if (status >= 0)
		return status;

	/* What is cheap to know comes before the network. */
	err = check_name(request.name, &e);
	if (!err)
		err = device_target_check(&e);
	if (!err)
		err = image_open(request.url, &image, &e);
	if (err)
		goto failed;
	err = attach(&request, image, &e);
	image_free(image);
	if (err)
		goto failed;
	note_helper(&request);
	printf("/dev/mapper/%s\n", request.name);
	return 0;
failed:
	fprintf(stderr, "lazyframe attach: %s\n", e.text);
	return 1;
}
