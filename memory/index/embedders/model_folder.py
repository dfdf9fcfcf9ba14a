"""What a sentence-transformers folder says of its model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.bert_graph import Pooling, UnsupportedArchitecture, check_supported

# Module classes of a model that the graph can stand in for, by the last part of their dotted name.
TRANSFORMER, POOLING, NORMALIZE = "Transformer", "Pooling", "Normalize"


@dataclass(frozen=True)
class ModelFolder:
    """A BERT with mean or first-token pooling. `longest`: the tokens that it reads, its special ones included."""

    path: Path
    config: Mapping[str, Any]
    pooling: Pooling
    longest: int
    prompts: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> "ModelFolder":
        """Raises UnsupportedArchitecture, saying why, for another kind of model."""
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
    given = _json(path / "sentence_bert_config.json", {}).get("max_seq_length")
    return min(int(given or config["max_position_embeddings"]), int(config["max_position_embeddings"]))
