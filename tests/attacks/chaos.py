"""Kills everything at random under load, and counts: what was acknowledged is there once, nothing foreign was seen.

    python -m tests.attacks.chaos --minutes 10           eight clients; workers, backends, Postgres and rotations killed
    python -m tests.attacks.chaos --minutes 0.5 --overload 20

On a database, keys and a server of its own, in a temporary folder. Prints one JSON object; exit code 1 when a
promise was broken. Not run by the suite.
"""

import argparse
import base64
import json
import os
import random
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
MANAGE = [sys.executable, "manage.py"]
DIMENSIONS = 384
API = "/api/v1"
PAUSE_SECONDS = (1.0, 5.0)
ANSWER_SECONDS = 30
RECONNECT_SECONDS = 0.2
ACCEPTED = {
    "MEMORY_ENCRYPTION_KEY": "MEMORY_ENCRYPTION_KEYS_ACCEPTED",
    "MEMORY_TENANT_HMAC_KEY": "MEMORY_TENANT_HMAC_KEYS_ACCEPTED",
}
# A killed rotation holds its lease for this long.
SETTLE_SECONDS = 180
UNLIMITED = {f"MEMORY_THROTTLE_{scope}": "" for scope in ("INDEX", "QUERY", "OTHER", "TOKEN")}
# Whatever names the developer's own database and keys is left out.
OURS = ("DATABASE_", "MEMORY_", "RERANK_", "EMBEDDED_", "DJANGO_", "SECRET_KEY", "PROMETHEUS_", "METRICS_", "ENV_FILE")


def generate_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Service:
    """A server of two workers with its own embedded Postgres, and the keys of the moment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.keys = {name: [generate_key(), generate_key()] for name in ACCEPTED}
        self.secret_key = generate_key() * 2
        self.token = ""
        self.process: subprocess.Popen[bytes] | None = None

    def set_up(self) -> None:
        self.command("migrate", "--verbosity", "0")
        self.token = self.command("create_token", "--service", "chaos", "--act-for-users").strip()
        self.process = self.start()

    def environment(self) -> dict[str, str]:
        """The last key but one is current, the last one is accepted already; those before are still accepted."""
        keys = {}
        for name, made in self.keys.items():
            keys |= {name: made[-2], ACCEPTED[name]: ",".join([*made[-3:-2], made[-1]])}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        own = {
            "ENV_FILE": "", "DJANGO_SETTINGS_MODULE": "project.settings", "SECRET_KEY": self.secret_key,
            "EMBEDDED_POSTGRES_DIR": str(self.folder / "data"), "INSECURE_HTTP": "1", "RERANK_ENABLED": "false",
            "BIND": f"127.0.0.1:{self.port}", "WEB_CONCURRENCY": "2", "DRAIN_SECONDS": "0", "LOG_LEVEL": "ERROR",
        }  # fmt: skip
        return inherited | own | keys | UNLIMITED

    def start(self) -> subprocess.Popen[bytes]:
        (self.folder / "metrics").mkdir(exist_ok=True)
        command = [sys.executable, "-m", "gunicorn", "-c", "project/gunicorn.py", "project.wsgi"]
        with (self.folder / "server.log").open("ab") as log:
            environment = self.environment() | {"PROMETHEUS_MULTIPROC_DIR": str(self.folder / "metrics")}
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
        for _ in range(600):
            with suppress(OSError, HTTPException):
                if self.ask("GET", "/healthz")[0] == 200:
                    return process
            time.sleep(0.2)
        raise TimeoutError("The server did not start.")

    def promote(self) -> None:
        """Make the accepted keys current ones, by a restart that lets open requests finish."""
        self.stop()
        for made in self.keys.values():
            made.append(generate_key())
        self.process = self.start()

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(60)

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [*MANAGE, *arguments], cwd=ROOT, env=self.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stdout[-500:]} {done.stderr[-1000:]}")
        return done.stdout

    def ask(self, method: str, path: str, body: Any = None, user: str = "") -> tuple[int, dict[str, str], Any]:
        """One request. Raises OSError or HTTPException when it is not answered."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            fields = {"Host": "localhost", "Content-Type": "application/json"}
            if user:
                fields |= {"Authorization": f"Bearer {self.token}", "X-Memory-User": user}
            connection.request(method, path, None if body is None else json.dumps(body), fields)
            response = connection.getresponse()
            content = response.read()
            is_json = response.headers.get("Content-Type", "").endswith("json")
            return response.status, dict(response.headers), json.loads(content) if is_json else content
        finally:
            connection.close()


@dataclass
class Account:
    """What one user was told: documents that must be there, must not, or may be either."""

    user: str
    there: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    foreign: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)


def vector(number: int) -> list[float]:
    return [1.0 if place == number % DIMENSIONS else 0.0 for place in range(DIMENSIONS)]


def client(service: Service, account: Account, until: Callable[[], bool], drawn: random.Random) -> None:
    """Store, delete, ask and list, one after the other, and note what was acknowledged."""
    number = 0
    while not until():
        number += 1
        act = drawn.choice(("store", "store", "ask", "list", "delete"))
        doc_id = f"{account.user}-{number}"
        if act == "delete":
            doc_id = drawn.choice(sorted(account.there)) if account.there else doc_id
        try:
            status, headers, body = request(service, account.user, act, doc_id, number)
        except (OSError, HTTPException):
            status, headers, body = 0, {}, None
            time.sleep(RECONNECT_SECONDS)  # as a client waits that finds no server
        account.answers[f"{act} {status or 'cut off'}"] += 1
        note(account, act, doc_id, status, headers, body)


def request(service: Service, user: str, act: str, doc_id: str, number: int) -> tuple[int, dict[str, str], Any]:
    if act == "store":
        body = {"doc_id": doc_id, "text": f"{user} said {number}", "embedding": vector(number)}
        return service.ask("POST", f"{API}/memories/index", body, user)
    if act == "delete":
        return service.ask("DELETE", f"{API}/documents/{doc_id}", None, user)
    if act == "ask":
        body = {"query": f"said {number}", "embedding": vector(number)}
        return service.ask("POST", f"{API}/memories/query", body, user)
    return service.ask("GET", f"{API}/memories?limit=20", None, user)


def note(account: Account, act: str, doc_id: str, status: int, headers: dict[str, str], body: Any) -> None:
    """Keep what the answer promises; an answer that is neither success nor explained refusal is kept too."""
    if status == 200:
        shown = body.get("matches", body.get("memories", []))
        account.foreign += [row["text"] for row in shown if not row["text"].startswith(f"{account.user} said ")]
    elif status and not explained(status, headers, body):
        account.unexplained.append(f"{act} {status} {str(body)[:200]}")
    if act == "store":
        (account.there if status == 200 else account.unknown).add(doc_id)
    elif act == "delete" and doc_id in account.there:
        account.there.discard(doc_id)
        (account.gone if status == 200 else account.unknown).add(doc_id)


def explained(status: int, headers: dict[str, str], body: Any) -> bool:
    """Whether a refusal says why, and when to come back."""
    says = isinstance(body, dict) and bool(body.get("type")) and bool(body.get("title"))
    return says and (status not in (429, 503) or "Retry-After" in headers)


# --- What is killed --------------------------------------------------------------------------------------------------
def kill_a_worker(service: Service, drawn: random.Random) -> None:
    assert service.process
    workers = psutil.Process(service.process.pid).children()
    if workers:
        drawn.choice(workers).send_signal(signal.SIGKILL)


def postmaster(service: Service) -> psutil.Process:
    pid_file = next((service.folder / "data").rglob("postmaster.pid"), None) or next(
        path / "postmaster.pid" for path in (service.folder / "data").iterdir() if path.is_symlink()
    )
    return psutil.Process(int(pid_file.read_text().split()[0]))


def kill_postgres(service: Service, drawn: random.Random) -> None:
    for process in [postmaster(service), *postmaster(service).children()]:
        process.send_signal(signal.SIGKILL)


def kill_a_backend(service: Service, drawn: random.Random) -> None:
    backends = [each for each in postmaster(service).children() if "memory_app" in " ".join(each.cmdline())]
    if backends:  # Postgres restarts all of them: one may have left shared memory in disorder
        drawn.choice(backends).send_signal(drawn.choice((signal.SIGKILL, signal.SIGTERM)))


def promote_and_kill_rotations(service: Service, drawn: random.Random) -> None:
    """New keys, then both rotations, each killed after a moment; the end of the run finishes them."""
    finish_rotations(service)  # a key may leave the environment only when no row needs it
    service.promote()
    for command in ("rotate_encryption_key", "rotate_hmac_key"):
        run = [*MANAGE, command, "--batch", "20"]
        with subprocess.Popen(
            run, cwd=ROOT, env=service.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as rotation:
            with suppress(subprocess.TimeoutExpired):
                rotation.wait(drawn.uniform(2, 8))
            rotation.kill()


def finish_rotations(service: Service) -> None:
    for command in ("rotate_encryption_key", "rotate_hmac_key"):
        until = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                service.command(command)
                break
            except RuntimeError:  # the lease of the one that was killed; a heartbeat of a worker that was
                if time.monotonic() > until:
                    raise
                time.sleep(2)


KILLS = (
    *[kill_a_worker] * 3,
    *[kill_a_backend] * 2,
    *[kill_postgres] * 2,
    promote_and_kill_rotations,
)


def killing(service: Service, until: Callable[[], bool], drawn: random.Random) -> Counter[str]:
    done: Counter[str] = Counter()
    deck: list[Any] = []
    while not until():
        time.sleep(drawn.uniform(*PAUSE_SECONDS))
        deck = deck or drawn.sample(KILLS, len(KILLS))  # each of them before any comes again
        kill = deck.pop()
        with suppress(psutil.Error, OSError, StopIteration):
            kill(service, drawn)
            done[kill.__name__] += 1
    return done


# --- The end ---------------------------------------------------------------------------------------------------------
def listed(service: Service, user: str) -> Counter[str]:
    """How often each document is there."""
    cursor, found = "", Counter[str]()
    while cursor is not None:
        status, _, page = service.ask("GET", f"{API}/memories?limit=100{cursor and f'&cursor={cursor}'}", None, user)
        assert status == 200, page
        found.update(row["doc_id"] for row in page["memories"])
        cursor = page["next_cursor"]
    return found


def broken_promises(service: Service, account: Account) -> list[str]:
    found = listed(service, account.user)
    lost = [f"lost {doc_id}" for doc_id in sorted(account.there - found.keys())]
    back = [f"came back {doc_id}" for doc_id in sorted(account.gone & found.keys())]
    twice = [f"{count} times {doc_id}" for doc_id, count in found.items() if count > 1]
    strange = [f"never stored {doc_id}" for doc_id in found.keys() - account.there - account.unknown - account.gone]
    return lost + back + twice + strange + [f"foreign {text}" for text in account.foreign] + account.unexplained


def run_chaos(service: Service, minutes: float, clients: int, seed: int) -> dict[str, Any]:
    end = time.monotonic() + 60 * minutes
    accounts = [Account(f"user{number}") for number in range(clients)]
    drawn = [random.Random(seed + number) for number in range(clients + 1)]  # noqa: S311

    def over() -> bool:
        return time.monotonic() > end

    threads = [
        threading.Thread(target=client, args=(service, account, over, drawn[number]))
        for number, account in enumerate(accounts)
    ]
    for thread in threads:
        thread.start()
    kills = killing(service, over, drawn[-1])
    for thread in threads:
        thread.join()
    finish_rotations(service)
    report = json.loads(service.command("verify_integrity", "--json"))
    answers: Counter[str] = sum((account.answers for account in accounts), Counter())
    return {
        "minutes": minutes,
        "clients": clients,
        "kills": dict(kills),
        "answers": dict(sorted(answers.items())),
        "acknowledged": sum(len(account.there) + len(account.gone) for account in accounts),
        "unknown": sum(len(account.unknown) for account in accounts),
        "verify_integrity": report,
        "broken": [promise for account in accounts for promise in broken_promises(service, account)],
    }


def run_overload(service: Service, seconds: float, clients: int) -> dict[str, Any]:
    """Ten times the clients, each with its next question at once: how long answers took, and what refusals said."""
    end, took, refused, unexplained = time.monotonic() + seconds, [], Counter[str](), []

    def flood(number: int) -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                status, headers, body = request(service, f"user{number % 8}", "ask", "", number)
            except (OSError, HTTPException) as error:
                refused[type(error).__name__] += 1
                continue
            if status == 200:
                took.append(time.monotonic() - began)
            else:
                refused[f"{status} {body.get('type') if isinstance(body, dict) else ''}"] += 1
                unexplained.extend([] if explained(status, headers, body) else [f"{status} {str(body)[:200]}"])

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ranks = statistics.quantiles(took, n=100) if len(took) > 1 else [0.0] * 99
    return {
        "clients": clients,
        "answered": len(took),
        "p50_ms": round(1000 * ranks[49], 1),
        "p99_ms": round(1000 * ranks[98], 1),
        "refused": dict(refused),
        "unexplained": unexplained,
    }


@contextmanager
def running_service(kind: type[Service] = Service) -> Iterator[Service]:
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.chmod(0o711)
    service = kind(folder)
    try:
        service.set_up()
        yield service
    finally:
        service.stop()
        with suppress(RuntimeError):
            service.command("embedded_postgres", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument(
        "--overload", type=float, default=0.0, metavar="SECONDS", help="afterwards, with ten times the clients"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with running_service() as service:
        result = {"seed": options.seed, **run_chaos(service, options.minutes, options.clients, options.seed)}
        if options.overload:
            result["overload"] = run_overload(service, options.overload, 10 * options.clients)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    broken = result["broken"] or result["verify_integrity"]["found"] or result.get("overload", {}).get("unexplained")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
