/* The process that holds a pod's namespaces open: it waits to be told to end, and reaps orphans. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_end(int signal) {
  (void)signal;
  _exit(0);
}

static void on_child(int signal) {
  (void)signal;
  while (waitpid(-1, 0, WNOHANG) > 0) {
  }
}

int main(void) {
  struct sigaction end = {.sa_handler = on_end};
  struct sigaction child = {.sa_handler = on_child, .sa_flags = SA_NOCLDSTOP | SA_RESTART};
  sigaction(SIGTERM, &end, 0);
  sigaction(SIGINT, &end, 0);
  sigaction(SIGCHLD, &child, 0);
  for (;;) {
    pause();
  }
}
