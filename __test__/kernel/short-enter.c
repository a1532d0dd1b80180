/*
 * For LD_PRELOAD: while the file that SHORT_WHILE names exists, io_uring_enter takes only the first of
 * two entries, as the kernel does when it is out of memory. Says at its end how often.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int count;

long syscall(long number, ...)
{
	static long (*real)(long, ...);
	const char *file = getenv("SHORT_WHILE");
	long a[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (!real)
		real = dlsym(RTLD_NEXT, "syscall");
	if (number == SYS_io_uring_enter && a[1] == 2 && file && !access(file, F_OK)) {
		__atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
		return real(number, a[0], 1L, 0L, a[3], a[4], a[5]);
	}
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

__attribute__((destructor)) static void say(void)
{
	if (count)
		fprintf(stderr, "short enters: %d\n", count);
}
