/* start ROOT PROGRAM: the least that starts a program in new namespaces with a root of its own, and waits for it. */
#define _GNU_SOURCE
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct clone_args how = {
        .flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP | CLONE_VFORK,
        .exit_signal = SIGCHLD,
    };
    if (argc != 3)
        return 2;
    int status = 1;
    pid_t pid = syscall(SYS_clone3, &how, sizeof how);
    if (pid < 0) {
        perror("clone3");
        return 1;
    }
    if (pid == 0) {
        char *const child[] = {argv[2], NULL}, *const none[] = {NULL};
        if (mount("", "/", "", MS_REC | MS_PRIVATE, "") || mount(argv[1], argv[1], "", MS_BIND, "") || chdir(argv[1]) ||
            syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || mount("proc", "/proc", "proc", 0, "")) {
            perror(argv[1]);
            _exit(127);
        }
        execve(argv[2], child, none);
        perror(argv[2]);
        _exit(127);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
