"""The media type of streamed answers."""

from typing import Any

from rest_framework.renderers import BaseRenderer

NDJSON = "application/x-ndjson"


class NDJSONRenderer(BaseRenderer):
    """Lets a client accept newline-delimited JSON. It renders nothing: such an answer is a stream."""

    media_type = NDJSON
    format = "ndjson"
    charset = None

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        raise NotImplementedError("A stream is not rendered.")
