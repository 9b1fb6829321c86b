"""A wall clock that jumps while a process runs: a library in front of the C library's.

The offset stands in a file that is mapped into the process, so that a test moves its clock at once.
Only what asks for the time of day sees it; monotonic clocks stay as they are.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long *offset;
static int (*real)(clockid_t, struct timespec *);
__attribute__((constructor)) static void prepare(void) {
  int file = open(getenv("WALL_CLOCK_OFFSET"), O_RDONLY);
  void *page = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
  real = dlsym(RTLD_NEXT, "clock_gettime");
  if (page != MAP_FAILED) offset = page;
}
int clock_gettime(clockid_t id, struct timespec *now) {
  int code = real(id, now);
  if (offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
  return code;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec exact;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *out) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (out) *out = exact.tv_sec;
  return exact.tv_sec;
}
"""


class WallClock:
    """The clock of the processes that are started with `environment`. Needs a C compiler."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("needs a C compiler")
        library, source = folder / "wall_clock.so", folder / "wall_clock.c"
        source.write_text(SOURCE)
        flags = ["-shared", "-fPIC", "-O1", "-o", str(library)]
        command = [compiler, *flags, str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        self._offset = folder / "offset"
        self._offset.write_bytes(struct.pack("l", 0))
        self.environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "WALL_CLOCK_OFFSET": str(self._offset),
        }

    def jump(self, seconds: int) -> None:
        """From now on so far from the right time."""
        with self._offset.open("r+b") as file:
            file.write(struct.pack("l", seconds))
