/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The commands of lazyframe(8): one file each, cmd_<name>.c; main.c has the
 * table. Each gets its own argv (argv[0] is its name) and returns an exit
 * status: 0, 1 for a failure that was explained on stderr, 2 for wrong use.
 */
#ifndef LF_CMD_H
#define LF_CMD_H

int cmd_attach(int argc, char **argv);
int cmd_build(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_detach(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_flatten(int argc, char **argv);
int cmd_format(int argc, char **argv);
int cmd_gc(int argc, char **argv);
int cmd_hydrate(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_metrics(int argc, char **argv);
int cmd_seal(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_store_format(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_why(int argc, char **argv);

#endif
