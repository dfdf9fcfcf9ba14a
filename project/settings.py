"""Settings, all of them, from the environment.

A variable `NAME` may also be given as `NAME_FILE`, the path of a file that holds the value (container secrets).
A `.env` file next to `manage.py` (or the file that `ENV_FILE` names) is read first; the real environment wins over it.
"""

import os
from pathlib import Path
from typing import Any

import environ

from project.database import dsn

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.FileAwareEnv()
ENV_FILE = os.environ.get("ENV_FILE", str(BASE_DIR / ".env"))
if Path(ENV_FILE).is_file():
    environ.Env.read_env(ENV_FILE)

# --- Django ---------------------------------------------------------------------------------------------------------
DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "pgvector.django",
    "rest_framework",
    "project",
    "keys",
    "memory",
    "rerank",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
STATIC_ROOT = BASE_DIR / "static"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Transport ------------------------------------------------------------------------------------------------------
# HTTPS=1 in production: plain requests are redirected, cookies and HSTS are for HTTPS alone.
HTTPS = env.bool("HTTPS", default=False)
SECURE_SSL_REDIRECT = HTTPS
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=31_536_000) if HTTPS else 0
# Promises about the whole domain, hard to take back: yours to make.
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("SECURE_HSTS_INCLUDE_SUBDOMAINS", default=False)
SECURE_HSTS_PRELOAD = env.bool("SECURE_HSTS_PRELOAD", default=False)

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
MEMORY_EMBEDDING_BATCH = env.int("MEMORY_EMBEDDING_BATCH", default=32)
MEMORY_CHUNK_TOKENS = env.int("MEMORY_CHUNK_TOKENS", default=254)  # what the bundled model reads, less its two marks
MODELS_MAY_DOWNLOAD = env.bool("MODELS_MAY_DOWNLOAD", default=False)

# --- Lexical index --------------------------------------------------------------------------------------------------
# Language of stemming and stop words, by its Snowball name; an unknown one gets neither. A change needs a reindex.
MEMORY_LEXICAL_LANGUAGE = env.str("MEMORY_LEXICAL_LANGUAGE", default="english")

# --- Database -------------------------------------------------------------------------------------------------------
# Without a DATABASE_URL, an embedded Postgres in this folder, started on the first connection.
EMBEDDED_POSTGRES_DIR = env.str("EMBEDDED_POSTGRES_DIR", default=str(BASE_DIR / ".data"))
DATABASE_URL = env.str("DATABASE_URL", default="")
# Connection parameters by role: app, owner, census, backup. Only the application's are in DATABASES.
DATABASE_ROLES = dsn.roles(
    {role: env.str(variable, default="") for role, variable in dsn.VARIABLES.items()}, EMBEDDED_POSTGRES_DIR
)
# Connections that a process keeps. Waiting for one longer than the timeout, in seconds, is an OperationalError.
DATABASE_POOL_MIN_SIZE = env.int("DATABASE_POOL_MIN_SIZE", default=1)
DATABASE_POOL_MAX_SIZE = env.int("DATABASE_POOL_MAX_SIZE", default=10)
DATABASE_POOL_TIMEOUT = env.float("DATABASE_POOL_TIMEOUT", default=2.0)
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "project.database",
        "EMBEDDED_DIR": None if DATABASE_URL else EMBEDDED_POSTGRES_DIR,
        "CONN_HEALTH_CHECKS": True,
        **dsn.django_settings(DATABASE_ROLES["app"]),
    }
}
DATABASES["default"]["OPTIONS"]["pool"] = {
    "min_size": DATABASE_POOL_MIN_SIZE,
    "max_size": DATABASE_POOL_MAX_SIZE,
    "timeout": DATABASE_POOL_TIMEOUT,
    # A failed attempt is given up soon: its ever longer pauses would outlast the server's return.
    "reconnect_timeout": 1.0,
}
