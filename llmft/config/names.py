"""Built-in names and the functions behind them, as dotted strings so that nothing below is imported here.

A name without a dot is looked up in one of these tables; a name with a dot is an import path (see `bind`).
"""

FORMULATIONS = {
    "text_to_text": "llmft.tasks.text_to_text.TextToText",
    "span": "llmft.tasks.span.Span",
    "label": "llmft.tasks.label.Label",
    "language_model": "llmft.tasks.language_model.LanguageModel",
}

LEARNERS = {
    "text_to_text": {
        "decoder": "llmft.tasks.learn.text_decoder.TextDecoder",
        "encoder-decoder": "llmft.tasks.learn.text_encoder_decoder.TextEncoderDecoder",
    },
    "span": {"encoder": "llmft.tasks.learn.span_encoder.SpanEncoder"},
    "label": {
        "encoder": "llmft.tasks.learn.label_head.LabelHead",
        "decoder": "llmft.tasks.learn.label_head.LabelHead",
        "encoder-decoder": "llmft.tasks.learn.label_head.LabelHead",
    },
    "language_model": {
        "decoder": "llmft.tasks.learn.causal_lm.CausalLM",
        "encoder": "llmft.tasks.learn.masked_lm.MaskedLM",
    },
}
"""What trains a family of models on a formulation; a pair that is not here makes no sense."""

METRICS = {
    "bleu": "llmft.metrics.bleu.bleu",
    "chrf": "llmft.metrics.chrf.chrf",
    "ter": "llmft.metrics.ter.ter",
    "rouge": "llmft.metrics.rouge.rouge",
    "squad": "llmft.metrics.squad.squad",
    "perplexity": "llmft.metrics.perplexity.perplexity",
    "classification": "llmft.metrics.classification.classification",
    "regression": "llmft.metrics.regression.regression",
    "health": "llmft.metrics.health.health",
}

BASELINES = {
    "lead_1": "llmft.tasks.baselines.lead_1",
    "copy_source": "llmft.tasks.baselines.copy_source",
    "no_answer": "llmft.tasks.baselines.no_answer",
    "whole_context": "llmft.tasks.baselines.whole_context",
}

ROWS = {
    "squad": "llmft.data.shapes.squad",
    "alpaca": "llmft.data.shapes.alpaca",
}

OPTIMIZERS = {
    "adamw": "llmft.training.optimizer.adamw",
    "adafactor": "llmft.training.optimizer.adafactor",
    "sgd": "llmft.training.optimizer.sgd",
    "muon": "llmft.training.optimizer.muon",
}

SCHEDULES = {
    "constant": "llmft.training.schedule.constant",
    "linear": "llmft.training.schedule.linear",
    "cosine": "llmft.training.schedule.cosine",
    "wsd": "llmft.training.schedule.wsd",
}

DATASETS = {
    "standard_library": "llmft.data.builtin.summaries.standard_library",
    "library_questions": "llmft.data.builtin.questions.library_questions",
    "library_text": "llmft.data.builtin.text.library_text",
    "library_instructions": "llmft.data.builtin.instructions.library_instructions",
    "library_topics": "llmft.data.builtin.topics.library_topics",
    "toy_numbers": "llmft.data.builtin.numbers.toy_numbers",
}
