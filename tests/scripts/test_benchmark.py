"""The benchmark compares like with like: its hand-written loops, and torchdistill's, compute what the product computes.

Nothing is timed here.
"""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from distill_app.config.methods import Method
from distill_app.config.schema import AboutConf
from scripts.benchmark import __main__ as benchmark
from scripts.benchmark import cache as stored
from scripts.benchmark import limit as by_hand
from scripts.benchmark import methods as by_method
from scripts.benchmark import report, timing, workloads
from scripts.benchmark import split as splitting
from scripts.benchmark.product import Product, Size

ROOT = Path(__file__).parents[2]

TINY = Size(image_size=32, batch=4, samples=40, stored=8, classes=4, teacher="resnet34", student="resnet18")
SMALLEST = Size(image_size=8, batch=4, samples=40, stored=8, classes=4, teacher="plain_32_64_128", student="plain_8_16")
KD_FOUND = {
    "times": {"ours": [1.0]}, "values": {}, "missing": {}, "size": {**vars(TINY), "negatives": 16}, "rounds": 1,
    "date": "2026-01-01",
}  # fmt: skip
HINT = ["method=fitnet", *workloads.REGRESSOR]
NEGATIVES = "method.stages.distill.losses.crd.loss.negatives=16"


@pytest.fixture
def product(tmp_path):
    """Builds a product with the first stage of some overrides."""
    built = []

    def build(size: Size, *overrides: str) -> Product:
        built.append(Product(size, ["tracker=none", *overrides], folder=tmp_path / str(len(built))))
        return built[-1]

    yield build
    for one in built:
        one.close()


def losses_of(product: Product, loop, *, steps: int = 4) -> list[tuple[float, float]]:
    """The total of every step: the product's, and the loop's on the same samples."""
    pairs, before = [], 0.0
    for rows in product.rows(steps):
        expected = float(loop.step(rows).detach())
        product.step()
        pairs.append((product.total() - before, expected))
        before = product.total()
    return pairs


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", "plain"])
@pytest.mark.parametrize("size", [SMALLEST, pytest.param(TINY, marks=pytest.mark.slow)], ids=["plain_cnn", "resnet"])
def test_kd_of_the_limit_is_that_of_the_product(product, size, form):
    ours = product(size, "method=kd", *workloads.OVERRIDES[form])
    limit = workloads.kd_limit(ours, workloads.images_of(size), workloads.FORMS[form])
    for got, expected in losses_of(ours, limit):
        assert got == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", "plain"])
def test_hints_of_the_limit_are_those_of_the_product(product, form):
    ours = product(TINY, *HINT, *workloads.OVERRIDES[form])
    limit = workloads.hint_limit(ours, workloads.images_of(TINY), workloads.FORMS[form])
    assert len(list(limit.student.children())) == len(workloads.PRUNED)  # the rest has been cut off
    for got, expected in losses_of(ours, limit):
        assert got == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("overrides, limit_of", [(["method=kd"], "kd_limit"), (HINT, "hint_limit")])
def test_bf16_of_the_limit_is_that_of_the_product_to_its_precision(product, overrides, limit_of):
    ours = product(TINY, *overrides, *workloads.BF16)
    limit = getattr(workloads, limit_of)(ours, workloads.images_of(TINY), workloads.FORMS["bf16"])
    (got, expected), *_ = losses_of(ours, limit)
    assert got == pytest.approx(expected, rel=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("gather", [False, True])
def test_crd_of_the_limit_is_that_of_the_product(product, monkeypatch, gather):
    ours = product(TINY, "method=crd", NEGATIVES)
    limit = workloads.crd_limit(ours, workloads.images_of(TINY), workloads.FORMS[""], gather=gather)
    loss, before = ours.stage.step.losses["crd"], 0.0
    for rows in ours.rows(2):
        # Both use the negatives that the limit draws; which ones are drawn is up to chance in both.
        labels = torch.tensor([workloads.images_of(TINY).targets[row] for row in rows])
        drawn = limit.draw(limit.row_of[torch.tensor(rows)], labels)
        monkeypatch.setattr(loss, "draw", lambda positives, drawn=drawn: (positives, drawn))
        limit.drawn = drawn
        expected = float(limit.step(rows).detach())
        ours.step()
        assert ours.total() - before == pytest.approx(expected, rel=1e-4)
        before = ours.total()
    for bank, memory in zip(limit.banks, (loss.student_memory, loss.teacher_memory), strict=True):
        torch.testing.assert_close(bank, memory, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_negatives_of_the_limit_are_of_other_classes(product):
    ours = product(TINY, "method=crd", NEGATIVES)
    limit = workloads.crd_limit(ours, workloads.images_of(TINY), workloads.FORMS[""])
    rows = torch.arange(40)
    labels = torch.tensor(workloads.images_of(TINY).targets)
    drawn = limit.draw(limit.row_of[rows], labels)
    class_of_row = labels[torch.argsort(labels, stable=True)]
    assert (class_of_row[drawn] != labels[:, None]).all()
    assert len(drawn.unique()) == 40


def test_cached_kd_of_the_limit_is_that_of_the_product(product):
    size = Size(**{**vars(SMALLEST), "samples": 4})
    ours = product(size, "method=kd", "cache.enabled=true")
    ours.epoch()  # fills the cache, and is a step
    images, teacher = workloads.images_of(size), ours.experiment.network("teacher").module
    inputs = by_hand.normalized(torch.stack([images[row][0] for row in range(4)]))
    with torch.no_grad():
        logits = teacher.eval()(inputs).half()
    student = workloads.network(ours, "student")
    limit = by_hand.CachedKD(logits, student, images=images, batch=4, form=workloads.FORMS[""])
    (rows,) = ours.rows(1)
    ours.epoch()
    assert ours.total() == pytest.approx(float(limit.step(rows).detach()), rel=1e-4)


def test_the_student_alone_is_cross_entropy(product):
    ours = product(SMALLEST, "method=ce")
    student, images = workloads.network(ours, "student"), workloads.images_of(SMALLEST)
    limit = by_hand.Loop(student, None, images=images, batch=4, form=workloads.FORMS[""])
    for got, expected in losses_of(ours, limit):
        assert got == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torchdistill") is None, reason="pip install -e '.[bench]'")
@pytest.mark.parametrize("method", ["kd", "hint", "hint_pruned"])
def test_torchdistill_computes_the_same_but_for_the_mode_of_its_teacher(product, method):
    from scripts.benchmark.rival import hint_config, kd_config

    ours = product(TINY, *(["method=kd"] if method == "kd" else HINT), *workloads.PLAIN)
    images, (rows,) = workloads.images_of(TINY), ours.rows(1)
    regressor = {} if method == "kd" else ours.stage.step.adapters["regressor"].state_dict()
    pruned = workloads.PRUNED if method == "hint_pruned" else []
    config = kd_config() if method == "kd" else hint_config("layer2", channels=(128, 128), pruned=pruned)
    other = workloads.rival(ours, images, config=config)
    other.box.teacher_model.eval()
    if method != "kd":
        own = other.box.student_model.regressor
        own.load_state_dict(dict(zip(own.state_dict(), regressor.values(), strict=True)))
    other.fetch()
    _, _, extra = other.fetched
    batch = torch.utils.data.default_collate([images[row] for row in rows])
    other.fetched = (*batch, extra)
    ours.step()
    assert float(other.step().detach()) == pytest.approx(ours.total(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kd", "hint", "fixed", "crd", "data", "cache", "store", "crd_setup"])
def test_every_workload_runs(tmp_path, name):
    function = getattr(workloads, name, None) or getattr(stored, name)
    size = Size(**{**vars(TINY), "samples": 1024 if name == "store" else 40})
    found = function(workloads.Plan(tmp_path, rounds=2, size=size, negatives=16, rows=256))
    assert all(len(times) == 2 and min(times) > 0 for times in found["times"].values())
    record = {**found, "size": workloads.Plan(tmp_path, size=size).described(), "rounds": 2}
    rows = [row for row in report.ROWS if row.workload == name]
    ours = [cell for row in rows for cell in (row.rival, row.limit) if cell and "torchdistill" not in cell.figure]
    assert ours and all(cell.measured(record) is not None for cell in ours)
    assert "nan" not in report.table({name: record})


def test_a_batch_of_the_limit_never_repeats_a_sample_within_an_epoch():
    images = workloads.images_of(SMALLEST)
    feed = by_hand.Feed(images, batch=4, layout=torch.contiguous_format)
    seen = torch.cat([feed()[2] for _ in range(10)])
    assert sorted(seen.tolist()) == list(range(40))


def test_rounds_are_interleaved_and_warm_up_is_left_out():
    order = []
    contenders = {name: timing.Contender(lambda name=name: order.append(name)) for name in "ab"}
    times = timing.interleaved(contenders, rounds=3)
    assert "".join(order) == "abbaabbaab"
    assert {name: len(spent) for name, spent in times.items()} == {"a": 3, "b": 3}


def test_ratios_are_taken_within_rounds():
    assert timing.ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("ours", "verdict"), [([1.0] * 9, "yes"), ([0.5] * 9, "no"), ([0.9] * 5 + [1.1] * 4, "no, within the spread")]
)
def test_the_verdict_is_that_of_the_median(ours, verdict):
    cell = report.Cell("a / b", ">=", 1.0)
    assert cell.verdict({"times": {"a": ours, "b": [1.0] * 9}, "values": {}, "missing": {}}) == verdict


def test_a_comparison_that_cannot_be_made_says_why():
    found = {"times": {"ours": [1.0]}, "values": {}, "missing": {"torchdistill": "needs torchdistill 1.1.5"}}
    cell = report.Cell("torchdistill / ours", ">=", 1.0)
    assert cell.text(found) == "needs torchdistill 1.1.5" and cell.verdict(found) == "not measured"


def test_only_the_generated_part_of_the_page_changes():
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter"
    new = report.placed(page, "new")
    assert "old" not in new and new.startswith("before\n") and new.endswith("\nafter") and "new" in new
    with pytest.raises(ValueError, match="needs the lines"):
        report.placed("no place", "new")


def test_the_page_has_a_place_for_the_figures_and_every_workload_a_row():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert report.placed(page, "") != page
    shown = {row.workload for row in report.ROWS}
    shown |= {
        f"{row.workload}_{teacher}" for row in report.PAPER for teacher in report.PAPER_SECONDS.keys() - {"resnet34"}
    }
    assert shown == set(benchmark.WORKLOADS)
    record = json.loads((ROOT / "docs" / "performance.json").read_text(encoding="utf-8"))
    assert set(record["workloads"]) == set(benchmark.WORKLOADS), "every workload was measured"
    assert report.placed(page, benchmark.report(record)) == page, "and the page shows it"
    section = by_method.methods_section(record["methods"]) if "methods" in record else report.NO_METHODS
    assert report.placed(page, section, marks=report.OF_METHODS) == page, "that of methods too"


def test_cells_of_the_paper_stand_beside_what_was_measured_over_the_same_networks():
    times = {"ours_uncached": [3.0], "ours_cached": [2.0], "ours_filling": [3.3], "torchdistill_cached": [4.0]}
    found = {"times": times, "values": {}, "missing": {}, "size": {"teacher": "resnet152", "student": "resnet18"}}
    lines = report.paper_table({"cache_resnet152": found}).splitlines()[2:]
    cached, filling = (
        next(line for line in lines if what in line and "resnet152" in line) for what in ("stored", "that stores")
    )
    assert cached.endswith("| 1,944 s / 917 s = 2.12 | not measured | 1.50 |")
    assert filling.endswith("| 1,966 s / 1,944 s = 1.01 | - | 1.10 |")
    assert sum(line.endswith("| - | - |") for line in lines) == 10, "the others say that they were not measured here"


@pytest.mark.slow
def test_methods_run_in_turn_with_kd_and_stand_in_a_table_with_their_memory(tmp_path, monkeypatch):
    names = ["kd", "at", "uskd", "ghnd"]
    monkeypatch.setattr(by_method, "methods_of", lambda: [Method(name, AboutConf(), shipped=True) for name in names])
    found = by_method.methods(workloads.Plan(tmp_path, rounds=2, size=SMALLEST))
    assert found["stages"] == {"kd": "distill", "at": "distill", "uskd": "distill"}
    assert all(len(times) == 2 and min(times) > 0 for times in found["times"].values())
    # Of the tensors of a plain network of 94,762 parameters and one of 1,586, its gradients and momentum.
    assert 4 * 94_762 < found["values"]["kd_bytes"] < found["values"]["at_bytes"] < 100 * 4 * 94_762
    size = workloads.Plan(tmp_path, size=SMALLEST).described()
    section = by_method.methods_section(
        {**found, "size": size, "rounds": 2, "date": "2026-01-01", "machine": benchmark.machine()}
    )
    lines = section.splitlines()
    assert "plain_32_64_128 to plain_8_16, 8 px, batch 4, 4 classes" in lines[0]
    assert sum(line.startswith("| `") for line in lines) == 3
    assert "- `ghnd`: its student is the teacher with a bottleneck" in lines


def test_memory_is_the_most_that_tensors_take_at_one_time():
    with torch.profiler.profile(profile_memory=True) as profile:
        kept = torch.zeros(250_000)
        for _ in range(3):
            passing = kept + 1
            del passing
    assert 2_000_000 <= by_method.peak_bytes(profile) < 2_100_000


@pytest.mark.slow
def test_a_method_that_is_refused_is_told_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(by_method, "methods_of", lambda: [Method("ghnd", AboutConf(), shipped=True)])
    monkeypatch.setattr(by_method, "ELSEWHERE", {})
    found = by_method.methods(workloads.Plan(tmp_path, rounds=1, size=SMALLEST))
    assert found["stages"] == {} and "cannot start from teacher" in found["missing"]["ghnd"]


def test_methods_that_are_measured_later_join_the_table_of_the_same_machine_and_sizes():
    def found(name: str, seconds: float, **more):
        times = {name: [seconds], f"kd_beside_{name}": [1.0]}
        about = {"stages": {name: "distill"}, "missing": {}, "date": "2026-01-01", "rounds": 1, **more}
        described = workloads.Plan(Path(), size=SMALLEST).described()
        values = {"kd_bytes": 2**20, f"{name}_bytes": 2**21}
        return {"times": times, "values": values, "size": described, "machine": benchmark.machine(), **about}

    both = by_method.with_kept(found("at", 1.5), found("crd", 2.0, missing={"at": "refused"}))
    lines = by_method.methods_table(both).splitlines()
    assert lines[2:4] == ["| `crd` | distill | 2.00 | 2.00 | 2 MB |", "| `at` | distill | 1.50 | 2.00 | 2 MB |"]
    assert "- `dkd`: not yet" in lines and not any("refused" in line for line in lines)
    for change in ({"rounds": 2}, {"machine": {}}, {"size": {}}):
        assert set(by_method.with_kept(found("at", 1.5), found("crd", 2.0, **change))["stages"]) == {"at"}


def test_a_method_that_there_is_not_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmark", "--only", "methods", "--methods", "kd,crdd"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "crdd: no method" in capsys.readouterr().err


def test_methods_leave_the_figures_of_other_machines_alone(tmp_path, monkeypatch):
    old = {"machine": {**benchmark.machine(), "processor": "another"}, "workloads": {"kd": KD_FOUND}}
    (tmp_path / "performance.json").write_text(json.dumps(old))
    size = workloads.Plan(tmp_path, size=SMALLEST).described()
    made = {"times": {"kd": [1.0], "kd_beside_kd": [1.0]}, "values": {"kd_bytes": 1}, "missing": {}}
    made |= {"stages": {"kd": "distill"}, "size": size, "rounds": 1, "date": "2026-01-01"}
    monkeypatch.setattr(benchmark, "in_process", lambda name, arguments: made)
    monkeypatch.setattr("sys.argv", ["benchmark", "--only", "methods", "--docs", str(tmp_path)])
    benchmark.main()
    record = json.loads((tmp_path / "performance.json").read_text())
    assert record["machine"] == old["machine"] and record["workloads"] == old["workloads"]
    assert record["methods"]["machine"] == benchmark.machine()
    page = (tmp_path / "performance.md").read_text()
    assert "| `kd` | distill | 1.00 | 1.00 |" in page and f"another, {old['machine']['cores']} cores" in page


@pytest.mark.slow
def test_ghnd_of_the_limit_is_that_of_the_product(tmp_path):
    size = splitting.DetectorSize(**{**benchmark.DETECTORS, "image_size": 64, "batch": 4, "samples": 12})
    overrides = ["method=ghnd", "model@student=teacher_bottleneck", "tracker=none"]
    ours = Product(size, overrides, folder=tmp_path)
    limit = splitting.Bodies(ours, size)
    for got, expected in losses_of(ours, limit, steps=3):
        assert got == pytest.approx(expected, rel=1e-4)
    ours.close()
