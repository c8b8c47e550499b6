"""Published figures: complete, with source and recipe each, and shown beside our own."""

import csv
import io

import pytest
from report_fixtures import rows, write_run

from distill_app.config.groups import options_of
from distill_app.report.comparison import compared
from distill_app.report.published import benchmarks, outline, pair_in, published
from distill_app.report.results import aggregate
from distill_app.report.sheets import results_sheet
from distill_app.report.tables import results_csv, results_table, results_tex
from distill_app.runs.collect import collect

CIFAR = published("cifar100")
PAIR = ("resnet32x4", "resnet8x4")
# Values read from the tables by hand: pair, label, and what stands there.
READ = [
    ("resnet32x4_resnet8x4", "KD", [73.33, 74.42, 74.42]),
    ("resnet32x4_resnet8x4", "CRD", [75.51, 75.59]),
    ("wrn_40_2_wrn_16_2", "DKD", [76.23, 76.24]),
    ("wrn_40_2_wrn_40_1", "DIST", [74.73, 74.43]),
    ("resnet110_resnet20", "KD", [70.67, 70.66]),
    ("vgg13_mobilenetv2", "KD", [67.37]),
    ("resnet50_vgg8", "KD", [73.81]),
]


def config(method: str, *, networks: tuple[str, str] = PAIR, benchmark: str | None = "cifar100") -> dict:
    teacher, student = networks
    named = {"teacher": teacher, "student": student, "method": method}
    return {"benchmark": {"name": benchmark}, **{key: {"name": name} for key, name in named.items()}}


def test_all_pairs_and_cells_are_there():
    assert benchmarks() == ["cifar100"]
    assert len(CIFAR.pairs) == 22 and sum(pair.core for pair in CIFAR.pairs.values()) == 13
    assert sum(len(pair.rows) for pair in CIFAR.pairs.values()) == 851


@pytest.mark.parametrize(("pair", "label", "values"), READ)
def test_values_are_those_of_the_tables(pair, label, values):
    (row,) = [row for row in CIFAR.pairs[pair].rows if row.label == label]
    assert [value.top1 for value in row.values] == values


def test_every_value_has_a_source_with_a_recipe_and_is_an_accuracy():
    used = set()
    for pair in CIFAR.pairs.values():
        for row in (pair.teacher_row, pair.student_row, *pair.rows):
            for value in row.values:
                assert 55 < value.top1 < 85 and value.sources
                used |= {CIFAR.recipe_of(row, source) for source in value.sources}
        assert all(row.values for row in pair.rows)
    assert used == set(CIFAR.recipes)
    assert {value for pair in CIFAR.pairs.values() for row in pair.rows for value in row.values if value.std}
    assert {source.epoch for source in CIFAR.sources.values()} == {"last", "best", "not stated"}


def test_names_are_those_of_networks_pairs_and_methods_of_the_config():
    models, methods = options_of("model"), options_of("method")
    assert sorted(CIFAR.pairs) == options_of("pair")
    assert {name for pair in CIFAR.pairs.values() for name in (pair.teacher, pair.student)} <= set(models)
    assert {row.method for pair in CIFAR.pairs.values() for row in pair.rows if row.method} <= set(methods)


def test_a_run_belongs_to_a_benchmark_only_with_networks_of_its_pairs():
    run = {"benchmark": "cifar100", "teacher": "resnet32x4", "student": "resnet8x4"}
    assert pair_in(run)[1].name == "resnet32x4_resnet8x4"
    for change in ({"benchmark": None}, {"benchmark": "../x"}, {"student": "resnet20"}, {"teacher": None}):
        assert pair_in({**run, **change}) is None


def test_the_outline_has_teacher_student_and_method_with_sources():
    lines = list(outline(config("dkd")))
    assert any(line.startswith("  teacher: 79.42 %, from rd,") for line in lines)
    assert "  DKD: 76.32 %, from md_dkd, ls, ttm; epoch: not stated" in lines
    assert lines[-1].endswith("distill published resnet32x4_resnet8x4 dkd")
    assert list(outline(config("dkd", benchmark=None))) == []
    assert any("nothing for this pair" in line for line in outline(config("afd")))
    assert any(
        "nothing; `distill published`" in line for line in outline(config("kd", networks=("resnet8", "resnet8")))
    )
    assert sum("student alone" in line for line in outline(config("ce"))) == 3


@pytest.fixture
def found(tmp_path):
    settings = {"benchmark.name": "cifar100"}
    for seed in (0, 1):
        made = rows(alone=0.72, student=0.76, method="dkd", teacher=0.79)
        write_run(tmp_path / f"{seed}", seed=seed, results=made, method="dkd", settings=settings, networks=PAIR)
    return compared(aggregate(collect(tmp_path)))


def test_published_stands_beside_ours_in_every_form(found):
    lines = results_table(found).splitlines()
    head, teacher, alone, student = lines[0], *lines[2:5]
    assert head.index("accuracy") < head.index("published") < head.index("vs alone")
    assert "79.42 %" in teacher and "72.50 % / 73.09 % / 73.09 % (0.30)" in alone and "76.32 %" in student
    assert any(line.startswith("published: top-1 in papers") for line in lines)
    assert r"76.32 \%" in results_tex(found)
    assert list(csv.DictReader(io.StringIO(results_csv(found))))[-1]["published"] == "76.32 %"
    sheet = results_sheet(found)
    place = [column.head for column in sheet.columns].index("published")
    cell = sheet.rows[-1][place]
    assert (cell.text, cell.value, cell.title) == ("76.32 %", 76.32, "DKD 76.32 %: md_dkd, ls, ttm")


def test_runs_of_no_benchmark_have_no_such_column(tmp_path):
    write_run(tmp_path / "a", seed=0, results=rows(alone=0.7, student=0.8))
    found = compared(aggregate(collect(tmp_path)))
    assert "published" not in results_table(found) + results_csv(found) + results_tex(found)
    assert "published" not in [column.head for column in results_sheet(found).columns]
