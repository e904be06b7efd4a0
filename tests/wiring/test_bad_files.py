"""Recipes and checkpoint folders that cannot be read: the file, the line where there is one, the way out."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nmodel: qwen3_moe\nseed: 2\n", "{file}:3: the key seed stands already in line 1; keep one of them"),
        (
            "model:\n  name: qwen3_moe\n  num_layers: 1\n  num_layers: 2\n",
            "{file}:4: the key model.num_layers stands already in line 3; keep one of them",
        ),
        ("- model\n", "{file} holds no mapping of keys to values; write key: value lines"),
        ("just text", "{file} holds no mapping of keys to values; write key: value lines"),
    ],
)
def test_a_recipe_that_says_nothing_clear_is_refused_with_its_line(problem, tmp_path, text, message):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert problem(file) == message.format(file=file)


@pytest.mark.parametrize("text", ["model: [", "a: b: c", "seed: !secret 3", "\tseed: 1", "seed: 2001-99-99"])
def test_a_recipe_that_is_no_yaml_is_refused_as_such(problem, tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert problem(file).startswith(f"{file} is no valid YAML: ")


def test_a_recipe_that_runs_code_is_refused(problem, tmp_path):
    file, trace = tmp_path / "recipe.yaml", tmp_path / "trace"
    file.write_text(f"seed: !!python/object/apply:os.mkdir ['{trace}']")
    assert "is no valid YAML: could not determine a constructor" in problem(file)
    assert not trace.exists()


def test_a_recipe_that_is_not_there_is_refused(problem, tmp_path):
    assert "cannot be read" in problem(tmp_path / "recipe.yaml")
    fix = "write the path of a .yaml file, or one of pretrain, pretrain_demo, sft, sft_demo"
    assert problem("pretrained") == f"no recipe 'pretrained'; {fix}"


def test_an_empty_recipe_leaves_everything_to_be_asked_for(refused, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("# nothing\n")
    assert {found.key for found in refused(file).problems} >= {"model", "algorithm"}


@pytest.mark.parametrize("argument", ["seed", "=1", "seed: 1"])
def test_an_argument_that_is_no_key_and_value_is_refused(problem, argument):
    assert problem(overrides=[argument]).startswith(f"{argument!r} is no key=value")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "{folder} holds no config.json; name the folder of a Hugging Face checkpoint"),
        ("{", "{folder}/config.json is not valid JSON: "),
        ("[]", "{folder}/config.json holds a JSON list, not an object"),
        ("{}", "{folder}/config.json has no model_type, so no model can be chosen for it"),
        (
            '{"model_type": "mamba7"}',
            "{folder}/config.json is of model_type 'mamba7', which no installed plugin reads; install a plugin for it",
        ),
        ('{"model_type": "qwen3_moe"}', "{folder}/config.json: "),
    ],
)
def test_a_checkpoint_folder_that_names_no_model_is_refused(problem, tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert problem(overrides=[f"model={tmp_path}"]).startswith(
        f"model={tmp_path} (command line): {message.format(folder=tmp_path)}"
    )


def test_a_checkpoint_folder_that_is_not_there_is_refused(problem, tmp_path):
    assert f"there is no {tmp_path}/gone" in problem(overrides=[f"model={tmp_path}/gone"])
