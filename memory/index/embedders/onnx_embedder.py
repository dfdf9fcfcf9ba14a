"""A BERT embedding model on ONNX Runtime, on the CPU."""

from collections.abc import Mapping, Sequence

import numpy as np
from tokenizers import Tokenizer

from inference.bert_graph import embedding_graph
from inference.engine.backend import EngineLimits
from inference.engine.jobs import Encoded
from inference.session import cpu_session, run_within
from inference.weights import UnreadableWeights, read_weights
from memory.exceptions import EmbeddingModelUnavailable
from memory.index.embedders import Kind, clean, prompt_of, unit_rows
from memory.index.embedders.model_folder import ModelFolder

# Padded tokens of one forward of passages. With the bundled model that is 30 to 40 ms of processor time on a quiet
# machine (`benchmark_index --model` prints it); a question that comes in meanwhile shares the processor with no more.
SLICE_TOKENS = 256


class OnnxEmbedder:
    """Two forwards may run at once, one of questions and one of passages: a session takes several callers.

    `dimension`: how many of the model's numbers to keep; all of them by default. `prompts`: instead of the model's own.
    """

    name = "onnx"
    device = "cpu"
    workers = 2
    mixes_requests = True
    keeps_deadlines = True
    limits = EngineLimits(items=64, tokens=2 * SLICE_TOKENS, slice_tokens=SLICE_TOKENS, questions=1)

    def __init__(
        self,
        folder: ModelFolder,
        threads: int,
        *,
        dimension: int | None = None,
        prompts: Mapping[Kind, str] | None = None,
    ) -> None:
        try:
            weights = read_weights(folder.path / "model.safetensors")
            graph = embedding_graph(folder.config, weights, pooling=folder.pooling, normalize=True)
        except (UnreadableWeights, KeyError) as error:
            raise EmbeddingModelUnavailable(f"The embedding model's model.safetensors {error}.") from None
        self._width = int(folder.config["hidden_size"])
        self.row: tuple[int, ...] = (min(dimension or self._width, self._width),)
        self.reads: int | None = folder.longest
        self._session = cpu_session(graph, threads)
        self._prompts = {kind: prompt_of(folder.prompts, kind) for kind in Kind} | dict(prompts or {})
        self._pad_id = int(folder.config.get("pad_token_id") or 0)
        # Set once and never again: a fast tokenizer may be shared between threads as long as nobody changes it.
        self._tokenizer = Tokenizer.from_file(str(folder.path / "tokenizer.json"))
        self._tokenizer.enable_truncation(folder.longest)
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str], kind: Kind) -> list[Encoded]:
        prompt = self._prompts[kind]
        encodings = self._tokenizer.encode_batch([prompt + clean(text) for text in texts])
        return [Encoded(len(encoding.ids), encoding.ids) for encoding in encodings]

    def forward(self, items: Sequence[Encoded], timeout: float) -> np.ndarray:
        lengths = np.array([item.tokens for item in items], dtype=np.int32)
        ids = np.full((len(items), int(lengths.max())), self._pad_id, dtype=np.int32)
        for place, item in enumerate(items):
            ids[place, : item.tokens] = item.payload
        feed = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "lengths": lengths}
        vectors = run_within(self._session, feed, timeout)
        return vectors if self.row == (self._width,) else unit_rows(vectors, *self.row)

    def close(self) -> None:
        return None
