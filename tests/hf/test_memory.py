"""Host memory beside the model stays near one shard, however many there are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_writing_and_reading_need_less_than_two_of_eight_shards(tmp_path):
    script = Path(__file__).with_name("peak.py")
    command = [sys.executable, str(script), str(tmp_path / "out")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["shards"] == 8
    assert found["written"] < 2 * found["shard"], found
    assert found["read"] < 2 * found["shard"], found
