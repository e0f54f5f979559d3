# SPDX-License-Identifier: Apache-2.0 OR MIT
"""gunicorn wsgi:application, with BACKEND in the environment: worker processes (sync), or threads of a pool (gthread)."""

import os

from blocking import work

BACKEND = int(os.environ["BACKEND"])


def application(environment, start_response):
    body = work(BACKEND, environment["PATH_INFO"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
