"""Windows: which tokens they hold, where those stand in the context, and which of them are the answer."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmft.config.schema import Truncation
from llmft.errors import ConfigError, DataError, ModelError
from llmft.tasks.learn.span_windows import Windower, whole

QUESTION = "Who jumps over the dog?"
TEXT = "The quick brown fox jumps over the lazy dog while the cat sleeps in the sun. A function returns a value."
MIXED = [
    ("عاصمة مصر هي القاهرة، وهي مدينة.", "القاهرة"),
    ("東京都は日本の首都です。京都はそうではありません。", "日本"),
    ("東京都は日本の首都です。", "都"),
    ("กรุงเทพ เป็น เมืองหลวง ของ ประเทศ", "เมืองหลวง"),
    ("\U0001f98a\U0001f98a the quick \U0001f98a brown fox", "brown"),
    ("cafe\u0301 noir, s'il vous plai\u0302t", "cafe\u0301"),
]


@pytest.fixture(scope="session")
def bert(tiny):
    return AutoTokenizer.from_pretrained(tiny / "bert")


def roberta(trim_offsets):
    """Byte-level BPE with RoBERTa's special tokens and no token types; without trimming, tokens have the space before them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets, add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", pad_token="<pad>", bos_token="<s>"
    )


def sentencepiece():
    """Unigram whose tokens begin with the space before the word (DeBERTa v3, ALBERT, XLM-R), or are that space alone."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["[CLS]", "[SEP]", "[UNK]"]
    alphabet = sorted(set("▁" + TEXT + "".join(text for text, _ in MIXED)) - {" "})
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="[UNK]", initial_alphabet=alphabet)
    tokenizer.train_from_iterator([TEXT], trainer)
    ids = [("[CLS]", 0), ("[SEP]", 1)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")


KINDS = {"byte-level": lambda: roberta(True), "with space": lambda: roberta(False), "sentencepiece": sentencepiece}


@pytest.fixture(params=["wordpiece", *KINDS])
def tokenizer(request, bert):
    return bert if request.param == "wordpiece" else KINDS[request.param]()


def windows(tokenizer, question, context, length=32, overlap=8, truncation=Truncation.end):
    return Windower(tokenizer, length, overlap, truncation).windows(question, context, "f:1")


def text_of(window, context, first, last):
    return context[window.offsets_T2[first, 0] : window.offsets_T2[last, 1]]


def test_windows_are_question_and_slices_of_the_context(bert):
    question, context = (bert(text, add_special_tokens=False).input_ids for text in (QUESTION, TEXT))
    cls, sep = bert.cls_token_id, bert.sep_token_id
    length, overlap = len(question) + 3 + 12, 5
    expected = []
    for start in range(0, len(context), 12 - overlap):
        expected.append([cls, *question, sep, *context[start : start + 12], sep])
        if start + 12 >= len(context):
            break
    found, cut = windows(bert, QUESTION, TEXT, length, overlap)
    assert len(found) > 2
    assert [window.ids_T.tolist() for window in found] == expected
    assert cut == 0
    for window in found:
        assert window.second == len(question) + 2
        assert np.flatnonzero(window.context_T).tolist() == list(range(window.second, len(window) - 1))
        assert window.no_answer == 0


def test_without_a_limit_there_is_one_window(bert):
    [window], _ = windows(bert, QUESTION, f"{TEXT} " * 30, length=None, overlap=8)
    assert len(window) == len(bert(QUESTION, f"{TEXT} " * 30).input_ids) > 512


def test_no_token_types(bert):
    [window], _ = windows(roberta(True), QUESTION, TEXT, length=None)
    assert window.second == 0  # RoBERTa has one type


@pytest.mark.parametrize(
    ("context", "answer"), [*MIXED, (TEXT, "The"), (TEXT, "quick brown fox"), (TEXT, "value."), (TEXT, "a value")]
)
def test_the_answers_tokens_cut_out_the_answer(tokenizer, context, answer):
    start = context.index(answer)
    [window], _ = windows(tokenizer, QUESTION, context, length=None)
    first, last = window.tokens_of(start, start + len(answer))
    assert 0 < first <= last
    assert window.context_T[[first, last]].all()
    found = text_of(window, context, first, last)
    if tokenizer.cls_token == "[CLS]" and tokenizer.unk_token_id in window.ids_T[first : last + 1]:
        assert answer in found  # the tiny vocabulary lacks the word: the token is all of it
    else:
        assert found == answer


def test_a_character_of_several_tokens():
    """run_qa takes the last token that begins there as the first, and the first that ends there as the last: an empty answer."""
    tokenizer = roberta(True)
    context = "東京都は日本"
    [window], _ = windows(tokenizer, "?", context, length=None)
    places = [place for place in np.flatnonzero(window.context_T) if window.offsets_T2[place].tolist() == [2, 3]]
    assert len(places) == 3  # 都 is three bytes
    assert window.tokens_of(2, 3) == (places[0], places[-1])
    assert by_run_qa(window, 2, 3) == (places[-1], places[0])


def by_run_qa(window, start, end):
    """transformers' run_qa, prepare_train_features, on a window's offsets."""
    offsets = window.offsets_T2.tolist()
    places = np.flatnonzero(window.context_T)
    first, last = int(places[0]), int(places[-1])
    if not (offsets[first][0] <= start and offsets[last][1] >= end):
        return 0, 0
    while first < len(offsets) and first <= places[-1] and offsets[first][0] <= start:
        first += 1
    while last >= places[0] and offsets[last][1] >= end:
        last -= 1
    return first - 1, last + 1


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "with space"])
def test_labels_are_those_of_run_qa(bert, kind):
    """Every answer of whole words, in windows that hold it whole, in part, at an edge, and not at all."""
    tokenizer = bert if kind == "wordpiece" else KINDS[kind]()
    room = len(tokenizer(QUESTION, "").input_ids)
    found, _ = windows(tokenizer, QUESTION, TEXT, length=room + 20, overlap=10)
    starts = [place for place in range(len(TEXT)) if place == 0 or TEXT[place - 1] == " "]
    ends = [place for place in range(1, len(TEXT) + 1) if place == len(TEXT) or TEXT[place] == " "]
    held = at_edge = 0
    for start in starts:
        for end in ends:
            if start < end < start + 40:
                for window in found:
                    labels = window.tokens_of(start, end)
                    assert labels == by_run_qa(window, start, end)
                    held += labels != (0, 0)
                    at_edge += labels[1] == np.flatnonzero(window.context_T)[-1]
                    if labels != (0, 0):
                        assert text_of(window, TEXT, *labels) == TEXT[start:end]
    assert held > 50
    assert at_edge > 5


def test_an_answer_that_is_cut_by_a_windows_end_is_not_in_it(bert):
    found, _ = windows(bert, "fox?", TEXT, length=16, overlap=4)
    assert len(found) > 2
    for window in found:
        places = np.flatnonzero(window.context_T)
        start, end = int(window.offsets_T2[places[0], 0]), int(window.offsets_T2[places[-1], 1])
        assert window.tokens_of(start, end) == (places[0], places[-1])
        if start > 0:
            assert window.tokens_of(start - 1, end) == (0, 0)
        if end < len(TEXT):
            assert window.tokens_of(start, end + 1) == (0, 0)


def test_marks_that_the_tokenizer_takes_off_stay_with_their_letter(bert):
    """BertNormalizer takes off accents: the token of "noe" ends before the accent written after it."""
    context = "A noe\u0301 fox"
    [window], _ = windows(bert, "?", context, length=None)
    first, last = window.tokens_of(2, 6)
    assert bert.backend_tokenizer.normalizer.normalize_str(context) == "a noe fox"
    assert text_of(window, context, first, last) == "noe\u0301"
    assert whole("ที่ นี่", 0, 1, 7) == (0, 3)
    assert whole("ที่ นี่", 0, 1, 1) == (0, 1)  # the mark is the next token's
    assert whole("a  b", 1, 4, 4) == (3, 4)
    assert whole("a  b", 1, 3, 4) == (3, 3)


def test_characters_without_tokens_at_the_ends_belong_to_the_context(bert):
    """A direction mark before the first letter: the answer that includes it is all there."""
    context = "\u200fThe fox\u200f"
    [window], _ = windows(bert, "?", context, length=None)
    assert [text_of(window, context, place, place) for place in np.flatnonzero(window.context_T)] == ["The", "fox"]
    assert window.tokens_of(0, 4) == (3, 3)
    assert window.tokens_of(5, 9) == (4, 4)


def test_space_before_a_question_costs_nothing(bert):
    plain, _ = windows(bert, QUESTION, TEXT)
    spaced, _ = windows(bert, " \n\t" * 40 + QUESTION, TEXT)
    assert [window.ids_T.tolist() for window in spaced] == [window.ids_T.tolist() for window in plain]
    byte_level, _ = windows(roberta(False), " " * 200 + "fox?", TEXT, length=60)
    assert (
        byte_level[0].ids_T.tolist()[: 2 + len("fox?")]
        == windows(roberta(False), "fox?", TEXT, length=60)[0][0].ids_T.tolist()[:6]
    )


def test_a_question_that_is_too_long_is_cut_and_counted(bert):
    question = "one fox two dog " * 12
    size = len(bert(question, add_special_tokens=False).input_ids)
    room = 40 - 3 - 8 - 5  # of 40 tokens 3 are special, 8 overlap, and an eighth is new
    for truncation, kept in ((Truncation.end, slice(0, room)), (Truncation.start, slice(size - room, size))):
        found, cut = windows(bert, question, TEXT, length=40, overlap=8, truncation=truncation)
        expected = bert(question, add_special_tokens=False).input_ids[kept]
        for window in found:
            assert window.ids_T[1 : window.second - 1].tolist() == expected
        assert cut == size - room
        assert sum(int(window.context_T.sum()) for window in found[:-1]) == 13 * (len(found) - 1)
    with pytest.raises(DataError) as error:
        windows(bert, question, TEXT, length=40, overlap=8, truncation=Truncation.error)
    assert str(error.value) == (
        f"f:1: the question has {size} tokens; beside it, a window of 40 tokens with an overlap of 8 needs it to have 24 or less. "
        "Raise task.max_source_tokens, lower task.overlap, or set task.truncation=end."
    )
    assert windows(bert, "fox?", TEXT, length=40, overlap=8, truncation=Truncation.error)[1] == 0


def test_windows_that_could_not_move_on(bert):
    assert windows(bert, "fox", TEXT, length=16, overlap=10)[0]  # 16 = 3 special + 10 + 2 new + 1 of the question
    with pytest.raises(ConfigError) as error:
        windows(bert, "fox", TEXT, length=16, overlap=11)
    assert str(error.value) == (
        "task.overlap=11 leaves no room for a question in windows of 16 tokens, which have 3 special ones and move on by 2 at "
        "least. Lower it, or raise task.max_source_tokens."
    )


def test_a_tokenizer_that_does_not_tell_places():
    class Slow:
        is_fast = False

    with pytest.raises(ModelError) as error:
        Windower(Slow(), 32, 8, Truncation.end)
    assert str(error.value) == (
        "model.name: its tokenizer, Slow, does not tell where its tokens stand in a text, which cutting answers out needs; expected "
        "one of the tokenizers library (with a tokenizer.json). Name another model."
    )
