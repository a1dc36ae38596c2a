"""A web server that behaves as the web does: tests/bad_web.py PORT ARCHIVES. Tests run it as a process of its own.

/photo/KIND/NAME.jpg serves a photo in the way of KIND; /asked tells how often each address was asked for, and how
often it was answered to the end with a photo.
"""

import asyncio
import io
import sys
from collections import Counter

import numpy as np
from aiohttp import web
from PIL import Image

asked: Counter[str] = Counter()
served: Counter[str] = Counter()


def photo(name: str) -> bytes:
    """A small JPEG; its content follows from its name."""
    colours = np.random.default_rng([*name.encode()]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize((48, 40), Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


async def serve(request: web.Request) -> web.StreamResponse:
    kind, name = request.match_info["kind"], request.match_info["name"]
    asked[request.path] += 1
    times, data = asked[request.path], photo(name)
    if kind == "dead":
        raise web.HTTPNotFound
    if kind == "gone":
        raise web.HTTPGone
    if kind == "moved":
        raise web.HTTPFound("/static/photo_unavailable.png")
    if kind == "same":  # a placeholder that is served as if it were the photo
        return web.Response(body=photo("placeholder"), content_type="image/jpeg")
    if kind == "garbage":
        return web.Response(text="<html>Sign in to see this photo</html>", content_type="text/html")
    if kind == "error" and times < 3:
        raise web.HTTPInternalServerError
    if kind == "busy" and times < 2:
        return web.Response(status=429, headers={"Retry-After": "1"})
    if kind in ("cut", "short", "silent") and times < 2:
        answer = web.StreamResponse(headers={"Content-Length": str(len(data) + (100 if kind == "short" else 0))})
        await answer.prepare(request)
        await answer.write(data[: len(data) // 2] if kind != "short" else data)
        if kind == "silent":
            await asyncio.sleep(30)
        if request.transport is not None:
            request.transport.close()
        return answer
    if kind == "endless":  # no length, and the connection closes too early
        answer = web.StreamResponse(headers={"Connection": "close"})
        answer.force_close()
        await answer.prepare(request)
        await answer.write(data[: len(data) // 2] if times < 2 else data)
        await answer.write_eof()
        served[request.path] += times >= 2
        return answer
    if kind == "slow":
        answer = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await answer.prepare(request)
        for start in range(0, len(data), 100):
            await answer.write(data[start : start + 100])
            await asyncio.sleep(0.02)
        await answer.write_eof()
        served[request.path] += 1
        return answer
    served[request.path] += 1
    return web.Response(body=data, content_type="image/jpeg")


async def placeholder(request: web.Request) -> web.Response:
    return web.Response(body=photo("unavailable"), content_type="image/jpeg")


async def tell(request: web.Request) -> web.Response:
    return web.json_response({"asked": asked, "served": served})


def main(port: int, folder: str) -> None:
    app = web.Application()
    app.router.add_get("/photo/{kind}/{name}.jpg", serve)
    app.router.add_get("/static/photo_unavailable.png", placeholder)
    app.router.add_get("/asked", tell)
    app.router.add_static("/archives", folder)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
