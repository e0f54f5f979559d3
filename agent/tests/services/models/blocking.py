# SPDX-License-Identifier: Apache-2.0 OR MIT
"""What a service does for one request when its threads may block: used under http.server and under gunicorn."""

import http.client
import random
import threading
import time

of_this_thread = threading.local()


def at_once(get, count):
    """Each call on a thread that is started for it."""
    parts = [None] * count

    def call(n):
        parts[n] = get(n)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return parts


def work(backend, path, at_once=at_once):
    _, _, shape, number = path.split("/")
    one = shape == "one"

    def pause():
        time.sleep(0.003 if one else random.uniform(0.001, 0.005))

    def get(n):
        connection = http.client.HTTPConnection("127.0.0.1", backend) if shape == "fresh" else pooled(backend)
        connection.request("GET", f"/call/{shape}/{number}/{n}")
        body = connection.getresponse().read()
        if shape == "fresh":
            connection.close()
        return body

    pause()
    if shape == "parallel":
        parts = at_once(get, 2)
    else:
        parts = []
        for n in range(1 if one else 2):
            if n > 0:
                pause()
            parts.append(get(n))
    pause()
    return b" ".join(parts)


def pooled(backend):
    """The connection of this thread."""
    if not hasattr(of_this_thread, "backend"):
        of_this_thread.backend = http.client.HTTPConnection("127.0.0.1", backend)
    return of_this_thread.backend
