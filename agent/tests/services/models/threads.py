# SPDX-License-Identifier: Apache-2.0 OR MIT
"""threads.py PORT BACKEND [STYLE]: http.server with a thread per connection, http.client for the calls.

Calls at the same time are made on threads: `threads`, one started for each; `executor`, those of an executor that the
request makes and waits for; `pool`, those of one executor for all requests, which starts a thread when a request comes and
no thread is idle, and keeps it; `passing`, those of a pool that does not keep them.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from blocking import at_once, work
from passing import PassingPool


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: under Nagle's algorithm the second would wait 40 ms for a delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self):
        body = work(int(sys.argv[2]), self.path, STYLES[style])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # The default of 5 is less than the connections that the load opens at once.
    request_queue_size = 128


def in_executor(get, count):
    with ThreadPoolExecutor(count) as executor:
        return list(executor.map(get, range(count)))


# Fewer than the load has use for: they take each other's work off the queue.
pool = ThreadPoolExecutor(32)
passing = PassingPool(32)
STYLES = {
    "threads": at_once,
    "executor": in_executor,
    "pool": lambda get, count: list(pool.map(get, range(count))),
    "passing": passing.map,
}

if __name__ == "__main__":
    style = sys.argv[3] if len(sys.argv) > 3 else "threads"
    Server(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
