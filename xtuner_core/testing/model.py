"""The contract suite of models. T tokens, D model width, V vocabulary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn

from xtuner_core.contracts.batch import Document, pack
from xtuner_core.contracts.loss import Loss
from xtuner_core.contracts.sampling import Sampling
from xtuner_core.engine.generate import generate
from xtuner_core.hf.coverage import check_coverage
from xtuner_core.hf.initialise import initial_tensor
from xtuner_core.hf.materialise import materialise
from xtuner_core.hf.read import read_weights
from xtuner_core.hf.targets import named_tensors, region
from xtuner_core.hf.write import export
from xtuner_core.host import Host
from xtuner_core.nn.roles import iter_roles, parameter_role
from xtuner_core.registry import Offer
from xtuner_core.roles import check_role
from xtuner_core.testing.build import build_model, meta_model, model_config
from xtuner_core.testing.counting import RealMemory, forward_flops
from xtuner_core.testing.documents import PACKINGS, random_documents
from xtuner_core.testing.steps import differentiate, distance, distances, log_probabilities
from xtuner_core.testing.suite import OfferSuite

SPREAD = 0.2
"""Standard deviation of weights where results are compared; see `build_model`."""


class ModelContract(OfferSuite):
    """What holds for every model; subclass `ReferencedModelContract` where `transformers` has the model too.

    `configs` are small: every test of computation runs once for each. The presets are only built on meta.
    """

    slot: ClassVar[str] = "model"

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls, host: Host, offered: Offer, case: int) -> Any:
        """The configuration of a case."""
        return model_config(host, offered.name, cls.configs[case])

    @pytest.fixture(scope="class")
    @classmethod
    def loss(cls, host: Host, offered: Offer) -> Loss:
        """The loss that is differentiated."""
        loss: Loss = cls.parts(host, offered, 0).make("loss")
        return loss

    def build(
        self, host: Host, offered: Offer, config: Any, dtype: torch.dtype = torch.float64, **options: Any
    ) -> nn.Module:
        """A model with weights that hide no mistake, bound to the operators that a run would take."""
        return build_model(host, offered.name, config, dtype, **{"spread": SPREAD, **options})

    def documents(self, config: Any, **options: Any) -> list[Document]:
        """Random documents with random weights."""
        return random_documents(config.vocab_size, **options)

    # ── configuration and counts ───────────────────────────────────────────────────────────────────────────────

    def test_the_configuration_survives_config_json(self, config: Any) -> None:
        """`from_hf(to_hf())` is the same, through the text of a file."""
        written = json.loads(json.dumps(config.to_hf()))
        assert type(config).from_hf(written) == config

    def test_config_json_names_a_model_type_that_the_provider_reads(self, config: Any, offered: Offer) -> None:
        """So that `model=PATH` finds the way back."""
        assert config.to_hf()["model_type"] in getattr(offered.provider, "hf_model_types", ())

    def test_every_preset_builds_on_meta_with_the_parameters_of_its_formula(self, host: Host, offered: Offer) -> None:
        """Whatever its size, without memory, every parameter in the weight map once."""
        for preset in offered.provider.presets:
            config = model_config(host, f"{offered.name}:{preset.name}", {})
            with RealMemory() as memory:
                model = meta_model(host, offered.name, config, torch.bfloat16)
            assert memory.bytes < 1 << 20, f"preset {preset.name} takes {memory.bytes} bytes before it has weights"
            check_coverage(model, cast(Any, model).weight_map(), plugin=offered.plugin)
            assert _parameters(model) == config.parameter_count().total, preset.name

    def test_the_parameters_are_those_of_the_formula(self, host: Host, offered: Offer, config: Any) -> None:
        """In total; the active ones are some of them."""
        count = config.parameter_count()
        assert _parameters(meta_model(host, offered.name, config)) == count.total
        assert 0 < count.active <= count.total

    def test_the_flops_are_three_times_a_counted_forward_less_half_of_attention(
        self, host: Host, offered: Offer, config: Any
    ) -> None:
        """Counted in plain PyTorch for lengths n and 2n: what grows with the square is attention."""
        model = self.build(host, offered, config, torch.float32, plain=True)
        short, long = (forward_flops(model, [length], config.vocab_size) for length in (8, 16))
        per_square, rest = divmod(long - 2 * short, 2 * 8**2)
        assert rest == 0
        per_token = (short - per_square * 8**2) // 8
        lengths = (11, 1, 6)
        squares = sum(length**2 for length in lengths)
        assert forward_flops(model, lengths, config.vocab_size) == per_token * sum(lengths) + per_square * squares
        assert config.flops(lengths) == 3 * (per_token * sum(lengths) + per_square * squares / 2)

    # ── building and weights ───────────────────────────────────────────────────────────────────────────────────

    def test_building_on_meta_takes_no_memory(self, host: Host, offered: Offer, config: Any) -> None:
        """Parameters and buffers lie on the meta device, and nothing was made beside them."""
        with RealMemory() as memory:
            model = meta_model(host, offered.name, config)
        assert memory.bytes == 0, memory.made
        assert all(tensor.is_meta for tensor in named_tensors(model).values())

    def test_every_module_and_parameter_has_a_known_role(self, host: Host, offered: Offer, config: Any) -> None:
        """Of `xtuner_core.roles`, or one of the plugin's own below them or under its name."""
        model = meta_model(host, offered.name, config)
        by_parameter = parameter_role(model)
        assert by_parameter.keys() == {name for name, _ in model.named_parameters()}
        roles = {role for role, _ in by_parameter.values()} | {item.role for item in iter_roles(model)}
        for role in sorted(roles):
            check_role(role, plugin=offered.plugin)
        assert {"embed", "head"} <= roles

    def test_the_weight_map_covers_every_parameter_once(self, host: Host, offered: Offer, config: Any) -> None:
        """Persistent buffers too."""
        model = meta_model(host, offered.name, config)
        check_coverage(model, cast(Any, model).weight_map(), plugin=offered.plugin)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    def test_every_weight_survives_safetensors_bit_for_bit(
        self, host: Host, offered: Offer, config: Any, dtype: torch.dtype, tmp_path: Path
    ) -> None:
        """Written in several files and read into a fresh model; every key accounted for."""
        model = self.build(host, offered, config, dtype, seed=1)
        total = sum(tensor.numel() * tensor.element_size() for tensor in named_tensors(model).values())
        folder = export(model, tmp_path / "out", shard_bytes=max(total // 3, 64))
        assert len(list(folder.glob("*.safetensors"))) > 1
        fresh = self.build(host, offered, config, dtype, seed=2)
        report = read_weights(fresh, cast(Any, fresh).weight_map(), folder)
        assert report.tensors == len(cast(Any, model).weight_map().entries)
        assert (report.casts, report.ignored) == ({}, ())
        read = named_tensors(fresh)
        assert {name for name, tensor in named_tensors(model).items() if not torch.equal(tensor, read[name])} == set()
        assert type(config).from_hf(json.loads((folder / "config.json").read_text())) == config

    def test_initial_weights_depend_on_seed_and_key_alone(self, host: Host, offered: Offer, config: Any) -> None:
        """Whatever the dtype, and however parameters are stacked and fused."""
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            model = self.build(host, offered, config, dtype, seed=3, spread=None)
            tensors = named_tensors(model)
            for entry in cast(Any, model).weight_map().entries:
                found = region(entry, tensors)
                drawn = initial_tensor(entry.hf_name, tuple(found.shape), entry.init, 3)
                assert torch.equal(found, drawn.to(found.dtype)), entry.hf_name

    def test_shared_parameters_stay_shared_when_the_model_gets_memory(
        self, host: Host, offered: Offer, config: Any
    ) -> None:
        """Tied before, tied after, in a copy too."""
        meta = meta_model(host, offered.name, config)
        expected = _shared(meta)
        assert _shared(materialise(meta, "cpu")) == expected
        assert _shared(deepcopy(meta)) == expected

    # ── computation ────────────────────────────────────────────────────────────────────────────────────────────

    def test_a_forward_pass_returns_predictions_that_the_head_scores(
        self, host: Host, offered: Offer, config: Any
    ) -> None:
        """Hidden states [T, D] of each token, log-probabilities that are those of the logits, no gradient in sums."""
        model = self.build(host, offered, config)
        batch = pack(self.documents(config, count=4), capacity=120)
        output = model(batch)
        names = [item.name for item in (*output.predictions, *output.auxiliary)]
        assert names[0] == "main"
        assert len(set(names)) == len(names)
        assert not any(value.requires_grad for value in output.statistics.values())
        hidden_TD, head = output.predictions[0].hidden_TD, cast(Any, model).head
        assert hidden_TD.shape[0] == 120
        logits_TV = head(hidden_TD)
        assert logits_TV.shape == (120, config.vocab_size)
        log_probs_T, entropy_T = head(hidden_TD, batch.labels, entropy=True)
        expected_TV = logits_TV.log_softmax(-1)
        labelled_T = batch.labels >= 0
        expected_T = expected_TV.gather(1, batch.labels[:, None].clamp(min=0))[:, 0] * labelled_T
        torch.testing.assert_close(log_probs_T, expected_T, rtol=0, atol=1e-11)
        plogp_T = -(expected_TV.exp() * expected_TV).sum(-1)
        torch.testing.assert_close(entropy_T[labelled_T], plogp_T[labelled_T], rtol=0, atol=1e-11)

    def test_packing_and_splitting_change_neither_losses_nor_gradients(
        self, host: Host, offered: Offer, config: Any, loss: Loss
    ) -> None:
        """Within 1e-10 in float64; auxiliary losses of scope `micro_batch` are left out.

        A configuration for which the provider's record says `depends_on_split` is exempt.
        """
        if offered.provider.split_reasons(vars(config)):
            return
        model, documents = self.build(host, offered, config), self.documents(config)
        expected = differentiate(model, loss, PACKINGS[0](documents, 1))
        for packing in PACKINGS:
            for parts in (1, 2, 8):
                found = distances(differentiate(model, loss, packing(documents, parts)), expected)
                far = {name: value for name, value in found.items() if not value < 1e-10}
                assert far == {}, (packing.__name__, parts)

    def test_a_document_is_predicted_as_if_it_were_alone(self, host: Host, offered: Offer, config: Any) -> None:
        """Neither its neighbours nor the filler matter."""
        model, documents = self.build(host, offered, config), self.documents(config, count=5)
        with torch.no_grad():
            together_T = log_probabilities(model, pack(documents, capacity=130))
            alone_T = torch.cat([log_probabilities(model, pack([document])) for document in documents])
        assert distance(together_T[: len(alone_T)], alone_T) < 1e-11

    def test_a_token_does_not_see_those_after_it(self, host: Host, offered: Offer, config: Any) -> None:
        """Other tokens at the end change nothing before them."""
        model = self.build(host, offered, config)
        ids = torch.randint(config.vocab_size, (14,), generator=torch.Generator().manual_seed(4))
        other = torch.cat([ids[:9], (ids[9:] + 1) % config.vocab_size])
        with torch.no_grad():
            one_TD, two_TD = (model(pack([Document.of(item)])).predictions[0].hidden_TD for item in (ids, other))
        assert distance(two_TD[:9], one_TD[:9]) < 1e-12
        assert distance(two_TD[9:], one_TD[9:]) > 1e-3

    def test_every_trainable_parameter_gets_a_finite_gradient(
        self, host: Host, offered: Offer, config: Any, loss: Loss
    ) -> None:
        """In float32, from a single step."""
        model = self.build(host, offered, config, torch.float32)
        found = differentiate(model, loss, PACKINGS[0](self.documents(config), 1)).gradients
        trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert {name for name, grad in found.items() if grad is not None and grad.isfinite().all()} == trainable

    def test_the_same_step_gives_the_same_bits(self, host: Host, offered: Offer, config: Any, loss: Loss) -> None:
        """In two models built alike, and in a copy."""
        model = self.build(host, offered, config, torch.float32)
        models = (model, self.build(host, offered, config, torch.float32), deepcopy(model))
        batches = PACKINGS[1](self.documents(config), 2)
        first, *others = (differentiate(each, loss, batches).tensors() for each in models)
        for other in others:
            assert {name for name, tensor in other.items() if not torch.equal(tensor, first[name])} == set()

    def test_generation_with_the_cache_equals_recomputation(self, host: Host, offered: Offer, config: Any) -> None:
        """Greedy, several prompts of different lengths at once."""
        model = self.build(host, offered, config)
        prompts = [d.token_ids.tolist() for d in self.documents(config, count=4, longest=9, seed=6)]
        samples = generate(model, prompts, Sampling(max_tokens=6, temperature=0.0), device="cpu")
        assert [list(sample.token_ids) for sample in samples] == [_recomputed(model, prompt, 6) for prompt in prompts]


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _shared(model: nn.Module) -> set[frozenset[str]]:
    """Names that stand for one tensor, where there are several."""
    names: dict[int, set[str]] = {}
    for name, tensor in named_tensors(model).items():
        names.setdefault(id(tensor), set()).add(name)
    return {frozenset(group) for group in names.values() if len(group) > 1}


@torch.no_grad()
def _recomputed(model: nn.Module, prompt: Sequence[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        hidden_TD: Tensor = model(pack([Document.of(tokens)])).predictions[0].hidden_TD
        tokens.append(int(cast(Any, model).head(hidden_TD[-1:]).argmax()))
    return tokens[len(prompt) :]
