/* Preloaded into a program, it makes the disk slow and counts how often the program waits for it:
 * each fsync or fdatasync takes SLOW_DISK_MICROSECONDS longer and adds a byte to SLOW_DISK_COUNT.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int waited(long number, int descriptor) {
    const char *span = getenv("SLOW_DISK_MICROSECONDS"), *path = getenv("SLOW_DISK_COUNT");
    int count = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (count >= 0) {
        if (write(count, ".", 1) != 1) abort();
        close(count);
    }
    if (span) usleep((useconds_t)atoi(span));
    return (int)syscall(number, descriptor);
}

int fsync(int descriptor) { return waited(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return waited(SYS_fdatasync, descriptor); }
