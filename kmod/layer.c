// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registry of layers. Two devices that map the same layer find the same
 * struct lf_layer here, and with it every frame, every fetch in flight and
 * every waiting reader of the other.
 */
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "lazyframe.h"

static LIST_HEAD(lf_layers);
static DEFINE_MUTEX(lf_layers_lock);
static u64 lf_layer_ids;

static struct lf_layer *__find(const u8 *uuid)
{
	struct lf_layer *layer;

	list_for_each_entry(layer, &lf_layers, node)
		if (!memcmp(layer->uuid, uuid, sizeof(layer->uuid)))
			return layer;
	return NULL;
}

static void layer_free(struct lf_layer *layer)
{
	kfree(layer->locator);
	kfree(layer->validator);
	kfree(layer);
}

static struct lf_layer *layer_new(const struct lf_layer_spec *spec)
{
	struct lf_layer *layer;

	layer = kzalloc(sizeof(*layer), GFP_KERNEL);
	if (!layer)
		return NULL;
	INIT_LIST_HEAD(&layer->tables);
	INIT_LIST_HEAD(&layer->frames);
	memcpy(layer->uuid, spec->uuid, sizeof(layer->uuid));
	layer->codec = spec->codec;
	layer->ubytes = spec->ubytes;
	lf_around_init(&layer->around);
	layer->cbytes = spec->cbytes;
	layer->sums = spec->table.sums;
	layer->locator = kmemdup_nul(spec->locator, spec->locator_bytes,
				     GFP_KERNEL);
	layer->validator = kmemdup_nul(spec->validator, spec->validator_bytes,
				       GFP_KERNEL);
	if (layer->locator && layer->validator)
		return layer;
	layer_free(layer);
	return NULL;
}

/* The same object: bytes that one device fetched are right for the other. */
static bool same_layer(const struct lf_layer *layer,
		       const struct lf_layer_spec *spec)
{
	return layer->codec == spec->codec && layer->ubytes == spec->ubytes &&
	       layer->cbytes == spec->cbytes &&
	       layer->sums == spec->table.sums &&
	       strlen(layer->validator) == spec->validator_bytes &&
	       !memcmp(layer->validator, spec->validator,
		       spec->validator_bytes);
}

static u64 table_sum(const struct lf_table *table)
{
	u64 sum;

	sum = xxh64(table->run, table->runs * sizeof(*table->run),
		    table->sums);
	return xxh64(table->frame, table->frames * sizeof(*table->frame), sum);
}

static bool same_table(const struct lf_layer_table *table,
		       const struct lf_layer_spec *spec, u64 sum)
{
	const struct lf_table *a = &table->table, *b = &spec->table;

	return table->sum == sum && a->runs == b->runs &&
	       a->frames == b->frames && a->sums == b->sums &&
	       !memcmp(a->run, b->run, a->runs * sizeof(*a->run)) &&
	       !memcmp(a->frame, b->frame, a->frames * sizeof(*a->frame));
}

static struct lf_layer_table *table_new(const struct lf_layer_spec *spec,
					u64 sum)
{
	size_t run_bytes = spec->table.runs * sizeof(*spec->table.run);
	size_t frame_bytes = spec->table.frames * sizeof(*spec->table.frame);
	struct lf_layer_table *table;

	table = kzalloc(sizeof(*table), GFP_KERNEL);
	if (!table)
		return NULL;
	table->memory = kvmalloc(run_bytes + frame_bytes, GFP_KERNEL);
	if (!table->memory) {
		kfree(table);
		return NULL;
	}
	memcpy(table->memory, spec->table.run, run_bytes);
	memcpy(table->memory + run_bytes, spec->table.frame, frame_bytes);
	table->table = spec->table;
	table->table.run = table->memory;
	table->table.frame = table->memory + run_bytes;
	table->sum = sum;
	table->users = 1;
	return table;
}

static struct lf_layer_table *__get(const struct lf_layer_spec *spec,
				    const char **why)
{
	u64 sum = table_sum(&spec->table);
	struct lf_layer_table *table;
	struct lf_layer *layer;

	layer = __find(spec->uuid);
	if (layer) {
		if (!same_layer(layer, spec)) {
			*why = "Another device uses a different object as the same layer";
			return ERR_PTR(-EEXIST);
		}
		list_for_each_entry(table, &layer->tables, node) {
			if (same_table(table, spec, sum)) {
				table->users++;
				return table;
			}
		}
	}

	*why = "Cannot allocate a layer";
	table = table_new(spec, sum);
	if (!table)
		return ERR_PTR(-ENOMEM);
	if (!layer) {
		layer = layer_new(spec);
		if (!layer) {
			kvfree(table->memory);
			kfree(table);
			return ERR_PTR(-ENOMEM);
		}
		layer->id = ++lf_layer_ids;
		list_add_tail(&layer->node, &lf_layers);
	}
	table->layer = layer;
	list_add(&table->node, &layer->tables);
	return table;
}

struct lf_layer_table *lf_layer_get(const struct lf_layer_spec *spec,
				    const char **why)
{
	struct lf_layer_table *table;
	unsigned int noio;

	/* The helper takes this lock, too: no reclaim may wait for it here. */
	mutex_lock(&lf_layers_lock);
	noio = memalloc_noio_save();
	table = __get(spec, why);
	memalloc_noio_restore(noio);
	mutex_unlock(&lf_layers_lock);
	return table;
}

void lf_layer_put(struct lf_layer_table *table)
{
	struct lf_layer *layer = table->layer;

	mutex_lock(&lf_layers_lock);
	if (--table->users) {
		mutex_unlock(&lf_layers_lock);
		return;
	}
	list_del(&table->node);
	if (!list_empty(&layer->tables))
		layer = NULL;
	else
		list_del(&layer->node);
	mutex_unlock(&lf_layers_lock);

	kvfree(table->memory);
	kfree(table);
	if (layer) {
		/* Out of the registry, without readers: nobody adds frames. */
		lf_frames_forget(layer);
		layer_free(layer);
	}
}

int lf_layer_info(struct lazyframe_layer_info *info)
{
	struct lf_layer *layer;
	int err = -ENOENT;

	mutex_lock(&lf_layers_lock);
	list_for_each_entry(layer, &lf_layers, node) {
		if (layer->id != info->layer)
			continue;
		info->csize = layer->cbytes;
		info->codec = layer->codec;
		memcpy(info->uuid, layer->uuid, sizeof(info->uuid));
		strscpy(info->locator, layer->locator, sizeof(info->locator));
		strscpy(info->validator, layer->validator,
			sizeof(info->validator));
		err = 0;
		break;
	}
	mutex_unlock(&lf_layers_lock);
	return err;
}
