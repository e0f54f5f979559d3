# SPDX-License-Identifier: Apache-2.0 OR MIT
"""fastapi_service.py PORT BACKEND async|threadpool: FastAPI on uvicorn, httpx for the calls.

async: coroutines on the event loop. threadpool: plain functions, which FastAPI runs on a pool of threads.
"""

import asyncio
import random
import sys
import time
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Response

PORT, BACKEND = map(int, sys.argv[1:3])
POOLED = httpx.Limits(max_connections=256, max_keepalive_connections=256)
clients = {}


def headers(shape):
    # A pool without idle connections is no alternative: httpx's, shared by threads, then closes some that are in use.
    return {"connection": "close"} if shape == "fresh" else {}


@asynccontextmanager
async def lifespan(_):
    # Opened at the start: made on demand, two requests at once would make two.
    kind = httpx.AsyncClient if sys.argv[3] == "async" else httpx.Client
    for shape in ("one", "sequence", "parallel", "fresh"):
        clients[shape] = kind(limits=POOLED, headers=headers(shape), base_url=f"http://127.0.0.1:{BACKEND}")
    yield


application = FastAPI(lifespan=lifespan)


def duration(shape):
    return 0.003 if shape == "one" else random.uniform(0.001, 0.005)


async def on_the_loop(shape: str, number: str):
    async def get(n):
        return (await clients[shape].get(f"/call/{shape}/{number}/{n}")).text

    await asyncio.sleep(duration(shape))
    if shape == "parallel":
        parts = await asyncio.gather(get(0), get(1))
    else:
        parts = [await get(0)]
        if shape != "one":
            await asyncio.sleep(duration(shape))
            parts.append(await get(1))
    await asyncio.sleep(duration(shape))
    return Response(" ".join(parts))


def on_a_thread(shape: str, number: str):
    parts = []
    for n in range(1 if shape == "one" else 2):
        time.sleep(duration(shape))
        parts.append(clients[shape].get(f"/call/{shape}/{number}/{n}").text)
    time.sleep(duration(shape))
    return Response(" ".join(parts))


application.get("/work/{shape}/{number}")(on_the_loop if sys.argv[3] == "async" else on_a_thread)
uvicorn.run(application, host="127.0.0.1", port=PORT, log_level="error", access_log=False, loop=sys.argv[4], backlog=256)
