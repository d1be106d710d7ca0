/* exec RUNS PROGRAM ARGS...: start PROGRAM so often, one after the other, and print for each how long it took from
 * execve(2) to the time that it writes to descriptor 9 (8 bytes, CLOCK_MONOTONIC in ns). What creating a process and waking
 * this one take is the host's share and not the program's. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	/* The child of vfork(2) shares it. */
	static volatile int64_t started;

	for (int run = argc > 2 ? atoi(argv[1]) : 0; run; run--) {
		int64_t done;
		int pipe[2];
		pid_t child;

		if (pipe2(pipe, O_CLOEXEC))
			return 1;
		child = vfork();
		if (!child) {
			dup2(pipe[1], 9);
			started = now();
			execve(argv[2], argv + 2, environ);
			_exit(1);
		}
		close(pipe[1]);
		if (child < 0 || read(pipe[0], &done, sizeof(done)) != sizeof(done))
			return 1;
		close(pipe[0]);
		waitpid(child, NULL, 0);
		printf("%lld\n", (long long)(done - started));
	}
	return 0;
}
