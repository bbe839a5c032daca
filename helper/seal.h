/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sealing: the overlay of a device becomes read-only, and a fresh one takes
 * its place.
 */
#ifndef LF_SEAL_H
#define LF_SEAL_H

#include "stack.h"

/**
 * struct seal_result - what became of a device
 * @sealed: the device that shows the sealed overlay
 * @meta: paths of the new overlay
 * @cow: likewise
 * @suspended: seconds during which the device took no I/O
 */
struct seal_result {
	char sealed[DEVICE_NAME_MAX + 1];
	char meta[4096];
	char cow[4096];
	double suspended;
};

/**
 * seal_device - seal a device's overlay while it is in use
 * @meta: path for the new meta device; NULL: the new file takes the name of the
 *	  old one, which gets that of pair_sealed_path()
 * @cow: the same for the COW device
 *
 * What is dirty makes no difference to the time that this takes. A file system
 * on the device is frozen meanwhile, so what is sealed is clean. After a failure
 * the device is as it was. The caller has state_lock().
 */
int seal_device(const char *name, const char *meta, const char *cow,
		struct seal_result *result, struct error *e);

#endif
