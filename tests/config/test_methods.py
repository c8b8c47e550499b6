"""What a method tells of itself: in its own file, complete, and as text of its stages."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from distill_app.config.groups import conf_dir, options_of
from distill_app.config.methods import ABOUT, methods_of, presets_of, stages_of
from distill_app.config.tree import compose
from distill_app.errors import ConfigError, UsageError

METHODS = {method.name: method for method in methods_of()}


def write(folder: Path, name: str, text: str) -> str:
    """A config folder with one method."""
    (folder / "method").mkdir(exist_ok=True)
    (folder / "method" / f"{name}.yaml").write_text(text)
    return str(folder)


@pytest.mark.parametrize("name", options_of("method"))
def test_a_method_file_says_all_of_its_own_method(name):
    method, written = METHODS[name], yaml.safe_load(Path(conf_dir(), "method", f"{name}.yaml").read_text())["about"]
    assert set(written) == {"title", "kind", "paper", "learns", "needs"} - (
        {"paper"} if name in ("ce", "own") else set()
    )
    told = {key: text for key, text in asdict(method.about).items() if text is not None}
    assert set(told) == set(ABOUT) - ({"paper"} if name in ("ce", "own") else set())
    assert all(isinstance(text, str) and text.strip() == text for text in told.values())
    assert name in ("ce", "own") or (method.link.startswith("https://") and method.authors[-4:].isdigit())


def test_titles_are_names_and_no_two_methods_share_one():
    titles = [method.about.title for method in METHODS.values()]
    assert len(set(titles)) == len(titles) == len(options_of("method"))


def test_methods_come_in_the_order_of_their_papers():
    years = [int(method.authors[-4:]) for method in METHODS.values() if method.authors]
    assert years == sorted(years) and next(iter(METHODS)) == "ce"


@pytest.mark.slow
def test_what_a_composed_config_tells_is_the_chosen_methods():
    assert compose(["method=fitnet"]).method.about.title == METHODS["fitnet"].about.title
    assert compose(["method=ce"]).prelude.about is None


@pytest.mark.slow
def test_a_method_of_ones_own_is_found_and_tells_nothing_of_the_one_it_inherits(tmp_path):
    folder = write(tmp_path, "cosine", "defaults: [kd, _self_]\nname: cosine\n")
    mine = next(method for method in methods_of([folder]) if method.name == "cosine")
    assert (mine.shipped, mine.about.title, mine.link) == (False, None, "")
    assert methods_of([folder])[-1] is not None and methods_of([folder])[-1].name == "cosine"
    assert [stage.name for stage in stages_of("cosine", [folder])] == ["distill"]


@pytest.mark.parametrize(
    ("paper", "authors", "link"),
    [
        ("Doe et al. 2031, https://example.org/a_b.html", "Doe et al. 2031", "https://example.org/a_b.html"),
        ("https://example.org/1", "", "https://example.org/1"),
        ("Doe 2031", "Doe 2031", ""),
        ("Doe 2031: https://example.org/1, section 2", "Doe 2031", "https://example.org/1"),
    ],
)
def test_a_paper_is_told_with_or_without_authors_and_address(tmp_path, paper, authors, link):
    folder = write(tmp_path, "mine", yaml.safe_dump({"name": "mine", "about": {"paper": paper}}))
    mine = next(method for method in methods_of([folder]) if method.name == "mine")
    assert (mine.authors, mine.link) == (authors, link)


def test_the_text_of_a_method_may_stand_beside_it_or_in_it(tmp_path):
    folder = write(tmp_path, "mine", "name: mine\nabout: {title: Mine, know: All of it.}\n")
    text = "It does\nmuch.\n\n    L = a\n\nBefore using it: Think.\n\nSame numbers as: ours; not theirs.\n"
    (tmp_path / "method" / "mine.md").write_text(text)
    mine = next(method for method in methods_of([folder]) if method.name == "mine").about
    assert (mine.title, mine.does, mine.formula) == ("Mine", "It does much.", "L = a")
    assert (mine.know, mine.matches) == ("All of it.", "ours; not theirs")
    (tmp_path / "method" / "mine.md").write_text("It does.\n\nAnd does.\n")
    with pytest.raises(UsageError, match=r"mine.md: two paragraphs say 'does': 'And does.'"):
        methods_of([folder])


@pytest.mark.parametrize("text", ["", "name: mine\nabout: null\n", "name: mine\nabout: {title: 3}\n", "- 1\n"])
def test_a_file_that_tells_little_is_listed_all_the_same(tmp_path, text):
    folder = write(tmp_path, "mine", text)
    assert "mine" in [method.name for method in methods_of([folder])]


@pytest.mark.slow
def test_stages_are_told_in_their_order_with_adapters_roles_and_rates():
    hint, distill = stages_of("fitnet")
    assert (hint.name, hint.trains) == ("hint", "student, regressor")
    assert hint.minimises == ["1 x MSELoss of input=adapters.regressor, target=teacher.stage2"]
    assert hint.through == ["regressor = ConvRegressor of student.stage2, as teacher.stage2"]
    assert "0.5 x KLDivergence(temperature=4.0) of student=student.logits, teacher=teacher.logits" in distill.minimises
    assert stages_of("ghnd")[0].trains == "student (lr 0.001; Adam)"
    assert [stage.trains for stage in stages_of("takd")] == ["assistant", "student"]


def test_a_weight_with_a_schedule_and_a_term_switched_off_are_told(tmp_path):
    weight = "{_target_: distill_app.losses.LinearWarmup, value: 1.0, epochs: 20}"
    stages = f"{{distill: {{losses: {{ce: null, kd: {{weight: {weight}}}}}}}}}"
    folder = write(tmp_path, "slow", f"defaults: [kd, _self_]\nname: slow\nstages: {stages}\n")
    ((stage,)) = stages_of("slow", [folder])
    assert stage.minimises == [
        "LinearWarmup(value=1.0, epochs=20) x KLDivergence(temperature=4.0) of student=student.logits, "
        "teacher=teacher.logits"
    ]


@pytest.mark.slow
def test_a_stage_that_is_like_another_is_told_with_what_it_takes_from_it(tmp_path):
    text = "defaults: [kd, _self_]\nname: twice\nschedule: [distill, again]\nstages: {again: {like: %s, lr: 0.01}}\n"
    folder = write(tmp_path, "twice", text % "distill")
    first, again = stages_of("twice", [folder])
    assert (again.name, again.trains, again.minimises) == ("again", "student (lr 0.01)", first.minimises)
    with pytest.raises(ConfigError, match=r"method.stages.again.like: unknown stage 'distil'"):
        stages_of("twice", [write(tmp_path, "twice", text % "distil")])


def test_presets_of_a_method_are_those_that_choose_it(tmp_path):
    assert presets_of("at") == ["cifar100/at_r32x4_r8x4", "imagenet/at_r34_r18", "imagenet/at_r50_mv1"]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /method: at\n")
    assert presets_of("at", [str(tmp_path)])[-1] == "mine"
