/*
 * echod PORT
 *
 * UDP echo for the fixed-rate probe: sends every datagram back as it came.
 */
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "shared.h"

int main(int argc, char *argv[])
{
    if (argc != 2) {
        fprintf(stderr, "usage: echod PORT\n");
        return 2;
    }
    setpriority(PRIO_PROCESS, 0, -20);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)parse_number(argv[1], "port"))};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int room = 1 << 20; /* what queues up while the guest is paused must fit */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
        perror("echod: bind");
        return 1;
    }
    for (;;) {
        char data[2048];
        struct sockaddr_in from;
        socklen_t from_len = sizeof(from);
        ssize_t n = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &from_len);
        if (n >= 0)
            sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&from, from_len);
    }
}
