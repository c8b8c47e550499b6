"""The tables: the same columns for a terminal, Markdown, CSV and LaTeX."""

import csv
import io

import pytest
from report_fixtures import KD, rows, write_run, write_sweep

from distill_app.report.comparison import compared
from distill_app.report.results import aggregate
from distill_app.report.tables import results_csv, results_table, results_tex
from distill_app.runs.collect import collect


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    write_sweep(root, temperatures=(1, 4), rates=(0.02, 0.1), seeds=3, epochs=2)
    return compared(aggregate(collect(root)))


def test_keys_are_columns_and_what_all_share_stands_below(found):
    lines = results_table(found).splitlines()
    assert lines[0].split()[:4] == ["kd.loss.temperature", "stage.lr", "result", "n"]
    assert "vs alone" in lines[0] and "vs kd" in lines[0] and "digits" not in "".join(lines[:8])
    assert "all: dataset digits, teacher plain_32_64, student plain_8_16, method kd" in lines
    assert f"kd.loss.temperature: {KD}.loss.temperature" in lines


def test_a_difference_stands_with_its_p(found):
    each = next(each for each in found if each.alone is not None)
    pair = each.alone.by_metric["accuracy"]
    assert pair.p is not None and f"{100 * pair.mean:+.2f} (p " in results_table(found)


def test_csv_has_keys_in_full_and_every_number(found):
    lines = list(csv.DictReader(io.StringIO(results_csv(found))))
    last = lines[-1]
    pair = found[-1].alone.by_metric["accuracy"]
    assert last[f"{KD}.loss.temperature"] == "4" and last["dataset"] == "digits"
    assert float(last["minus_alone"]) == pair.mean and float(last["minus_alone_p"]) == pair.p
    assert float(last["minus_alone_low"]) == pair.low and int(last["minus_alone_n"]) == pair.n
    spread = found[-1].result.figures["accuracy"].spread
    assert float(last["accuracy_std"]) == spread.std and float(last["accuracy_high"]) == spread.high
    assert lines[0]["minus_alone"] == "" and float(last["cost"]) == pytest.approx(1.5)


def test_latex_is_a_whole_table_with_nothing_that_it_would_take_for_a_command(tmp_path):
    settings = {"stage.note": "50%_of {a} & $b$ #1 \\input{x} ~^"}
    write_run(tmp_path / "a", seed=0, results=rows(alone=0.7, student=0.8), settings=settings)
    write_run(tmp_path / "b", seed=0, results=rows(alone=0.7, student=0.8), settings={"stage.note": "plain"})
    lines = results_tex(compared(aggregate(collect(tmp_path)))).splitlines()
    body = [line for line in lines if not line.startswith("%")]
    assert body[0].startswith(r"\begin{tabular}{") and body[-1] == r"\end{tabular}"
    escaped = (
        r"50\%\_of \{a\} \& \$b\$ \#1 \textbackslash{}input\{x\} \textasciitilde{}\textasciicircum{} & student with kd"
    )
    assert any(line.startswith(escaped) for line in body)
    columns = body[2].count(" & ")
    assert [line.count(" & ") for line in body if line.endswith(r"\\")] == [columns] * (len(body) - 5)
    assert not any(ord(sign) > 126 for line in lines for sign in line)


def test_latex_takes_no_list_for_an_argument_and_shows_minus_signs(tmp_path):
    for name, value in (("a", ["x|y"]), ("b", [-1])):
        write_run(tmp_path / name, seed=0, results=rows(alone=0.9, student=0.8), settings={"stage.betas": value})
    text = results_tex(compared(aggregate(collect(tmp_path))))
    assert '\n{[}"x\\textbar{}y"] & student with kd' in text and "$-$10.00" in text
    assert "\n[" not in text


def test_markdown_shows_what_others_named_as_it_is(tmp_path):
    for name, value in (("a", "<b>*x*</b> _y_ a|b"), ("b", "plain_name")):
        write_run(tmp_path / name, seed=0, results=rows(alone=0.7, student=0.8), settings={"stage.note": value})
    text = results_table(compared(aggregate(collect(tmp_path))), markdown=True)
    assert r"| \<b\>\*x\*\</b\> \_y\_ a\|b " in text and "| plain_name " in text


def test_no_column_is_called_as_another_one(tmp_path):
    for name in ("a", "b"):
        settings, networks = {"student.name": name, "method.name": "kd"}, ("teacher", name)
        write_run(tmp_path / name, seed=0, results=rows(alone=0.7, student=0.8), settings=settings, networks=networks)
    head = results_csv(compared(aggregate(collect(tmp_path)))).splitlines()[0].split(",")
    assert len(head) == len(set(head))


def test_what_others_named_steers_no_terminal(tmp_path):
    for name, key in (("a", "x.y\x1b[31m"), ("b", "x.y\x1b[31m")):
        write_run(tmp_path / name, seed=0, results=rows(alone=0.7, student=0.8), settings={f"long.{key}": name})
    found = compared(aggregate(collect(tmp_path)))
    assert found[-1].result.settings and "\x1b" not in results_table(found) + results_tex(found)
