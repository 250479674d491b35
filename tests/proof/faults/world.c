/* Preloaded into a program, it sets the program's date, its time since boot and its boot.
 *
 * WORLD names a file that is mapped, so that what is written there counts at once: two doubles, the
 * seconds that CLOCK_REALTIME and CLOCK_BOOTTIME are ahead. WORLD_BOOT_ID names the file that is
 * opened instead of the kernel's boot id. Both are the test's; other clocks are left alone.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct world { double wall, boottime; };
static const struct world nowhere;
static const volatile struct world *world = &nowhere;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WORLD");
    if (!path) return;
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (file < 0) abort();
    world = mmap(NULL, sizeof *world, PROT_READ, MAP_SHARED, file, 0);
    if (world == MAP_FAILED) abort();
    close(file);
}

static void add(struct timespec *at, double seconds) {
    double whole = floor(seconds);
    at->tv_sec += (time_t)whole;
    at->tv_nsec += (long)((seconds - whole) * 1e9);
    if (at->tv_nsec >= 1000000000) {
        at->tv_nsec -= 1000000000;
        at->tv_sec++;
    }
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    if (syscall(SYS_clock_gettime, clock, at)) return -1;
    if (clock == CLOCK_REALTIME) add(at, world->wall);
    if (clock == CLOCK_BOOTTIME) add(at, world->boottime);
    return 0;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

static int opened(const char *path, int flags, unsigned mode) {
    const char *boot = getenv("WORLD_BOOT_ID");
    if (boot && path && !strcmp(path, "/proc/sys/kernel/random/boot_id")) path = boot;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#define MODE(flags, last) \
    unsigned mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list list; \
        va_start(list, last); \
        mode = va_arg(list, unsigned); \
        va_end(list); \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, flags)
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags, flags)
    return opened(path, flags | O_LARGEFILE, mode);
}
