"""A WSGI application that reranks, and tells which process loaded the model and which answers."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import django

django.setup()

from rerank import flag, rerank_now, runtime, startup  # noqa: E402
from rerank.backends import Backend  # noqa: E402
from rerank.loading import load_backend  # noqa: E402

loaded_by: list[int] = []
TEXTS = [f"memory number {number} about trains and tea" for number in range(24)]


def load_and_tell() -> Backend:
    loaded_by.append(os.getpid())
    backend = load_backend()
    Path(os.environ["LOADED_DIR"], f"loaded-{os.getpid()}").touch()
    return backend


def _with_our_loader() -> None:
    runtime.Runtime.__init__.__defaults__ = (load_and_tell, *runtime.Runtime.__init__.__defaults__[1:])  # type: ignore[index]
    runtime.reset()
    flag.switch = flag.Switch(read=lambda: True)  # no database here


_with_our_loader()
startup.begin_serving()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    reranking = rerank_now("what about tea?", TEXTS)
    body = {
        "pid": os.getpid(),
        "loaded_by": loaded_by[0] if loaded_by else None,
        "order": reranking.order,
        "skip_reason": reranking.skip_reason,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
