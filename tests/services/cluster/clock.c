/* A clock that is wrong. Loaded by LD_PRELOAD, it moves the time of day of a process by as many seconds as the file named by
 * CROSSREG_CLOCK says (eight bytes, a signed integer); the file may change while the process runs, and the monotonic clock
 * goes on, as when somebody sets a machine's clock. A deadline that was computed with the wrong clock is translated back
 * before the kernel, whose clock is right, waits for it.
 *
 * (libfaketime 0.9.10 makes Python's time.sleep fail or wait for ever.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *seconds;

__attribute__((constructor)) static void open_file(void) {
    const char *path = getenv("CROSSREG_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) seconds = page;
    close(file);
}

static int64_t offset(void) { return seconds ? *seconds : 0; }

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int of_day(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && of_day(clock)) now->tv_sec += offset();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}

/* a small number is of the monotonic clock, which some condition variables wait by */
static struct timespec translated(const struct timespec *deadline) {
    struct timespec result = *deadline;
    if (result.tv_sec > 1000000000) result.tv_sec -= offset();
    return result;
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict t) {
    REAL(pthread_cond_timedwait);
    struct timespec until = translated(t);
    return real(c, m, &until);
}

int pthread_cond_clockwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, clockid_t clock,
                           const struct timespec *restrict t) {
    REAL(pthread_cond_clockwait);
    struct timespec until = translated(t);
    return real(c, m, clock, &until);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict m, const struct timespec *restrict t) {
    REAL(pthread_mutex_timedlock);
    struct timespec until = translated(t);
    return real(m, &until);
}

int sem_timedwait(sem_t *restrict s, const struct timespec *restrict t) {
    REAL(sem_timedwait);
    struct timespec until = translated(t);
    return real(s, &until);
}

int sem_clockwait(sem_t *restrict s, clockid_t clock, const struct timespec *restrict t) {
    REAL(sem_clockwait);
    struct timespec until = translated(t);
    return real(s, clock, &until);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *t, struct timespec *left) {
    REAL(clock_nanosleep);
    struct timespec until = flags & TIMER_ABSTIME ? translated(t) : *t;
    return real(clock, flags, &until, left);
}
