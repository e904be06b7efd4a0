"""The feed of a run: global batches from tokenised datasets, and the exact position among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import ceil
from typing import Any

from xtuner_core.contracts.algorithm import Report, Services, StepResult
from xtuner_core.contracts.batch import PackedBatch, pack
from xtuner_core.data.balance import balance, imbalance
from xtuner_core.data.documents import Documents
from xtuner_core.data.encoding.encoded import Encoder
from xtuner_core.data.mixture import Mixture, Part, check_names, passes
from xtuner_core.data.packs import Packs, Piece, Position
from xtuner_core.data.pieces import Pieces
from xtuner_core.data.store import TokenStore, open_store
from xtuner_core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Tokens, filler included."""

    tokens_per_step: int
    """Of a global batch; a multiple of `micro_batch_tokens`."""
    micro_batch_tokens: int
    """Of a pack."""
    document_tokens: int
    """Of a piece at most; not above `micro_batch_tokens`."""

    def __post_init__(self) -> None:
        assert self.tokens_per_step % self.micro_batch_tokens == 0, self
        assert 0 < self.document_tokens <= self.micro_batch_tokens, self

    @property
    def packs(self) -> int:
        """Micro-batches of a step."""
        return self.tokens_per_step // self.micro_batch_tokens


@dataclass(frozen=True, slots=True)
class _Step:
    """What is known of a step when it is handed out."""

    position: Position
    """Of the pack after it."""
    tokens: Counter[str]
    """Trained on, by dataset."""
    imbalance: float


class Feed:
    """Batches step by step, from a position that a checkpoint holds.

    Which batches come is decided by the stores, the settings, the budget and the seed, so that the position is three
    numbers. Workers that load ahead, as torchdata's StatefulDataLoader has them, would each need a state of their
    own to find theirs, and have nothing to do here: a step is read from memory-mapped files in milliseconds.

    Several feeds may be open on the same stores, in one process or in many; each has a position of its own.
    """

    def __init__(self, services: Services, stores: Mapping[str, TokenStore], budget: Budget) -> None:
        settings = services.data
        self._budget = budget
        self._names = list(services.corpora)
        self._stores = stores
        self._report = services.report
        self._pieces = {name: _cut(name, store, budget, services) for name, store in stores.items()}
        parts = [Part(name, len(each), each.tokens) for name, each in self._pieces.items() if len(each)]
        if not parts:
            raise DataError(
                "the datasets of this run hold nothing to train on", fix="choose a dataset with a training part"
            )
        order: dict[str, Any] = {"seed": services.seed, "shuffle": settings.shuffle}
        self._mixture = Mixture(parts, passes(settings, parts), window=settings.window, **order)
        self._packs = Packs(
            self._mixture,
            [self._pieces[part.name] for part in parts],
            [self._names.index(part.name) for part in parts],
            capacity=budget.micro_batch_tokens,
            **order,
        )
        self._documents = Documents([stores.get(name) for name in self._names])
        self._made_from = {
            **order,
            "stores": {name: store.folder.name for name, store in stores.items()},
            "passes": dict(zip([part.name for part in parts], self._mixture.passes, strict=True)),
            "window": settings.window,
            "over_budget": settings.over_budget,
            **asdict(budget),
        }
        self._step, self._position = 0, Position()
        self._trained: Counter[str] = Counter()
        self._ahead: dict[int, _Step] = {}

    @classmethod
    def open(cls, services: Services, encoder: Encoder, budget: Budget) -> Feed:
        """Open the training part of a run's datasets; tokenises what the cache does not hold.

        :raises ConfigError: `data.weights` or `data.epochs` names what is no dataset to train on, or leaves one out.
        :raises DataError: there is nothing to train on, or a record is broken or too long and the settings refuse it.
        """
        trained = [name for name, corpus in services.corpora.items() if corpus.shards("train")]
        check_names(services.data, services.corpora, trained)
        return cls(services, open_store(services, encoder, split="train"), budget)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps in which the first epoch is trained on to its end; later ones may differ by a step.

        The last of them may hold packs of the epoch that follows.
        """
        return self.steps(1)

    def steps(self, epochs: float) -> int:
        """Steps in which so many epochs are trained on to their end, each taken to have the packs of the first."""
        return ceil(epochs * self._packs_per_epoch / self._budget.packs)

    @cached_property
    def _packs_per_epoch(self) -> int:
        return self._packs.count(0)

    def batches(self, steps: int) -> Iterator[list[PackedBatch]]:
        """Yield the micro-batches of as many steps, from the position of the last step that was trained on."""
        self._ahead.clear()
        packs = self._packs.read(self._position)
        for step in range(self._step + 1, self._step + 1 + steps):
            read = [next(packs) for _ in range(self._budget.packs)]
            pieces = [piece for members, _ in read for piece in members]
            lengths = [piece.length for piece in pieces]
            numbers = iter(range(len(pieces)))
            dealt = balance(
                lengths, [[next(numbers) for _ in members] for members, _ in read], self._budget.micro_batch_tokens
            )
            self._ahead[step] = _Step(read[-1][1], self._count(pieces), imbalance(lengths, dealt))
            yield [self._pack([pieces[index] for index in members]) for members in dealt]

    def trained(self, result: StepResult) -> Mapping[str, float]:
        """Take note that a step was trained on; a batch of which this is never called comes again.

        :return: of this step: `data.fill` (share of tokens that are no filler) and `data.imbalance` (cost of
            attention in the dearest micro-batch over the mean); and `data.epoch`, passed so far.
        """
        step = self._ahead.pop(result.step)
        self._step, self._position = result.step, step.position
        self._trained += step.tokens
        return {
            "data.fill": step.tokens.total() / self._budget.tokens_per_step,
            "data.imbalance": step.imbalance,
            "data.epoch": self._epoch(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Position, cursors and counts, as plain data."""
        window = self._position.window
        cursors = self._mixture.cursors(self._position.epoch, window)
        return {
            "step": self._step,
            **asdict(self._position),
            "cursors": {part.name: cursor for part, cursor in zip(self._mixture.parts, cursors, strict=True)},
            "trained": dict(self._trained),
            "share": self._epoch() - self._position.epoch,
            "made_from": self._made_from,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; comes before `batches`.

        Where data or settings are others than when the state was saved, no position is the same: training goes on
        after the same share of the epoch, and says so.
        """
        self._step = int(state["step"])
        self._trained = Counter(state["trained"])
        self._position = Position(int(state["epoch"]), int(state["window"]), int(state["place"]))
        before = state["made_from"]
        changed = [name for name, value in self._made_from.items() if before.get(name) != value]
        if changed:
            window = int(state["share"] * self._mixture.windows(self._position.epoch))
            self._position = Position(self._position.epoch, window, 0)
            self._report("data.position_estimated", {"changed": changed, "epoch": self._epoch()})

    def summary(self) -> dict[str, Any]:
        """Counts of every dataset, what was trained on of each, and how full the packs were."""
        tokens = self._step * self._budget.tokens_per_step
        return {
            "datasets": {name: self._of_dataset(name) for name in self._stores},
            "epochs": self._epoch(),
            "fill": self._trained.total() / tokens if tokens else 1.0,
        }

    def _of_dataset(self, name: str) -> dict[str, Any]:
        header, pieces, trained = self._stores[name].header, self._pieces[name], self._trained[name]
        whole = self._trained.total()
        split = self._made_from["over_budget"] == "split"
        return {
            "records": header.records,
            "documents": header.documents,
            "tokens": pieces.tokens,
            "broken": dict(header.broken),
            "split": pieces.over if split else 0,
            "truncated": 0 if split else pieces.over,
            "truncated_tokens": pieces.truncated_tokens,
            "without_target": pieces.without_target,
            "trained_tokens": trained,
            "share": trained / whole if whole else 0.0,
            "epochs": trained / pieces.tokens if pieces.tokens else 0.0,
        }

    def _count(self, pieces: list[Piece]) -> Counter[str]:
        tokens: Counter[str] = Counter()
        for piece in pieces:
            tokens[self._names[piece.dataset]] += piece.length
        return tokens

    def _pack(self, pieces: list[Piece]) -> PackedBatch:
        return pack(self._documents(pieces), capacity=self._budget.micro_batch_tokens)

    def _epoch(self) -> float:
        """Epochs that were passed, the begun one by the share of its packs."""
        epoch, window, place = self._position.epoch, self._position.window, self._position.place
        share = place / len(self._packs.window(epoch, window)) if place else 0.0
        return epoch + (window + share) / max(1, self._mixture.windows(epoch))


def _cut(name: str, store: TokenStore, budget: Budget, services: Services) -> Pieces:
    """Cut a dataset's documents to the budget, and tell what is lost by it.

    :raises DataError: one is too long and `data.over_budget` is `refuse`.
    """
    limit, how, report = budget.document_tokens, services.data.over_budget, services.report
    pieces = Pieces(store.lengths, limit, how)
    if pieces.over and how == "refuse":
        longest = int(store.lengths.argmax())
        raise DataError(
            f"{store.origin(longest)} of dataset {name} has {store.lengths[longest] - 1} tokens, the longest of "
            f"{pieces.over} documents above document_tokens={limit}",
            fix="raise algorithm.document_tokens, or set data.over_budget to split or truncate",
        )
    _tell(report, "data.truncated", name, pieces.truncated_tokens and pieces.over, tokens=pieces.truncated_tokens)
    _tell(report, "data.without_target", name, pieces.without_target)
    return pieces


def _tell(report: Report, event: str, dataset: str, documents: int, **values: int) -> None:
    if documents:
        report(event, {"dataset": dataset, "documents": documents, **values})
