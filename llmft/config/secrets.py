"""What looks like an access token, a key or a password: refused in settings, and written or printed nowhere."""

import os
import re
from collections.abc import Iterator

_START = r"(?:\b|(?<=\dm)|(?<=\[m))"  # of a word, or after a change of colour, which ends in the letter m
LOOKS_SECRET = re.compile(
    rf"{_START}(?P<kind>hf_|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|xapp-|AIza|npm_|pypi-|[rs]k_live_|wandb_v1_)[A-Za-z0-9_-]{{12,}}"
    r"|\b(?P<letters>sk-)(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16,}"  # with a digit, or it may be words joined by hyphens
    r"|\b(?P<aws>AKIA|ASIA)[A-Z0-9]{12,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"  # JSON web token, RFC 7519
    r"|\b(?P<scheme>[Bb]earer )[A-Za-z0-9._~+/-]{16,}=*"
    r"|\b(?P<basic>[Aa]uthorization: ?[Bb]asic )[A-Za-z0-9+/]{8,}=*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?P<signed>[?&](?i:access_token|token|api_?key|password|sig|signature|x-amz-signature)=)[^&\s'\"]{8,}"
    r"|(?P<url>\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s:@{}]*:[^/\s@{}]+@",  # https://user:password@host
)
"""The tokens of the services that a training run may meet, by the beginnings that these gave them so that they can be told."""

NAMED_SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|PWD|CREDENTIAL|_KEY$|API_?KEY|ACCESS_?KEY|AUTH(?!OR)|_PAT$", re.IGNORECASE
)
"""Environment variables whose value is a secret, whatever it looks like."""
LEAST_CHARACTERS = 8
"""A shorter value could stand in any text by chance."""

_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:(?P<password>[^/\s@]+)@")


def describe(text: str) -> str | None:
    """What in `text` is a secret, as "looks like ..." or "holds ..."; None if nothing is."""
    if LOOKS_SECRET.search(text):
        return "looks like a secret"
    name = next((name for name, value in _in_environment() if value in text), None)
    return f"holds the secret in the environment variable {name}" if name else None


def redact(text: str) -> str:
    """The text without what looks like a secret, and without the secrets in the environment; it still says of what kind."""
    for _, value in _in_environment():
        text = text.replace(value, "[redacted]")
    return LOOKS_SECRET.sub(_without, text)


def _without(found: re.Match[str]) -> str:
    kind = next((text for text in found.groups() if text), "")
    return f"{kind}[redacted]{'@' if found['url'] else ''}"


def _in_environment() -> Iterator[tuple[str, str]]:
    """Names and values of the variables that hold secrets; of a URL (a proxy's) the password alone."""
    for name, value in os.environ.items():
        if found := _PASSWORD.match(value):
            value = found["password"]
        elif not NAMED_SECRET.search(name) or value.startswith(("/", "~", ".")):  # the path of a key file is none
            continue
        # One word in small letters is a name or a choice (of a user, of a way to log in) that other texts may well hold.
        if len(value) >= LEAST_CHARACTERS and not re.fullmatch(r"[a-z]+|[A-Z]+", value):
            yield name, value
