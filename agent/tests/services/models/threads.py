# SPDX-License-Identifier: Apache-2.0 OR MIT
"""threads.py PORT BACKEND: http.server with a thread per connection, http.client for the calls."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from blocking import work


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: under Nagle's algorithm the second would wait 40 ms for a delayed acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self):
        body = work(int(sys.argv[2]), self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # The default of 5 is less than the connections that the load opens at once.
    request_queue_size = 128


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
