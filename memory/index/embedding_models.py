"""What turns texts into vectors: a BERT model on ONNX Runtime, or any sentence-transformers model on torch.

Both put the model's own prompts in front of a text, cut it where the model stops reading, and scale to unit length.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from inference.bert_graph import Pooling, UnsupportedArchitecture, check_supported, embedding_graph
from inference.session import cpu_session
from inference.weights import UnreadableWeights, read_weights
from memory.exceptions import EmbeddingModelUnavailable

# Padded tokens of one forward. With the bundled model that is 30 to 40 ms of processor time (docs/decisions/0024), so a
# question that comes in meanwhile shares the processor with no more than that.
SLICE_TOKENS = 256
TOKENISED_TOGETHER = 64  # texts
# Module classes of a model that the graph can stand in for, by the last part of their dotted name.
TRANSFORMER, POOLING, NORMALIZE = "Transformer", "Pooling", "Normalize"


class Kind(StrEnum):
    """What a text is to the model. Some models want another prompt in front of each."""

    QUESTION = "question"
    PASSAGE = "passage"


PROMPT_NAMES = {Kind.QUESTION: ("query",), Kind.PASSAGE: ("document", "passage", "corpus")}


class EmbeddingModel(Protocol):
    """A loaded model. `embed` may be called from several threads at once."""

    dimension: int

    def embed(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        """Embeddings of unit length, float32 of shape (len(texts), dimension)."""


@dataclass(frozen=True)
class ModelFolder:
    """What a sentence-transformers folder says of its model."""

    path: Path
    config: Mapping[str, Any]
    pooling: Pooling
    longest: int
    prompts: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> "ModelFolder":
        """Raises UnsupportedArchitecture, saying why, unless it is a BERT with mean or first-token pooling."""
        config = _json(path / "config.json")
        check_supported(config)
        modules = [module["type"].rpartition(".")[2] for module in _json(path / "modules.json", [])]
        if modules[:2] != [TRANSFORMER, POOLING] or modules[2:] not in ([], [NORMALIZE]):
            raise UnsupportedArchitecture(f"its modules are {', '.join(modules) or 'unknown'}")
        return cls(
            path=path,
            config=config,
            pooling=_pooling(_json(path / "1_Pooling" / "config.json")),
            longest=_longest(path, config),
            prompts=_json(path / "config_sentence_transformers.json", {}).get("prompts") or {},
        )


class OnnxModel:
    """A BERT embedding model on the CPU.

    Questions run as they come. Passages go in slices of similar length, one slice at a time in the whole process, so
    that bulk work takes turns and a question never waits for it.
    """

    def __init__(self, folder: ModelFolder, threads: int) -> None:
        try:
            weights = read_weights(folder.path / "model.safetensors")
            graph = embedding_graph(folder.config, weights, pooling=folder.pooling, normalize=True)
        except (UnreadableWeights, KeyError) as error:
            raise EmbeddingModelUnavailable(f"The embedding model's model.safetensors {error}.") from None
        self.dimension = int(folder.config["hidden_size"])
        self._session = cpu_session(graph, threads)
        self._prompts = {kind: _prompt(folder.prompts, kind) for kind in Kind}
        self._pad_id = int(folder.config.get("pad_token_id") or 0)
        # Set once and never again: a fast tokenizer may be shared between threads as long as nobody changes it.
        self._tokenizer = Tokenizer.from_file(str(folder.path / "tokenizer.json"))
        self._tokenizer.enable_truncation(folder.longest)
        self._tokenizer.no_padding()
        self._slice = threading.Lock()

    def embed(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        # Of similar length together, and tokenised as they are needed: that too takes a while for thousands.
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        for start in range(0, len(order), TOKENISED_TOGETHER):
            places = order[start : start + TOKENISED_TOGETHER]
            rows = self._tokenise([texts[place] for place in places], kind)
            for part in slices([len(row) for row in rows]):
                with nullcontext() if kind is Kind.QUESTION else self._slice:
                    vectors[[places[each] for each in part]] = self._forward([rows[each] for each in part])
        return vectors

    def _tokenise(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        prompt = self._prompts[kind]
        return [encoding.ids for encoding in self._tokenizer.encode_batch([prompt + clean(text) for text in texts])]

    def _forward(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        lengths = np.array([len(row) for row in rows], dtype=np.int32)
        ids = np.full((len(rows), int(lengths.max())), self._pad_id, dtype=np.int32)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        feed = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "lengths": lengths}
        (vectors,) = self._session.run(None, feed)
        return np.asarray(vectors)


class TorchModel:
    """Any sentence-transformers model, on the CPU or a GPU; one thread at a time, as its tokenizer needs."""

    def __init__(self, name: str, *, device: str, batch: int, may_download: bool) -> None:
        load: Callable[..., Any]
        # Imported here: it takes seconds, and most commands never embed.
        from sentence_transformers import SentenceTransformer as load
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        try:
            self._model = load(name, device=device or None, local_files_only=not may_download)
        except (OSError, ValueError) as error:
            raise EmbeddingModelUnavailable(
                f"MEMORY_EMBEDDING_MODEL cannot be loaded ({type(error).__name__}): give a local path, or a hub name"
                " with MODELS_MAY_DOWNLOAD=true."
            ) from error
        self.dimension = int(self._model.get_embedding_dimension())
        # Named here: the library takes an empty default for "document" before a model's own "passage".
        self._prompts = {kind: _prompt(self._model.prompts, kind) for kind in Kind}
        self._batch = batch
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str], kind: Kind) -> np.ndarray:
        encode = self._model.encode_query if kind is Kind.QUESTION else self._model.encode_document
        with self._lock:
            vectors = encode(
                [clean(text) for text in texts],
                prompt=self._prompts[kind],
                batch_size=self._batch,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.asarray(vectors, dtype=np.float32)


def slices(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The positions of `lengths` (tokens a text), longest texts first, in parts of at most SLICE_TOKENS padded tokens.

    A longer text goes alone.
    """
    part: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if part and (len(part) + 1) * lengths[part[0]] > SLICE_TOKENS:
            yield part
            part = []
        part.append(place)
    if part:
        yield part


def clean(text: str) -> str:
    """`text` with lone surrogates replaced, which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _json(path: Path, missing: Any = None) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing is None:
            raise UnsupportedArchitecture(f"{path.name} is missing") from None
        return missing
    except ValueError:
        raise UnsupportedArchitecture(f"{path.name} is no JSON") from None


def _pooling(config: Mapping[str, Any]) -> Pooling:
    modes = {name for name, value in config.items() if name.startswith("pooling_mode_") and value is True}
    if modes == {"pooling_mode_mean_tokens"}:
        return Pooling.MEAN
    if modes == {"pooling_mode_cls_token"}:
        return Pooling.CLS
    raise UnsupportedArchitecture(f"its pooling is {', '.join(sorted(modes)) or 'unknown'}")


def _longest(path: Path, config: Mapping[str, Any]) -> int:
    """Tokens that the model reads, its special ones included."""
    given = _json(path / "sentence_bert_config.json", {}).get("max_seq_length")
    return min(int(given or config["max_position_embeddings"]), int(config["max_position_embeddings"]))


def _prompt(prompts: Mapping[str, str], kind: Kind) -> str:
    return next((prompt for name in PROMPT_NAMES[kind] if (prompt := prompts.get(name))), "")
