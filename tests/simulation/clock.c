// Redis under a virtual clock, and without chance: loaded before it (LD_PRELOAD), this answers for the C library.
// PROMPTMILL_CLOCK names a file of eight bytes: the microseconds since the epoch, as whoever simulates writes them.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *clock_page;

static int64_t now(void) {
  if (!clock_page) {
    int file = open(getenv("PROMPTMILL_CLOCK"), O_RDONLY);
    clock_page = mmap(0, sizeof *clock_page, PROT_READ, MAP_SHARED, file, 0);
    close(file);
  }
  return *clock_page;
}

int gettimeofday(struct timeval *tv, void *tz) {
  (void)tz;
  int64_t t = now();
  tv->tv_sec = t / 1000000;
  tv->tv_usec = t % 1000000;
  return 0;
}

time_t time(time_t *out) {
  time_t t = now() / 1000000;
  if (out) *out = t;
  return t;
}

int clock_gettime(clockid_t id, struct timespec *ts) {
  static int (*real)(clockid_t, struct timespec *);  // without a system call, where the kernel offers that
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  if (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE) return real(id, ts);
  int64_t t = now();
  ts->tv_sec = t / 1000000;
  ts->tv_nsec = t % 1000000 * 1000;
  return 0;
}

// The seed of its hash tables, on which the order of a set's members depends.
FILE *fopen(const char *path, const char *mode) {
  static FILE *(*real)(const char *, const char *);
  if (!real) real = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen");
  return real(strcmp(path, "/dev/urandom") ? path : "/dev/zero", mode);
}
