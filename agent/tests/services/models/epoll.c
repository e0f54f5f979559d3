// SPDX-License-Identifier: Apache-2.0 OR MIT
// epoll PORT BACKEND: one thread, one epoll, no timers: an answer is read and the next call written in the same turn.
//
// A connection of a client has at most one request under way, and a connection to the backend one call, so that a
// pointer each way is all there is to know. Requests and answers are smaller than a read, and come whole.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

struct peer {
	int fd;
	int is_backend;
	int connecting;
	struct peer *next_idle;
	// A client's request.
	char shape[16], id[64], parts[2][96];
	int open;
	// A call: for whom, and which.
	struct peer *client;
	int n;
};

static int events, listener;
static struct sockaddr_in backend = {.sin_family = AF_INET};
static struct peer *idle;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void odd(const char *what, const char *text)
{
	fprintf(stderr, "%s that did not come whole: %s\n", what, text);
	exit(2);
}

static void watch(struct peer *peer, int how, unsigned mask)
{
	struct epoll_event event = {.events = mask, .data.ptr = peer};
	if (epoll_ctl(events, how, peer->fd, &event))
		fail("epoll_ctl");
}

static struct peer *peer_of(int fd, int is_backend)
{
	struct peer *peer = calloc(1, sizeof *peer);
	int one = 1;
	if (!peer)
		fail("calloc");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	peer->fd = fd;
	peer->is_backend = is_backend;
	return peer;
}

// Up to 0.3 ms of work.
static void compute(void)
{
	long end = random() % 300000;
	struct timespec from, now;
	clock_gettime(CLOCK_MONOTONIC, &from);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec < end);
}

static void write_all(int fd, const char *text, int length)
{
	if (write(fd, text, length) != length)
		fail("write");
}

static void write_call(struct peer *call)
{
	char text[256];
	struct peer *client = call->client;
	int length = snprintf(text, sizeof text, "GET /call/%s/%s/%d HTTP/1.1\r\nHost: backend\r\n%s\r\n", client->shape,
			      client->id, call->n, strcmp(client->shape, "fresh") ? "" : "Connection: close\r\n");
	write_all(call->fd, text, length);
}

static void start_call(struct peer *client, int n)
{
	struct peer *call = NULL;
	client->open++;
	if (strcmp(client->shape, "fresh") && idle) {
		call = idle;
		idle = call->next_idle;
		call->client = client;
		call->n = n;
		write_call(call);
		return;
	}
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0)
		fail("socket");
	call = peer_of(fd, 1);
	call->client = client;
	call->n = n;
	call->connecting = 1;
	if (connect(fd, (struct sockaddr *)&backend, sizeof backend) && errno != EINPROGRESS)
		fail("connect");
	watch(call, EPOLL_CTL_ADD, EPOLLOUT);
}

static void answer(struct peer *client)
{
	char text[512], body[256];
	int two = client->parts[1][0] != 0;
	compute();
	int length = snprintf(body, sizeof body, "%s%s%s", client->parts[0], two ? " " : "", client->parts[1]);
	length = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, body);
	write_all(client->fd, text, length);
}

static void request_came(struct peer *client, char *text)
{
	memset(client->parts, 0, sizeof client->parts);
	if (sscanf(text, "GET /work/%15[^/]/%63[^ ] ", client->shape, client->id) != 2)
		odd("request", text);
	compute();
	start_call(client, 0);
	if (!strcmp(client->shape, "parallel"))
		start_call(client, 1);
}

static void answer_came(struct peer *call, char *text)
{
	struct peer *client = call->client;
	char *body = strstr(text, "\r\n\r\n");
	if (!body)
		odd("answer", text);
	snprintf(client->parts[call->n], sizeof client->parts[0], "%s", body + 4);
	client->open--;
	int is_first_of_two = call->n == 0 && strcmp(client->shape, "one") && strcmp(client->shape, "parallel");
	if (strcmp(client->shape, "fresh")) {
		call->next_idle = idle;
		idle = call;
	} else {
		close(call->fd);
		free(call);
	}
	if (is_first_of_two) {
		compute();
		start_call(client, 1);
	} else if (!client->open) {
		answer(client);
	}
}

static void turn(struct peer *peer)
{
	char text[4096];
	if (peer->connecting) {
		peer->connecting = 0;
		watch(peer, EPOLL_CTL_MOD, EPOLLIN);
		write_call(peer);
		return;
	}
	int length = read(peer->fd, text, sizeof text - 1);
	if (length <= 0) {
		// Nobody closes while a request is under way.
		for (struct peer **at = &idle; *at; at = &(*at)->next_idle)
			if (*at == peer) {
				*at = peer->next_idle;
				break;
			}
		close(peer->fd);
		free(peer);
		return;
	}
	text[length] = 0;
	if (peer->is_backend)
		answer_came(peer, text);
	else
		request_came(peer, text);
}

int main(int argc, char **argv)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(argc > 2 ? atoi(argv[1]) : 0)};
	int one = 1;
	signal(SIGPIPE, SIG_IGN);
	inet_pton(AF_INET, "127.0.0.1", &own.sin_addr);
	backend.sin_addr = own.sin_addr;
	backend.sin_port = htons(argc > 2 ? atoi(argv[2]) : 0);
	events = epoll_create1(0);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 256))
		fail("listen");
	struct epoll_event wanted = {.events = EPOLLIN};
	if (epoll_ctl(events, EPOLL_CTL_ADD, listener, &wanted))
		fail("epoll_ctl");
	for (;;) {
		// One event at a time: an event further on in a batch may be of a peer that is gone by then.
		struct epoll_event event;
		if (epoll_wait(events, &event, 1, -1) != 1)
			continue;
		if (event.data.ptr) {
			turn(event.data.ptr);
			continue;
		}
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
		if (fd >= 0)
			watch(peer_of(fd, 0), EPOLL_CTL_ADD, EPOLLIN);
	}
}
