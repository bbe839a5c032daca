# SPDX-License-Identifier: GPL-2.0-only
#
#	make			lazyframe.ko for KREL, helper/lazyframe, helper/lazyframed
#	make check		every test; see README.md
#	make check-long		the same with full counts; writes tests/RESULTS.md
#	make bench		tables of what is measured side by side; bench-quick: sooner
#	make demo		a root file system, served lazily in a VM
#	make install		programs, man pages, unit file and its user; DESTDIR, PREFIX
#	make dkms		the module, by DKMS: now for KREL, later for new kernels
#	make uninstall		takes back both

VERSION := 0.1.0
KREL ?= $(shell uname -r)
KDIR ?= /lib/modules/$(KREL)/build
PREFIX ?= /usr/local
DKMS ?= dkms
DKMS_SRC ?= /usr/src

bin := $(DESTDIR)$(PREFIX)/bin
sbin := $(DESTDIR)$(PREFIX)/sbin
man := $(DESTDIR)$(PREFIX)/share/man/man8
doc := $(DESTDIR)$(PREFIX)/share/doc/lazyframe
unit := $(DESTDIR)$(PREFIX)/lib/systemd/system
sysusers := $(DESTDIR)$(PREFIX)/lib/sysusers.d
dkms_src := $(DESTDIR)$(DKMS_SRC)/lazyframe-$(VERSION)
dkms_name := -m lazyframe -v $(VERSION)
pages = $(notdir $(wildcard helper/*.8))

all: module helper

module:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

helper:
	$(MAKE) -C helper

check:
	tests/check

check-long:
	tests/check-long

bench:
	tests/bench/run

bench-quick:
	tests/bench/run --quick

demo:
	tests/demo

install: helper
	install -d $(bin) $(sbin) $(man) $(unit) $(sysusers) $(doc)
	install -m 755 helper/lazyframe $(bin)
	install -m 755 helper/lazyframed $(sbin)
	install -m 644 $(addprefix helper/,$(pages)) $(man)
	sed 's,/usr/local/,$(PREFIX)/,' helper/lazyframed.service \
		>$(unit)/lazyframed.service
	chmod 644 $(unit)/lazyframed.service
	install -m 644 helper/lazyframe.sysusers $(sysusers)/lazyframe.conf
	install -m 644 helper/nginx-cache.conf helper/grafana-dashboard.json $(doc)
ifeq ($(DESTDIR),)
	if command -v systemd-sysusers >/dev/null; then \
		systemd-sysusers $(sysusers)/lazyframe.conf; \
	fi
endif

# With DESTDIR, for a package: its scripts call dkms on the target machine.
dkms: dkms-remove
	install -d $(dkms_src)/kmod $(dkms_src)/uapi/linux
	install -m 644 Kbuild Makefile dkms.conf COPYING $(dkms_src)
	install -m 644 kmod/*.[ch] $(dkms_src)/kmod
	install -m 644 uapi/linux/lazyframe.h $(dkms_src)/uapi/linux
ifeq ($(DESTDIR),)
	$(DKMS) add $(dkms_name)
	$(DKMS) build $(dkms_name) -k $(KREL)
	$(DKMS) install $(dkms_name) -k $(KREL)
endif

dkms-remove:
ifeq ($(DESTDIR),)
	if $(DKMS) status $(dkms_name) | grep -q .; then \
		$(DKMS) remove $(dkms_name) --all; \
	fi
endif
	$(RM) -r $(dkms_src)

uninstall: dkms-remove
	$(RM) $(bin)/lazyframe $(sbin)/lazyframed \
		$(unit)/lazyframed.service $(sysusers)/lazyframe.conf \
		$(addprefix $(man)/,$(pages))
	$(RM) -r $(doc)

clean: clean-module
	$(MAKE) -C helper clean
	$(RM) -r build

clean-module:
	$(RM) kmod/*.o kmod/.*.cmd .*.cmd *.o *.ko *.mod *.mod.c \
		Module.symvers modules.order

.PHONY: all module helper check check-long bench bench-quick demo install dkms dkms-remove uninstall clean \
	clean-module
