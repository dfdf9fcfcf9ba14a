"""The ASGI entry point. Refuses to serve with settings that `manage.py check` refuses, from a database that does not
protect tenants, or without a key that rows need."""

import asyncio
import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

_django = get_asgi_application()

from keys import heartbeat  # noqa: E402  (needs the apps that the line above loads)
from memory.operations.worker import end_working  # noqa: E402
from project.startup import begin_serving  # noqa: E402

begin_serving("asgi")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Django's application, and the lifespan events that Django does not handle.

    The heartbeat ends at the lifespan's shutdown: a server that ends by SIGTERM may run no exit handlers.
    """
    if scope["type"] == "lifespan":
        await _live(receive, send)
    else:
        await _django(scope, receive, send)


async def _live(receive: Any, send: Any) -> None:
    ending = False
    while not ending:
        message = await receive()
        ending = message["type"] == "lifespan.shutdown"
        if ending:
            await asyncio.to_thread(end_working)
            await asyncio.to_thread(heartbeat.stop)
        await send({"type": f"{message['type']}.complete"})
