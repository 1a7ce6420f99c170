"""Which rows an optimizer step sees: a pure function of the seed and the epoch, so that resuming needs two integers."""

import numpy as np


class Order:
    """A new permutation of the rows in every epoch, cut into batches; the last batch of an epoch holds what is left."""

    def __init__(self, num_rows: int, batch_size: int, seed: int):
        assert num_rows > 0, "no rows to order"
        assert batch_size > 0, f"batch_size={batch_size}"
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
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
            self._epoch, self._permutation = epoch, generator.permutation(self.num_rows)
        return self._permutation[place * self.batch_size : (place + 1) * self.batch_size].tolist()
