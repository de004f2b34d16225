/* freeze DIRECTORY 1|2: freeze a cgroup and wait until the kernel says that it is frozen; prints the seconds; thaws. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int in(const char *directory, const char *file, int flags)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        perror(path);
    return fd;
}

int main(int argc, char **argv)
{
    char text[4096];
    if (argc != 3)
        return 2;
    int old = argv[2][0] == '1';
    int set = in(argv[1], old ? "freezer.state" : "cgroup.freeze", O_RDWR);
    int told = old ? set : in(argv[1], "cgroup.events", O_RDONLY);
    if (set < 0 || told < 0)
        return 1;
    double begin = now();
    if (write(set, old ? "FROZEN" : "1", old ? 6 : 1) < 0)
        return 1;
    for (;;) {
        ssize_t length = pread(told, text, sizeof text - 1, 0);
        text[length > 0 ? length : 0] = 0;
        if (strstr(text, old ? "FROZEN" : "frozen 1"))
            break;
        if (!old)
            poll(&(struct pollfd){.fd = told, .events = POLLPRI}, 1, 100);
    }
    printf("%.9f\n", now() - begin);
    return write(set, old ? "THAWED" : "0", old ? 6 : 1) < 0;
}
