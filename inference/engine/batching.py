"""Which items go through the model together."""

from collections.abc import Sequence

# An item half as long as the longest of its batch would be padding by half: a batch of its own is cheaper.
SPLIT_BELOW = 0.5


def plan_forwards(lengths: Sequence[int], *, max_items: int, max_tokens: int) -> list[list[int]]:
    """Partition the positions of `lengths` (tokens an item) into forwards, the longest items first.

    A forward holds at most `max_items` items and `max_tokens` padded tokens (a single longer item goes alone).
    """
    plan: list[list[int]] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        length = lengths[position]
        batch = plan[-1] if plan else []
        fits = len(batch) < max_items and (len(batch) + 1) * longest <= max_tokens
        if batch and fits and length >= SPLIT_BELOW * longest:
            batch.append(position)
        else:
            plan.append([position])
            longest = length
    return plan
