"""The built-in set library_instructions: requests about Python's library and answers from its own documentation.

Some are conversations of several turns, in the column `messages`; `source` and `target` are the first exchange of each.
"""

from collections.abc import Iterator

from llmft.data.builtin.docstrings import Docstring, digest, library, module_of, normalized, split_rows
from llmft.data.builtin.prose import flowed, is_sentence, paragraphs
from llmft.data.builtin.questions import questions
from llmft.data.row import Row

FUNCTION = (
    "Explain what the function {call} of Python's module {module} does.",
    "What does {name}({arguments}) do in Python?",
    "In one sentence: what is {call} from the module {module} for?",
)
OTHER = (
    "Explain what {name} in Python's library is.",
    "What is {name} in Python?",
    "Describe {name} from Python's library in one sentence.",
)


def library_instructions() -> dict[str, list[Row]]:
    """Return train, validation and test rows {id, module, source, target, messages}, the same for a Python version.

    `messages` holds turns {role, content}: two, or more where the documentation answers a further question. Split by
    top-level module, without eight words in a row in common.
    """
    return split_rows(rows(library()), "library_instructions", ("target", "source"), module_of)


def rows(found: tuple[Docstring, ...]) -> Iterator[Row]:
    """Yield a row per public thing whose docstring begins with a plain sentence that is not said of another."""
    seen: set[str] = set()
    for docstring in found:
        parts = paragraphs(docstring.text)
        summary = flowed(parts[0]) if parts else ""
        if not docstring.public or not is_sentence(summary) or {docstring.name, normalized(summary)} & seen:
            continue
        seen |= {docstring.name, normalized(summary)}
        turns = [request(docstring), summary]
        for further in questions(docstring):
            if normalized(further.answer) not in normalized(summary):
                turns += [further.question, further.answer[0].upper() + further.answer[1:] + "."]
        messages = [
            {"role": role, "content": text} for role, text in zip(("user", "assistant") * len(turns), turns, strict=False)
        ]
        fields = {"id": docstring.name, "module": docstring.module, "source": turns[0], "target": summary, "messages": messages}
        yield Row(fields, docstring.where)


def request(docstring: Docstring) -> str:
    """Ask for an explanation, in one of a few ways."""
    ways = OTHER if docstring.arguments is None else FUNCTION
    way = ways[int(digest(docstring.name)[:8], 16) % len(ways)]
    arguments = ", ".join(name for name in docstring.arguments or () if name not in ("self", "cls"))
    call = f"{docstring.name.removeprefix(docstring.module + '.')}({arguments})"
    return way.format(name=docstring.name, module=docstring.module, call=call, arguments=arguments)
