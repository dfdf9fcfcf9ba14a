"""A training from collections to a folder with a model and its card; every step is kept, so that a kill costs little.

<output>/plan.json             what is trained from what; a resumed run must ask for the same
<output>/train.npz, …          mined pools
<output>/last.pt, best.pt      checkpoints, and curve.jsonl
<output>/model/                what can be served: ONNX, tokenizer, config.json, model card
<output>/results.json          the tables
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from memory.training.card import Card
from memory.training.collections import JudgedCollection, Part
from memory.training.held_out import mine_collection
from memory.training.latency import Latency, measure_latency
from memory.training.quality import best_fusion, figures, ndcg_of
from memory.training.recipe import Recipe, mine_evaluation, mine_training
from memory.training.report import Row, rows_of, what_is_in_the_way
from rerank.ordering import Fusion
from rerank.training.bundle import Served, write_bundle, write_card
from rerank.training.export import by_graph, fp32_model, int8_model
from rerank.training.fusion import fused
from rerank.training.loop import CURVE
from rerank.training.pairs import TokenisedPools
from rerank.training.pools import Pools, joined
from rerank.training.scoring import scores_of
from rerank.training.session import Plan, some_of_each_kind, train

MOST_SHIFTED = 0.001  # of dev's nDCG@10, by storing the matrices in 8 bits
COMPARED = 20  # questions of each kind of dev that both files are scored on


class OtherPlan(ValueError):
    """The folder holds a training of something else."""


@dataclass(frozen=True)
class Job:
    """What to train, from what, and where. `held_out`: folders of collections that are only measured."""

    plan: Plan
    recipe: Recipe
    collections: Sequence[JudgedCollection]
    held_out: Sequence[Path]
    output: Path
    name: str
    cache: Path | None = None
    resume: bool = False
    verbosity: int = 1
    log: Callable[[str], None] = print

    def described(self) -> dict[str, Any]:
        collections = [collection.name for collection in self.collections]
        return {**self.plan.described(), "recipe": asdict(self.recipe), "collections": collections}


@dataclass(frozen=True)
class Trained:
    """The outcome. `in_the_way`: why the model should not be shipped; nothing where it pays."""

    folder: Path
    fusion: Fusion
    dev: list[Row]
    held_out: list[Row]
    latency: list[Latency]
    in_the_way: list[str]


def run(job: Job) -> Trained:
    """Mine, train, choose the fusion on dev, export, measure, and write everything. Raises OtherPlan."""
    _claim(job)
    pools = {part: _mined(job, part) for part in (Part.TRAIN, Part.DEV)}
    network = train(
        job.plan, pools[Part.TRAIN], pools[Part.DEV], job.output, measure=figures, resume=job.resume, log=job.log
    )
    whole = fp32_model(job.plan.config(), network.weights())
    small = int8_model(whole)
    scores = _scores(job, pools[Part.DEV], small)
    fusion = best_fusion(pools[Part.DEV], scores)
    shift = _shift(job, some_of_each_kind(pools[Part.DEV], COMPARED, job.plan.seed), fusion, whole, small)
    shipped = small if abs(shift) <= MOST_SHIFTED else whole
    measured = joined([_mined(job, Part.HELD_OUT), *(_mined_whole(job, directory) for directory in job.held_out)])
    held_out = list(rows_of(measured, _scores(job, measured, shipped), fusion))
    folder = _bundle(job, shipped, fusion)
    trained = Trained(
        folder=folder,
        fusion=fusion,
        dev=list(rows_of(pools[Part.DEV], scores, fusion)),
        held_out=held_out,
        latency=measure_latency(folder, threads=job.plan.threads),
        in_the_way=what_is_in_the_way(held_out),
    )
    (job.output / "fp32.onnx").write_bytes(whole)
    _report(job, trained, shift)
    return trained


def _claim(job: Job) -> None:
    """Note what is trained here. A resumed run may only have another budget."""
    path = job.output / "plan.json"
    described = json.loads(json.dumps(job.described()))
    if job.resume and path.is_file() and _without_budget(json.loads(path.read_text())) != _without_budget(described):
        raise OtherPlan(f"{job.output} holds a training of something else: {path.read_text()}")
    job.output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    if not job.resume:
        (job.output / CURVE).unlink(missing_ok=True)


def _without_budget(described: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in described.items() if name not in Plan.BUDGET}


def _mined(job: Job, part: Part) -> Pools:
    if part is Part.TRAIN:
        mine = partial(mine_training, job.collections, job.recipe)
    else:
        mine = partial(mine_evaluation, job.collections, part, job.recipe)
    return _kept(job, str(part), mine)


def _mined_whole(job: Job, directory: Path) -> Pools:
    return _kept(job, directory.resolve().name, partial(mine_collection, directory))


def _kept(job: Job, name: str, mine: Callable[..., Pools]) -> Pools:
    """The pools that a resumed run finds in its folder, or mined now."""
    path = job.output / f"{name}.npz"
    if job.resume and path.is_file():
        return Pools.load(path)
    pools = mine(cache=job.cache, verbosity=job.verbosity)
    pools.save(path)
    job.log(f"{name}: {len(pools):,} questions mined.")
    return pools


def _scores(job: Job, pools: Pools, graph: bytes) -> np.ndarray:
    tokenised = TokenisedPools(pools, job.plan.tokenizer())
    return scores_of(tokenised, by_graph(graph, job.plan.threads or 1))


def _shift(job: Job, pools: Pools, fusion: Fusion, whole: bytes, small: bytes) -> float:
    """By how much nDCG@10 moves where the matrices are stored in 8 bits."""
    before, after = (ndcg_of(pools, fused(pools, _scores(job, pools, graph), fusion)) for graph in (whole, small))
    return float((after - before).mean())


def _bundle(job: Job, model: bytes, fusion: Fusion) -> Path:
    plan = job.plan
    served = Served(job.name, fusion, plan.max_length, plan.shared_token_types)
    return write_bundle(job.output / "model", model, plan.body / "tokenizer.json", served)


def _report(job: Job, trained: Trained, shift: float) -> None:
    """The model card, and the tables as JSON."""
    curve = [json.loads(line) for line in (job.output / CURVE).read_text(encoding="utf-8").splitlines()]
    card = Card(
        name=job.name,
        fusion=trained.fusion,
        collections=[(collection.name, collection.licence) for collection in job.collections],
        plan=job.described(),
        curve=curve,
        shift=shift,
        dev=trained.dev,
        held_out=trained.held_out,
        latency=trained.latency,
    )
    write_card(trained.folder, card.as_markdown())
    tables = {name: [asdict(row) for row in getattr(trained, name)] for name in ("dev", "held_out", "latency")}
    results = {**tables, "fusion": asdict(trained.fusion), "in_the_way": trained.in_the_way}
    (job.output / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
