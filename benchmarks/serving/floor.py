"""The floor: a handler of the same web server that reads the request and returns a constant.

`python -m benchmarks.serving.floor PORT`.  It imports nothing of ours and nothing of numbers.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

ANSWER = b'{"predictions":[1]}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer whatever was asked."""
    while scope["type"] == "http" and (await receive()).get("more_body"):
        continue
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off", access_log=False)
