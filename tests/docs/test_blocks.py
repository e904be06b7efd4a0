"""What the pages quote is what the files hold, and what they tell a reader to run works."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xtuner_core.builtin import kjv
from xtuner_core.cli.main import main
from xtuner_core.hf.write import export
from xtuner_core.testing import build_model, tiny_host

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
TINY = shlex.split(
    "model.num_layers=1 model.hidden_size=16 model.num_heads=2 model.num_kv_heads=1 model.head_dim=8 "
    "model.moe_intermediate_size=8 algorithm.steps=2 algorithm.sample_tokens=4 algorithm.compare_xz=false "
    "algorithm.evaluate_overlap=0 algorithm.tokens_per_step=4096 algorithm.micro_batch_tokens=4096"
)
"""Added to a page's `xtuner-core run` of the default model, so that it takes seconds."""
OWN_MODEL = "model=./model"
BROUGHT = ["algorithm.sample_tokens=4"]
"""Added where a page's run takes the reader's own model."""


KNOWN = re.compile(r"|runs|file: .+|writes: [\w.-]+")
RUN = re.compile(r"runs|writes: .+")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "put back afterwards")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")


def test_every_mark_is_one_that_these_tests_know(blocks):
    marks = {block.mark for page, found in blocks.items() for block in found if DOCS in page.parents}
    assert {mark for mark in marks if not KNOWN.fullmatch(mark)} == set()


def test_every_mark_stands_right_above_its_block(pages, blocks):
    for page, text in pages.items():
        marks = re.findall(r"^<!-- (runs|file: .+|writes: .+) -->$", text, re.MULTILINE)
        assert marks == [b.mark for b in blocks[page] if b.mark and KNOWN.fullmatch(b.mark)], page
    assert sum(block.mark == "runs" for found in blocks.values() for block in found) > 10


def test_what_is_quoted_from_a_file_stands_in_it(blocks, root):
    quoted = [(page, block) for page, found in blocks.items() for block in found if block.mark.startswith("file: ")]
    assert quoted
    for page, block in quoted:
        file = root / block.mark.removeprefix("file: ")
        assert block.text in file.read_text(encoding="utf-8"), f"{page} no longer quotes {file}"


def test_the_embedding_example_is_quoted_whole(blocks, root):
    file = root / "tests" / "embedding" / "example.py"
    assert file.read_text(encoding="utf-8") in {block.text for block in blocks[DOCS / "how-to" / "embed.md"]}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_runs_works_from_its_first_block_to_its_last(page, blocks, tmp_path, monkeypatch):
    variables: dict[str, str] = {}
    if any(OWN_MODEL in block.text for block in blocks[DOCS / page]):
        bring_model(tmp_path / "model")
    for number, block in enumerate(block for block in blocks[DOCS / page] if RUN.fullmatch(block.mark)):
        if block.mark != "runs":
            (tmp_path / block.mark.removeprefix("writes: ")).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            run_module(tmp_path / f"block_{Path(page).stem.replace('-', '_')}_{number}.py", block.text, monkeypatch)
        else:
            assert block.language == "bash", block
            for line in block.text.splitlines():
                run_line(line, variables)


def bring_model(folder: Path) -> None:
    """Make the folder that a reader would bring along: a tiny Llama with the bundled tokenizer."""
    values = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
    config = {"vocab_size": 4096, "intermediate_size": 16, "tie_word_embeddings": True, **values}
    export(build_model(tiny_host(["llama"]), "llama", config), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(kjv.__file__).parent / name, folder)


def run_module(file: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a block as the module that a reader would save it as, so that its plugins find what they name."""
    file.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, file.stem, module)
    spec.loader.exec_module(module)


def run_line(line: str, variables: dict[str, str]) -> None:
    """Run a line of a shell: commands of ours in this process, an assignment in bash."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] != "xtuner-core":
        name, equals, _ = words[0].partition("=")
        assert equals, f"{line!r} is neither a command of ours nor an assignment"
        done = subprocess.run(
            ["bash", "-c", f'{line}\nprintf %s "${name}"'], capture_output=True, text=True, check=True
        )
        variables[name] = done.stdout
        assert done.stdout, line
        return
    arguments = [variables[word[1:]] if word.startswith("$") else word for word in words[1:]]
    trains = arguments[0] == "run" and not {"--dry-run", "--from"} & set(arguments)
    added = BROUGHT if OWN_MODEL in arguments else TINY
    assert main([*arguments, *(added if trains else ())]) == 0, line
