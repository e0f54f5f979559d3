# SPDX-License-Identifier: Apache-2.0 OR MIT
"""backend.py PORT: answers /b/<id> with its own path, its method and what was posted, after 1 to 5 ms.

The last digit of the id says how: 7 is a 404, 3 a 500, 5 comes in chunks, 9 is 10 KiB longer.
"""

import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STATUS = {"7": 404, "3": 500}
FILLER = b"." * 10240


class Backend(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: under Nagle's algorithm the second would wait 40 ms for a delayed acknowledgement.
    disable_nagle_algorithm = True

    def answer(self):
        posted = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(random.uniform(0.001, 0.005))
        last = self.path[-1]
        body = f"{self.path} {self.command}\n".encode() + posted + (FILLER if last == "9" else b"")
        self.send_response(STATUS.get(last, 200))
        if last == "5":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in (body[:4], body[4:], b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # The default of 5 is less than the connections that the callers open at once.
    request_queue_size = 128


Server(("127.0.0.1", int(sys.argv[1])), Backend).serve_forever()
