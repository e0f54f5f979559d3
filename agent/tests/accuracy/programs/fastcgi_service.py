# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A FastCGI responder behind a unix socket: every request is answered with five bytes.

In: the socket's path. Out: nothing but answers. Of the protocol it knows what a web server needs of it
(https://fastcgi-archives.github.io/FastCGI_Specification.html): it looks for the end of a request, and at nothing in it.
"""

import socketserver
import struct
import sys

END_REQUEST, STDIN, STDOUT = 3, 5, 6


class Responder(socketserver.StreamRequestHandler):
    def handle(self):
        while header := self.rfile.read(8):
            _, kind, request, length, padding, _ = struct.unpack("!BBHHBB", header)
            self.rfile.read(length + padding)
            if kind == STDIN and length == 0:
                answer = b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
                self.say(STDOUT, request, answer)
                self.say(STDOUT, request, b"")
                self.say(END_REQUEST, request, bytes(8))
                return

    def say(self, kind, request, content):
        self.wfile.write(struct.pack("!BBHHBB", 1, kind, request, len(content), 0, 0) + content)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


Server(sys.argv[1], Responder).serve_forever()
