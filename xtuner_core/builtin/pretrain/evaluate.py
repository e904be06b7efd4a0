"""Held-out bits per byte, continuations of prompts, and the yardstick that xz gives. T tokens of a pack."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import log
from typing import Any

from xtuner_core.builtin.pretrain.config import PretrainConfig
from xtuner_core.builtin.pretrain.corpus import HeldOutText
from xtuner_core.contracts.algorithm import Engine
from xtuner_core.contracts.batch import pack
from xtuner_core.contracts.sampling import Sampling
from xtuner_core.contracts.tokenizer import Tokenizer
from xtuner_core.data.packing import best_fit


def score_held_out(engine: Engine, text: HeldOutText, *, capacity: int) -> dict[str, float]:
    """Bits that the model's probabilities spend on the text, over its bytes in UTF-8.

    Every token counts once, the end of each document included, so that the bits are the length of a complete
    code for the documents.
    """
    bits, tokens = 0.0, 0
    for members in best_fit([len(window) for window in text.windows], capacity):
        batch = pack([text.windows[index] for index in members])
        log_probs_T = engine.score(batch).log_probs_T.double().cpu()
        counted_T = batch.labels >= 0
        bits -= float(log_probs_T[counted_T].sum()) / log(2)
        tokens += int(counted_T.sum())
    return {
        "bits_per_byte": bits / text.bytes,
        "bytes": text.bytes,
        "tokens": tokens,
        "documents": text.documents,
    }


def continue_prompts(engine: Engine, tokenizer: Tokenizer, config: PretrainConfig, seed: int) -> list[dict[str, str]]:
    """Continue each prompt as the beginning of a document."""
    prompts = config.sample_prompts
    if not prompts:
        return []
    sampling = Sampling(
        max_tokens=config.sample_tokens,
        temperature=config.sample_temperature,
        stop_token_ids=(tokenizer.end_of_text,),
        seed=seed,
    )
    samples = engine.generate([[tokenizer.end_of_text, *tokenizer.encode(p)] for p in prompts], sampling)
    return [
        {"prompt": prompt, "text": tokenizer.decode(sample.token_ids), "stop": sample.stop}
        for prompt, sample in zip(prompts, samples, strict=True)
    ]


def render_samples(samples: Sequence[dict[str, str]]) -> str:
    """Write the samples as a text file, `|` between prompt and continuation."""
    rule = "\n" + "-" * 40 + "\n"
    return rule.join(f"{sample['prompt']}|{sample['text']}" for sample in samples) + "\n"


class Background:
    """Calls a function in a thread of its own and keeps what it returns or raises.

    The thread is a daemon: a run that ends early does not wait for it. Where the system has priorities of threads
    it takes the lowest, so that it fills gaps and training goes on at its own pace.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> Any:
        """Wait for it."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value

    def _run(self) -> None:
        with suppress(OSError):  # Linux alone takes a thread's number here
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        try:
            self._value = self._call()
        except BaseException as error:  # handed to whoever asks for the result
            self._error = error
