"""What the embedding model and its engine tell Prometheus. No label holds a user, a text or a key."""

from prometheus_client import Counter, Gauge, Histogram

from inference.engine.instruments import Instruments

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ENGINE = Instruments(
    queue_depth=Gauge(
        "memory_embedding_queue_depth", "Requests waiting for the model in this process.", multiprocess_mode="livesum"
    ),
    queue_seconds=Histogram("memory_embedding_queue_seconds", "Time a request waited for its batch.", buckets=SECONDS),
    encode_seconds=Histogram(
        "memory_embedding_encode_seconds", "Time to hand the items of one request over.", buckets=SECONDS
    ),
    forward_seconds=Histogram(
        "memory_embedding_forward_seconds", "Time of one forward of the embedding model.", buckets=SECONDS
    ),
    batch_items=Histogram("memory_embedding_batch_items", "Texts in one forward.", buckets=(1, 2, 4, 8, 16, 32, 64)),
    batch_tokens=Histogram(
        "memory_embedding_batch_tokens",
        "Tokens in one forward, padding included.",
        buckets=(16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536),
    ),
    breaker_state=Gauge(
        "memory_embedding_breaker_state",
        "0 closed, 1 half open, 2 open; the worst process.",
        multiprocess_mode="livemax",
    ),
)
BREAKER_OPENED = Counter("memory_embedding_breaker_opened_total", "Times the embedding breaker opened.")
REFUSALS = Counter(
    "memory_embedding_refusals_total",
    "Texts that got no vector, by kind (question, passage) and reason.",
    ["kind", "reason"],
)
MODEL_INFO = Gauge(
    "memory_embedding_model_info",
    "1 for the embedding model this process serves with.",
    ["model", "backend", "device"],
    multiprocess_mode="livemax",
)
