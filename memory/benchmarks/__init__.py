"""Measuring the product through its own code: what `manage.py benchmark_*` and `manage.py evaluate` run."""
