/* A disk that keeps only what was flushed, for programs that are preloaded with this library (LD_PRELOAD).
 *
 * Before a file below METERWAY_POWERCUT_ROOT (a prefix of paths) is changed, what stood there is noted in a journal of
 * undo records; fsync and fdatasync empty the journal of that file, fsync of a directory that of its names.
 * powercut.py kills the process and undoes what the journals hold: that is what a disk has after a power cut.
 *
 *   METERWAY_POWERCUT_JOURNAL/<inode>.inode   a second name, so that an unlinked file can come back
 *                            /<inode>.data    per change: offset, size of the file, length, the bytes that stood there
 *                            /<inode>.folder  of a directory: its path
 *                            /<inode>.names   of a directory, per change: one or two names and the inodes they had
 *                            /lock            held during each change, by one thread of one process
 *                            /fail            where it is: an errno, which every change and flush returns
 *
 * A flush takes METERWAY_POWERCUT_FLUSH_US and does not reach the real disk. Seen as kept at once: directories made,
 * removed or renamed, second links, and what stdio writes. A program that makes system calls by itself (Go) is not
 * seen at all; nor is one that maps a file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name, type, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

struct change { uint64_t offset, size, length; };
struct name { uint64_t inode; char text[256]; };
struct names { uint64_t count; struct name each[2]; };

static char root[PATH_MAX], journal[PATH_MAX];
static size_t root_length;
static useconds_t flush_us;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int lock_file = -1;

static int real_open(const char *path, int flags, mode_t mode) {
    REAL("open", int, const char *, int, ...);
    return real(path, flags, mode);
}

static ssize_t real_write(int file, const void *data, size_t length) {
    REAL("write", ssize_t, int, const void *, size_t);
    return real(file, data, length);
}

static int real_ftruncate(int file, off_t size) {
    REAL("ftruncate", int, int, off_t);
    return real(file, size);
}

static void in_child(void) {
    pthread_mutex_init(&mutex, NULL);
}

__attribute__((constructor)) static void begin(void) {
    const char *wanted = getenv("METERWAY_POWERCUT_ROOT"), *place = getenv("METERWAY_POWERCUT_JOURNAL");
    const char *flush = getenv("METERWAY_POWERCUT_FLUSH_US");
    if (!wanted || !place) return;
    snprintf(journal, sizeof journal, "%s", place);
    snprintf(root, sizeof root, "%s", wanted);
    root_length = strlen(root);
    flush_us = flush ? (useconds_t)atoi(flush) : 0;
    pthread_atfork(NULL, NULL, in_child);
}

/* Bytes that a power cut must be able to undo are worth an abort when they cannot be noted. */
static void die(const char *what) {
    dprintf(2, "powercut: %s: %s\n", what, strerror(errno));
    abort();
}

static void in_journal(char *path, uint64_t inode, const char *kind) {
    if (snprintf(path, PATH_MAX, "%s/%llu.%s", journal, (unsigned long long)inode, kind) >= PATH_MAX) die("path");
}

static void lock(void) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    pthread_mutex_lock(&mutex);
    if (lock_file < 0) {
        char path[PATH_MAX + 8];
        snprintf(path, sizeof path, "%s/lock", journal);
        lock_file = real_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (lock_file < 0) die(path);
        fchmod(lock_file, 0666); /* Servers change their user. */
    }
    while (fcntl(lock_file, F_SETLKW, &whole) < 0)
        if (errno != EINTR) die("lock");
}

static void unlock(void) {
    struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    fcntl(lock_file, F_SETLK, &whole);
    pthread_mutex_unlock(&mutex);
}

/* Tell whether changes fail now; sets errno. */
static int failing(void) {
    char path[PATH_MAX + 8], text[16] = "";
    int file;
    snprintf(path, sizeof path, "%s/fail", journal);
    file = real_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0) return 0;
    if (read(file, text, sizeof text - 1) <= 0) text[0] = 0;
    close(file);
    if (atoi(text) == 0) return 0;
    errno = atoi(text);
    return 1;
}

static void note(const char *path, const struct iovec *parts, int count) {
    size_t whole = 0, done;
    int file = real_open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = (ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    if (file < 0) die(path);
    fchmod(file, 0666);
    for (int at = 0; at < count; at++) whole += parts[at].iov_len;
    done = (size_t)real(file, parts, count);
    if (done != whole) die(path);
    close(file);
}

static void forget(uint64_t inode, const char *kind) {
    char path[PATH_MAX];
    in_journal(path, inode, kind);
    if (truncate(path, 0) < 0 && errno != ENOENT) die(path);
}

static void hold(const char *path, int flags, uint64_t inode) {
    char held[PATH_MAX];
    in_journal(held, inode, "inode");
    if (linkat(AT_FDCWD, path, AT_FDCWD, held, flags) < 0 && errno != EEXIST && errno != ENOENT) die(held);
}

/* Tell whether `file` is a regular file below the root, and what it is. */
static int watched(int file, struct stat *status) {
    char link[64], path[PATH_MAX];
    ssize_t length;
    int before = errno, found = 0;
    if (!root_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, path, sizeof path - 1);
    if (length >= (ssize_t)root_length && !memcmp(path, root, root_length))
        found = !fstat(file, status) && S_ISREG(status->st_mode);
    errno = before;
    return found;
}

/* Note what stands at [offset, offset + length) of a file, and its size. */
static void note_bytes(int file, const struct stat *status, uint64_t offset, uint64_t length) {
    char link[64], path[PATH_MAX];
    uint64_t size = (uint64_t)status->st_size, end = offset + length < size ? offset + length : size;
    struct change change = {offset, size, end > offset ? end - offset : 0};
    char *old = malloc(change.length + 1);
    struct iovec parts[2] = {{&change, sizeof change}, {old, change.length}};
    int reader;
    if (!old) die("memory");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    hold(link, AT_SYMLINK_FOLLOW, status->st_ino);
    if (change.length) { /* The file may be open for writing only. */
        reader = real_open(link, O_RDONLY | O_CLOEXEC, 0);
        if (reader < 0 || pread(reader, old, change.length, (off_t)offset) != (ssize_t)change.length) die("read");
        close(reader);
    }
    in_journal(path, status->st_ino, "data");
    note(path, parts, 2);
    free(old);
}

/* Begin a change of [offset, offset + length); 0 if the disk refuses it. `unlock` follows a success. */
static int change_bytes(int file, uint64_t offset, uint64_t length) {
    struct stat status;
    lock();
    if (failing()) {
        unlock();
        return 0;
    }
    if (fstat(file, &status)) die("fstat");
    if (fcntl(file, F_GETFL) & O_APPEND) offset = (uint64_t)status.st_size;
    note_bytes(file, &status, offset, length);
    return 1;
}

#define CHANGE(type, offset, length, call) \
    struct stat status; \
    type result; \
    if (!watched(file, &status)) return call; \
    if (!change_bytes(file, (uint64_t)(offset), (uint64_t)(length))) return -1; \
    result = call; \
    unlock(); \
    return result

static size_t sum(const struct iovec *parts, int count) {
    size_t whole = 0;
    while (count-- > 0) whole += parts[count].iov_len;
    return whole;
}

ssize_t write(int file, const void *data, size_t length) {
    CHANGE(ssize_t, lseek(file, 0, SEEK_CUR), length, real_write(file, data, length));
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL("writev", ssize_t, int, const struct iovec *, int);
    CHANGE(ssize_t, lseek(file, 0, SEEK_CUR), sum(parts, count), real(file, parts, count));
}

ssize_t pwrite(int file, const void *data, size_t length, off_t offset) {
    REAL("pwrite", ssize_t, int, const void *, size_t, off_t);
    CHANGE(ssize_t, offset, length, real(file, data, length, offset));
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset) {
    REAL("pwritev", ssize_t, int, const struct iovec *, int, off_t);
    CHANGE(ssize_t, offset, sum(parts, count), real(file, parts, count, offset));
}

ssize_t pwrite64(int file, const void *data, size_t length, off_t offset) {
    return pwrite(file, data, length, offset);
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off_t offset) {
    return pwritev(file, parts, count, offset);
}

ssize_t copy_file_range(int from, off_t *from_offset, int file, off_t *offset, size_t length, unsigned flags) {
    REAL("copy_file_range", ssize_t, int, off_t *, int, off_t *, size_t, unsigned);
    CHANGE(ssize_t, offset ? *offset : lseek(file, 0, SEEK_CUR), length,
           real(from, from_offset, file, offset, length, flags));
}

int posix_fallocate(int file, off_t offset, off_t length) {
    REAL("posix_fallocate", int, int, off_t, off_t);
    struct stat status;
    int result;
    if (!watched(file, &status)) return real(file, offset, length);
    if (!change_bytes(file, (uint64_t)offset, 0)) return errno;
    result = real(file, offset, length);
    unlock();
    return result;
}

int ftruncate(int file, off_t size) {
    CHANGE(int, size, SSIZE_MAX, real_ftruncate(file, size));
}

int ftruncate64(int file, off_t size) {
    return ftruncate(file, size);
}

static int flush(int file, int (*real)(int)) {
    struct stat status;
    if (!root_length || fstat(file, &status)) return real(file);
    if (!S_ISDIR(status.st_mode) && !watched(file, &status)) return real(file);
    usleep(flush_us);
    lock();
    if (failing()) {
        unlock();
        return -1;
    }
    forget(status.st_ino, S_ISDIR(status.st_mode) ? "names" : "data");
    unlock();
    return 0;
}

int fsync(int file) {
    REAL("fsync", int, int);
    return flush(file, real);
}

int fdatasync(int file) {
    REAL("fdatasync", int, int);
    return flush(file, real);
}

/* Split `path` into its directory, resolved, and its name; tell whether it is below the root. */
static int split(const char *path, char *folder, struct name *name) {
    char text[PATH_MAX], whole[PATH_MAX + 300], *slash;
    int before = errno, found = 0;
    if (!root_length || strlen(path) >= sizeof text) return 0;
    strcpy(text, path);
    slash = strrchr(text, '/');
    snprintf(name->text, sizeof name->text, "%.255s", slash ? slash + 1 : text);
    if (slash) slash[slash == text] = 0;
    if (realpath(slash ? text : ".", folder)) {
        snprintf(whole, sizeof whole, "%s/%s", folder, name->text);
        found = !strncmp(whole, root, root_length);
    }
    errno = before;
    return found;
}

/* Find what a name stands for now, and hold it if it is a file. */
static void hold_name(const char *path, struct name *name) {
    struct stat status;
    int before = errno;
    name->inode = 0;
    if (!lstat(path, &status)) {
        name->inode = status.st_ino;
        if (!S_ISDIR(status.st_mode)) hold(path, 0, status.st_ino);
    }
    errno = before;
}

static void note_names(const char *folder, const struct name *first, const struct name *second) {
    struct names record = {.count = second ? 2 : 1};
    struct iovec part = {&record, sizeof record};
    struct stat status;
    char path[PATH_MAX];
    record.each[0] = *first;
    if (second) record.each[1] = *second;
    if (stat(folder, &status)) die(folder);
    in_journal(path, status.st_ino, "names");
    if (access(path, F_OK)) {
        char where[PATH_MAX] = "";
        struct iovec line = {where, sizeof where};
        snprintf(where, sizeof where, "%s", folder);
        in_journal(path, status.st_ino, "folder");
        note(path, &line, 1);
        in_journal(path, status.st_ino, "names");
    }
    note(path, &part, 1);
}

static int open_watched(const char *path, int flags, mode_t mode, const char *folder, struct name *name) {
    int file, is_new;
    struct stat status;
    lock();
    if (failing()) {
        unlock();
        return -1;
    }
    is_new = lstat(path, &status) != 0;
    file = real_open(path, flags & ~O_TRUNC, mode);
    if (file >= 0 && is_new) note_names(folder, name, NULL);
    if (file >= 0 && !is_new && flags & O_TRUNC && S_ISREG(status.st_mode)) {
        note_bytes(file, &status, 0, SSIZE_MAX);
        real_ftruncate(file, 0);
    }
    unlock();
    return file;
}

static int open_any(const char *path, int flags, mode_t mode) {
    char folder[PATH_MAX];
    struct name name = {0};
    if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !split(path, folder, &name))
        return real_open(path, flags, mode);
    return open_watched(path, flags, mode, folder, &name);
}

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) {
    MODE return open_any(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE return open_any(path, flags, mode);
}

int unlink(const char *path) {
    REAL("unlink", int, const char *);
    char folder[PATH_MAX];
    struct name name = {0};
    int result;
    if (!split(path, folder, &name)) return real(path);
    lock();
    if (failing()) {
        unlock();
        return -1;
    }
    hold_name(path, &name);
    result = real(path);
    if (!result) note_names(folder, &name, NULL);
    unlock();
    return result;
}

int rename(const char *from, const char *to) {
    REAL("rename", int, const char *, const char *);
    char from_folder[PATH_MAX], to_folder[PATH_MAX];
    struct name old = {0}, new = {0};
    struct stat status;
    int result, is_from = split(from, from_folder, &old), is_to = split(to, to_folder, &new);
    if (!(is_from || is_to) || (!lstat(from, &status) && S_ISDIR(status.st_mode))) return real(from, to);
    lock();
    if (failing()) {
        unlock();
        return -1;
    }
    hold_name(from, &old);
    hold_name(to, &new);
    result = real(from, to);
    if (!result && is_from && is_to && !strcmp(from_folder, to_folder)) note_names(to_folder, &new, &old);
    else if (!result) {
        if (is_to) note_names(to_folder, &new, NULL);
        if (is_from) note_names(from_folder, &old, NULL);
    }
    unlock();
    return result;
}
