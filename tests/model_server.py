"""A real HTTP server on this machine that answers as a test says: what a remote model may do to its client."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """An answer. `promised`: a Content-Length that is not kept. `hangs`: say nothing until the server is closed.

    `dribbles`: send a byte at a time, and wait for ever between them.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None
    hangs: bool = False
    dribbles: bool = False

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class ModelServerUnderTest:
    """Where it listens, and the bodies that it was sent, with their headers."""

    url: str
    requests: list[Any]
    headers: list[dict[str, str]]


@contextlib.contextmanager
def model_server(reply: Callable[[Any], Reply]) -> Iterator[ModelServerUnderTest]:
    """Serve until the block ends; `reply` gets each parsed body."""
    closing = threading.Event()
    requests: list[Any] = []
    headers: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(body)
            headers.append(dict(self.headers))
            answer = reply(body)
            if answer.hangs:
                closing.wait()
                self.close_connection = True
                return
            content = answer.content()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(answer.promised or len(content)))
            self.end_headers()
            if answer.dribbles:
                while not closing.wait(0.02):
                    self.wfile.write(b" ")
                self.close_connection = True
                return
            self.wfile.write(content)
            self.close_connection = answer.promised is not None

        def log_message(self, *args: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a client that has gone
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield ModelServerUnderTest(f"http://127.0.0.1:{server.server_address[1]}", requests, headers)
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
