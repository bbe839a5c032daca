// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/lazyframe: the way to the helper. uapi/linux/lazyframe.h has the
 * protocol, frame.c decides what is asked and what an answer means; here is
 * the file that they meet on.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "lazyframe.h"

static unsigned long ring_bytes(void)
{
	return PAGE_ALIGN(sizeof(struct lazyframe_ring) + LF_RING_ENTRIES *
			  sizeof(struct lazyframe_request));
}

void lf_ring_post(struct lf_session *session,
		  const struct lazyframe_request *request)
{
	struct lazyframe_request *entry;

	entry = &session->ring->request[session->head % LF_RING_ENTRIES];
	*entry = *request;
	entry->seq = session->head++;
}

const struct lazyframe_request *lf_ring_entry(const struct lf_session *session,
					      u64 number)
{
	return &session->ring->request[number % LF_RING_ENTRIES];
}

void lf_ring_publish(struct lf_session *session)
{
	if (session->shown == session->head)
		return;
	WRITE_ONCE(session->shown, session->head);
	/* Pairs with the helper's acquire: it sees the entries before @head. */
	smp_store_release(&session->ring->head, session->shown);
	wake_up(&session->wait);
}

static int channel_open(struct inode *inode, struct file *file)
{
	struct lf_session *session;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	session = kzalloc(sizeof(*session), GFP_KERNEL);
	if (!session)
		return -ENOMEM;
	mutex_init(&session->attach_lock);
	init_waitqueue_head(&session->wait);
	file->private_data = session;
	return nonseekable_open(inode, file);
}

static int channel_release(struct inode *inode, struct file *file)
{
	struct lf_session *session = file->private_data;

	if (session->ring)
		lf_session_detach(session);
	/* A mapping holds the file open, so there is none. */
	vfree(session->ring);
	kfree(session);
	return 0;
}

/* The ring stays for the file's life, so that no mapping can outlive it. */
static int ring_alloc(struct lf_session *session)
{
	struct lazyframe_ring *ring;

	if (session->ring)
		return 0;
	ring = vmalloc_user(ring_bytes());
	if (!ring)
		return -ENOMEM;
	ring->entries = LF_RING_ENTRIES;
	ring->entry_bytes = sizeof(struct lazyframe_request);
	WRITE_ONCE(session->ring, ring);
	return 0;
}

static int attach(struct lf_session *session, struct lazyframe_attach *arg)
{
	int err;

	if (arg->abi != LAZYFRAME_ABI)
		return -EPROTONOSUPPORT;
	if (arg->flags & ~LAZYFRAME_ATTACH_REPLACE)
		return -EINVAL;
	mutex_lock(&session->attach_lock);
	err = ring_alloc(session);
	if (!err)
		err = lf_session_attach(session, arg->flags &
					LAZYFRAME_ATTACH_REPLACE);
	mutex_unlock(&session->attach_lock);
	if (err)
		return err;
	arg->generation = session->generation;
	arg->ring_bytes = ring_bytes();
	arg->tags = LF_TAGS;
	return 0;
}

static long ioctl_attach(struct lf_session *session, void __user *user)
{
	struct lazyframe_attach arg;
	int err;

	if (copy_from_user(&arg, user, sizeof(arg)))
		return -EFAULT;
	err = attach(session, &arg);
	if (err)
		return err;
	return copy_to_user(user, &arg, sizeof(arg)) ? -EFAULT : 0;
}

static long ioctl_layer(void __user *user)
{
	struct lazyframe_layer_info *info;
	int err = -EFAULT;

	info = kzalloc(sizeof(*info), GFP_KERNEL);
	if (!info)
		return -ENOMEM;
	if (get_user(info->layer, (u64 __user *)user))
		goto out;
	err = lf_layer_info(info);
	if (!err && copy_to_user(user, info, sizeof(*info)))
		err = -EFAULT;
out:
	kfree(info);
	return err;
}

static long channel_ioctl(struct file *file, unsigned int cmd,
			  unsigned long arg)
{
	switch (cmd) {
	case LAZYFRAME_IOC_ATTACH:
		return ioctl_attach(file->private_data, (void __user *)arg);
	case LAZYFRAME_IOC_LAYER:
		return ioctl_layer((void __user *)arg);
	default:
		return -ENOTTY;
	}
}

static int channel_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct lf_session *session = file->private_data;
	struct lazyframe_ring *ring = READ_ONCE(session->ring);

	if (!ring)
		return -ENXIO;
	if (vma->vm_pgoff || vma->vm_end - vma->vm_start != ring_bytes())
		return -EINVAL;
	if (vma->vm_flags & VM_WRITE)
		return -EPERM;
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	vm_flags_clear(vma, VM_MAYWRITE);
	return remap_vmalloc_range(vma, ring, 0);
}

static bool unseen(struct lf_session *session)
{
	return READ_ONCE(session->shown) != READ_ONCE(session->seen);
}

static __poll_t channel_poll(struct file *file, poll_table *wait)
{
	struct lf_session *session = file->private_data;

	poll_wait(file, &session->wait, wait);
	if (READ_ONCE(session->replaced))
		return EPOLLHUP;
	return EPOLLOUT | EPOLLWRNORM |
	       (unseen(session) ? EPOLLIN | EPOLLRDNORM : 0);
}

static bool worth_reading(struct lf_session *session)
{
	return unseen(session) || READ_ONCE(session->replaced);
}

/* As an eventfd: how far the ring was filled; clears EPOLLIN. */
static ssize_t channel_read(struct file *file, char __user *user, size_t len,
			    loff_t *pos)
{
	struct lf_session *session = file->private_data;
	u64 head;
	int err;

	if (len < sizeof(head))
		return -EINVAL;
	if (!worth_reading(session)) {
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		err = wait_event_interruptible(session->wait,
					       worth_reading(session));
		if (err)
			return err;
	}
	if (READ_ONCE(session->replaced))
		return -ESTALE;
	head = READ_ONCE(session->shown);
	if (copy_to_user(user, &head, sizeof(head)))
		return -EFAULT;
	WRITE_ONCE(session->seen, head);
	lf_session_took(session, head);
	return sizeof(head);
}

static ssize_t channel_write(struct kiocb *kiocb, struct iov_iter *from)
{
	struct lf_session *session = kiocb->ki_filp->private_data;
	size_t bytes = iov_iter_count(from);
	struct lazyframe_fill fill;
	int err;

	if (bytes < sizeof(fill))
		return -EMSGSIZE;
	if (copy_from_iter(&fill, sizeof(fill), from) != sizeof(fill))
		return -EFAULT;
	err = lf_fill(session, &fill, from);
	return err ?: (ssize_t)bytes;
}

static const struct file_operations channel_fops = {
	.owner = THIS_MODULE,
	.open = channel_open,
	.release = channel_release,
	.unlocked_ioctl = channel_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = channel_mmap,
	.poll = channel_poll,
	.read = channel_read,
	.write_iter = channel_write,
};

static struct miscdevice channel_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "lazyframe",
	.nodename = "lazyframe",
	.mode = 0600,
	.fops = &channel_fops,
	.groups = lf_module_groups,
};

int lf_channel_init(void)
{
	BUILD_BUG_ON(sizeof(struct lazyframe_request) != 64);
	BUILD_BUG_ON(offsetof(struct lazyframe_ring, request) != 64);
	BUILD_BUG_ON(sizeof(struct lazyframe_fill) != 24);
	return misc_register(&channel_device);
}

void lf_channel_exit(void)
{
	misc_deregister(&channel_device);
}
