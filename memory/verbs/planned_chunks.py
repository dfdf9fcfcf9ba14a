"""Chunks as a change would store them, each beside the stored chunk that it was."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from memory.index.context import context_of, embedded_text
from memory.index.recipe import configured
from memory.index.rows import PlainChunk
from memory.index.stored_rows import StoredRow
from memory.index.uuid7 import uuid7
from memory.sealing.codecs import JSONCodec

_json = JSONCodec()


@dataclass(frozen=True)
class StoredBefore:
    """A stored chunk, opened, and its locked row. `stands`: the row may stay, with a new seal beside the others and new
    labels."""

    row: StoredRow
    chunk: PlainChunk
    original: np.ndarray = field(repr=False)
    stands: bool


@dataclass(frozen=True)
class PlannedChunk:
    """A chunk as it shall be stored; `before` is None for a new one. `given`: the client's own embedding of it."""

    chunk: PlainChunk
    before: StoredBefore | None
    given: np.ndarray | None = None

    @property
    def is_changed(self) -> bool:
        """Whether anything of it differs from what is stored."""
        return not self._keeps_all_but_metadata or not self._keeps_metadata

    @property
    def can_stay(self) -> bool:
        """Whether its row can stay where it is, but for the seal of its metadata."""
        stands = self.before is not None and self.before.stands
        return self._keeps_all_but_metadata and (stands or self._keeps_metadata)

    @property
    def text_to_embed(self) -> str:
        """What is embedded of it."""
        return embedded_text(self.chunk, configured().header)

    @property
    def kept(self) -> np.ndarray | None:
        """The stored embedding, where it stays."""
        if self.given is not None or self.before is None:
            return None
        stays = embedded_text(self.before.chunk, configured().header) == self.text_to_embed
        return self.before.original if stays else None

    def new(self, made: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The embedding that takes its place: the client's, or the one that was made for its text."""
        return self.given if self.given is not None else made.get(self.text_to_embed)

    def vector(self, made: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Its embedding; None where it must be made first."""
        return self.kept if self.kept is not None else self.new(made)

    @property
    def _keeps_all_but_metadata(self) -> bool:
        before = self.before
        if before is None or self.given is not None:
            return False
        # Equal times may be of different zones, by which headers name the day.
        same_zone = context_of(self.chunk) == context_of(before.chunk)
        return same_zone and replace(self.chunk, metadata=before.chunk.metadata) == before.chunk

    @property
    def _keeps_metadata(self) -> bool:
        # As JSON: to Python, 1, 1.0 and true are equal.
        return self.before is not None and _json.encode(self.chunk.metadata) == _json.encode(self.before.chunk.metadata)


def resplit(planned: Sequence[PlannedChunk], texts: Sequence[str]) -> Iterator[PlannedChunk]:
    """The chunks of a document whose text is split into `texts` from now on, in order.

    A text that a chunk has already stays that chunk's; other texts take the remaining chunks in their order. Those that
    are left get chunks of their own, with the metadata and the time of the document's first.
    """
    holders: defaultdict[str, deque[PlannedChunk]] = defaultdict(deque)
    for each in planned:
        holders[each.chunk.text].append(each)
    kept = [holders[text].popleft() if holders[text] else None for text in texts]
    taken = {each.chunk.id for each in kept if each}
    free = iter([each for each in planned if each.chunk.id not in taken])
    for place, (text, holder) in enumerate(zip(texts, kept, strict=True)):
        holder = holder or next(free, None)
        if holder is None:
            first = replace(planned[0].chunk, id=uuid7(), updated_at=None)
            holder = PlannedChunk(first, before=None)
        yield replace(holder, chunk=replace(holder.chunk, text=text, chunk_index=place))
