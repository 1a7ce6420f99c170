"""From settings to a task: number formats, what is trained, and which models are refused."""

from dataclasses import replace

import pytest
import torch

from llmft.config import names
from llmft.config.schema import (
    Adapter,
    AdapterKind,
    Dtype,
    EvalRun,
    Formulation,
    Generation,
    Hardware,
    LabelKind,
    Model,
    Precision,
    Task,
    TrainRun,
)
from llmft.data.example import TextExample
from llmft.errors import ConfigError
from llmft.models.export import export
from llmft.models.family import Family
from llmft.models.forward import Path
from llmft.tasks.bound import bind_task
from llmft.tasks.open import EXAMPLES, INSTEAD, choose_learner, open_task, open_training

LORA = Adapter(name=AdapterKind.lora, r=2)


def settings(tiny, kind=TrainRun, precision=Precision.bf16, model=None, **more):
    name = str(tiny / "llama")
    hardware = Hardware(precision=precision, deterministic=False)
    return kind(task=Task(name="t"), model=model or Model(name=name), generation=Generation(), hardware=hardware, **more)


def examples(count):
    return [TextExample(str(n), "fox " * (n + 1), ("the dog " * (n + 1),), f"f:{n}") for n in range(count)]


def opened(run, tiny):
    return open_training(run, bind_task(run.task, []), tiny / "llama")


def dtypes(task):
    trained = {weight.dtype for _, weight in task.pretrained.trained}
    frozen = {weight.dtype for weight in task.pretrained.model.parameters() if not weight.requires_grad}
    return trained, frozen


def test_trained_weights_are_float32_and_frozen_ones_follow_the_precision(tiny):
    assert dtypes(opened(settings(tiny), tiny)) == ({torch.float32}, set())
    assert dtypes(opened(settings(tiny, adapter=LORA), tiny)) == ({torch.float32}, {torch.bfloat16})
    fp32 = settings(tiny, adapter=LORA, precision=Precision.fp32)
    assert dtypes(opened(fp32, tiny)) == ({torch.float32}, {torch.float32})
    wanted = settings(tiny, adapter=LORA, model=Model(name=str(tiny / "llama"), dtype=Dtype.float32))
    assert dtypes(opened(wanted, tiny)) == ({torch.float32}, {torch.float32})


def test_the_seed_decides_on_the_adapter(tiny):
    def first_weights(seed):
        return opened(settings(tiny, adapter=LORA, seed=seed), tiny).pretrained.trained[0][1].detach()

    assert torch.equal(first_weights(1), first_weights(1))
    assert not torch.equal(first_weights(1), first_weights(2))


def test_gradient_checkpointing_changes_memory_and_not_the_gradients(tiny):
    found = []
    for checkpointing in (False, True):
        model = Model(name=str(tiny / "llama"), gradient_checkpointing=checkpointing)
        task = opened(settings(tiny, precision=Precision.fp32, adapter=LORA, model=model), tiny)
        assert task.pretrained.model.training
        assert task.pretrained.model.base_model.gradient_checkpointing is checkpointing
        for name, weight in task.pretrained.trained:
            if "lora_B" in name:
                torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
        task.path = Path.flat
        documents = [document for each in examples(4) for document in task.encode(each)]
        task.loss(documents).backward()
        found.append([weight.grad for _, weight in task.pretrained.trained])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "formulation", "why"),
    [
        (
            "bert",
            "text_to_text",
            "bert is an encoder, and task=t (text_to_text) does not go with it: an encoder reads and does not write. ",
        ),
        (
            "gpt2",
            "span",
            "gpt2 is a decoder, and task=t (span) does not go with it: a decoder does not see what follows a word; it answers by task=question_answering. ",
        ),
        (
            "t5",
            "span",
            "t5 is an encoder-decoder, and task=t (span) does not go with it: an encoder-decoder writes its answers by task=question_answering. ",
        ),
        ("marian", "language_model", "marian is an encoder-decoder, and task=t (language_model) does not go with it: "),
    ],
)
def test_senseless_pairs_are_refused_before_weights_are_loaded(tiny, tmp_path, name, formulation, why):
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_bytes((tiny / name / "config.json").read_bytes())
    with pytest.raises(ConfigError) as error:
        choose_learner(tmp_path / name, Task(name="t", formulation=Formulation(formulation)))
    assert str(error.value).startswith(f"model.name: {why}")
    assert "Or use another model: model=" in str(error.value)


def test_every_pair_is_either_bound_or_refused_for_a_reason():
    pairs = {(formulation, family) for formulation in names.FORMULATIONS for family in Family}
    bound = {(formulation, Family(family)) for formulation, learners in names.LEARNERS.items() for family in learners}
    assert bound | set(INSTEAD) == pairs
    assert not bound & set(INSTEAD)
    assert set(EXAMPLES) == set(Family)


def test_a_run_is_opened_from_its_final_model(tiny, tmp_path):
    task = opened(settings(tiny, precision=Precision.fp32, adapter=LORA), tiny)
    for name, weight in task.pretrained.trained:
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    run = settings(tiny, EvalRun, precision=Precision.fp32)
    with pytest.raises(ConfigError, match="the run has no model yet"):
        open_task(run, tmp_path)
    for merge in (False, True):
        export(task.pretrained, tmp_path / "model", task.generation_config(), {}, merge)
        again = open_task(run, tmp_path)
        assert not again.pretrained.model.training
        documents = [document for each in examples(3) for document in task.encode(each)]
        with torch.no_grad():
            expected, plain = task.loss(documents), open_task(run, None).loss(documents)
            torch.testing.assert_close(again.loss(documents), expected, rtol=1e-5, atol=0)
            assert abs(plain - expected) > 1e-3 * expected


def labelling(labels=("glad", "sad"), formulation=Formulation.label, kind=LabelKind.single):
    return Task(name="t", formulation=formulation, label_kind=kind, labels=list(labels), context="{context}")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (labelling(["sad", "glad"]), r"its adapter was trained with task\.labels=\['glad', 'sad'\], not \['sad', 'glad'\]"),
        (labelling(kind=LabelKind.multi), r"its adapter was trained with task\.label_kind='single', not 'multi'"),
        (labelling(formulation=Formulation.span), r"not trained for these settings: qa_outputs would be random"),
    ],
)
def test_an_adapter_s_classes_are_known_by_their_places(tiny, tmp_path, asked, said):
    """Called by other names, each class would be taken for another."""
    hardware, model = Hardware(precision=Precision.fp32, deterministic=False), Model(name=str(tiny / "bert"))
    run = TrainRun(task=labelling(), model=model, hardware=hardware, adapter=LORA)
    task = open_training(run, bind_task(run.task, []), tiny / "bert")
    export(task.pretrained, tmp_path / "model", None, task.settings(), merge=False)
    evaluation = EvalRun(task=labelling(), model=model, hardware=hardware)
    assert open_task(evaluation, tmp_path).formulation.labels == ("glad", "sad")
    with pytest.raises(ConfigError, match=said):
        open_task(replace(evaluation, task=asked), tmp_path)
