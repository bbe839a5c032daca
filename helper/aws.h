/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the environment and the files of the AWS tools say: where S3 is, and
 * where credentials come from. Names and order are those of the AWS SDKs.
 */
#ifndef LF_AWS_H
#define LF_AWS_H

#include "bucket.h"
#include "secret.h"

/**
 * enum aws_source - in the order in which they are looked for
 * @AWS_KEYS: access_key, secret and token, from the environment or a file
 * @AWS_WEB_IDENTITY: a token of somebody else's is exchanged for keys
 * @AWS_CONTAINER: an agent beside the container gives them
 * @AWS_INSTANCE: the metadata service of an EC2 instance does
 */
enum aws_source {
	AWS_KEYS,
	AWS_WEB_IDENTITY,
	AWS_CONTAINER,
	AWS_INSTANCE,
};

/**
 * struct aws - all of it
 * @endpoint: of S3; NULL: AWS
 * @sts: endpoint for web identity; NULL: AWS
 * @from: where the keys are from, in words
 * @token_file: with the web identity's, or the container agent's token
 * @agent: URL of the container's agent
 * @agent_token: for its Authorization header, or NULL
 * @metadata: endpoint of the instance's metadata; NULL: there shall be none
 */
struct aws {
	char *profile;
	char *region;
	char *endpoint;
	char *sts;
	enum bucket_style style;
	enum aws_source source;
	char *from;
	char *access_key;
	char *secret;
	char *token;
	char *role;
	char *session;
	char *token_file;
	char *agent;
	char *agent_token;
	char *metadata;
};

/**
 * aws_load - read environment and files; no network
 * @warn: is told about files that others can read; may be NULL
 */
int aws_load(struct aws **aws, secret_warn *warn, struct error *e);
void aws_free(struct aws *aws);

#endif
