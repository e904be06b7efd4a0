"""Work that ranks do together and that comes to the same end on all of them: done, or failed for one reason.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from xtuner_core import errors
from xtuner_core.errors import RunError, XTunerCoreError
from xtuner_core.hf.together import ALONE, Together

T = TypeVar("T")


class Agreement:
    """A block of work that all ranks do; where it fails on one it is left by all, with the same error.

    Ranks meet inside it as often as they like, all in the same order, and once at its end. A rank whose block raises
    says so when the others meet next. Of several failures one counts: one of a disk only where there is no other,
    and of equals that of the lowest rank.

    :raises OSError: with number, text and file of the rank's whose disk refused.
    :raises XTunerCoreError: what another rank raised.
    """

    def __init__(self, together: Together = ALONE) -> None:
        self._together = together
        self._over = False
        self.rank = together.rank
        self.size = together.size
        self.leads = together.leads

    def meet(self, data: Any = None) -> list[Any]:
        """Wait for all ranks; the one that leads gets their data by rank, the others an empty list."""
        return self._step({"data": data})[0]

    def lead(self, work: Callable[[], T]) -> T:
        """Have the rank that leads do something, and get its result on all ranks."""
        result: T = self._step({}, work() if self.leads else None)[1]
        return result

    def share(self, data: T) -> T:
        """The data of the rank that leads."""
        return self.lead(lambda: data)

    def __enter__(self) -> Agreement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._over:
            return
        if error is None:
            self.meet()
        elif self.size > 1:
            self._tell(error)

    def alike(self, data: Any) -> bool:
        """Whether all ranks have equal data, of JSON; a digest of it is exchanged."""
        digests = self.meet(hashlib.sha256(json.dumps(data).encode()).hexdigest())
        return self.lead(lambda: len(set(digests)) == 1)

    def _step(self, given: Mapping[str, Any], answer: Any = None) -> tuple[list[Any], Any]:
        rows, shared = self._exchange(given, answer)
        if shared["failure"] is not None:
            self._over = True
            raise _as_error(shared["failure"])
        return [row.get("data") for row in rows], shared["answer"]

    def _tell(self, error: BaseException) -> None:
        """Let the others know; where another rank's failure counts more, raise that."""
        try:
            _, shared = self._exchange({"failure": _as_data(error, self.rank)})
        except Exception:
            return
        failure = shared["failure"]
        if failure["rank"] != self.rank and isinstance(error, Exception):
            raise _as_error(failure) from error

    def _exchange(self, given: Mapping[str, Any], answer: Any = None) -> tuple[list[Any], Any]:
        assert not self._over, "the ranks have parted"
        try:
            rows = self._together.gather(given)
            failures = [row["failure"] for row in rows if "failure" in row]
            worst = min(failures, key=lambda each: (each["kind"] == "OSError", each["rank"]), default=None)
            return rows, self._together.share({"failure": worst, "answer": None if worst else answer})
        except BaseException:
            self._over = True
            raise


@contextmanager
def shared_folder(lent: AbstractContextManager[Path], together: Together = ALONE) -> Iterator[tuple[Path, Agreement]]:
    """Lend all ranks the folder that is lent to the one that leads.

    :param lent: entered by the rank that leads only (`durable.whole_folder`); left when all blocks have ended well,
        and with their error when one has not.
    :returns: the folder, and the agreement in which the ranks fill it.
    :raises OSError: something cannot be written, on any rank.
    """
    # The stack is left after the agreement, so that a folder is removed when no rank writes into it any more.
    with ExitStack() as stack, Agreement(together) as agreement:
        partial = agreement.lead(lambda: str(stack.enter_context(lent)))
        yield Path(partial), agreement
        agreement.meet()
        agreement.lead(stack.close)


def _as_data(error: BaseException, rank: int) -> dict[str, Any]:
    if isinstance(error, OSError):
        file = None if error.filename is None else str(error.filename)
        told = error.strerror or str(error)
        return {"rank": rank, "kind": "OSError", "number": error.errno, "message": told, "file": file}
    kind = type(error).__name__
    if isinstance(error, XTunerCoreError):
        return {"rank": rank, "kind": kind, "message": error.message, "fix": error.fix, "plugin": error.plugin}
    return {"rank": rank, "kind": "", "message": f"{kind}: {error}"}


def _as_error(failure: Mapping[str, Any]) -> Exception:
    at, told = f"rank {failure['rank']}", failure["message"]
    if failure["kind"] == "OSError":
        return OSError(failure["number"], f"{told} ({at})", failure["file"])
    kind = getattr(errors, failure["kind"], None) if failure["kind"] else None
    if kind is None or kind is errors.ComposeError:
        return RunError(f"{at} failed: {told}", fix=f"see what {at} says")
    error: Exception = kind(f"{told}", fix=failure["fix"], plugin=failure["plugin"])
    return error
