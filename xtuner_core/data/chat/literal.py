"""Special tokens that stand in a record as text: found before a template runs, and kept text behind it.

Without this, a message that spells `<|im_end|>` would end its turn and could begin another, in whoever's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xtuner_core.contracts.tokenizer import Alignment, LiteralAligner
from xtuner_core.data.chat.marks import LITERAL, RESERVED, Rendered
from xtuner_core.data.chat.messages import Unusable
from xtuner_core.data.encoding.long_text import align_long


def pattern_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """What finds any of the tokens, the longer before the shorter."""
    longest_first = sorted((token for token in tokens if token), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def refuse_reserved(value: Any) -> None:
    """Pass data that holds none of the characters that serve as marks.

    :raises Unusable: it does.
    """
    for text in _strings(value):
        found = None if text.isascii() else RESERVED.search(text)
        if found:
            raise Unusable(f"a text holds the noncharacter U+{ord(found[0]):04X}, which is kept out of text")


def first_special(value: Any, tokens: re.Pattern[str]) -> str | None:
    """The first special token that data spells."""
    found = (tokens.search(text) for text in _strings(value))
    return next((match[0] for match in found if match), None)


def mark_specials(value: Any, tokens: re.Pattern[str]) -> Any:
    """The same data with marks around each special token that it spells."""
    return _mapped(value, lambda text: tokens.sub(lambda match: f"{LITERAL[0]}{match[0]}{LITERAL[1]}", text))


def align_literal(rendered: Rendered, tokenizer: LiteralAligner, tokens: re.Pattern[str]) -> Alignment:
    """Tokenise a rendering of which some special tokens are text."""
    pieces, places, last = [], [(0, 0)], 0
    length = 0
    for match in tokens.finditer(rendered.text):
        if any(match.start() < end and match.end() > start for start, end in rendered.literal):
            continue
        stand_in = tokenizer.stand_ins[match[0]]
        pieces += [rendered.text[last : match.start()], stand_in]
        length += match.start() - last
        last = match.end()
        places.append((length, match.start()))
        length += len(stand_in)
        places.append((length, last))
    found = align_long("".join([*pieces, rendered.text[last:]]), tokenizer)
    written, original = np.array(places, dtype=np.int64).T
    return Alignment(
        found.token_ids, _moved(found.starts, written, original), _moved(found.ends, written, original), found.words
    )


def _moved(x: NDArray[np.int64], written: NDArray[np.int64], original: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places in the text with stand-ins as places in the original."""
    behind = np.searchsorted(written, x, side="right") - 1
    moved: NDArray[np.int64] = original[behind] + (x - written[behind])
    return moved


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, (list, tuple)) else value
