"""`manage.py fetch_models`: have the reranker's weights here before anybody asks."""

from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from rerank import config
from rerank.loading import load_backend
from rerank.outcomes import ModelUnavailable
from rerank.weights.files import locate, verify
from rerank.weights.modules import weight_files, weights_digest


class Command(BaseCommand):
    help = "Download the reranker of RERANK_MODEL at RERANK_REVISION, verify it, and rank the golden pair with it."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.RERANK_BACKEND == "remote":
            self.stdout.write("RERANK_BACKEND is remote: the server holds the model, there is nothing to fetch.")
            return
        choice = replace(config.model_choice(), allow_download=True)
        try:
            files = verify(locate(choice), choice)
            backend = load_backend()
        except ModelUnavailable as error:
            raise CommandError(str(error)) from error
        backend.close()
        self.stdout.write(f"{files.name} at {files.directory}")
        names = ", ".join(file.relative_to(files.directory).as_posix() for file in weight_files(files.directory))
        self.stdout.write(f"{names} sha256 {weights_digest(files.directory)}")
        self.stdout.write(self.style.SUCCESS(f"Verified and ranked with {backend.name} on {backend.device}."))
