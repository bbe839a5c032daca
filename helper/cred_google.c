// SPDX-License-Identifier: GPL-2.0-only
/*
 * Access tokens of Google's OAuth: for an assertion that a service account's key
 * has signed (RFC 7523), or for a user's refresh token (RFC 6749, section 6).
 */
#include <stdio.h>
#include <stdlib.h>

#include "bucket.h"
#include "gs.h"
#include "jsontext.h"
#include "jwt.h"

#define SCOPE	"https://www.googleapis.com/auth/devstorage.read_write"
#define LIFE	3600	/* seconds, no more are accepted */
/* A clock that is off by more than this is what a refusal is about. */
#define SKEW	60

/* JSON, malloc()ed: whoever wrote the file, its words are escaped. */
static char *make_claims(const struct gs *gs, time_t when)
{
	struct json_object *json = json_object_new_object();
	char *text = NULL;

	if (!json)
		return NULL;
	if (!json_object_object_add(json, "iss",
				    json_object_new_string(gs->account)) &&
	    !json_object_object_add(json, "scope",
				    json_object_new_string(SCOPE)) &&
	    !json_object_object_add(json, "aud",
				    json_object_new_string(gs->token_uri)) &&
	    !json_object_object_add(json, "iat",
				    json_object_new_int64(when)) &&
	    !json_object_object_add(json, "exp",
				    json_object_new_int64(when + LIFE)))
		text = strdup(json_object_to_json_string(json));
	json_object_put(json);
	return text;
}

static char *make_head(const struct gs *gs)
{
	struct json_object *json = json_object_new_object();
	char *text = NULL;

	if (!json)
		return NULL;
	if (!json_object_object_add(json, "alg",
				    json_object_new_string("RS256")) &&
	    !json_object_object_add(json, "typ",
				    json_object_new_string("JWT")) &&
	    (!gs->key_id ||
	     !json_object_object_add(json, "kid",
				     json_object_new_string(gs->key_id))))
		text = strdup(json_object_to_json_string(json));
	json_object_put(json);
	return text;
}

static int account_body(const struct gs *gs, time_t when, char **body,
			struct error *e)
{
	char *head = make_head(gs), *claims = make_claims(gs, when);
	char *token = NULL;
	int err;

	if (head && claims)
		err = jwt_sign(head, claims, gs->key, &token, e);
	else
		err = no_memory(e);
	if (!err && asprintf(body,
			     "grant_type=urn%%3Aietf%%3Aparams%%3Aoauth%%3Agrant-type%%3Ajwt-bearer&assertion=%s",
			     token) < 0) {
		*body = NULL;
		err = no_memory(e);
	}
	secret_free(token);
	free(claims);
	free(head);
	return err;
}

static int user_body(const struct gs *gs, char **body, struct error *e)
{
	char *id = url_escape(gs->account, ""), *key = url_escape(gs->key, "");
	char *token = url_escape(gs->refresh, "");
	int n = -1;

	if (id && key && token)
		n = asprintf(body,
			     "grant_type=refresh_token&client_id=%s&client_secret=%s&refresh_token=%s",
			     id, key, token);
	secret_free(token);
	secret_free(key);
	free(id);
	if (n >= 0)
		return 0;
	*body = NULL;
	return no_memory(e);
}

static int ask(const struct gs *gs, const struct web *web, time_t when,
	       struct web_answer *answer, struct error *e)
{
	struct web_request req = { .method = "POST", .url = gs->token_uri };
	char *body = NULL;
	int err;

	err = gs->source == GS_USER ? user_body(gs, &body, e) :
				      account_body(gs, when, &body, e);
	if (!err) {
		req.body = body;
		err = web_ask(web, &req, answer, e);
	}
	secret_free(body);
	return err;
}

static bool clock_is_off(const struct web_answer *answer, time_t when)
{
	return answer->status != 200 && answer->date &&
	       (answer->date > when + SKEW || answer->date < when - SKEW);
}

/* The code alone: what else is there may repeat what was sent. */
static int refusal(const struct web_answer *answer, struct error *e)
{
	struct json_object *json = json_tokener_parse(answer->body);
	const char *code = json_text(json, "error");
	int err;

	err = error_set(e, -EACCES, "the token server says %ld%s%.64s",
			answer->status, code ? " " : "", code ? code : "");
	json_object_put(json);
	return err;
}

int credentials_google(const struct gs *gs, const struct web *web,
		       struct credentials *cred, struct error *e)
{
	struct web_answer answer;
	time_t when = time(NULL);
	int err;

	err = ask(gs, web, when, &answer, e);
	if (!err && gs->source == GS_ACCOUNT && clock_is_off(&answer, when)) {
		when = answer.date;
		secret_free(answer.body);
		err = ask(gs, web, when, &answer, e);
	}
	if (err)
		goto out;
	if (answer.status == 200)
		err = credentials_oauth(answer.body, cred, e);
	else
		err = refusal(&answer, e);
	secret_free(answer.body);
out:
	if (err)
		error_prefix(e, "%s", gs->from);
	return err;
}
