// SPDX-License-Identifier: GPL-2.0-only
#include "privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "secret.h"

int privileges_find(struct privileges *p, const char *user)
{
	struct passwd *pw;
	int err;

	errno = 0;
	pw = getpwnam(user);
	if (!pw) {
		/* Which of them says "no such user" depends on the database. */
		err = errno == ENOMEM || errno == EIO || errno == EMFILE ||
		      errno == ENFILE || errno == EINTR ? -errno : -ENOENT;
		log_err("--user %s: %s", user, err == -ENOENT ?
			"there is no such user; systemd-sysusers or useradd --system makes one" :
			strerror(-err));
		return err;
	}
	p->uid = pw->pw_uid;
	p->gid = pw->pw_gid;
	p->count = ARRAY_SIZE(p->groups);
	if (getgrouplist(user, p->gid, p->groups, &p->count) < 0) {
		log_err("--user %s: is in %d groups, there is room for %d",
			user, p->count, PRIVILEGES_GROUPS);
		return -E2BIG;
	}
	p->given = true;
	return 0;
}

static int become(const struct privileges *p)
{
	if (setgroups(p->count, p->groups) ||
	    setresgid(p->gid, p->gid, p->gid) ||
	    setresuid(p->uid, p->uid, p->uid))
		return -errno;
	return 0;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct cap[2] = { };
	unsigned int keep = 0;

	if (!geteuid()) {
		if (syscall(SYS_capget, &head, cap))
			return -errno;
		keep = 1U << CAP_DAC_READ_SEARCH & cap[0].permitted;
		memset(cap, 0, sizeof(cap));
	}
	cap[0].effective = keep;
	cap[0].permitted = keep;
	/* Without a permitted one, an ambient one is gone, too. */
	if (syscall(SYS_capset, &head, cap) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return 0;
}

int privileges_drop(const struct privileges *p)
{
	int err = p->given ? become(p) : 0;

	if (err) {
		log_err("cannot become user %u: %s; start it as root", p->uid,
			strerror(-err));
		return err;
	}
	err = drop_capabilities();
	if (err)
		log_err("cannot drop privileges: %s", strerror(-err));
	/* Another user's process may be dumped again, as the system is set up. */
	secret_hide();
	return err;
}
