/* network: two network namespaces, a veth pair made in place, an address on each end, both up, ping-ready; and all of it
   gone again, as the namespaces die with their last descriptor. Raw netlink; prints the seconds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct {
    struct nlmsghdr header;
    char body[1024];
} message;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void *put(const void *what, size_t length)
{
    void *place = (char *)&message + NLMSG_ALIGN(message.header.nlmsg_len);
    if (what)
        memcpy(place, what, length);
    message.header.nlmsg_len = NLMSG_ALIGN(message.header.nlmsg_len) + length;
    return place;
}

static struct rtattr *attribute(int type, const void *value, size_t length)
{
    struct rtattr *head = put(NULL, sizeof *head);
    head->rta_type = type;
    head->rta_len = RTA_LENGTH(length);
    if (length)
        put(value, length);
    return head;
}

static void end(struct rtattr *nest)
{
    nest->rta_len = (char *)&message + message.header.nlmsg_len - (char *)nest;
}

static void begin(int type, int flags)
{
    memset(&message, 0, sizeof message);
    message.header = (struct nlmsghdr){.nlmsg_len = NLMSG_HDRLEN, .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags};
}

static void talk(int netlink)
{
    char answer[8192];
    if (send(netlink, &message, message.header.nlmsg_len, 0) < 0 || recv(netlink, answer, sizeof answer, 0) < 0) {
        perror("netlink");
        exit(1);
    }
    struct nlmsghdr *head = (struct nlmsghdr *)answer;
    int error = head->nlmsg_type == NLMSG_ERROR ? ((struct nlmsgerr *)NLMSG_DATA(head))->error : 0;
    if (error) {
        fprintf(stderr, "netlink: %s\n", strerror(-error));
        exit(1);
    }
}

static int new_namespace(void)
{
    if (unshare(CLONE_NEWNET)) {
        perror("unshare");
        exit(1);
    }
    return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

static void configure(int namespace, const char *ifname, const char *address)
{
    struct in_addr number;
    setns(namespace, CLONE_NEWNET);
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    unsigned index = if_nametoindex(ifname);
    inet_pton(AF_INET, address, &number);
    begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
    put(&(struct ifaddrmsg){.ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = index}, sizeof(struct ifaddrmsg));
    attribute(IFA_LOCAL, &number, 4);
    attribute(IFA_ADDRESS, &number, 4);
    talk(netlink);
    begin(RTM_NEWLINK, 0);
    put(&(struct ifinfomsg){.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP}, sizeof(struct ifinfomsg));
    talk(netlink);
    close(netlink);
}

int main(void)
{
    double start = now();
    int host = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int one = new_namespace(), two = new_namespace();
    setns(host, CLONE_NEWNET);
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    put(&(struct ifinfomsg){0}, sizeof(struct ifinfomsg));
    attribute(IFLA_IFNAME, "veth1", 6);
    attribute(IFLA_NET_NS_FD, &one, 4);
    struct rtattr *info = attribute(IFLA_LINKINFO, NULL, 0);
    attribute(IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = attribute(IFLA_INFO_DATA, NULL, 0);
    struct rtattr *peer = attribute(VETH_INFO_PEER, NULL, 0);
    put(&(struct ifinfomsg){0}, sizeof(struct ifinfomsg));
    attribute(IFLA_IFNAME, "veth2", 6);
    attribute(IFLA_NET_NS_FD, &two, 4);
    end(peer);
    end(data);
    end(info);
    talk(netlink);
    close(netlink);
    configure(one, "veth1", "192.168.1.1");
    configure(two, "veth2", "192.168.1.2");
    setns(host, CLONE_NEWNET);
    close(one);
    close(two);
    printf("%.9f\n", now() - start);
    return 0;
}
