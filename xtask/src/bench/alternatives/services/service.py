# SPDX-License-Identifier: Apache-2.0 OR MIT
"""service.py PORT BACKEND: answers every request with what it gets from the backend; threads, as Flask is usually run."""

import sys
import threading

import requests
from flask import Flask
from waitress import serve

PORT, BACKEND = sys.argv[1:3]
app = Flask(__name__)
of_this_thread = threading.local()


@app.get("/")
def answer():
    if not hasattr(of_this_thread, "session"):
        of_this_thread.session = requests.Session()
    return of_this_thread.session.get(f"http://127.0.0.1:{BACKEND}/stock").text + "ok\n"


# As many threads as the load has connections.
serve(app, host="127.0.0.1", port=int(PORT), threads=16, _quiet=True)
