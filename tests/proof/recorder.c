/* Preloaded into a program, it records in order whatever the program changes below one folder.
 *
 * RECORD_FOLDER is the folder (an absolute, real path), RECORD_LOG the file that is appended to.
 * One record: a line "OP OFFSET LENGTH PATH [SECOND PATH]\n", paths relative to the folder and
 * without spaces, then LENGTH bytes of data for W. What failed is not recorded. Call and record are
 * one step under a lock, so the log's order is the order in which the disk was told.
 *
 *   C created   W written   T cut or grown to OFFSET   S synced   U unlinked   R renamed   M folder made
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_length;
static int out = -1;

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("RECORD_LOG");
    folder = getenv("RECORD_FOLDER");
    if (!folder || !log) return;
    folder_length = strlen(folder);
    out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (out < 0) abort();
}

static void all(const void *data, size_t length) {
    const char *at = data;
    while (length) {
        long done = syscall(SYS_write, out, at, length);
        if (done <= 0) abort();
        at += done;
        length -= (size_t)done;
    }
}

static void note(char op, long offset, const void *data, size_t length, const char *paths) {
    char head[2 * PATH_MAX + 64];
    int size = snprintf(head, sizeof head, "%c %ld %zu %s\n", op, offset, length, paths);
    if (size < 0 || (size_t)size >= sizeof head) abort();
    all(head, (size_t)size);
    if (data && length) all(data, length);
}

/* Its path below the folder ("." for the folder itself), or NULL for what lies elsewhere. */
static const char *below(const char *path) {
    if (!folder || strncmp(path, folder, folder_length)) return NULL;
    if (path[folder_length] == 0) return ".";
    return path[folder_length] == '/' ? path + folder_length + 1 : NULL;
}

static const char *of_descriptor(int descriptor, char *buffer) {
    char link[64];
    if (out < 0 || descriptor == out) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0) return NULL;
    buffer[length] = 0;
    return strstr(buffer, " (deleted)") ? NULL : below(buffer);
}

static const char *of_path(int at, const char *path, char *buffer) {
    if (out < 0) return NULL;
    if (path[0] == '/') return below(path);
    char base[PATH_MAX];
    if (at == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return NULL;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0) return NULL;
        base[length] = 0;
    }
    if (snprintf(buffer, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) abort();
    return below(buffer);
}

/* The call, and its record if it did anything. `result` is what the kernel answered. */
#define RECORDED(call, did, record)               \
    do {                                          \
        pthread_mutex_lock(&lock);                \
        long result = (call);                     \
        int kept = errno;                         \
        if (path && (did)) record;                \
        pthread_mutex_unlock(&lock);              \
        errno = kept;                             \
        return result;                            \
    } while (0)

static long opened(int at, const char *name, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *path = (flags & (O_CREAT | O_TRUNC)) ? of_path(at, name, buffer) : NULL;
    struct stat before;
    int was = path && fstatat(at, name, &before, 0) == 0;
    RECORDED(syscall(SYS_openat, at, name, flags | O_LARGEFILE, mode), result >= 0, {
        if (!was) note('C', 0, NULL, 0, path);
        else if (flags & O_TRUNC) note('T', 0, NULL, 0, path);
    });
}

#define OPEN(name, at, path, last)                \
    mode_t mode = 0;                              \
    if (flags & (O_CREAT | O_TMPFILE)) {          \
        va_list more;                             \
        va_start(more, last);                     \
        mode = va_arg(more, mode_t);              \
        va_end(more);                             \
    }                                             \
    return (int)opened(at, path, flags, mode)

int open(const char *path, int flags, ...) { OPEN(open, AT_FDCWD, path, flags); }
int open64(const char *path, int flags, ...) { OPEN(open64, AT_FDCWD, path, flags); }
int openat(int at, const char *path, int flags, ...) { OPEN(openat, at, path, flags); }
int openat64(int at, const char *path, int flags, ...) { OPEN(openat64, at, path, flags); }

static long put(int descriptor, const void *data, size_t count, off_t offset, int positioned) {
    char buffer[PATH_MAX];
    const char *path = of_descriptor(descriptor, buffer);
    off_t at = offset;
    if (path && !positioned) {
        int appends = fcntl(descriptor, F_GETFL) & O_APPEND;
        at = lseek(descriptor, 0, appends ? SEEK_END : SEEK_CUR);
    }
    RECORDED(positioned ? syscall(SYS_pwrite64, descriptor, data, count, offset)
                        : syscall(SYS_write, descriptor, data, count),
             result > 0, note('W', at, data, (size_t)result, path));
}

ssize_t write(int descriptor, const void *data, size_t count) {
    return put(descriptor, data, count, 0, 0);
}
ssize_t pwrite(int descriptor, const void *data, size_t count, off_t offset) {
    return put(descriptor, data, count, offset, 1);
}
ssize_t pwrite64(int descriptor, const void *data, size_t count, off_t offset) {
    return put(descriptor, data, count, offset, 1);
}
/* Nobody may write past the record. */
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
    char buffer[PATH_MAX];
    if (of_descriptor(descriptor, buffer)) abort();
    return syscall(SYS_pwritev, descriptor, parts, count, offset, 0);
}

static long sized(int descriptor, off_t length) {
    char buffer[PATH_MAX];
    const char *path = of_descriptor(descriptor, buffer);
    RECORDED(syscall(SYS_ftruncate, descriptor, length), result == 0,
             note('T', length, NULL, 0, path));
}
int ftruncate(int descriptor, off_t length) { return (int)sized(descriptor, length); }
int ftruncate64(int descriptor, off_t length) { return (int)sized(descriptor, length); }

static long synced(long number, int descriptor) {
    char buffer[PATH_MAX];
    const char *path = of_descriptor(descriptor, buffer);
    RECORDED(syscall(number, descriptor), result == 0, note('S', 0, NULL, 0, path));
}
int fsync(int descriptor) { return (int)synced(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return (int)synced(SYS_fdatasync, descriptor); }

static long unlinked(int at, const char *name, int flags) {
    char buffer[PATH_MAX];
    const char *path = of_path(at, name, buffer);
    RECORDED(syscall(SYS_unlinkat, at, name, flags), result == 0, note('U', 0, NULL, 0, path));
}
int unlink(const char *path) { return (int)unlinked(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return (int)unlinked(at, path, flags); }

static long renamed(int old_at, const char *old, int new_at, const char *new) {
    char buffer[PATH_MAX], second[PATH_MAX], both[2 * PATH_MAX];
    const char *path = of_path(old_at, old, buffer);
    const char *to = path ? of_path(new_at, new, second) : NULL;
    if (path && !to) abort();
    if (path) snprintf(both, sizeof both, "%s %s", path, to);
    RECORDED(syscall(SYS_renameat, old_at, old, new_at, new), result == 0,
             note('R', 0, NULL, 0, both));
}
int rename(const char *old, const char *new) {
    return (int)renamed(AT_FDCWD, old, AT_FDCWD, new);
}
int renameat(int old_at, const char *old, int new_at, const char *new) {
    return (int)renamed(old_at, old, new_at, new);
}

static long folder_made(int at, const char *name, mode_t mode) {
    char buffer[PATH_MAX];
    const char *path = of_path(at, name, buffer);
    RECORDED(syscall(SYS_mkdirat, at, name, mode), result == 0, note('M', 0, NULL, 0, path));
}
int mkdir(const char *path, mode_t mode) { return (int)folder_made(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return (int)folder_made(at, path, mode); }
