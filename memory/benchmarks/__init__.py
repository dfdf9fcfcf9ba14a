"""Benchmarks: the measurements behind every `benchmark_*` command, `gpu_check` and `evaluate`.

Only those commands and the demo, which starts its server by `server`, import this room.
"""
