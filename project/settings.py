"""All settings, read from the environment.

A variable `NAME` may also be given as `NAME_FILE`, the path of a file that holds the value (container secrets).
A `.env` file next to `manage.py` (or the file that `ENV_FILE` names) is read first; the real environment wins over it.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import environ

from database import dsn

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.FileAwareEnv()
ENV_FILE = os.environ.get("ENV_FILE", str(BASE_DIR / ".env"))
if Path(ENV_FILE).is_file():
    environ.Env.read_env(ENV_FILE)

# --- Django ---------------------------------------------------------------------------------------------------------
DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="")
# Former ones, under which sessions and the ids of the mem0 door still open.
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# Debug pages show settings; this hides those that hold a URL with a password as well as Django's own list.
DEFAULT_EXCEPTION_REPORTER_FILTER = "project.debug_pages.ReporterFilter"

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "pgvector.django",
    "django_prometheus",
    "rest_framework",
    "knox",
    "axes",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "project",
    "keys",
    "memory",
    "rerank",
]

MIDDLEWARE = [
    "project.middleware.RequestMiddleware",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "project.content_security.AdminPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "memory.access.middleware.TenantMiddleware",
    "axes.middleware.AxesMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
ASGI_APPLICATION = "project.asgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Static files are served from the packages themselves; only `collectstatic` needs a folder.
STATIC_ROOT = env.str("STATIC_ROOT", default="") or None
WHITENOISE_USE_FINDERS = True

# --- Transport ------------------------------------------------------------------------------------------------------
# Plain HTTP on this machine alone (`make serve`, `make demo`); never in production.
INSECURE_HTTP = env.bool("INSECURE_HTTP", default=DEBUG)
# How many proxies in front of us append to X-Forwarded-For and set X-Forwarded-Proto; 0 trusts neither header.
TRUSTED_PROXY_COUNT = env.int("TRUSTED_PROXY_COUNT", default=0)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXY_COUNT else None
SECURE_SSL_REDIRECT = not INSECURE_HTTP
# Probes and scrapers come from the internal network, without TLS.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = 0 if INSECURE_HTTP else env.int("SECURE_HSTS_SECONDS", default=31_536_000)
# Both bind the whole domain and are hard to undo. The operator decides, so Django's warnings about them are silenced.
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("SECURE_HSTS_INCLUDE_SUBDOMAINS", default=False)
SECURE_HSTS_PRELOAD = env.bool("SECURE_HSTS_PRELOAD", default=False)
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
SESSION_COOKIE_SECURE = not INSECURE_HTTP
CSRF_COOKIE_SECURE = not INSECURE_HTTP
CSRF_FAILURE_VIEW = "project.errors.csrf_failure"
# Where a login goes that was not on its way anywhere.
LOGIN_URL, LOGIN_REDIRECT_URL = "admin:login", "admin:index"
SESSION_COOKIE_AGE = 12 * 3600
# The admin shows a new token in a message, once. It is kept in the browser's cookie, never in the session table.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"

# --- Identity -------------------------------------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
# Days a new access token lives unless its maker says otherwise; 0 means it does not expire.
MEMORY_TOKEN_DAYS = env.int("MEMORY_TOKEN_DAYS", default=365)
KNOX_TOKEN_MODEL = "memory.AccessToken"  # noqa: S105
REST_KNOX = {
    "AUTH_HEADER_PREFIX": "Bearer",
    # Secret scanners find a leaked token by its prefix.
    "TOKEN_PREFIX": "smem_",
    "TOKEN_TTL": timedelta(days=MEMORY_TOKEN_DAYS) if MEMORY_TOKEN_DAYS else None,
}

# Brute force on the admin's login: this many failures lock the account and the address out for this long.
ADMIN_LOGIN_FAILURES = env.int("ADMIN_LOGIN_FAILURES", default=5)
ADMIN_LOCKOUT_MINUTES = env.int("ADMIN_LOCKOUT_MINUTES", default=15)
AXES_FAILURE_LIMIT = ADMIN_LOGIN_FAILURES
AXES_COOLOFF_TIME = timedelta(minutes=ADMIN_LOCKOUT_MINUTES)
AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_CLIENT_IP_CALLABLE = "memory.access.client_address.client_address"
AXES_LOCKOUT_CALLABLE = "project.errors.locked_out"
AXES_VERBOSE = False

# --- API ------------------------------------------------------------------------------------------------------------
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["memory.access.authentication.IdentityAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated", "memory.api.scopes.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["memory.api.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "memory.api.schema.MemorySchema",
    "DEFAULT_METADATA_CLASS": None,
    "URL_FORMAT_OVERRIDE": None,
    "EXCEPTION_HANDLER": "project.errors.exception_handler",
}
# Sizes above these are refused with 413; bytes are of UTF-8.
MEMORY_MAX_BODY_BYTES = env.int("MEMORY_MAX_BODY_BYTES", default=4 * 1024 * 1024)
MEMORY_MAX_TEXT_BYTES = env.int("MEMORY_MAX_TEXT_BYTES", default=1024 * 1024)
MEMORY_MAX_QUERY_BYTES = env.int("MEMORY_MAX_QUERY_BYTES", default=8 * 1024)
MEMORY_MAX_METADATA_BYTES = env.int("MEMORY_MAX_METADATA_BYTES", default=16 * 1024)
MEMORY_MAX_BATCH = env.int("MEMORY_MAX_BATCH", default=100)
MEMORY_MAX_CHUNKS = env.int("MEMORY_MAX_CHUNKS", default=1_000)
MEMORY_MAX_ANSWER_BYTES = env.int("MEMORY_MAX_ANSWER_BYTES", default=4 * 1024 * 1024)
MEMORY_SPLIT_SECONDS = env.float("MEMORY_SPLIT_SECONDS", default=5.0)
# Index calls that are accepted to be done later (`Prefer: respond-async`): how many may be unfinished, of one user and
# of all; hours for which their answers are kept; and whether the processes that serve also do them.
MEMORY_OPERATIONS_PER_USER = env.int("MEMORY_OPERATIONS_PER_USER", default=20)
MEMORY_OPERATIONS_TOTAL = env.int("MEMORY_OPERATIONS_TOTAL", default=1_000)
MEMORY_OPERATION_KEEP_HOURS = env.int("MEMORY_OPERATION_KEEP_HOURS", default=24)
MEMORY_WORK_IN_SERVER = env.bool("MEMORY_WORK_IN_SERVER", default=True)
# Exports of one process at a time, and seconds after which the server ends one (0: never): a client that reads slowly
# holds a thread, a connection and a snapshot.
MEMORY_EXPORT_CONCURRENT = env.int("MEMORY_EXPORT_CONCURRENT", default=2)
MEMORY_EXPORT_SECONDS = env.float("MEMORY_EXPORT_SECONDS", default=600.0)
# How long the answer of a request with an Idempotency-Key is kept, and how long its holder is taken to be alive.
MEMORY_IDEMPOTENCY_HOURS = env.int("MEMORY_IDEMPOTENCY_HOURS", default=24)
MEMORY_IDEMPOTENCY_HELD_SECONDS = env.int("MEMORY_IDEMPOTENCY_HELD_SECONDS", default=60)
# Requests per identity, `number/period` with period s, min, h or d. Empty switches a limit off.
MEMORY_THROTTLE_INDEX = env.str("MEMORY_THROTTLE_INDEX", default="600/min")
MEMORY_THROTTLE_QUERY = env.str("MEMORY_THROTTLE_QUERY", default="1200/min")
MEMORY_THROTTLE_OTHER = env.str("MEMORY_THROTTLE_OTHER", default="1200/min")
# Calls of one token, for all users that it names together; and calls of one address with a wrong credential.
MEMORY_THROTTLE_TOKEN = env.str("MEMORY_THROTTLE_TOKEN", default="6000/min")
MEMORY_THROTTLE_FAILED_AUTH = env.str("MEMORY_THROTTLE_FAILED_AUTH", default="60/min")

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Sealed Memory",
    "DESCRIPTION": "Memory for AI agents, sealed per user. Errors are `application/problem+json` (RFC 9457).",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENABLE_DJANGO_DEPLOY_CHECK": False,
}

# --- Cache ----------------------------------------------------------------------------------------------------------
# What all processes must share (throttles): a table in Postgres, or Redis by CACHE_URL=redis://….
CACHE_URL = env.str("CACHE_URL", default="")
CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": CACHE_URL}
    if CACHE_URL
    else {"BACKEND": "project.cache.CounterCache", "LOCATION": "project_cache"}
}

# --- Serving --------------------------------------------------------------------------------------------------------
# Read by `project/gunicorn.py`: the address, worker processes, and threads of each.
BIND = env.str("BIND", default="127.0.0.1:8000")
WEB_CONCURRENCY = env.int("WEB_CONCURRENCY", default=2)
WEB_THREADS = env.int("WEB_THREADS", default=8)
# How long a client may take to send the head of a request, and all of it.
REQUEST_HEAD_SECONDS = env.int("REQUEST_HEAD_SECONDS", default=10)
REQUEST_BODY_SECONDS = env.int("REQUEST_BODY_SECONDS", default=60)
# Seconds for which a process that was sent SIGTERM still serves, with /readyz at 503, before it closes its sockets.
DRAIN_SECONDS = env.float("DRAIN_SECONDS", default=2.0)

# --- Operations -----------------------------------------------------------------------------------------------------
# Who may read /metrics: a bearer of this token, or an address in these networks that came through no proxy.
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")
METRICS_ALLOWED_NETWORKS = env.list("METRICS_ALLOWED_NETWORKS", default=[])
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request": {"()": "project.logs.RequestFilter"},
        "path": {"()": "project.logs.PathFilter"},
        "security": {"()": "project.logs.SecurityFilter"},
    },
    "formatters": {"json": {"()": "project.logs.SafeJsonFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["request", "security"]}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        # The access log has a line for every 4xx already.
        "django.request": {"level": "ERROR", "filters": ["path"]},
        "sentence_transformers": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
        # Its warnings about a failed pipeline quote the server's message, which quotes values of the statement.
        "psycopg": {"level": "ERROR"},
        "psycopg.pool": {"level": "WARNING"},
        # Its errors name raw paths. Its warnings about a queue of a few requests are noise.
        "waitress": {"level": "WARNING", "filters": ["path"]},
        "waitress.queue": {"level": "ERROR"},
        # runserver's own access log prints raw paths and query strings.
        "django.server": {"handlers": [], "level": "ERROR", "propagate": True},
    },
}

# --- Admin ----------------------------------------------------------------------------------------------------------
UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Sealed Memory",
    "SITE_HEADER": "Sealed Memory",
    "SITE_SUBHEADER": "Accounts, tokens and state",
    "SITE_SYMBOL": "lock",
    "SITE_URL": "/api/v1/docs/",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": True,
    "SIDEBAR": {"navigation": "project.admin_navigation.navigation"},
    "DASHBOARD_CALLBACK": "project.dashboard.page.dashboard",
    "STYLES": ["project.admin_navigation.stylesheet"],
}

# --- Keys -----------------------------------------------------------------------------------------------------------
# Validated by system checks (`keys.E…`), which name the variable and the command that mends it, never the value.
MEMORY_ENCRYPTION_KEY = env.str("MEMORY_ENCRYPTION_KEY", default="")
MEMORY_ENCRYPTION_KEYS_ACCEPTED = env.list("MEMORY_ENCRYPTION_KEYS_ACCEPTED", default=[])
MEMORY_TENANT_HMAC_KEY = env.str("MEMORY_TENANT_HMAC_KEY", default="")
MEMORY_TENANT_HMAC_KEYS_ACCEPTED = env.list("MEMORY_TENANT_HMAC_KEYS_ACCEPTED", default=[])

# --- Memory ---------------------------------------------------------------------------------------------------------
MEMORY_EMBEDDING_DIM = env.int("MEMORY_EMBEDDING_DIM", default=384)
MEMORY_EMBEDDING_MODEL = env.str("MEMORY_EMBEDDING_MODEL", default="all-MiniLM-L6-v2")
MEMORY_EMBEDDING_DEVICE = env.str("MEMORY_EMBEDDING_DEVICE", default="")  # empty: CUDA when there is one, else CPU
# onnx: BERT models on the CPU, a third of torch's time. torch: any model, CUDA. remote: a server. auto: torch where
# there is a GPU or the graph does not know the model, else onnx.
MEMORY_EMBEDDING_BACKEND = env.str("MEMORY_EMBEDDING_BACKEND", default="auto")
# CPU threads of one forward of the onnx backend; 0: all cores, in a server divided by WEB_CONCURRENCY.
MEMORY_EMBEDDING_THREADS = env.int("MEMORY_EMBEDDING_THREADS", default=0)
# Texts in one forward of torch, or in one request to a server; 0: as suits the device, 32 for a server.
MEMORY_EMBEDDING_BATCH = env.int("MEMORY_EMBEDDING_BATCH", default=0)
# Keep the first MEMORY_EMBEDDING_DIM numbers of longer embeddings: for models that were trained for it (Matryoshka).
MEMORY_EMBEDDING_TRUNCATE = env.bool("MEMORY_EMBEDDING_TRUNCATE", default=False)
# What is put in front of a question and of a text to be stored, instead of the model's own prompts. A change needs a
# reindex of everything.
MEMORY_EMBEDDING_QUERY_PROMPT = env.str("MEMORY_EMBEDDING_QUERY_PROMPT", default="")
MEMORY_EMBEDDING_PASSAGE_PROMPT = env.str("MEMORY_EMBEDDING_PASSAGE_PROMPT", default="")
# The full address of a server: …/embed of text-embeddings-inference, or …/v1/embeddings as OpenAI has it; its bearer
# token, and connections of one process to it.
MEMORY_EMBEDDING_REMOTE_URL = env.str("MEMORY_EMBEDDING_REMOTE_URL", default="")
MEMORY_EMBEDDING_REMOTE_TOKEN = env.str("MEMORY_EMBEDDING_REMOTE_TOKEN", default="")
MEMORY_EMBEDDING_REMOTE_CONNECTIONS = env.int("MEMORY_EMBEDDING_REMOTE_CONNECTIONS", default=4)
# How long a question waits for its embedding, in milliseconds; then keywords alone answer it, and the answer says so.
MEMORY_EMBED_TIMEOUT_MS = env.int("MEMORY_EMBED_TIMEOUT_MS", default=1_000)
# Chunks of several callers that may wait for the model in one process; a call beyond is a 503 with Retry-After.
MEMORY_EMBED_QUEUE = env.int("MEMORY_EMBED_QUEUE", default=4_000)
MEMORY_CHUNK_TOKENS = env.int("MEMORY_CHUNK_TOKENS", default=254)  # the bundled model's, less two special tokens
# Texts, metadata and what else is sealed beside vectors is filled up to a multiple of so many bytes; 0: sizes show.
MEMORY_SEAL_PADDING = env.int("MEMORY_SEAL_PADDING", default=0)
MODELS_MAY_DOWNLOAD = env.bool("MODELS_MAY_DOWNLOAD", default=False)

# --- Lexical index --------------------------------------------------------------------------------------------------
# Language of stemming and stop words, by its Snowball name, or `none`. A change needs a reindex.
MEMORY_LEXICAL_LANGUAGE = env.str("MEMORY_LEXICAL_LANGUAGE", default="english")

# --- Retrieval ------------------------------------------------------------------------------------------------------
# Both change what is stored: switching one needs `manage.py reindex`, and start-up warns until it has run.
MEMORY_VECTOR_ROTATION = env.bool("MEMORY_VECTOR_ROTATION", default=True)
MEMORY_LEXICAL_INDEX = env.bool("MEMORY_LEXICAL_INDEX", default=True)
# score = cosine + lexical weight * BM25 / best BM25; then lifted towards the mean of the chunks before and after.
MEMORY_LEXICAL_WEIGHT = env.float("MEMORY_LEXICAL_WEIGHT", default=0.5)
MEMORY_NEIGHBOUR_WEIGHT = env.float("MEMORY_NEIGHBOUR_WEIGHT", default=0.9)
# What a memory of the time that a question names gets added, as a share of the best score: 0 to 0.1.
MEMORY_TIME_WEIGHT = env.float("MEMORY_TIME_WEIGHT", default=0.1)
# Tenants of up to so many rows are scanned exactly; larger ones are answered from a vector graph and term postings.
MEMORY_EXACT_SCAN_MAX = env.int("MEMORY_EXACT_SCAN_MAX", default=20_000)
# Read rows from before rows had MACs. Only until `complete_row_macs` has given every row one: whoever can write to the
# database could otherwise take a row's MAC away to change it unnoticed.
MEMORY_ACCEPT_ROWS_WITHOUT_MAC = env.bool("MEMORY_ACCEPT_ROWS_WITHOUT_MAC", default=False)
# Embed and index a header made of date, title and author in front of each text. Changing it needs a reindex.
MEMORY_CONTEXT_HEADER = env.bool("MEMORY_CONTEXT_HEADER", default=True)
# Store doc_id and source as keyed labels, the names themselves sealed. Changing it needs a reindex for what is there.
MEMORY_SEALED_NAMES = env.bool("MEMORY_SEALED_NAMES", default=True)
# Metadata keys that a query may filter by. Adding one needs a reindex for what is already stored. These are what mem0's
# clients and LangGraph's store filter by.
MEMORY_FILTERABLE_METADATA = env.list(
    "MEMORY_FILTERABLE_METADATA", default=["agent_id", "app_id", "run_id", "langgraph_prefixes"]
)

# --- Rerank ---------------------------------------------------------------------------------------------------------
# False: the cross-encoder is never loaded, whatever the switch in the admin says.
RERANK_ENABLED = env.bool("RERANK_ENABLED", default=True)
# A hub name or a local directory; the revision is a commit of the hub, so that weights never change unasked.
RERANK_MODEL = env.str("RERANK_MODEL", default="cross-encoder/ms-marco-TinyBERT-L-2-v2")
RERANK_REVISION = env.str("RERANK_REVISION", default="81d1926f67cb8eee2c2be17ca9f793c7c3bd20cc")
# Served while RERANK_MODEL is not at hand: bundled, a folder of that layout, or nothing.
RERANK_FALLBACK_MODEL = env.str("RERANK_FALLBACK_MODEL", default="bundled")
# SHA-256 of model.safetensors, checked at load when given.
RERANK_MODEL_SHA256 = env.str("RERANK_MODEL_SHA256", default="")
# auto, onnx, torch or remote; auto is onnx on the CPU and torch on a GPU.
RERANK_BACKEND = env.str("RERANK_BACKEND", default="auto")
# auto, cpu, cuda or cuda:N.
RERANK_DEVICE = env.str("RERANK_DEVICE", default="auto")
# True: without a usable CUDA device neither `check` nor `/readyz` passes, and serving does not start.
RERANK_REQUIRE_GPU = env.bool("RERANK_REQUIRE_GPU", default=False)
# How long an answer waits for its new order, in milliseconds.
RERANK_TIMEOUT_MS = env.int("RERANK_TIMEOUT_MS", default=250)
# replace: the cross-encoder's order. rrf: reciprocal rank fusion of it with the candidates' order. weighted: retrieval
# score + RERANK_FUSION_WEIGHT · the cross-encoder's standardised score.
RERANK_FUSION = env.str("RERANK_FUSION", default="replace")
RERANK_FUSION_WEIGHT = env.float("RERANK_FUSION_WEIGHT", default=0.1)
# How many candidates are reranked, 0: twice as many as are asked for, at least 24; and their tokens, by an estimate.
RERANK_CANDIDATES = env.int("RERANK_CANDIDATES", default=0)
RERANK_POOL_TOKENS = env.int("RERANK_POOL_TOKENS", default=12288)
# Pairs and padded tokens of one forward; requests that may wait.
RERANK_BATCH_SIZE = env.int("RERANK_BATCH_SIZE", default=32)
RERANK_BATCH_TOKENS = env.int("RERANK_BATCH_TOKENS", default=16384)
RERANK_QUEUE_SIZE = env.int("RERANK_QUEUE_SIZE", default=64)
# Tokens of a pair and of its query; a longer passage is cut.
RERANK_MAX_TOKENS = env.int("RERANK_MAX_TOKENS", default=512)
RERANK_QUERY_TOKENS = env.int("RERANK_QUERY_TOKENS", default=64)
# CPU threads of the onnx backend; 0: the cores, in a server divided by WEB_CONCURRENCY, at most 4.
RERANK_THREADS = env.int("RERANK_THREADS", default=0)
# A text-embeddings-inference compatible server, its bearer token, and connections of one process to it.
RERANK_REMOTE_URL = env.str("RERANK_REMOTE_URL", default="")
RERANK_REMOTE_TOKEN = env.str("RERANK_REMOTE_TOKEN", default="")
RERANK_REMOTE_CONNECTIONS = env.int("RERANK_REMOTE_CONNECTIONS", default=4)
# Query, relevant passage, irrelevant passage: their order is checked at load. [] switches the check off.
RERANK_GOLDEN = env.json(
    "RERANK_GOLDEN",
    default=[
        "What is the capital of France?",
        "Paris is the capital and largest city of France.",
        "Bananas are rich in potassium and grow in warm climates.",
    ],
)

# --- Database -------------------------------------------------------------------------------------------------------
# Without a DATABASE_URL, an embedded Postgres in this folder, started on the first connection.
EMBEDDED_POSTGRES_DIR = env.str("EMBEDDED_POSTGRES_DIR", default=str(BASE_DIR / ".data"))
# The URL itself is no setting, so that no debug page can show it.
DATABASE_EMBEDDED = not env.str("DATABASE_URL", default="")
# Connection parameters by role: app, owner, census, backup. Only the application's are in DATABASES.
DATABASE_ROLES = dsn.roles(
    {role: env.str(variable, default="") for role, variable in dsn.VARIABLES.items()}, EMBEDDED_POSTGRES_DIR
)
# Connections that a process keeps. Waiting for one longer than the timeout, in seconds, is an OperationalError.
DATABASE_POOL_MIN_SIZE = env.int("DATABASE_POOL_MIN_SIZE", default=1)
DATABASE_POOL_MAX_SIZE = env.int("DATABASE_POOL_MAX_SIZE", default=10)
DATABASE_POOL_TIMEOUT = env.float("DATABASE_POOL_TIMEOUT", default=2.0)
# Searches are prepared on the server. Off where a pooler cannot carry that: PgBouncer before 1.22.
DATABASE_PREPARED_STATEMENTS = env.bool("DATABASE_PREPARED_STATEMENTS", default=True)
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "database",
        "EMBEDDED_DIR": EMBEDDED_POSTGRES_DIR if DATABASE_EMBEDDED else None,
        "CONN_HEALTH_CHECKS": True,
        **dsn.django_settings(DATABASE_ROLES["app"]),
    }
}
# psycopg prepares no statement for being repeated, only those sent with `prepare=True`. (It still counts the last
# hundred statements of a connection, in this process's memory.)
DATABASES["default"]["OPTIONS"]["prepare_threshold"] = sys.maxsize if DATABASE_PREPARED_STATEMENTS else None
DATABASES["default"]["OPTIONS"]["pool"] = {
    "min_size": DATABASE_POOL_MIN_SIZE,
    "max_size": DATABASE_POOL_MAX_SIZE,
    "timeout": DATABASE_POOL_TIMEOUT,
    # Seconds until a failed attempt to reconnect is given up: its growing pauses would delay the recovery.
    "reconnect_timeout": 1.0,
}
