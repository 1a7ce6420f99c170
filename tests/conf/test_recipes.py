"""Recipes say what they reproduce, where the figure comes from and on what; they bind, and read rows as their data has them."""

import re
from functools import cache

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from llmft.config import compose, sources
from llmft.data.row import Row
from llmft.data.row_function import apply_row
from llmft.train import bind_run

CONF = sources.built_in()
RECIPES = [path for path in (CONF / "experiment").glob("*.yaml") if not path.stem.startswith("smoke_") and path.stem != "demo"]
SOURCE = r"arXiv:\d{4}\.\d{5}|aclanthology\.org/\S+|https?://\S+|(?:github\.com|huggingface\.co|opus\.nlpl\.eu)/\S+"
FAMILIES = {
    "decoder": {"gpt1", "gpt2", "gpt2_medium", "qwen3_0_6b", "smollm2_360m"},
    "encoder": {"bert_base", "bert_base_cased", "distilbert_base", "minilm_l6", "minilm_l12", "roberta_base"},
    "encoder-decoder": {
        "bart_large", "flan_t5_base", "mbart_cc25", "opus_mt_en_fr", "t5_base", "t5_small", "transformer_base"
    },
}  # fmt: skip
WRITERS = {"decoder", "encoder-decoder"}
WANTED = {
    "translation": WRITERS,
    "summarization": WRITERS,
    "question_answering": WRITERS,
    "instruction": WRITERS,
    "question_answering_extractive": {"encoder"},
    "text_generation": {"decoder", "encoder"},
    "classification": {"decoder", "encoder", "encoder-decoder"},
    "regression": {"encoder"},
}

SQUAD = {
    "id": "5733be284776f41900661182", "title": "Notre_Dame", "context": "It is a Marian place.", "question": "What is it?",
    "answers": {"text": ["a Marian place", "Marian"], "answer_start": [6, 8]},
}  # fmt: skip
TRANSLATION = {"translation": {"en": "a house", "de": "ein Haus", "ro": "o casă"}}
DIALOGUE = {"id": "1", "dialogue": "A: Hi.", "summary": "A greets."}
ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3", "text": "Below is an instruction"}
PAIR = {"sentence1": "One.", "sentence2": "Two.", "idx": 0}
ROWS = {  # as the cards of the data sets show them -> what is read, what is to be learnt
    "rajpurkar/squad": (SQUAD, "What is it?", ("a Marian place", "Marian")),
    "rajpurkar/squad_v2": (SQUAD | {"answers": {"text": [], "answer_start": []}}, "What is it?", ()),
    "EdinburghNLP/xsum": ({"document": "Long.", "summary": "Short.", "id": "35232142"}, "Long.", ("Short.",)),
    "abisee/cnn_dailymail": ({"article": "Long.", "highlights": "Short.", "id": "f00"}, "Long.", ("Short.",)),
    "data/samsum": (DIALOGUE, "A: Hi.", ("A greets.",)),
    "wmt/wmt14": (TRANSLATION, "a house", ("ein Haus",)),
    "wmt/wmt16": (TRANSLATION, "a house", ("o casă",)),
    "data/KDE4.en-fr.en": ({"source": "a house", "target": "une maison"}, "a house", ("une maison",)),
    "data/e2e/trainset.csv": ({"mr": "name[Aromi]", "ref": ["Aromi is a pub.", "A pub."]}, "name[Aromi]", ("Aromi is a pub.", "A pub.")),
    "tatsu-lab/alpaca": (ALPACA, "Add.\n\n1 and 2", ("3",)),
    "data/wikitext2/train.txt": ({"text": " = Robert Boulter = \n"}, " = Robert Boulter = \n", ()),
    "stanfordnlp/imdb": ({"text": "Fine.", "label": 1}, "Fine.", ()),
    "nyu-mll/glue mrpc": (PAIR | {"label": 1}, "One.", ("1",)),
    "nyu-mll/glue rte": (PAIR | {"label": 0}, "One.", ("0",)),
    "nyu-mll/glue stsb": (PAIR | {"label": 3.75}, "One.", ("3.75",)),
    "nyu-mll/glue cola": ({"sentence": "One.", "label": 1, "idx": 0}, "One.", ("1",)),
    "nyu-mll/glue sst2": ({"sentence": "One.", "label": 0, "idx": 0}, "One.", ("0",)),
    "google-research-datasets/go_emotions": ({"text": "Thanks!", "labels": [15, 0], "id": "e"}, "Thanks!", ("15", "0")),
}  # fmt: skip

recipes = pytest.mark.parametrize("path", sorted(RECIPES), ids=lambda path: path.stem)


@cache
def run_of(*words):
    """The checked configuration of a training command."""
    compose.register([])
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose.to_run(compose.plain(hydra_compose("train", overrides=list(words)), "train"), "train")


def test_recipes_are_seen():
    assert len(RECIPES) >= 30


def comment_of(path):
    """The lines of comment on top, without the marks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("# ") for line in lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))]]


def choice_of(path, group):
    """What a recipe's defaults choose for a group."""
    defaults = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]
    return next((each[f"override /{group}"] for each in defaults if f"override /{group}" in each), None)


@recipes
def test_the_second_line_is_its_own_command(path):
    package, command, *_ = comment_of(path)
    assert (package, command) == ("@package _global_", f"llmft train experiment={path.stem}")


@recipes
def test_a_figure_with_its_source_or_the_word_that_there_is_none(path):
    _, _, title, *rest = comment_of(path)
    text = " ".join(rest)
    assert re.search(SOURCE, text)
    if "no published figure" in text:
        assert "Expected: no published figure for exactly this" in text
    else:
        assert re.search(r"\d\d(\.\d)?", title), "the title names the figure"
        assert re.search(rf"Source: .*?({SOURCE})", text)
    assert re.search(r"Hardware: a GPU with \d+ GB", text)


@recipes
def test_lines_are_readable(path):
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 128


@pytest.mark.parametrize("task", WANTED)
def test_each_task_has_a_recipe_for_each_family_that_makes_sense(task):
    models = {choice_of(path, "model") for path in RECIPES if choice_of(path, "task") == task}
    assert models <= set.union(*FAMILIES.values())
    assert {family for family, of_it in FAMILIES.items() if of_it & models} == WANTED[task]


def test_the_tasks_are_all_tasks():
    assert set(WANTED) == {path.stem for path in (CONF / "task").glob("*.yaml")}


@pytest.mark.parametrize("task", sorted(WANTED))
def test_each_task_with_rows_of_its_own_has_a_smoke_experiment(task):
    if run_of(f"task={task}").task.data.builtin is None:
        assert task == "regression"
        return
    assert (CONF / "experiment" / f"smoke_{task}.yaml").is_file()
    assert run_of(f"experiment=smoke_{task}").task.name == task


@pytest.mark.parametrize("task", WANTED)
@pytest.mark.parametrize("model", ["gpt2", "bert_base", "t5_small"])
def test_each_task_composes_with_a_model_of_each_family(task, model):
    run = run_of(f"task={task}", f"model={model}", "adapter=none")
    assert (run.task.name, run.model.package) == (task, None)


@recipes
def test_names_bind_and_rows_of_its_data_are_read(path):
    run = run_of(f"experiment={path.stem}")
    bound, _, _ = bind_run(run)
    formulation = bound.formulation(run.task, bound, run.seed)
    train = run.task.data.train
    name = next(iter(train.values())) if isinstance(train, dict) else train[0]
    if name == "HuggingFaceTB/smol-smoltalk":
        turns = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
        fields, source, targets = {"messages": turns, "source": "smol-magpie"}, "Hi.", ("Hello.",)
    else:
        fields, source, targets = ROWS[f"{name} {run.task.data.subset}" if name == "nyu-mll/glue" else name]
    (example,) = formulation.examples(apply_row([Row(fields, "row 1")], bound.row))
    read = example.source if isinstance(example.source, str) else example.source[-1].content
    if run.task.formulation.value == "span":
        read = example.question
        assert example.context == SQUAD["context"]
        assert example.starts == ((6, 8) if targets else ())
    assert (read, example.targets) == (source, targets)


@recipes
def test_scores_on_a_development_set_choose_no_checkpoint_unseen(path):
    """Where test rows are the validation rows, the last weights count, or the comment says that the best epoch does."""
    run = run_of(f"experiment={path.stem}")
    if run.task.data.test and run.task.data.test == run.task.data.validation and run.training.eval_every != "never":
        assert "best epoch by the development set" in " ".join(comment_of(path)).replace("\n", " ")
