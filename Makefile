# SPDX-License-Identifier: GPL-2.0-only
#
#	make			lazyframe.ko for KREL, helper/lazyframe, helper/lazyframed
#	make check, check-long	every test; see README.md
#	make demo		a root file system, served lazily in a VM
#	make install, make dkms

VERSION := 0.1.0
KREL ?= $(shell uname -r)
KDIR ?= /lib/modules/$(KREL)/build
PREFIX ?= /usr/local

all: module helper

module:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

helper:
	$(MAKE) -C helper

check:
	tests/check

demo:
	tests/demo

clean:
	$(MAKE) -C helper clean
	$(RM) -r build kmod/*.o kmod/.*.cmd .*.cmd *.o *.ko *.mod *.mod.c \
		Module.symvers modules.order

.PHONY: all module helper check demo clean
