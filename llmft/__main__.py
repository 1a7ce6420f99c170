"""`python -m llmft`, the same as `llmft`."""

import sys

from llmft.cli.main import main

sys.exit(main())
