/* Stands between a gateway and its disk: while the file RF_SYNC/stall is there, fdatasync waits; while
   RF_SYNC/full is there, it fails as a full disk does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int is_there(const char *name) {
  char path[4096];
  const char *dir = getenv("RF_SYNC");
  if (dir == NULL || snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) return 0;
  return access(path, F_OK) == 0;
}

int fdatasync(int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  while (is_there("stall")) usleep(2000);
  if (is_there("full")) {
    errno = ENOSPC;
    return -1;
  }
  return real(fd);
}
