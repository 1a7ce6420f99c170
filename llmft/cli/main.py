"""The command `llmft`."""

import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    import hydra

    from llmft.cli.job import run_job
    from llmft.config import compose, sources

    typed = list(sys.argv[1:] if argv is None else argv)
    command, rest = typed[0], typed[1:]
    compose.register()
    flags = [word for word in rest if word.startswith("-")]
    settings = [word for word in rest if not word.startswith("-")]
    if "--cfg" in flags:
        settings.remove("job")
        flags[flags.index("--cfg")] = "--cfg=job"
    sys.argv = [f"llmft {command}", *flags, *settings]
    hydra.main(version_base="1.3", config_path=str(sources.built_in()), config_name=command)(run_job)()
    return 0
