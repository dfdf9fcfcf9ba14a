"""Texts into chunks, within what one request may make and take."""

import time

from django.conf import settings

from memory.documents.document import Chunk
from memory.exceptions import DocumentTooLarge
from memory.index.chunking import split_text


class ChunkAllowance:
    """What the documents of one request share: MEMORY_MAX_CHUNKS chunks, and MEMORY_SPLIT_SECONDS to make them in.

    The seconds are this thread's processor time, so that a busy machine refuses nothing that an idle one takes.
    """

    def __init__(self) -> None:
        self._most = self._left = settings.MEMORY_MAX_CHUNKS
        self._seconds = settings.MEMORY_SPLIT_SECONDS
        self._deadline = time.thread_time() + self._seconds

    def take(self, count: int, field: str) -> None:
        """Count chunks that a client made. Raises DocumentTooLarge naming `field`."""
        self._left -= count
        if self._left < 0:
            raise DocumentTooLarge(field, f"Together these have more than {self._most} chunks.")

    def split(self, text: str, field: str, *, header: str = "") -> tuple[Chunk, ...]:
        """Split a text so that each chunk leaves room for a header, and count the chunks as they come. Raises
        DocumentTooLarge naming `field`."""
        chunks = []
        for piece in split_text(text, header):
            self._left -= 1
            if self._left < 0:
                raise DocumentTooLarge(field, f"With this, there are more than {self._most} chunks.")
            if time.thread_time() > self._deadline:
                raise DocumentTooLarge(field, f"Splitting this takes more than {self._seconds:g} seconds.")
            chunks.append(Chunk(piece))
        return tuple(chunks)
