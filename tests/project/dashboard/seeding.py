"""A made-up month of hours. Whatever shows it has to say that it is seeded."""

import math
import random
from datetime import timedelta

from django_prometheus.conf import PROMETHEUS_LATENCY_BUCKETS

from memory.metrics import STAGE_BOUNDS
from project.dashboard import counted, hours, levels
from project.models import HourlyCount


def seed_hours(days: int = 30) -> None:
    """Queries with a daily rhythm, a few refusals, and a store that grows."""
    dice = random.Random(7)  # noqa: S311
    rows: list[HourlyCount] = []
    for ago in range(24 * days):
        hour = hours.this_hour() - timedelta(hours=ago)
        queries = round(400 * (1.2 + math.sin((hour.hour - 8) / 24 * 2 * math.pi)) * dice.uniform(0.8, 1.2))
        values = {
            counted.ANSWERS: queries * 1.4,
            counted.ERRORS: float(dice.random() < 0.03) * 3,
            counted.THROTTLED: float(dice.random() < 0.1) * dice.randint(1, 40),
            counted.CREDENTIALS: float(dice.random() < 0.2) * dice.randint(1, 12),
            counted.LOGINS: float(dice.random() < 0.05) * dice.randint(1, 5),
            counted.INDEXED: queries / 3,
            f"{counted.RERANK} reranked": queries * 0.97,
            f"{counted.RERANK} timeout": queries * 0.03,
            levels.TENANT_COUNT: 1200 - ago * 0.9,
            levels.CHUNKS: 240_000 - ago * 180.0,
            **_observed(counted.QUERY, PROMETHEUS_LATENCY_BUCKETS, queries, dice.uniform(0.02, 0.035)),
        }
        for stage, scale in zip(counted.STAGES, (0.006, 0.004, 0.0008, 0.012, 0.002), strict=True):
            values |= _observed(counted.stage(stage), STAGE_BOUNDS, queries, scale)
        rows += [HourlyCount(name=name, hour=hour, value=value) for name, value in values.items() if value]
    HourlyCount.objects.bulk_create(rows, batch_size=5_000)


def _observed(prefix: str, bounds: tuple[float, ...], count: float, scale: float) -> dict[str, float]:
    """Cumulative buckets of an exponential distribution with this mean."""
    names = hours.bucket_names(prefix, bounds)
    return {name: round(count * (1 - math.exp(-bound / scale))) for bound, name in names.items()}
