// SPDX-License-Identifier: Apache-2.0 OR MIT
// service serve PORT: answers as ../programs.rs says, with plain system calls: writev, send, sendmsg, sendfile.
// service serve-exec PORT: the same, and runs itself anew after each answer, the connection inherited.
// service call PORT PATH...: asks with write and read, on one connection.
// service call-exec PORT PATH...: the same, and runs itself anew after each answer.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static const char PIECE[] = "0123456789";
enum { PIECE_LENGTH = sizeof PIECE - 1, BIG = 1 << 20, ROOM = 64 << 10 };

static struct sockaddr_in address_of(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void say(int fd, const char *text) {
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0) err(1, "send");
}

static void answer(int fd, const char *method, const char *path) {
    char head[200];
    if (!strncmp(path, "/204/", 5)) {
        say(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    } else if (!strncmp(path, "/writes/", 8)) {
        say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n");
        for (int part = 0; part < 5; part++) {
            usleep(100000);
            if (write(fd, PIECE, PIECE_LENGTH) < 0) err(1, "write");
        }
    } else if (!strncmp(path, "/chunks/", 8)) {
        say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (int part = 0; part < 5; part++) {
            usleep(100000);
            // Size, data and line end in three segments of one call.
            struct iovec chunk[] = {{"a\r\n", 3}, {(void *)PIECE, PIECE_LENGTH}, {"\r\n", 2}};
            struct msghdr message = {.msg_iov = chunk, .msg_iovlen = 3};
            if (sendmsg(fd, &message, MSG_NOSIGNAL) < 0) err(1, "sendmsg");
        }
        say(fd, "0\r\n\r\n");
    } else if (!strncmp(path, "/big/", 5)) {
        int file = memfd_create("big", MFD_CLOEXEC);
        if (file < 0 || ftruncate(file, BIG) < 0) err(1, "memfd");
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", BIG);
        say(fd, head);
        for (ssize_t left = BIG; left > 0;) {
            ssize_t sent = sendfile(fd, file, NULL, left);
            if (sent <= 0) err(1, "sendfile");
            left -= sent;
        }
        close(file);
    } else {
        snprintf(head, sizeof head, "HTTP/1.1 %.3s Said\r\nContent-Length: %d\r\n\r\n", path + 1, PIECE_LENGTH);
        struct iovec parts[] = {{head, strlen(head)}, {(void *)PIECE, PIECE_LENGTH}};
        if (writev(fd, parts, strcmp(method, "HEAD") ? 2 : 1) < 0) err(1, "writev");
    }
}

// This program again, with the connection and what is left to be done.
static void again(const char *mode, int fd, char **rest) {
    static char number[12], *words[64];
    snprintf(number, sizeof number, "%d", fd);
    words[0] = "service", words[1] = (char *)mode, words[2] = number;
    for (int at = 3; at < 63 && rest && *rest; at++) words[at] = *rest++;
    execv("/proc/self/exe", words);
    err(1, "exec");
}

static void converse(int fd, int execs) {
    static char buffer[ROOM];
    size_t held = 0;
    for (;;) {
        char *end = held ? memmem(buffer, held, "\r\n\r\n", 4) : NULL;
        if (end) {
            char method[16], path[200];
            const char *field = memmem(buffer, held, "Content-Length: ", 16);
            size_t body = field && field < end ? strtoul(field + 16, NULL, 10) : 0;
            size_t head = end + 4 - buffer;
            if (sscanf(buffer, "%15s %199s", method, path) != 2) return;
            // Of the body only the length matters.
            size_t here = held - head < body ? held - head : body;
            memmove(buffer, buffer + head + here, held -= head + here);
            for (body -= here; body > 0;) {
                ssize_t more = recv(fd, buffer, body < ROOM ? body : ROOM, 0);
                if (more <= 0) return;
                body -= more;
            }
            answer(fd, method, path);
            if (execs) again("go-on-serving", fd, NULL);
            continue;
        }
        ssize_t more = recv(fd, buffer + held, ROOM - held, 0);
        if (more <= 0) return;
        held += more;
    }
}

static void serve(const char *port, int execs) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = address_of(port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) err(1, "listen");
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) err(1, "accept");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        converse(fd, execs);
        close(fd);
    }
}

static int connected(const char *port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = address_of(port);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) err(1, "connect");
    return fd;
}

static void call(int fd, char **paths, int execs) {
    for (; *paths; paths++) {
        char text[400];
        int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", *paths);
        if (write(fd, text, length) != length) err(1, "write");
        // Every answer to these programs ends with a full stop, and has no other.
        ssize_t more;
        do {
            more = read(fd, text, sizeof text);
            if (more <= 0) err(1, "read");
        } while (text[more - 1] != '.');
        if (execs) again("go-on-calling", fd, paths + 1);
    }
}

int main(int count, char **words) {
    if (count < 3) errx(2, "serve PORT | call PORT PATH...");
    const char *mode = words[1];
    if (!strcmp(mode, "serve") || !strcmp(mode, "serve-exec")) serve(words[2], !strcmp(mode, "serve-exec"));
    else if (!strcmp(mode, "go-on-serving")) converse(atoi(words[2]), 1);
    else if (!strcmp(mode, "go-on-calling")) call(atoi(words[2]), words + 3, 1);
    else call(connected(words[2]), words + 3, !strcmp(mode, "call-exec"));
    return 0;
}
