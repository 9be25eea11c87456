"""The two test accuracies that the paper reports of a training: the best, and that at its end."""


class BestAndFinal:
    """What a result has besides its test accuracies by iteration, in `test`, as fractions."""

    test: list[float]

    @property
    def best(self) -> float:
        """The best test accuracy."""
        return max(self.test)

    @property
    def final(self) -> float:
        """The test accuracy at the end."""
        return self.test[-1]
