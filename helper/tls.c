// SPDX-License-Identifier: GPL-2.0-only
#include "tls.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CAFILE_MAX	(16 << 20)

const char *tls_cafile(const char *option)
{
	static const char *const names[] = {
		"LAZYFRAME_CAFILE", "AWS_CA_BUNDLE",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names) && !option; i++) {
		option = getenv(names[i]);
		if (option && !*option)
			option = NULL;
	}
	return option;
}

static ssize_t read_all(int fd, char *data, size_t bytes)
{
	size_t have = 0;
	ssize_t n = 1;

	while (have < bytes && n) {
		n = read(fd, data + have, bytes - have);
		if (n < 0 && errno != EINTR)
			return -1;
		have += n > 0 ? n : 0;
	}
	return have;
}

int tls_load(struct tls *tls, const char *path, struct error *e)
{
	struct stat st;
	char *data = NULL;
	ssize_t n;
	int fd, err;

	memset(tls, 0, sizeof(*tls));
	tls->system = !path;
	if (!path)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		goto fail;
	errno = EFBIG;
	if (!S_ISREG(st.st_mode) || st.st_size > CAFILE_MAX)
		goto fail;
	data = malloc(st.st_size + 1);
	n = data ? read_all(fd, data, st.st_size) : -1;
	if (n < 0)
		goto fail;
	close(fd);
	tls->authorities = (struct curl_blob){
		.data = data,
		.len = n,
		.flags = CURL_BLOB_NOCOPY,
	};
	return 0;
fail:
	err = error_set(e, -errno,
			"%s: cannot read certificate authorities: %m", path);
	free(data);
	if (fd >= 0)
		close(fd);
	return err;
}

void tls_free(struct tls *tls)
{
	free(tls->authorities.data);
	memset(tls, 0, sizeof(*tls));
}

CURLcode tls_apply(CURL *curl, const struct tls *tls)
{
	CURLcode rc;

	if (!tls->authorities.data && tls->system)
		return CURLE_OK;
	/* Nothing of TLS may come from disk later. */
	rc = curl_easy_setopt(curl, CURLOPT_CAINFO, NULL);
	if (!rc)
		rc = curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
	if (!rc && tls->authorities.data)
		rc = curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB,
				      &tls->authorities);
	return rc;
}
