"""Built-in names and the functions behind them, as dotted strings so that nothing below is imported here.

A name without a dot is looked up in one of these tables; a name with a dot is an import path (see `bind`).
"""

FORMULATIONS = {
    "text_to_text": "llmft.tasks.text_to_text.TextToText",
}

METRICS = {
    "rouge": "llmft.metrics.rouge.rouge",
}

BASELINES = {
    "lead_1": "llmft.tasks.baselines.lead_1",
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
    "standard_library": "llmft.data.demo.standard_library",
}
