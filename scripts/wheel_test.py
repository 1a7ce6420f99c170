"""Build the wheel, install it into a fresh environment, and use it from another folder: what a user of the package gets.

python scripts/wheel_test.py
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]


def run(*command: str | Path, folder: Path) -> None:
    """Run a command in `folder`; its failure is ours."""
    print("$", *command, flush=True)
    subprocess.run([str(word) for word in command], cwd=folder, check=True)


def main() -> None:
    """Raises CalledProcessError if anything fails."""
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        run(sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", temporary / "dist", ROOT, folder=temporary)
        (wheel,) = (temporary / "dist").glob("llmft-*.whl")
        venv.create(temporary / "venv", with_pip=True)
        python, llmft = temporary / "venv/bin/python", temporary / "venv/bin/llmft"
        constraints = ROOT / "constraints.txt"
        run(python, *PIP, "install", "--constraint", constraints, "torch", folder=temporary)
        run(python, *PIP, "install", "--constraint", constraints, wheel, folder=temporary)
        run(python, ROOT / "scripts/make_tiny_models.py", temporary / "models", "llama", folder=temporary)
        elsewhere = temporary / "elsewhere"
        elsewhere.mkdir()
        run(llmft, "--version", folder=elsewhere)
        run(llmft, "train", "--cfg", "job", folder=elsewhere)
        tiny = f"model.name={temporary / 'models/llama'}"
        run(llmft, "train", "experiment=smoke_summarization", tiny, folder=elsewhere)
        run(llmft, "eval", "run=latest", folder=elsewhere)
        for file in ("results.json", "report.html", "README.md", "model"):
            assert (elsewhere / "outputs/latest" / file).exists(), file
    print("wheel-test: passed")


if __name__ == "__main__":
    main()
