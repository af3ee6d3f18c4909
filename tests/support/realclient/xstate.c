/*
 * For the guest's kernel (user-mode Linux 6.1) on processors whose saved state is larger than it knows: those with AMX.
 * It sets the floating-point registers of its processes by PTRACE_SETREGSET from a buffer of fixed size, and the host takes
 * nothing but the whole state (Linux, arch/x86/kernel/fpu/regset.c: xstateregs_set). So what is behind the buffer is what
 * the process has already. Preloaded by `run`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

static long (*next)(enum __ptrace_request, ...);
/* Not on the stack: the guest's kernel has small ones. It is one thread, and this is not interrupted by another one of these. */
static unsigned char state[1 << 16];

__attribute__((constructor)) static void find(void)
{
	next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list args;
	pid_t pid;
	void *addr, *data;

	va_start(args, request);
	pid = va_arg(args, pid_t);
	addr = va_arg(args, void *);
	data = va_arg(args, void *);
	va_end(args);
	if (request == PTRACE_SETREGSET && addr == (void *)NT_X86_XSTATE) {
		struct iovec *given = data;
		struct iovec whole = { state, sizeof state };

		if (next(PTRACE_GETREGSET, pid, addr, &whole) == 0 && whole.iov_len > given->iov_len) {
			memcpy(state, given->iov_base, given->iov_len);
			return next(request, pid, addr, &whole);
		}
	}
	return next(request, pid, addr, data);
}
