"""JSON over HTTP to a server that runs a model: bounded in time and size, retried where that may help.

Connections are kept alive. An answer that is cut short, too large, or no JSON is an error like any other.
"""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import httpx2

MAY_PASS = {429, 500, 502, 503, 504}  # statuses that the next attempt may not meet
FIRST_PAUSE = 0.1  # seconds; doubled from attempt to attempt
MOST_BYTES = 64 * 1024 * 1024
NOT_SENT_WITHIN = 2.0  # seconds to connect


class ModelServer:
    """Thread-safe: up to `connections` calls at once. `attempts` counts the first one; pauses between are jittered.

    `transport`, `sleep` and `jitter` (low, high → seconds) can be replaced by a test.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        connections: int = 4,
        attempts: int = 1,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._url = url
        self._attempts = attempts
        self._sleep = sleep
        self._jitter = jitter
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            transport=transport,
        )

    def post(self, body: Any, timeout: float) -> Any:
        """The parsed answer. Raises TimeoutError, an error of httpx, or ValueError for what is no JSON."""
        deadline = time.monotonic() + timeout
        for attempt in range(1, self._attempts + 1):
            try:
                return self._ask(body, deadline)
            except (httpx2.TransportError, httpx2.HTTPStatusError) as error:
                pause = self._pause(error, attempt)
                if attempt == self._attempts or pause is None or time.monotonic() + pause >= deadline:
                    raise
            self._sleep(pause)
        raise AssertionError("at least one attempt")

    def close(self) -> None:
        self._client.close()

    def _ask(self, body: Any, deadline: float) -> Any:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left for the remote model")
        patience = httpx2.Timeout(left, connect=min(left, NOT_SENT_WITHIN))
        with self._client.stream("POST", self._url, json=body, timeout=patience) as answer:
            answer.raise_for_status()
            return json.loads(self._content(answer, deadline))

    def _content(self, answer: httpx2.Response, deadline: float) -> bytes:
        """The whole body: a server that sends a byte now and then is given no more time than one that sends none."""
        content = bytearray()
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > MOST_BYTES:
                raise ValueError("the remote model's answer is too large")
            if time.monotonic() > deadline:
                raise TimeoutError("the remote model's answer came too slowly")
        return bytes(content)

    def _pause(self, error: httpx2.HTTPError, attempt: int) -> float | None:
        """Seconds before the next attempt; None where another would meet the same."""
        longest = FIRST_PAUSE * 2 ** (attempt - 1)
        if not isinstance(error, httpx2.HTTPStatusError):
            return self._jitter(0, longest)
        if error.response.status_code not in MAY_PASS:
            return None
        asked = error.response.headers.get("Retry-After", "")
        return self._jitter(0, longest) + (float(asked) if asked.isdigit() else 0.0)
