/** What the files of this program share besides the core: its modes, and how it fails. */
#ifndef HOST_H
#define HOST_H

/** Says what is wrong, as printf does, on standard error, and ends the program with 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Runs each line of the file `path` on a core of its own, and prints what became of it. */
void run_vectors(const char *path);

/** Prints how long the core takes. */
void run_bench(void);

#endif
