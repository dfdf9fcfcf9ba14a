"""`manage.py gpu_check`: is the GPU there, and does the reranker keep its budget on it?"""

from typing import Any

from django.core.management.base import CommandError

from memory.benchmarks.gpu import GPUMissing, measure_gpu
from memory.benchmarks.report import Report
from memory.benchmarks.rerank_command import RerankCommand


class Command(RerankCommand):
    help = "Load the reranker on the CUDA device and time 100 queries of 24 candidates; fails when a bound is missed."
    fails_on_missed_target = True

    def measure_model(self, **options: Any) -> Report:
        try:
            return measure_gpu()
        except GPUMissing as error:
            raise CommandError(str(error)) from error
