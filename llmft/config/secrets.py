"""What looks like an access token, a key or a password: refused in settings, and never printed."""

import re

SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|\bsk-[A-Za-z0-9_-]{20,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}"
    r"|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bxox[abprs]-[A-Za-z0-9-]{20,}"  # Slack
    r"|\bAIza[A-Za-z0-9_-]{35}"  # Google
    r"|\b[Bb]earer [A-Za-z0-9._~+/-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?<=://)[^/\s:@{}]*:[^/\s@{}]+@"  # https://user:password@host
)


def redact(text: str) -> str:
    """The text without what looks like a secret."""
    return SECRET.sub("[redacted]", text)
