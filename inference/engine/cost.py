"""How long work will take, learnt from how long work took."""

WEIGHT_OF_THE_NEWEST = 0.2


class CostEstimate:
    """Seconds a token, as an exponentially weighted mean. Used under the engine's lock."""

    def __init__(self) -> None:
        self._seconds_a_token: float | None = None

    def update(self, tokens: int, seconds: float) -> None:
        if tokens <= 0:
            return
        newest = seconds / tokens
        before = self._seconds_a_token
        self._seconds_a_token = newest if before is None else before + WEIGHT_OF_THE_NEWEST * (newest - before)

    def seconds(self, tokens: int) -> float:
        """The expected seconds for `tokens`; 0.0 while nothing is known."""
        return tokens * (self._seconds_a_token or 0.0)
