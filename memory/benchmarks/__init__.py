"""What it costs, and beside others: the measuring behind every `benchmark_*` command and `evaluate`.

Nothing imports this room but those commands.
"""
