// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd.h"
#include "pair.h"
#include "replay.h"
#include "stack.h"
#include "state.h"
#include "store.h"
#include "units.h"
#include "uuid.h"

/* DEVICE_UUID_PREFIX, the image's UUID, a dash and the name have to fit. */
#define NAME_MAX_ATTACH	(DEVICE_UUID_MAX - (int)strlen(DEVICE_UUID_PREFIX) - \
			 UUID_TEXT)
#define MAX_SECONDS	86400
/* Of --read-around, as in kmod/target.c */
#define MIN_AROUND	4096
#define MAX_AROUND	(16 << 20)

static const char usage[] =
	"Usage: lazyframe attach NAME URL [option]...\n"
	"\n"
	"Show the image at URL as the block device /dev/mapper/NAME.\n"
	"\n"
	"  --cow PATH                 block device or file for what is written to it;\n"
	"                             without it, it is read-only. What was written\n"
	"                             before is there again\n"
	"  --meta PATH                block device or file for the image's tables, and\n"
	"                             for the list of what was written\n"
	"  --store DEV                block device that keeps what was fetched, made by\n"
	"                             lazyframe store-format\n"
	"  --sha256 HEX               refuse a header that has not this SHA-256\n"
	"  --read-only                with --cow: show what was written, write nothing\n"
	"  --force                    begin anew: overwrite what --cow and --meta hold\n"
	"  --error-if-no-helper       reads that need lazyframed fail while it is away\n"
	"                             (they wait without this option)\n"
	"  --no-helper-timeout SEC    reads fail after waiting so long for lazyframed\n"
	"  --fetch-timeout SEC        reads fail after waiting so long for their bytes\n"
	"                             (0: never)\n"
	"  --read-around BYTES        a read that has to wait brings so much around it, as\n"
	"                             one range: a power of two, 4K to 16M\n"
	"  --prefetch[=TRACE]         fetch what a trace has, before it is read; without\n"
	"                             a path or URL, the one at URL.trace if there is one\n"
	"  --help                     this text\n";

struct request {
	const char *name;
	const char *url;
	const char *meta;		/* NULL: ours to choose and to remove */
	const char *cow;		/* NULL: no overlay */
	const char *store_path;		/* NULL: no store */
	const char *sha256;		/* NULL: any header will do */
	struct store store;
	const char *trace_path;		/* NULL: beside the header */
	struct trace trace;
	bool prefetch;
	bool has_trace;
	bool read_only;
	bool force;
	bool error_if_no_helper;
	int no_helper_timeout;		/* seconds, -1: not given */
	int fetch_timeout;
	u64 read_around;		/* bytes, 0: not given */
};

static int parse_seconds(const char *option, const char *text, int *value)
{
	u64 n;

	if (!units_count(text, 0, MAX_SECONDS, &n)) {
		fprintf(stderr,
			"lazyframe attach: --%s \"%s\" is no number of seconds from 0 to %d\n",
			option, text, MAX_SECONDS);
		return -EINVAL;
	}
	*value = n;
	return 0;
}

static int parse_around(const char *text, u64 *value)
{
	if (units_parse(text, value) && *value >= MIN_AROUND &&
	    *value <= MAX_AROUND && !(*value & (*value - 1)))
		return 0;
	fprintf(stderr,
		"lazyframe attach: --read-around \"%s\" is no power of two from 4K to 16M\n",
		text);
	return -EINVAL;
}

static int parse_sha256(const char *text)
{
	if (strlen(text) == SHA256_TEXT - 1 &&
	    strspn(text, "0123456789abcdefABCDEF") == SHA256_TEXT - 1)
		return 0;
	fprintf(stderr,
		"lazyframe attach: --sha256 \"%s\" is not %d hex digits, as sha256sum prints them\n",
		text, SHA256_TEXT - 1);
	return -EINVAL;
}

/* Return: -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct request *request)
{
	static const struct option options[] = {
		{ "meta", required_argument, NULL, 'm' },
		{ "error-if-no-helper", no_argument, NULL, 'e' },
		{ "no-helper-timeout", required_argument, NULL, 'n' },
		{ "fetch-timeout", required_argument, NULL, 'f' },
		{ "read-around", required_argument, NULL, 'a' },
		{ "store", required_argument, NULL, 's' },
		{ "sha256", required_argument, NULL, 'S' },
		{ "cow", required_argument, NULL, 'c' },
		{ "read-only", no_argument, NULL, 'r' },
		{ "force", no_argument, NULL, 'F' },
		{ "prefetch", optional_argument, NULL, 'p' },
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
		case 'a':
			if (parse_around(optarg, &request->read_around))
				return 2;
			break;
		case 'c':
			request->cow = optarg;
			break;
		case 'r':
			request->read_only = true;
			break;
		case 'F':
			request->force = true;
			break;
		case 'p':
			request->prefetch = true;
			request->trace_path = optarg;
			break;
		case 's':
			request->store_path = optarg;
			break;
		case 'S':
			if (parse_sha256(optarg))
				return 2;
			request->sha256 = optarg;
			break;
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
	if (request->read_only && !request->cow) {
		fputs("lazyframe attach: --read-only goes with --cow; else it is so anyway\n",
		      stderr);
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

/* Return: how many words */
static u32 features(const struct request *request, char *text, size_t bytes)
{
	char timeouts[2][40] = {}, around[40] = "";
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
	if (request->read_around) {
		snprintf(around, sizeof(around), " read_around %llu",
			 (unsigned long long)request->read_around);
		words += 2;
	}
	snprintf(text, bytes, "%s%s%s%s", request->error_if_no_helper ?
		 " error_if_no_helper" : "", timeouts[0], timeouts[1], around);
	return words;
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
	if (!strcmp(info.mode, "fail"))
		fprintf(stderr,
			"lazyframe attach: the overlay cannot be used, all I/O fails; the kernel's log tells why\n");
	device_drop(&device);
	return;
failed:
	fprintf(stderr, "lazyframe attach: status unknown: %s\n", e.text);
}

/* The table's devices are open: make the mapped one. */
static int create(const struct request *request, u64 image_bytes,
		  const u8 image_uuid[16], dev_t meta, dev_t cow,
		  dev_t origin, struct error *e)
{
	char device_uuid[DEVICE_UUID_MAX + 1], params[256];
	char uuid[UUID_TEXT], feature[128];
	bool read_only = !cow || request->read_only;
	u32 words;

	words = features(request, feature, sizeof(feature));
	stack_params(params, sizeof(params), meta, request->store.number, cow,
		     origin, cow && request->read_only, words, feature);
	uuid_text(image_uuid, uuid);
	snprintf(device_uuid, sizeof(device_uuid), "%s%s-%s",
		 DEVICE_UUID_PREFIX, uuid, request->name);
	return device_create(request->name, device_uuid, DEVICE_TARGET,
			     meta_sectors(image_bytes), params, read_only, e);
}

/*
 * A file of ours that no device uses is from before the last boot, and good
 * for nothing if it has no overlay.
 */
static bool may_replace(const struct request *request, const char *meta)
{
	return request->force ||
	       (!request->meta && !metafile_has_overlay(meta));
}

/* Without an overlay. */
static int attach_image(const struct request *request, const char *meta,
			const struct meta_plan *plan,
			const struct image *image, struct error *e)
{
	struct backing backing = { .fd = -1 };
	struct metafile made = {};
	int err;

	err = metafile_write(meta, plan, -1, may_replace(request, meta), &made,
			     e);
	if (err)
		return err;
	err = backing_open(meta, false, &backing, e);
	if (!err)
		err = create(request, image->bytes, image->uuid,
			     backing.number, 0, 0, e);
	backing_close(&backing);
	if (err && (made.created || !request->meta))
		unlink(meta);
	return err;
}

/* An overlay that is there: with the sealed ones below it, if any. */
static int attach_pair(const struct request *request, const struct pair *pair,
		       struct error *e)
{
	struct backing meta = { .fd = -1 }, cow = { .fd = -1 };
	bool is_writable = !request->read_only;
	dev_t origin = 0;
	int err;

	if (is_writable &&
	    le32_to_cpu(pair->root.flags) & LF_ROOT_SEALED)
		return error_set(e, -EROFS,
				 "the overlay of %s is sealed, and its successor is not at %s.sealed-*: attach that one, or this with --read-only",
				 pair->meta, pair->meta);
	err = stack_attach(request->name, pair, request->store.number, &origin,
			   e);
	if (err)
		return err;
	err = backing_open(pair->meta, is_writable, &meta, e);
	if (!err)
		err = backing_open(pair->cow, is_writable, &cow, e);
	if (!err)
		err = create(request, pair->super.image_bytes,
			     pair->super.uuid, meta.number, cow.number, origin,
			     e);
	backing_close(&meta);
	backing_close(&cow);
	if (err)
		stack_detach(origin, NULL);
	return err;
}

/* A new overlay. */
static int attach_new(const struct request *request, const char *meta,
		      struct meta_plan *plan, struct error *e)
{
	struct meta_overlay overlay = {};
	struct pair_made made;
	struct pair pair;
	int err;

	err = uuid_random(overlay.uuid);
	if (err)
		return error_set(e, err, "no random numbers: %s",
				 strerror(-err));
	err = meta_plan_overlay(plan, &overlay, e);
	if (!err)
		err = pair_make(meta, request->cow, plan,
				may_replace(request, meta), request->force,
				&made, e);
	if (err)
		return err;
	err = pair_probe(meta, request->cow, &pair, e);
	if (err > 0)
		err = attach_pair(request, &pair, e);
	else if (!err)
		err = error_set(e, -EIO, "%s: the new overlay is not there",
				meta);
	pair_drop(&pair);
	if (err)
		pair_unmake(meta, request->cow, &made);
	return err;
}

/*
 * An overlay shows what was written together with the image that it was
 * written to, and no other.
 */
static int check_image(const struct pair *pair, const struct image *image,
		       struct error *e)
{
	char has[UUID_TEXT], asked[UUID_TEXT];

	if (!memcmp(pair->super.uuid, image->uuid, sizeof(image->uuid)))
		return 0;
	uuid_text(pair->super.uuid, has);
	uuid_text(image->uuid, asked);
	return error_set(e, -EEXIST,
			 "%s has an overlay of image %s%s%s%s, not of %s: attach that image, or --force discards the overlay",
			 pair->meta, has, pair->url ? " (" : "",
			 pair->url ? pair->url : "", pair->url ? ")" : "",
			 asked);
}

/*
 * @sha256: of the header that @what, an image or an overlay, was made from;
 *	    NULL or "": not known
 */
static int check_sha256(const struct request *request, const char *sha256,
			const char *what, struct error *e)
{
	if (!request->sha256)
		return 0;
	if (!sha256 || !sha256[0])
		return error_set(e, -EKEYREJECTED,
				 "%s: --sha256 is of a header, and this was made from none that is known",
				 what);
	if (!strcasecmp(sha256, request->sha256))
		return 0;
	return error_set(e, -EKEYREJECTED,
			 "%s: the header's SHA-256 is %s, not that of --sha256",
			 what, sha256);
}

/*
 * @image: NULL if it was not asked for, as the overlay that was there a moment
 * ago tells all that is needed
 */
static int attach_locked(const struct request *request, const char *meta,
			 const struct image *image, struct error *e)
{
	struct meta_plan *plan = NULL;
	struct pair pair = {};
	int err = 0, found = 0;

	if (request->cow && !request->force) {
		err = pair_settle(meta, request->cow, e);
		if (!err)
			found = pair_probe(meta, request->cow, &pair, e);
		if (found < 0)
			err = found;
	}
	if (err)
		goto out;
	if (found > 0) {
		err = image ? check_image(&pair, image, e) : 0;
		if (!err)
			err = check_sha256(request, pair.sha256, pair.meta, e);
		if (!err)
			err = attach_pair(request, &pair, e);
		/* An export was cut short behind its last important step. */
		if (!err && !lf_super_has_origin(&pair.super) &&
		    pair.origin_meta && pair.origin_cow)
			pair_drop_sealed(pair.origin_meta, pair.origin_cow);
		goto out;
	}
	if (!image) {
		err = error_set(e, -EAGAIN, "%s changed meanwhile: try again",
				meta);
		goto out;
	}
	err = meta_plan_image(&plan, image, e);
	if (err)
		goto out;
	err = request->cow ? attach_new(request, meta, plan, e) :
			     attach_image(request, meta, plan, image, e);
out:
	meta_plan_free(plan);
	pair_drop(&pair);
	return err;
}

static int attach(struct request *request, const char *meta,
		  const struct image *image, struct error *e)
{
	int err;

	err = state_lock(e);
	if (!err)
		err = check_name(request->name, e);
	if (!err && request->store_path)
		err = store_attach(request->store_path, &request->store, e);
	if (err)
		return err;
	err = attach_locked(request, meta, image, e);
	if (err)
		store_undo(&request->store);
	return err;
}

/* Does an overlay that is there tell all that the store would? */
static bool known(const struct request *request, const char *meta)
{
	struct pair pair;
	bool same = false;

	if (!request->cow || request->force)
		return false;
	if (!pair_settle(meta, request->cow, NULL) &&
	    pair_probe(meta, request->cow, &pair, NULL) > 0)
		same = pair.url && !strcmp(pair.url, request->url);
	pair_drop(&pair);
	return same;
}

/*
 * A trace that was named has to be there. Without the one beside the header, which
 * is an offer, the device is as good, only slower at first.
 */
static int load_trace(struct request *request, struct error *e)
{
	char *beside = NULL;
	struct error why = {};
	int err;

	if (request->trace_path) {
		err = trace_load(request->trace_path, &request->trace, e);
		request->has_trace = !err;
		return err;
	}
	if (asprintf(&beside, "%s" TRACE_SUFFIX, request->url) < 0)
		return no_memory(e);
	err = trace_load(beside, &request->trace, &why);
	request->has_trace = !err;
	if (err == -ENOENT)
		fprintf(stderr,
			"lazyframe attach: nothing is fetched ahead: there is no %s; lazyframe trace makes one\n",
			beside);
	else if (err)
		fprintf(stderr,
			"lazyframe attach: nothing is fetched ahead: %s\n",
			why.text);
	free(beside);
	return 0;
}

/* What fetches the trace while the image is looked at */
struct loading {
	struct request *request;
	pthread_t thread;
	int err;
	struct error error;
};

static void *load_trace_thread(void *arg)
{
	struct loading *loading = arg;

	loading->err = load_trace(loading->request, &loading->error);
	return NULL;
}

/*
 * All that is asked of the network: what the image is, unless an overlay that is
 * there tells it, and the trace.
 */
static int fetch(struct request *request, const char *meta,
		 struct image **image, struct error *e)
{
	struct loading loading = { .request = request };
	int err = 0;

	if (request->prefetch)
		err = pthread_create(&loading.thread, NULL, load_trace_thread,
				     &loading);
	if (err)
		return error_set(e, -err, "cannot start a thread: %s",
				 strerror(err));
	if (!known(request, meta))
		err = image_open(request->url, image, e);
	if (!err && *image)
		err = check_sha256(request, (*image)->sha256, request->url, e);
	if (request->prefetch)
		pthread_join(loading.thread, NULL);
	if (!err && loading.err) {
		*e = loading.error;
		err = loading.err;
	}
	return err;
}

/* The device is there: it stays, whatever becomes of this. */
static void replay(const struct request *request)
{
	struct error e = {};

	if (request->has_trace &&
	    replay_start(request->name, &request->trace, &e) < 0)
		fprintf(stderr,
			"lazyframe attach: nothing is fetched ahead: %s\n",
			e.text);
}

int cmd_attach(int argc, char **argv)
{
	struct request request = {
		.no_helper_timeout = -1,
		.fetch_timeout = -1,
	};
	char path[STATE_PATH], *meta = NULL, *cow = NULL;
	struct image *image = NULL;
	struct error e = {};
	int err, status;

	status = parse(argc, argv, &request);
	if (status >= 0)
		return status;

	/* What is cheap to know comes before the network. */
	err = check_name(request.name, &e);
	if (!err)
		err = device_target_check(&e);
	if (!err && request.store_path)
		err = store_check(request.store_path, &e);
	if (!err && !request.meta)
		err = state_meta_path(request.name, request.cow, path, &e);
	if (!err)
		err = path_absolute(request.meta ? request.meta : path, &meta,
				    &e);
	if (!err && request.cow)
		err = path_absolute(request.cow, &cow, &e);
	request.cow = cow;
	if (!err)
		err = fetch(&request, meta, &image, &e);
	if (!err)
		err = attach(&request, meta, image, &e);
	image_free(image);
	if (!err) {
		replay(&request);
		note_helper(&request);
		printf("/dev/mapper/%s\n", request.name);
	} else {
		fprintf(stderr, "lazyframe attach: %s\n", e.text);
	}
	trace_free(&request.trace);
	free(meta);
	free(cow);
	return err ? 1 : 0;
}
