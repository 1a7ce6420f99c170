"""Which models and settings our own search covers."""

from collections.abc import Sequence

from transformers import GenerationConfig

from llmft.models.load import Pretrained


def covered(pretrained: Pretrained, config: GenerationConfig, sources: Sequence[Sequence[int]]) -> bool:
    return config.num_beams == 1
