/*
 * For User-mode Linux on a processor with AMX: to be preloaded.
 *
 * Linux wants the whole extended state of a process at once or none of it (xstateregs_set in arch/x86/kernel/fpu/regset.c): with AMX that is 11 KiB, and
 * User-mode Linux 6.1 keeps 2,696 bytes (HOST_FP_SIZE), so it fails before its first process runs. Here it gets the part it knows, and the rest stays as it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <linux/ptrace.h>
#include <string.h>
#include <sys/uio.h>

typedef long ptrace_function(int request, long pid, void *address, void *data);

long ptrace(int request, long pid, void *address, void *data) {
  static ptrace_function *next;
  if (!next) next = (ptrace_function *)dlsym(RTLD_NEXT, "ptrace");
  if ((request != PTRACE_GETREGSET && request != PTRACE_SETREGSET) || address != (void *)NT_X86_XSTATE)
    return next(request, pid, address, data);

  static char state[65536]; /* The kernel's stacks are small, and it is one thread. */
  struct iovec whole = {state, sizeof state}, *part = data;
  long result = next(PTRACE_GETREGSET, pid, address, &whole);
  if (result < 0) return result;
  size_t size = part->iov_len < whole.iov_len ? part->iov_len : whole.iov_len;
  if (request == PTRACE_SETREGSET) {
    memcpy(state, part->iov_base, size);
    return next(PTRACE_SETREGSET, pid, address, &whole);
  }
  memcpy(part->iov_base, state, size);
  part->iov_len = size;
  return result;
}
