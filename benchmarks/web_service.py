"""A web service that publishes jobs, in a library's environment: ``python -m benchmarks.web_service PEER``.

Once it is open it says its port, and the versions that it runs on, as a line of JSON.
"""

import gc
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from .peer import Peer
from .publisher_process import load

SERVED_BY = ("fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools")


class Pair(BaseModel):
    x: float
    y: float


def make_app(peer: Peer, port: int) -> FastAPI:
    """One route that publishes a job, and one that doesn't."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await peer.open()
        gc.collect()
        gc.freeze()  # else each full collection stops the loop to go through all modules
        print(json.dumps({"port": port, "versions": {name: version(name) for name in SERVED_BY}}), flush=True)
        yield
        await peer.close()

    app = FastAPI(lifespan=lifespan)

    @app.post("/jobs", status_code=202)
    async def publish(pair: Pair) -> dict[str, str]:
        try:
            return {"id": await peer.publish(pair.x, pair.y)}
        except Exception as error:  # each library has its own for a broker that is away
            raise HTTPException(503, "the job queue is away") from error

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        return {"answer": "pong"}

    return app


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    app = make_app(load(sys.argv[1]), listener.getsockname()[1])
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
