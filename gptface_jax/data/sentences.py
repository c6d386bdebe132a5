"""Decoded pieces as a sentence that a person would write (SPEC B.9.1)."""

from __future__ import annotations

import re

_RULES = (
    (r"\s*##", ""),  # pieces that were printed one by one
    (r"\s+", " "),
    (r"(?<=[0-9]) ?\. (?=[0-9])", "."),  # 3 . 5
    (r" ([.,;:!?%)\]}])", r"\1"),
    (r"([(\[{]) ", r"\1"),
    (r"(?<=\w) ?(['’]) ?(?=(?:s|t|d|m|re|ve|ll)\b)", r"\1"),  # it ' s
    (r"(?<=[^\W_]) - (?=[^\W_])", "-"),
    (r'" ([^"]*?) ?"', r'"\1"'),
)


def tidy(text: str, capitals: bool = True) -> str:
    """A decoded caption with its pieces merged and its punctuation closed up.

    Args:
      text: as WordPiece prints it, "a well - known man , isn ' t he ? yes".
      capitals: begin it, and what follows a full stop, with a capital letter.

    Returns:
      "A well-known man, isn't he? Yes".
    """
    text = text.strip()
    for pattern, replacement in _RULES:
        text = re.sub(pattern, replacement, text)
    if not capitals:
        return text
    return re.sub(r"(?:^|[.!?] )[a-z]", lambda match: match[0].upper(), text)
