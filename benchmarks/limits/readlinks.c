/* readlinks: read the eight namespace links of every process; prints the seconds that it took. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(void)
{
    static const char *const kinds[] = {"mnt", "uts", "ipc", "net", "pid", "user", "cgroup", "time"};
    char path[300], target[64];
    double begin = now();
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; (entry = readdir(proc));) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        for (int i = 0; i < 8; i++) {
            snprintf(path, sizeof path, "/proc/%s/ns/%s", entry->d_name, kinds[i]);
            if (readlink(path, target, sizeof target) < 0)
                continue;
        }
    }
    closedir(proc);
    printf("%.9f\n", now() - begin);
    return 0;
}
