# SPDX-License-Identifier: Apache-2.0 OR MIT
"""asyncio_aiohttp.py PORT BACKEND: one event loop, server and client by aiohttp; calls at once by asyncio.gather."""

import asyncio
import random
import sys

from aiohttp import ClientSession, TCPConnector, web

PORT, BACKEND = map(int, sys.argv[1:3])


async def work(request):
    shape, number = request.match_info["shape"], request.match_info["id"]
    session = request.app["fresh" if shape == "fresh" else "pooled"]

    async def pause():
        await asyncio.sleep(0.003 if shape == "one" else random.uniform(0.001, 0.005))

    async def get(n):
        async with session.get(f"http://127.0.0.1:{BACKEND}/call/{shape}/{number}/{n}") as answer:
            return await answer.read()

    await pause()
    if shape == "parallel":
        parts = await asyncio.gather(get(0), get(1))
    else:
        parts = [await get(0)]
        if shape != "one":
            await pause()
            parts.append(await get(1))
    await pause()
    return web.Response(body=b" ".join(parts))


async def open_sessions(app):
    app["pooled"] = ClientSession(connector=TCPConnector(limit=256))
    app["fresh"] = ClientSession(connector=TCPConnector(limit=256, force_close=True))


application = web.Application()
application.router.add_get("/work/{shape}/{id}", work)
application.on_startup.append(open_sessions)
web.run_app(application, host="127.0.0.1", port=PORT, print=None, access_log=None, backlog=256)
