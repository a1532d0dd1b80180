// Runs a command on a kernel that refuses something, where a filter of system calls plays the kernel:
//
//   refuse io_uring COMMAND   io_uring_setup(2) fails with EPERM, as in a container with a seccomp profile
//   refuse tls COMMAND        no socket takes TLS, as in a kernel without the module tls (ENOENT)
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip)
#define REFUSE(error) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(int argc, char **argv)
{
	struct sock_filter io_uring[] = {
		LOAD(nr),
		UNLESS(SYS_io_uring_setup, 1),
		REFUSE(EPERM),
		ALLOW,
	};
	struct sock_filter tls[] = {
		LOAD(nr),
		UNLESS(SYS_setsockopt, 5),
		LOAD(args[1]),
		UNLESS(IPPROTO_TCP, 3),
		LOAD(args[2]),
		UNLESS(TCP_ULP, 1),
		REFUSE(ENOENT),
		ALLOW,
	};
	struct sock_fprog program = { sizeof(io_uring) / sizeof(*io_uring), io_uring };

	if (argc < 3)
		return 125;
	if (!strcmp(argv[1], "tls")) {
		program.len = sizeof(tls) / sizeof(*tls);
		program.filter = tls;
	} else if (strcmp(argv[1], "io_uring")) {
		return 125;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 125;
	execv(argv[2], argv + 2);
	return 126;
}
