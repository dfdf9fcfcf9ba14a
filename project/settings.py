"""Settings, all of them, from the environment.

A variable `NAME` may also be given as `NAME_FILE`, the path of a file that holds the value (container secrets).
A `.env` file next to `manage.py` is read first; the real environment wins over it.
"""

from pathlib import Path
from typing import Any

import environ

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.FileAwareEnv()
environ.Env.read_env(BASE_DIR / ".env") if (BASE_DIR / ".env").is_file() else None

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

# --- Keys -----------------------------------------------------------------------------------------------------------
# Validated by system checks (`keys.E…`), which name the variable and the command that mends it, never the value.
MEMORY_ENCRYPTION_KEY = env.str("MEMORY_ENCRYPTION_KEY", default="")
MEMORY_ENCRYPTION_KEYS_ACCEPTED = env.list("MEMORY_ENCRYPTION_KEYS_ACCEPTED", default=[])
MEMORY_TENANT_HMAC_KEY = env.str("MEMORY_TENANT_HMAC_KEY", default="")
MEMORY_TENANT_HMAC_KEYS_ACCEPTED = env.list("MEMORY_TENANT_HMAC_KEYS_ACCEPTED", default=[])

# --- Memory ---------------------------------------------------------------------------------------------------------
MEMORY_EMBEDDING_DIM = env.int("MEMORY_EMBEDDING_DIM", default=384)
MEMORY_EMBEDDING_MODEL = env.str("MEMORY_EMBEDDING_MODEL", default="all-MiniLM-L6-v2")

# --- Database -------------------------------------------------------------------------------------------------------
# Filled in by the embedded Postgres work: DATABASE_URL, DATABASE_OWNER_URL, DATABASE_CENSUS_URL, DATABASE_BACKUP_URL.
DATABASES: dict[str, dict[str, Any]] = {}
