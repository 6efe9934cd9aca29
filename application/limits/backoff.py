"""When to try again: soon at first, then at growing intervals."""

from collections.abc import Callable


class Backoff:
    """A pause between tries, which doubles from the shortest to the longest.

    Args:
        clock: The consumer's clock.
        shortest_s: The first pause, in seconds.
        longest_s: The longest.
    """

    def __init__(self, clock: Callable[[], float], shortest_s: float, longest_s: float) -> None:
        self._clock = clock
        self._shortest_s = self._pause_s = shortest_s
        self._longest_s = longest_s
        self.until_s = 0.0
        """When to try again."""

    @property
    def is_over(self) -> bool:
        """Whether to try now."""
        return self._clock() >= self.until_s

    @property
    def growth(self) -> float:
        """How many times as long as the shortest the next pause is."""
        return self._pause_s / self._shortest_s

    def begin(self) -> None:
        """Begin a pause, after a try that failed."""
        self.until_s = self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._longest_s)

    def reset(self) -> None:
        """Have the next try come now, and the next pause be the shortest."""
        self.until_s = 0.0
        self._pause_s = self._shortest_s
