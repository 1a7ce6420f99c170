"""Model folders that mean harm: each is refused in a sentence before anything of it runs, or accepted with a stated value.

The canary is a file that the code in a folder would write. Nothing connects to anywhere: a socket that tries fails the test.
"""

import json
import os
import pickle
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import crash_lab
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from llmft.config.schema import Adapter, AdapterKind, Model, Task
from llmft.errors import DoesNotFit, ModelError
from llmft.models.adapter import add_adapter, load_adapter
from llmft.models.convert import WORKER
from llmft.models.load import load_pretrained
from llmft.models.locate import content_hash, locate
from llmft.tasks.open import choose_learner

CPU = torch.device("cpu")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A path that must not come to be."""
    path = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(path))
    yield path
    assert not path.exists(), path.read_text()


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No connections, no questions."""

    connect = socket.socket.connect

    def refuse(self, address):
        assert self.family == socket.AF_UNIX, f"a connection to {address}"  # the laboratory's own
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))


def evil() -> str:
    """A module that writes the canary as soon as it is imported."""
    return "import os, pathlib\npathlib.Path(os.environ['CANARY']).write_text(__name__)\n"


def change(folder: Path, name: str, **values: object) -> None:
    """Set keys of a JSON file."""
    path = folder / name
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | values))


def config(**values: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, "config.json", **values)


def generation(**values: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, "generation_config.json", **values)


def words(**values: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, "tokenizer_config.json", **values)


def content(name: str, data: bytes | str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def tokenizer(**parts: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, "tokenizer.json", **parts)


def both(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        for step in steps:
            step(folder)

    return do


def with_code(**auto_map: str) -> Callable[[Path], None]:
    return both(config(model_type="llmft_evil", auto_map=auto_map), content("evil.py", evil()))


def safetensors(header: object, size: int | None = None, data: bytes = b"") -> Callable[[Path], None]:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return content("model.safetensors", struct.pack("<Q", len(text) if size is None else size) + text + data)


def tensors(edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(edit(load_file(path)), path, {"format": "pt"})

    return rewrite


def link(name: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return make


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def fifo(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def vocabulary(edit: Callable[[dict[str, int]], dict[str, int]]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        path = folder / "tokenizer.json"
        found = json.loads(path.read_text())
        found["model"]["vocab"] = edit(found["model"]["vocab"])
        path.write_text(json.dumps(found))

    return rewrite


DEEP = '{"a":' * 20_000 + "1" + "}" * 20_000
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
BIG = [10**9, 10**9]

REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    # code
    "auto_map of an unknown architecture": (with_code(AutoConfig="evil.C", AutoModelForCausalLM="evil.M"), "which is not run"),
    "auto_map of the model alone": (with_code(AutoModelForCausalLM="evil.M"), "which is not run"),
    "auto_map of another repository": (config(auto_map={"AutoConfig": "owner/repo--evil.C"}), "code of another repository"),
    "auto_map of a tokenizer elsewhere": (
        words(auto_map={"AutoTokenizer": ["a/b--evil.T", None]}),
        "code of another repository",
    ),
    "auto_map that is text": (
        both(config(model_type="x", auto_map="evil.C"), content("evil.py", evil())),
        "not run|model_type",
    ),
    "auto_map that is a list": (both(config(model_type="x", auto_map=["evil.C"]), content("evil.py", evil())), "not run"),
    "a kernel for attention": (config(attn_implementation="owner/kernel"), "names code to fetch"),
    "a kernel for attention, private": (config(_attn_implementation="owner/kernel@main:f"), "names code to fetch"),
    "a kernel deep inside": (config(text_config={"attn_implementation": {"": "owner/kernel"}}), "names code to fetch"),
    "a kernel for experts": (config(experts_implementation="owner/kernel"), "names code to fetch"),
    "quantised": (config(quantization_config={"quant_method": "finegrained_fp8"}), "quantised"),
    "quantised by a stranger": (config(quantization_config={"quant_method": "evil", "modules": ["os"]}), "quantised"),
    "an adapter beside the model": (
        content("adapter_config.json", '{"base_model_name_or_path": "owner/other"}'),
        "an adapter lies",
    ),
    "an adapter alone": (
        both(content("adapter_config.json", '{"base_model_name_or_path": "owner/other"}'), remove("config.json")),
        "an adapter, not a whole model",
    ),
    # weights
    "pickled weights alone": (
        both(remove("model.safetensors"), content("pytorch_model.bin", pickle.dumps([1]))),
        "model.convert_pickle=true",
    ),
    "no weights": (remove("model.safetensors"), "there are no safetensors"),
    "an index that leads out": (
        content("model.safetensors.index.json", '{"weight_map": {"a": "../../x.safetensors"}}'),
        "leads out of the folder",
    ),
    "an index to a root path": (
        content("model.safetensors.index.json", '{"weight_map": {"a": "/etc/passwd"}}'),
        "leads out of the folder",
    ),
    "an index to nothing": (
        content("model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}'),
        "none of the folder",
    ),
    "an index without a map": (content("model.safetensors.index.json", "{}"), "no weight_map"),
    "an index of numbers": (content("model.safetensors.index.json", '{"weight_map": {"a": 3}}'), "no weight_map"),
    "an index that is a list": (content("model.safetensors.index.json", "[]"), "expected a JSON object"),
    "a header of 2^63 bytes": (safetensors({}, 1 << 63), "its header would have"),
    "a header of 99 GB": (safetensors({}, 99 << 30), "its header would have"),
    "a header longer than the file": (safetensors({"a": ENTRY}, 10_000), "its header would have"),
    "an empty file": (content("model.safetensors", b""), "its header would have 0 bytes"),
    "seven bytes": (content("model.safetensors", b"\0" * 7), "its header would have 0 bytes"),
    "a header that is no JSON": (safetensors(b"{" * 100), "cannot be loaded"),
    "a header nested deep": (safetensors(DEEP.encode()), "cannot be loaded"),
    "a header that is a list": (safetensors([1]), "cannot be loaded"),
    "a name twice": (safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(ENTRY).encode(),) * 2), None, b"\0" * 4), "stands twice"),
    "tensors that overlap": (safetensors({"a": ENTRY, "b": ENTRY}, None, b"\0" * 4), "cannot be loaded"),
    "a hole between tensors": (
        safetensors({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 12]}}, None, b"\0" * 12),
        "cannot be loaded",
    ),
    "an offset behind the end": (
        safetensors({"a": ENTRY | {"data_offsets": [0, 1 << 40]}}, None, b"\0" * 4),
        "cannot be loaded",
    ),
    "a negative offset": (safetensors({"a": ENTRY | {"data_offsets": [-4, 0]}}, None, b"\0" * 4), "cannot be loaded"),
    "a shape too large": (safetensors({"a": ENTRY | {"shape": BIG}}, None, b"\0" * 4), "cannot be loaded"),
    "a negative shape": (safetensors({"a": ENTRY | {"shape": [-1]}}, None, b"\0" * 4), "cannot be loaded"),
    "an unknown format": (safetensors({"a": ENTRY | {"dtype": "EVIL"}}, None, b"\0" * 4), "cannot be loaded"),
    "a tensor of another shape": (
        tensors(lambda all: all | {"transformer.ln_f.weight": torch.ones(31)}),
        "the model cannot be loaded: ",
    ),
    "whole numbers for weights": (
        tensors(lambda all: all | {"transformer.ln_f.weight": torch.ones(32, dtype=torch.int64)}),
        "is of I64; expected F64",
    ),
    "truth values for weights": (
        tensors(lambda all: all | {"transformer.ln_f.bias": torch.ones(32, dtype=torch.bool)}),
        "is of BOOL; expected F64",
    ),
    # sizes
    "hidden_size of 10^9": (config(n_embd=10**9), "do not belong together"),
    "vocab_size of 10^12": (config(vocab_size=10**12), "do not belong together"),
    "10^9 layers": (config(n_layer=10**9), "do not belong together"),
    "10^12 positions": (config(n_positions=10**12), "expected at most"),
    "10^9 classes": (config(num_labels=10**9), "expected at most"),
    "10^6 heads": (config(n_head=10**6), "do not belong together"),
    "no heads": (config(n_head=0), "."),
    "a negative size": (config(n_embd=-5), "."),
    "a size that is text": (config(n_embd="32; import os"), "."),
    "a size that is a list": (config(n_embd=[32]), "."),
    "an activation that is code": (config(activation_function="__import__('os').system"), "."),
    "a dropout of 7": (config(resid_pdrop=7.0), "."),
    # settings
    "config.json that is a list": (content("config.json", "[]"), "expected a JSON object"),
    "config.json nested deep": (content("config.json", DEEP), "nested deeper|recursion|not JSON"),
    "config.json that is no UTF-8": (content("config.json", b"\xff\xfe{\0}\0"), "codec"),
    "config.json without a type": (content("config.json", "{}"), "model_type"),
    "config.json of an unknown type": (config(model_type="../../etc/passwd"), "."),
    "a type that is a number": (config(model_type=7), "."),
    "config.json is a pipe": (fifo("config.json"), "holds no config.json"),
    "tokenizer.json is a pipe": (fifo("tokenizer.json"), "neither a file nor a folder"),
    "a template linked to a secret": (link("chat_template.jinja", "/etc/hostname"), "outside of the model's folder"),
    "settings linked to a secret": (link("tokenizer_config.json", "/etc/hostname"), "outside of the model's folder"),
    "a link up and out": (link("merges.txt", "../../../../../../../../etc/hostname"), "outside of the model's folder"),
    "weights linked to nothing": (link("model.safetensors", "/nowhere/model.safetensors"), "which is not there"),
    "weights linked to another file": (link("model.safetensors", "/etc/hostname"), "its header would have"),
    "a link to itself": (link("config.json", "config.json"), "."),
    # token ids
    "a token too many": (vocabulary(lambda all: all | {"evil": 10**6}), "the tokenizer has 401 tokens"),
    "a token behind the embedding": (vocabulary(lambda all: all | {max(all, key=all.get): 10**6}), "has the id 1000000"),
    "pad behind the vocabulary": (config(pad_token_id=10**6), "pad_token_id=1000000"),
    "end behind the vocabulary": (config(eos_token_id=10**6), "eos_token_id names the token 1000000"),
    "a list of ends, one behind": (generation(eos_token_id=[0, 10**6]), "eos_token_id names the token 1000000"),
    "a negative end": (generation(eos_token_id=-7), "eos_token_id names the token -7"),
    "a forced beginning behind": (generation(forced_bos_token_id=10**6), "forced_bos_token_id names the token 1000000"),
    "a start of decoding behind": (generation(decoder_start_token_id=10**6), "decoder_start_token_id names"),
    "bad words behind": (generation(bad_words_ids=[[1, 10**6]]), "bad_words_ids names the token 1000000"),
    "suppressed tokens behind": (generation(suppress_tokens=[10**6]), "suppress_tokens names the token 1000000"),
    "an end that is text": (generation(eos_token_id="evil"), "."),
    # tokenizers
    "tokenizer.json that is no JSON": (content("tokenizer.json", "{"), "."),
    "tokenizer.json that is empty": (content("tokenizer.json", "{}"), "."),
    "tokenizer.json of another kind": (tokenizer(model={"type": "Evil"}), "."),
    "tokenizer.json without a vocabulary": (tokenizer(model={"type": "BPE", "vocab": {}, "merges": []}), "."),
    "merges of unknown words": (
        tokenizer(model={"type": "BPE", "vocab": {"a": 0}, "merges": [["x", "y"]]}),
        ".",
    ),
    "a broken regular expression": (
        tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}),
        ".",
    ),
    "a broken normalizer": (tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "."),
    "a special token that is a number": (words(eos_token=7), "."),
}


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny / "gpt2", tmp_path / "model")


def load(folder: Path):
    """What train does with a model, up to the first row."""
    found = locate(Model(name=str(folder)))
    choose_learner(found, Task())
    return load_pretrained(found, torch.float32, CPU)


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_folder_is_refused_in_a_sentence(folder, canary, name, capfd):
    harm, said = REFUSED[name]
    harm(folder)
    with pytest.raises((ModelError, DoesNotFit)) as error:
        load(folder)
    message = str(error.value)
    assert error.value.exit_code in (4, 6)
    assert re.search(said, message), message
    assert str(folder) in message
    assert len(message) < 1500
    assert "Traceback" not in capfd.readouterr().err


ACCEPTED: dict[str, Callable[[Path], None]] = {
    "code for an architecture that transformers has": both(
        config(auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}), content("evil.py", evil())
    ),
    "code for a tokenizer that transformers has": both(
        words(auto_map={"AutoTokenizer": ["evil.T", "evil.T"]}, tokenizer_class="GPT2Tokenizer"), content("evil.py", evil())
    ),
    "code for a tokenizer that nobody knows": both(
        words(tokenizer_class="EvilTokenizer", auto_map={"AutoTokenizer": ["evil.T", None]}), content("evil.py", evil())
    ),
    "decoding of its own": both(
        lambda folder: (folder / "custom_generate").mkdir(), content("custom_generate/generate.py", evil())
    ),
    "decoding named in its settings": generation(custom_generate="owner/repo", trust_remote_code=True),
    "trust in its own settings": both(
        config(trust_remote_code=True, custom_pipelines={"x": {"impl": "evil.P"}}), content("evil.py", evil())
    ),
    "modules with telling names": both(
        *(content(name, evil()) for name in ("__init__.py", "sitecustomize.py", "torch.py", "conftest.py"))
    ),
    "a pickle beside the safetensors": content("pytorch_model.bin", b"cposix\nsystem\n(S'touch $CANARY'\ntR."),
    "other pickles": both(
        *(
            content(name, b"cposix\nsystem\n(S'touch $CANARY'\ntR.")
            for name in ("training_args.bin", "optimizer.pt", "vocab.pkl")
        )
    ),
    "a vocabulary named elsewhere": words(
        vocab_file="/etc/hostname", tokenizer_file="/etc/hostname", merges_file="/etc/hostname"
    ),
    "another name for itself": config(_name_or_path="owner/other"),
    "a negative pad": config(pad_token_id=-1),
    "settings nobody knows": config(evil="__import__('os').system('touch $CANARY')", architectures=["os.system"]),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_a_folder_says_besides_plays_no_part(tiny, folder, canary, name):
    before = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    ACCEPTED[name](folder)
    found = load(folder)
    assert type(found.model).__module__ == "transformers.models.gpt2.modeling_gpt2"
    assert found.code is False
    weights = dict(before.model.named_parameters())
    assert all(torch.equal(weight, weights[key]) for key, weight in found.model.named_parameters())
    assert found.tokenizer("The quick fox").input_ids == before.tokenizer("The quick fox").input_ids
    assert found.model.config.pad_token_id is None


def test_a_folder_through_a_link_and_weights_elsewhere_are_fine(tiny, tmp_path):
    folder = shutil.copytree(tiny / "gpt2", tmp_path / "model")
    (tmp_path / "disk").mkdir()
    (folder / "model.safetensors").rename(tmp_path / "disk" / "model.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "disk" / "model.safetensors")
    (tmp_path / "link").symlink_to(folder)
    assert load(tmp_path / "link").folder == tmp_path / "link"


def in_hub_cache(root: Path, tiny: Path, harm: Callable[[Path], None] = lambda folder: None) -> Path:
    """The tiny model as the hub's cache holds owner/model: a snapshot of links into blobs."""
    repository = root / "models--owner--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    plain = shutil.copytree(tiny, root / "plain")
    harm(plain)
    for number, path in enumerate(sorted(plain.iterdir())):
        path.rename(repository / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    return snapshot


@pytest.fixture
def hub(tmp_path, monkeypatch):
    root = tmp_path / "hub"
    root.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return root


def test_the_hubs_cache_of_links_loads(tiny, hub):
    snapshot = in_hub_cache(hub, tiny / "gpt2")
    found = locate(Model(name="owner/model", revision=COMMIT))
    assert found.samefile(snapshot)
    assert load_pretrained(found, torch.float32, CPU).tokenizer is not None


def test_code_from_the_hub_is_not_run_unasked(tiny, hub, canary):
    in_hub_cache(hub, tiny / "gpt2", with_code(AutoConfig="evil.C", AutoModelForCausalLM="evil.M"))
    with pytest.raises(ModelError, match="which is not run"):
        choose_learner(locate(Model(name="owner/model", revision=COMMIT)), Task())


OWN = """
from transformers import GPT2Config, GPT2LMHeadModel
class OwnConfig(GPT2Config):
    model_type = "llmft_own"
class OwnModel(GPT2LMHeadModel):
    config_class = OwnConfig
"""


def test_code_from_the_hub_is_run_when_asked(tiny, hub, tmp_path, monkeypatch):
    """The counterpart: with the flag and the commit, the same folder works, by its own code."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    own = both(
        config(model_type="llmft_own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}),
        words(tokenizer_class="PreTrainedTokenizerFast"),
        content("own.py", OWN),
    )
    in_hub_cache(hub, tiny / "gpt2", own)
    found = locate(Model(name="owner/model", revision=COMMIT, trust_remote_code=True))
    choose_learner(found, Task(), code=True)
    loaded = load_pretrained(found, torch.float32, CPU, code=True)
    assert type(loaded.model).__name__ == "OwnModel"
    assert loaded.code


def test_code_of_a_folder_is_never_run(folder, canary):
    with_code(AutoConfig="evil.C")(folder)
    with pytest.raises(ModelError, match="nothing pins that of a folder"):
        locate(Model(name=str(folder), trust_remote_code=True, revision=COMMIT))


def test_changed_files_are_refused(folder):
    model = Model(name=str(folder), sha256=content_hash(folder))
    assert locate(model) == folder
    for number, name in enumerate(("config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors")):
        other = shutil.copytree(folder, folder.with_name(f"{number}"))
        with (other / name).open("ab") as file:
            file.write(b" ")
        with pytest.raises(ModelError) as error:
            locate(Model(name=str(other), sha256=model.sha256))
        assert f"model.sha256={model.sha256} was asked for" in str(error.value)
        assert content_hash(other) in str(error.value)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ModelError, match="its files have changed"):
        locate(model)


# adapters


@pytest.fixture
def adapter(tiny, tmp_path):
    pretrained = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2))
    pretrained.adapter.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def setting(**values: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, "adapter_config.json", **values)


ADAPTERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a module to import": (setting(megatron_config={"a": 1}, megatron_core="evil"), "megatron_co"),
    "a library to import": (setting(auto_mapping={"base_model_class": "x", "parent_library": "evil"}), "auto_mapping="),
    "another kind": (setting(peft_type="PROMPT_TUNING", tokenizer_name_or_path="owner/x"), "expected LORA"),
    "a kind nobody knows": (setting(peft_type="../evil"), "expected LORA"),
    "layers copied without end": (setting(layer_replication=[[0, 2]] * 9999), "layer_replication="),
    "a pickle of statistics": (
        setting(init_lora_weights="corda", corda_config={"cache_file": "x.pt"}),
        "corda_config=|init_lora",
    ),
    "ranks by pattern": (setting(rank_pattern={"(a+)+$": 10**9}), "rank_pattern="),
    "a huge rank": (setting(r=10**9), "do not belong together"),
    "a rank that is text": (setting(r="16"), "do not belong together"),
    "a dropout that is text": (setting(lora_dropout="x"), "."),
    "no weights but a pickle": (
        both(remove("adapter_model.safetensors"), content("adapter_model.bin", b"cposix\nsystem\n(S'touch $CANARY'\ntR.")),
        "no adapter_model.safetensors",
    ),
    "no settings": (remove("adapter_config.json"), "no adapter_config.json"),
    "settings that are a list": (content("adapter_config.json", "[]"), "expected a JSON object"),
    "weights with a long header": (
        content("adapter_model.safetensors", struct.pack("<Q", 1 << 40) + b"{}"),
        "its header would have",
    ),
    "settings linked to a secret": (link("adapter_config.json", "/etc/hostname"), "outside of the model's folder"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_hostile_adapter_is_refused(tiny, adapter, canary, name):
    harm, said = ADAPTERS[name]
    harm(adapter)
    pretrained = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    with pytest.raises(ModelError, match=said):
        load_adapter(pretrained, adapter)


@pytest.mark.parametrize(
    "harm",
    [
        setting(base_model_name_or_path="owner/other", revision="main"),
        setting(base_model_name_or_path="/nowhere/at/all"),
        setting(target_modules="(.*a+)+$", exclude_modules="(x+x+)+y"),
        setting(target_modules=["no such layer"]),
    ],
    ids=["base on the hub", "base elsewhere", "a pattern that takes for ever", "other layers"],
)
def test_an_adapter_goes_into_the_model_that_is_given(tiny, adapter, canary, harm):
    ids = torch.arange(3, 40)[None]
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: torch.full_like(each, 0.1) for name, each in weights.items()}, adapter / "adapter_model.safetensors")
    plain = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    expected = PeftModel.from_pretrained(plain.model, adapter).eval()(ids).logits  # as PEFT reads it by itself
    harm(adapter)
    pretrained = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    load_adapter(pretrained, adapter)
    with torch.no_grad():
        assert torch.equal(pretrained.model.eval()(ids).logits, expected)


# the whole command


def rows_file(folder: Path) -> None:
    lines = [json.dumps({"source": f"{number} foxes", "target": f"{number}"}) for number in range(16)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


TRAIN = [
    *("train", "task=summarization", "task.data.train=rows.jsonl", "task.data.holdout=0", "task.source={source}"),
    *("task.target={target}", "training.max_steps=1", "training.baseline=false", "generation.max_new_tokens=4"),
]
COMMANDS: dict[str, tuple[Callable[[Path], None], list[str], int, str]] = {
    "code in the folder": (with_code(AutoConfig="evil.C"), [], 4, "which is not run"),
    "trust for a folder": (
        with_code(AutoConfig="evil.C"),
        ["model.trust_remote_code=true", f"model.revision={COMMIT}"],
        4,
        "nothing pins that of a folder",
    ),
    "trust without a commit": (with_code(AutoConfig="evil.C"), ["model.trust_remote_code=true"], 2, "40 hex digits"),
    "trust with a branch": (
        with_code(AutoConfig="evil.C"),
        ["model.trust_remote_code=true", "model.revision=main"],
        2,
        "40 hex digits",
    ),
    "another hash": (lambda folder: None, [f"model.sha256={'0' * 64}"], 4, "its files have changed"),
    "a template without end": (
        content("chat_template.jinja", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        [],
        4,
        "2 s of processor time",
    ),
    "pickles refused": (both(remove("model.safetensors"), content("pytorch_model.bin", b"x")), [], 4, "convert_pickle=true"),
    "a pattern that takes for ever": (
        tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(o*o*)*x$"}, "behavior": "Isolated", "invert": False}),
        ["task.prompt='{source} " + "o" * 400 + "'"],
        4,
        "the tokenizer fails on a text: Onig: Regex search error",
    ),
    "escapes in an error": (config(model_type="\x1b[2J\x1b]0;evil\x07"), [], 4, r"\\x1b\[2J|x1b"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_a_hostile_folder(folder, canary, tmp_path, name):
    harm, words, code, said = COMMANDS[name]
    harm(folder)
    rows_file(tmp_path)
    found = crash_lab.run([*TRAIN, f"model.name={folder}", *words], tmp_path, {"CANARY": str(canary)})
    assert found[0] == code, found[1]
    assert re.search(said, found[1]), found[1]
    assert "Traceback" not in found[1]
    assert "\x1b" not in found[1]


def test_rerun_refuses_a_base_model_that_has_changed(folder, canary, tmp_path):
    rows_file(tmp_path)
    code, said = crash_lab.run([*TRAIN, f"model.name={folder}", "output_dir=first", "adapter=lora"], tmp_path)
    assert code == 0, said
    again = ["train", "--config-dir", "first", "--config-name", "rerun"]
    asked = (tmp_path / "first" / "rerun.yaml").read_text()
    assert f"sha256: {content_hash(folder)}" in asked
    assert "trust_remote_code" not in asked + (tmp_path / "first" / "config.yaml").read_text()
    assert crash_lab.run([*again, "output_dir=second"], tmp_path)[0] == 0
    tensors(lambda all: all | {"transformer.ln_f.weight": all["transformer.ln_f.weight"] + 1})(folder)
    predict = ["predict", "run=first", "input=rows.jsonl", "output=found.jsonl"]  # an adapter needs the same model, too
    for words in ([*again, "output_dir=third"], predict):
        code, said = crash_lab.run(words, tmp_path)
        assert code == 4, said
        assert f"its files have changed: model.sha256={asked.partition('sha256: ')[2][:64]} was asked for" in said
    assert crash_lab.run([*again, "output_dir=third", "model.sha256=null"], tmp_path)[0] == 0


@pytest.mark.parametrize(
    "attempt",
    [
        "os.system('touch $CANARY')",
        "__import__('subprocess').run(['touch', path])",
        "open(path, 'w')",
        "os.posix_spawn('/bin/touch', ['touch', path], os.environ)",
        "__import__('socket').socket().connect(('127.0.0.1', 9))",
        "os.rename('/etc/hostname', path)",
        "__import__('ctypes').CDLL(None).system(b'touch $CANARY')",
    ],
)
def test_what_is_left_after_a_way_round_weights_only(tmp_path, canary, attempt):
    """Should a pickle run code all the same, the process it is in starts no program, and writes nowhere else."""
    code = f"""
import importlib.util, os, pathlib, sys, types
sys.modules["torch"] = types.SimpleNamespace(Tensor=None, strided=None)  # which takes seconds to import, and plays no part
sys.modules["safetensors.torch"] = types.SimpleNamespace(save_file=None)
spec = importlib.util.spec_from_file_location("worker", {str(WORKER)!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
path = {str(canary)!r}
target = pathlib.Path({str(tmp_path / "target")!r})
target.mkdir()
worker.shut_in(target, 1000)
open(target / "allowed", "w").close()
try:
    {attempt}
except PermissionError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.startswith("the file wanted "), found
    assert (tmp_path / "target" / "allowed").exists()


YAML = {
    "a file of the model group": ("model/mine.yaml", "name: {folder}\ntrust_remote_code: true\n", "model=mine"),
    "an experiment": (
        "experiment/mine.yaml",
        "# @package _global_\nmodel:\n  name: {folder}\n  trust_remote_code: true\n",
        "experiment=mine",
    ),
    "text for true": ("model/mine.yaml", "name: {folder}\ntrust_remote_code: 'yes'\n", "model=mine"),
    "a value to resolve": ("model/mine.yaml", "name: {folder}\ntrust_remote_code: ${{training.baseline}}\n", "model=mine"),
}


@pytest.mark.parametrize("name", YAML)
def test_no_file_may_trust_code(folder, canary, tmp_path, name):
    path, text, word = YAML[name]
    with_code(AutoConfig="evil.C")(folder)
    rows_file(tmp_path)
    (tmp_path / "conf" / path).parent.mkdir(parents=True)
    (tmp_path / "conf" / path).write_text(text.format(folder=folder))
    words = [*TRAIN, "--config-dir", "conf", word, f"model.revision={COMMIT}"]
    code, said = crash_lab.run(words, tmp_path, {"CANARY": str(canary)})
    assert code == 2, said
    assert re.search(rf"{path}:\d+: .*model.trust_remote_code", said.replace("\n", " ")), said


class Gadget:
    """A pickle that calls a function when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def gadgets(canary: Path) -> dict[str, object]:
    """Pickles that would write the canary, or whatever else than tensors."""
    return {
        "os.system": {"a": Gadget(os.system, f"touch {canary}")},
        "exec": {"a": Gadget(exec, f"open({str(canary)!r}, 'w')")},
        "eval in a list": [Gadget(eval, f"open({str(canary)!r}, 'w')")],
        "no dictionary": [1, 2, 3],
        "numpy": {"a": np.zeros(3, dtype=object)},
    }


GADGETS = list(gadgets(Path("canary")))


@pytest.mark.parametrize("name", [*GADGETS[:1], *(pytest.param(name, marks=pytest.mark.torture) for name in GADGETS[1:])])
def test_a_pickle_runs_no_code(folder, canary, name):
    (folder / "model.safetensors").unlink()
    torch.save(gadgets(canary)[name], folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"the pickled weights cannot be converted: pytorch_model\.bin: it holds "):
        locate(Model(name=str(folder), convert_pickle=True))


def test_pickled_weights_are_converted_on_purpose(tiny, folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights | {"lm_head.weight": weights["transformer.wte.weight"]}, folder / "pytorch_model.bin")
    found = locate(Model(name=str(folder), convert_pickle=True))
    assert found == locate(Model(name=str(folder), convert_pickle=True))  # made once
    loaded = dict(load_pretrained(found, torch.float32, CPU).model.named_parameters())
    assert all(torch.equal(loaded[name], weights[name]) for name in weights if name in loaded)
    assert (
        AutoTokenizer.from_pretrained(found)("fox").input_ids == AutoTokenizer.from_pretrained(tiny / "gpt2")("fox").input_ids
    )
