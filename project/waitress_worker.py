"""A gunicorn worker in which waitress reads the requests: threads see whole requests only, never a slow client.

gunicorn keeps its own part: processes, the listening socket, signals, hooks. In each worker one loop reads every
connection; a request goes to one of WEB_THREADS threads when its last byte is there, and its answer is buffered for a
client that reads slowly. So thousands of half-sent requests cost memory and no thread.

On SIGTERM `/readyz` turns 503 and the worker serves on for DRAIN_SECONDS, so that a load balancer notices. Then it
accepts no more connections, finishes open requests, and ends. A request that still waits for the embedding model
shortly before its time is up is answered with 503.
"""

import os
import resource
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from gunicorn.workers.base import Worker
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer, create_server

from project import draining

LOOP_SECONDS = 1.0
"""The longest pause between two looks at deadlines and signals."""
HAND_BACK_SECONDS = 25.0
"""Of the 30 that open requests have: then those that still wait for the embedding model are told 503, not cut off."""
MAX_CONNECTIONS = 4_000
SPARE_FILES = 200
"""File descriptors kept for other than clients: database, models, request bodies on disk."""
BODY_SLACK = 1024 * 1024
"""A body somewhat above MEMORY_MAX_BODY_BYTES is read, so that the API can answer it with its own 413."""


class TimedRequest(HTTPRequestParser):
    """A request that is being received, and when it began."""

    def __init__(self, adj: Any) -> None:
        super().__init__(adj)
        self.began = time.monotonic()

    def is_overdue(self, now: float) -> bool:
        """Whether its head, or all of it, should be here by now."""
        seconds = settings.REQUEST_BODY_SECONDS if self.headers_finished else settings.REQUEST_HEAD_SECONDS
        return bool(now - self.began > seconds)


class Channel(HTTPChannel):
    """One client's connection."""

    parser_class = TimedRequest
    has_asked = False

    def service(self) -> None:
        """Answer a request; in a thread."""
        self.has_asked = True
        if draining.has_begun():
            self.requests[0].headers["CONNECTION"] = "close"
        super().service()

    def is_busy(self) -> bool:
        """Whether a request or an answer is under way."""
        return bool(self.request is not None or self.requests or self.total_outbufs_len)

    def close_if_overdue(self, now: float) -> None:
        """Close a client that sends too slowly. waitress itself closes one that is idle or has stopped reading."""
        if self.request is not None and self.request.is_overdue(now):
            self.will_close = True


class WaitressWorker(Worker):
    """Serves gunicorn's sockets by waitress."""

    def run(self) -> None:
        self._map: dict[int, Any] = {}
        server = create_server(
            self.wsgi,
            map=self._map,
            sockets=[listener.sock for listener in self.sockets],
            threads=self.cfg.threads,
            backlog=self.cfg.backlog,
            connection_limit=_connection_limit(),
            channel_timeout=settings.REQUEST_HEAD_SECONDS,
            cleanup_interval=LOOP_SECONDS,
            max_request_body_size=settings.MEMORY_MAX_BODY_BYTES + BODY_SLACK,
            # Forwarded headers are Django's to judge, by TRUSTED_PROXY_COUNT.
            clear_untrusted_proxy_headers=False,
            ident=None,
        )
        for door in self._doors():
            door.channel_class = Channel
        self._serve_while(lambda: self.alive and self.ppid == os.getppid())
        draining.begin()
        self._drain()
        server.task_dispatcher.shutdown(timeout=LOOP_SECONDS)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM."""
        super().handle_exit(sig, frame)
        for door in self._doors():
            door.pull_trigger()  # wakes the loop

    def _drain(self) -> None:
        self._serve_until(settings.DRAIN_SECONDS)
        for door in self._doors():
            _take_who_waits(door)
            wasyncore.dispatcher.close(door)  # its trigger stays: threads still wake the loop
        # The connections accepted last have sent no request yet.
        self._serve_until(LOOP_SECONDS, lambda: any(not channel.has_asked for channel in self._channels()))
        from memory.index import embedding_runtime  # not in gunicorn's parent process, which loads this module

        self._serve_until(HAND_BACK_SECONDS, self._is_busy)
        embedding_runtime.hand_back()
        self._serve_while(self._is_busy)

    def _is_busy(self) -> bool:
        return any(channel.is_busy() for channel in self._channels())

    def _serve_until(self, seconds: float, condition: Callable[[], bool] = lambda: True) -> None:
        until = time.monotonic() + seconds
        self._serve_while(lambda: condition() and time.monotonic() < until)

    def _serve_while(self, condition: Callable[[], bool]) -> None:
        looked = 0.0
        while condition():
            self.notify()
            if (now := time.monotonic()) - looked >= LOOP_SECONDS:
                looked = now
                for channel in self._channels():
                    channel.close_if_overdue(now)
            wasyncore.loop(timeout=LOOP_SECONDS / 2, use_poll=True, map=self._map, count=1)

    def _doors(self) -> list[BaseWSGIServer]:
        return [each for each in self._map.values() if isinstance(each, BaseWSGIServer)]

    def _channels(self) -> list[Channel]:
        return [each for each in self._map.values() if isinstance(each, Channel)]


def _take_who_waits(door: BaseWSGIServer) -> None:
    """Accept the connections that wait: closing the socket would reset them."""
    known = -1
    while known < (known := len(door.active_channels)):
        door.handle_accept()


def _connection_limit() -> int:
    """The most connections to serve, after raising the process's limit of open files as far as it goes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return MAX_CONNECTIONS if most == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, most - SPARE_FILES)
