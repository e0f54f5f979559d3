# SPDX-License-Identifier: Apache-2.0 OR MIT
"""service.py PORT BACKEND: answers /a/<id> with what http.client gets for /b/<id>; a thread per connection."""

import http.client
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, BACKEND = map(int, sys.argv[1:3])
of_this_thread = threading.local()


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: under Nagle's algorithm the second would wait 40 ms for a delayed acknowledgement.
    disable_nagle_algorithm = True

    def answer(self):
        posted = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = call(self.command, self.path.replace("/a/", "/b/", 1), posted)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def call(method, path, body):
    if not hasattr(of_this_thread, "backend"):
        of_this_thread.backend = http.client.HTTPConnection("127.0.0.1", BACKEND)
    of_this_thread.backend.request(method, path, body or None)
    response = of_this_thread.backend.getresponse()
    return response.status, response.read()


class Server(ThreadingHTTPServer):
    # The default of 5 is less than the connections that the proxy opens at once.
    request_queue_size = 128


Server(("127.0.0.1", PORT), Service).serve_forever()
