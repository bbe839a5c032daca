// SPDX-License-Identifier: GPL-2.0-only
#include "tls.h"

#include <stdlib.h>
#include <unistd.h>

#include "io.h"

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

int tls_load(struct tls *tls, const char *path, struct error *e)
{
	struct stat st;
	char *data = NULL;
	ssize_t n = 0;
	int fd;

	memset(tls, 0, sizeof(*tls));
	tls->system = !path;
	if (!path)
		return 0;
	fd = io_open(path, &st);
	if (fd < 0)
		n = fd;
	else if (st.st_size > CAFILE_MAX)
		n = -EFBIG;
	else
		data = malloc(st.st_size + 1);
	if (!n)
		n = data ? io_read_all(fd, data, st.st_size + 1) : -ENOMEM;
	if (fd >= 0)
		close(fd);
	if (n < 0) {
		free(data);
		return error_set(e, n, "%s: cannot read certificate authorities: %s",
				 path, strerror(-n));
	}
	tls->authorities = (struct curl_blob){
		.data = data,
		.len = n,
		.flags = CURL_BLOB_NOCOPY,
	};
	return 0;
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
