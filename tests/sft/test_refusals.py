"""Data that cannot be fine-tuned on: one sentence with file, line and cause, and an exit code that is not 0."""

from __future__ import annotations

import json

import pytest

ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{{ m['role'] + ': ' + m['content'] }}"
    "<end>{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
GOOD = {"messages": [{"role": "user", "content": "hocus"}, {"role": "assistant", "content": "pocus"}]}
IMAGE = {"type": "image_url", "image_url": {"url": "cat.png"}}


@pytest.fixture
def refused(command, tuning, tmp_path, capsys):
    """What the command says of the third line of a file whose other lines are good."""

    def run(line, *values):
        file = tmp_path / "chats.jsonl"
        file.write_text("".join(json.dumps(each) + "\n" for each in (GOOD, GOOD, line, GOOD)))
        given = [value for value in tuning if not value.startswith("dataset")]
        code = command("run", *given, f"dataset={file}", f"output={tmp_path}/runs", "algorithm.steps=1", *values)
        return code, capsys.readouterr().err.replace(str(file), "FILE")

    return run


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (
            [{"role": "user", "content": [IMAGE]}, *GOOD["messages"][1:]],
            "images given to a text model: part 1 of message 1",
        ),
        ([GOOD["messages"][1], GOOD["messages"][0]], "roles must alternate user/assistant"),
        ([GOOD["messages"][0]], "the conversation has no assistant message to train on"),
    ],
    ids=["images", "order", "nothing to train on"],
)
def test_a_conversation_that_cannot_be_used_is_named_by_file_and_line(refused, tmp_path, messages, reason):
    (tmp_path / "alternating.jinja").write_text(ALTERNATING)
    code, said = refused({"messages": messages}, f"algorithm.chat.template={tmp_path}/alternating.jinja")
    assert code == 4
    assert "FILE:3 cannot be used: " in said
    assert reason in said
    assert "data.broken=skip" in said
    assert "Traceback" not in said


def test_it_is_skipped_and_counted_where_that_is_asked(refused, tmp_path):
    code, _ = refused({"messages": [GOOD["messages"][0]]}, "data.broken=skip", "export.enabled=false")
    assert code == 0
    (folder,) = (tmp_path / "runs").glob("[!.]*")
    counts = json.loads((folder / "summary.json").read_text())["data"]["datasets"]["chats"]
    assert (counts["records"], counts["documents"], sum(counts["broken"].values())) == (4, 3, 1)


def test_a_tokenizer_without_a_chat_template_is_refused_with_the_setting_that_brings_one(refused, pretrained, tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    source = pretrained.folder / "export" / "tokenizer.json"
    (folder / "tokenizer.json").write_bytes(source.read_bytes())
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    code, said = refused(GOOD, f"tokenizer={folder}")
    assert code == 4
    assert "has no chat template; set algorithm.chat.template=FILE" in said


def test_a_dry_run_checks_and_writes_nothing(command, tuning, tmp_path, capsys):
    assert command("run", *tuning, f"output={tmp_path}/runs", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "recipe sft:" in said
    assert "this run can start; nothing was written" in said
    assert list(tmp_path.iterdir()) == []
