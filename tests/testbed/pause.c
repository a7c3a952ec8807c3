/*
 * The first process of every pod. It holds the pod's namespaces open, so that containers can come and go inside them,
 * and as process 1 of a shared process namespace it buries children whose parents have died.
 *
 * The usual pause image lives in a registry; the test bed has none.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t signals;

	/* Signals are taken by sigwait and not by handlers: process 1 ignores those it has not asked for, and a loop
	 * that waits for the next one cannot miss any. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
		return EXIT_FAILURE;

	for (;;) {
		int received;

		if (sigwait(&signals, &received) != 0)
			return EXIT_FAILURE;
		if (received != SIGCHLD)
			return EXIT_SUCCESS;
		/* One SIGCHLD may stand for several children. */
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}
