"""What learners on decoders have in common: how a step's documents are cut, laid end to end and sent through the model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmft.data.batch import Batch, collate_decoder, cut
from llmft.data.encode import Encoded
from llmft.data.prefixes import collate_shared, cut_shared, with_twin
from llmft.models.forward import Path, batch_loss
from llmft.models.head import Head
from llmft.models.load import Pretrained
from llmft.models.path_check import CHECKED_LOSS, CHECKED_TOKENS, PathCheck, check_fast_path


class DecoderPasses:
    """Passes over a decoder's documents, by the path that was proven equal; `plain` until then."""

    head = Head.text
    unit = "tokens"

    def __init__(self, pretrained: Pretrained, precision: torch.dtype):
        self.pretrained = pretrained
        self.precision = precision
        self.path = Path.plain
        self.sharing = False

    @property
    def shares(self) -> bool:
        """Whether what documents begin with alike is computed once: where layers are written out, on processors.

        Not where what frozen layers give is kept: that is whole documents.
        """
        return self.sharing and self.path is Path.flat and self.can_share

    @property
    def can_share(self) -> bool:
        """Whether that is possible at all."""
        frozen = self.pretrained.frozen
        return self.pretrained.model.device.type == "cpu" and (frozen is None or frozen.states is None)

    def cut(self, documents: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
        """Cut a step's documents into micro-batches of at most `micro_tokens` tokens."""
        return (cut_shared if self.shares else cut)(documents, micro_tokens)

    def collate(self, documents: Sequence[Encoded]) -> Batch:
        """Lay documents end to end, on the model's device."""
        return (collate_shared if self.shares else collate_decoder)(documents).to(self.pretrained.model.device)

    def loss(self, documents: Sequence[Encoded]) -> Tensor:
        """Negative log-likelihood, summed over the tokens that carry loss."""
        return batch_loss(self.pretrained.model, self.collate(documents), self.precision, self.path, self.pretrained.frozen)

    def check_fast_path(self, documents: Sequence[Encoded]) -> PathCheck:
        """Compare the paths on the ends of a few documents, and take the fastest that agrees from now on."""
        model = self.pretrained.model
        ends = with_twin([document.tail(CHECKED_TOKENS, CHECKED_LOSS) for document in documents])
        shared = collate_shared(ends) if self.can_share else collate_decoder(ends)
        found = check_fast_path(
            model, collate_decoder(ends).to(model.device), self.precision, shared.to(model.device), self.pretrained.frozen
        )
        self.path = found.path
        return found
