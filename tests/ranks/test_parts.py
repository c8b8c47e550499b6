"""What ranks tell each other, rows of a whole batch, norms over it, and weights that have to stay equal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ranks_fixtures import environment, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    result, port = tmp_path_factory.mktemp("parts") / "found.json", free_port()
    line = [sys.executable, str(Path(__file__).parent / "parts.py"), str(result)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ranks = [subprocess.Popen(line, env=environment(rank, 2, port), **streams) for rank in range(2)]
    told = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n\n".join(told)
    return json.loads(result.read_text())


def test_ranks_tell_each_other(found):
    assert found["messages"] == {
        "gather": [0, 10],
        "from_main": "rank 0",
        "errors_on_all": [["stage.lr: is wrong", "seed: too"]] * 2,
        "agree": [1, 5],
        "total": {"a": 3.0, "b": 4.0},
    }


def test_rows_of_the_whole_batch_come_with_their_gradient(found):
    rows, everything = found["rows"], [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]
    assert rows["gathered"] == [everything, everything]
    assert [row for rank in rows["gradient"] for row in rank] == [pytest.approx(row) for row in everything]
    assert rows["views"] == [0.0] * 6 + [1.0] * 4 and rows["labels"] == [0, 0, 0, 1, 1]
    assert rows["mean"] == pytest.approx(4.5) and rows["places"] == [[0, 3], [3, 5]]
    assert rows["numbers"][0] == rows["numbers"][1] and len(set(rows["numbers"][0])) == 2


def test_norms_over_all_ranks_are_those_of_the_whole_batch(found):
    assert len(found["norms"]) == 6
    assert all(gap < 2e-6 for gap in found["norms"].values()), found["norms"]


def test_weights_that_are_no_longer_equal_are_told_and_statistics_go_back(found):
    divergence = found["divergence"]
    assert divergence["mean"] == divergence["of_four"] == [0.5, 0.5]
    assert divergence["own"] == [[0.0, 0.0], [1.0, 1.0]]
    assert "at step 3: 1 of 4 parameters differ, first 0.bias" in divergence["told"]
