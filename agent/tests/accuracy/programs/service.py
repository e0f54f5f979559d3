# SPDX-License-Identifier: Apache-2.0 OR MIT
"""service.py serve PORT [fork|prefork]: answers as ../programs.rs says, with http.server.
service.py call PORT PATH...: asks with http.client, on one connection.
service.py pool PORT PATH...: asks with the same, on four connections with a thread each.
service.py alone PORT PATH...: does both, in a network namespace of its own; prints each exchange's times.
service.py rewritten PORT CALLED PATH...: the same, but calls another port and address than the service's."""

import concurrent.futures
import ctypes
import fcntl
import http.client
import os
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

PIECE = b"0123456789"


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.path.split("/")[1]
        if kind == "204":
            self.send_response(204)
            self.end_headers()
        elif kind == "writes":
            self.begin(200, "Content-Length", 5 * len(PIECE))
            for _ in range(5):
                time.sleep(0.1)
                self.wfile.write(PIECE)
        elif kind == "chunks":
            self.begin(200, "Transfer-Encoding", "chunked")
            for _ in range(5):
                time.sleep(0.1)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
            self.wfile.write(b"0\r\n\r\n")
        elif kind == "big":
            self.begin(200, "Content-Length", 1 << 20)
            self.wfile.write(bytes(1 << 20))
        else:
            self.begin(int(kind), "Content-Length", len(PIECE))
            if self.command != "HEAD":
                self.wfile.write(PIECE)

    do_GET = do_HEAD = do_POST = answer

    def begin(self, status, name, value):
        self.send_response(status)
        self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *_):
        pass


class ForkingServer(socketserver.ForkingMixIn, HTTPServer):
    """A child for each connection that was accepted."""


def serve(port, how="threads"):
    server = (ForkingServer if how == "fork" else ThreadingHTTPServer)(("127.0.0.1", port), Service)
    if how == "prefork":
        for _ in range(3):
            if os.fork() == 0:
                # Ends with its parent: PR_SET_PDEATHSIG, SIGTERM.
                ctypes.CDLL(None).prctl(1, 15)
                break
    server.serve_forever()


def call(port, paths):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for path in paths:
        connection.request("GET", path)
        if not connection.getresponse().read():
            sys.exit(f"{path}: an empty answer")
    connection.close()


def pool(port, paths):
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(call, port, paths[first::4]) for first in range(4)]:
            done.result()


def alone(port, paths):
    enter_a_namespace()
    # The same client port in each namespace.
    talk_to_oneself(port, port, paths)


def rewritten(port, called_and_paths):
    called, *paths = called_and_paths
    enter_a_namespace()
    for rule in (
        ["OUTPUT", "--dport", called, "-j", "DNAT", "--to-destination", f"127.0.0.1:{port}"],
        ["POSTROUTING", "--dport", str(port), "-j", "SNAT", "--to-source", "127.0.0.2"],
    ):
        subprocess.run(["iptables", "-w", "-t", "nat", "-A", rule[0], "-p", "tcp", *rule[1:]], check=True)
    talk_to_oneself(port, int(called), paths)


def enter_a_namespace():
    clone_newnet = 0x40000000
    if ctypes.CDLL(None, use_errno=True).unshare(clone_newnet) != 0:
        sys.exit("unshare: " + os.strerror(ctypes.get_errno()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        get_flags, set_flags, up = 0x8913, 0x8914, 1
        flags = struct.unpack_from("H", fcntl.ioctl(control, get_flags, struct.pack("16sH14x", b"lo", 0)), 16)[0]
        fcntl.ioctl(control, set_flags, struct.pack("16sH14x", b"lo", flags | up))


def talk_to_oneself(port, called, paths):
    server = ThreadingHTTPServer(("127.0.0.1", port), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", called, source_address=("127.0.0.1", port + 1))
    for path in paths:
        start = time.time_ns()
        connection.request("GET", path)
        connection.getresponse().read()
        print(path, start, time.time_ns(), flush=True)


mode, port, rest = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
if mode == "serve":
    serve(port, *rest)
else:
    {"call": call, "pool": pool, "alone": alone, "rewritten": rewritten}[mode](port, rest)
