"""The container's health: whether its own server answers, by a name that it answers to."""

import os
import urllib.request

host = os.environ.get("ALLOWED_HOSTS", "localhost").split(",")[0]
port = os.environ.get("BIND", "0.0.0.0:8000").rpartition(":")[2]
request = urllib.request.Request(f"http://127.0.0.1:{port}/healthz", headers={"Host": host})  # noqa: S310
urllib.request.urlopen(request, timeout=2).close()  # noqa: S310
