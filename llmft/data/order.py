"""Which rows an optimizer step sees: a pure function of the seed and the epoch, so that resuming needs two integers."""

import numpy as np


class Order:
    """A new permutation of the rows in every epoch, cut into batches; the last batch of an epoch holds what is left.

    groups: a number for each row, rows of one number stay together, at most `batch_size` of them; None: each row by itself.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int, groups: np.ndarray | None = None):
        assert num_rows > 0, "no rows to order"
        assert batch_size > 0, f"batch_size={batch_size}"
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self.groups = groups
        self.steps_per_epoch = -(-num_rows // batch_size)
        self._epoch = -1
        self._permutation = np.empty(0, np.int64)

    def epoch_of(self, step: int) -> int:
        """Return the epoch of a step, both from 0."""
        return step // self.steps_per_epoch

    def rows_of_step(self, step: int) -> list[int]:
        """Return the rows of a step, from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch])))
            self._epoch, self._permutation = epoch, self.permutation(generator)
        return self._permutation[place * self.batch_size : (place + 1) * self.batch_size].tolist()

    def permutation(self, generator: np.random.Generator) -> np.ndarray:
        """Draw an order of all rows."""
        drawn = np.arange(self.num_rows, dtype=np.uint32)  # half the memory of what `permutation` draws, which is the same
        generator.shuffle(drawn)
        if self.groups is None:
            return drawn
        by_group = drawn[np.argsort(self.groups[drawn], kind="stable")]
        groups = self.groups[by_group]
        begins = np.append(True, groups[1:] != groups[:-1])
        place = np.arange(self.num_rows) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
        bundle = np.cumsum(place % self.batch_size == 0) - 1  # a large group is more than one
        return by_group[np.argsort(generator.permutation(bundle[-1] + 1)[bundle], kind="stable")]
