"""What is taken for a secret, by its look or because the environment calls it one, and what is not."""

import pytest

from llmft.config.secrets import describe, redact

KEY_BLOCK = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"
TOKENS = [
    ("x=hf_" + "aB3" * 12 + " y", "x=hf_[redacted] y"),
    ("sk-proj-" + "aB3_" * 8, "sk-[redacted]"),
    ("ghp_" + "a" * 36 + ",gho_" + "b" * 36, "ghp_[redacted],gho_[redacted]"),
    ("github_pat_" + "a" * 40, "github_pat_[redacted]"),
    ("AKIAIOSFODNN7EXAMPLE", "AKIA[redacted]"),
    ("xoxb-1234567890-abcdefghij", "xoxb-[redacted]"),
    # RFC 7519, section 3.1, shortened
    ("eyJ0eXAiOiJKV1Qi.eyJpc3MiOiJqb2Ui.dBjftJeZ4CVP", "[redacted]"),
    ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic [redacted]"),
    ("authorization: Bearer " + "aB3" * 8, "authorization: Bearer [redacted]"),
    ("https://me:secret@host/path", "https://[redacted]@host/path"),
    ("https://host/f?x=1&X-Amz-Signature=0123456789abcdef&y=2", "https://host/f?x=1&X-Amz-Signature=[redacted]&y=2"),
    ("https://host/f?token=0123456789abcdef&y=2", "https://host/f?token=[redacted]&y=2"),
    (f"a {KEY_BLOCK} b", "a [redacted] b"),
    (KEY_BLOCK[:40], "[redacted]"),
]
ORDINARY = [
    "task=ask-questions hf_model model.name=org/hf_bert https://host:80/a@b",
    "model.revision=0123456789abcdef0123456789abcdef01234567",
    "sk-learn-based-text-classifier",
    "{scheme}://{user}:{password}@{host}",
    "The bearer of bad news",
    "-----BEGIN CERTIFICATE-----",
]


@pytest.mark.parametrize(("text", "expected"), TOKENS)
def test_redact(text, expected):
    assert redact(text) == expected
    assert describe(text) == (None if text == expected else "looks like a secret")


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_no_secret(text):
    assert redact(text) == text
    assert describe(text) is None


@pytest.mark.parametrize(
    ("name", "value", "said", "expected"),
    [
        ("WANDB_API_KEY", "0123456789abcdef" * 2, "key 0123456789abcdef0123456789abcdef!", "key [redacted]!"),
        ("DB_PASSWORD", "hunter2hunter2", "as hunter2hunter2", "as [redacted]"),
        ("https_proxy", "http://me:s3cret-word@proxy:3128", "407 for s3cret-word", "407 for [redacted]"),
        ("LOGIN_AUTH", "passwords", "passwords", "passwords"),  # one word: a choice
        ("KEY_FILE_TOKEN", "/home/me/token.json", "/home/me/token.json", "/home/me/token.json"),
        ("SHORT_TOKEN", "a1b2", "a1b2", "a1b2"),
        ("GIT_AUTHOR_NAME", "Ann Other", "Ann Other", "Ann Other"),
        ("LANG_CODE", "0123456789", "0123456789", "0123456789"),
    ],
)
def test_secrets_of_the_environment(monkeypatch, name, value, said, expected):
    monkeypatch.setenv(name, value)
    assert redact(said) == expected
    known = None if said == expected else f"holds the secret in the environment variable {name}"
    assert describe(said) == known
