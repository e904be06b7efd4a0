"""Windows of encoded documents to score: every target counts once, in as much context as fits. t tokens of a window."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from xtuner_core.contracts.batch import IGNORE, Document
from xtuner_core.data.encoding.encoded import Encoded


def windows(encoded: Encoded, limit: int, overlap: int) -> Iterator[Document]:
    """Cut a document into overlapping windows; every token but the first is a target once, with its weight.

    Each window after the first repeats at least `overlap` tokens of the one before as context of weight 0.
    The last window is moved back to end with the document: all windows of a long document are equally long.
    A window without any weight is left out.

    :param encoded: of at least two tokens.
    :param limit: tokens of a window at most.
    :param overlap: at least 0 and below `limit`.
    """
    ids = torch.from_numpy(encoded.token_ids.astype("int64"))
    weights = torch.ones(len(ids)) if encoded.weights is None else torch.tensor(encoded.weights)
    counted, total = 0, len(ids) - 1
    while counted < total:
        start = 0 if counted == 0 else counted - overlap
        start = max(0, min(start, total - limit))
        stop = min(start + limit, total)
        # Labels and their weights are those of the tokens that follow.
        labels, wanted = ids[start + 1 : stop + 1].clone(), weights[start + 1 : stop + 1].clone()
        wanted[: counted - start] = 0.0
        labels[wanted == 0] = IGNORE
        if wanted.any():
            yield Document(token_ids=ids[start:stop], labels=labels, weights=wanted)
        counted = stop
