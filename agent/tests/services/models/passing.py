# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A pool whose threads begin on demand, take whoever's work is next, and end as soon as there is none for a moment."""

import queue
import threading
from concurrent.futures import Future


class PassingPool:
    def __init__(self, most, patience=0.002):
        self.most = most
        self.patience = patience
        self.tasks = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.threads = 0

    def map(self, function, count):
        futures = [Future() for _ in range(count)]
        for n, future in enumerate(futures):
            with self.lock:
                self.tasks.put((future, function, n))
                if self.threads < self.most:
                    self.threads += 1
                    threading.Thread(target=self.run).start()
        return [future.result() for future in futures]

    def run(self):
        while True:
            try:
                future, function, argument = self.tasks.get(timeout=self.patience)
            except queue.Empty:
                with self.lock:
                    if self.tasks.empty():
                        self.threads -= 1
                        return
                continue
            try:
                future.set_result(function(argument))
            except Exception as problem:
                future.set_exception(problem)
