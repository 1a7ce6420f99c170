"""`llmft env`: versions, hardware and git state, as JSON, to go into a bug report."""

import json

from llmft.errors import ConfigError


def show(words: list[str]) -> int:
    """Print the environment. Raises ConfigError if anything follows the command."""
    if words:
        raise ConfigError(f"llmft env {' '.join(words)}: found settings, expected none. Call llmft env alone.")
    # Imported here: it looks at torch.
    from llmft.runs.provenance import environment

    print(json.dumps(environment(), indent=2, ensure_ascii=False))
    return 0
