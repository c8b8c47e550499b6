"""`distill published`: pairs, methods of a pair, and one method, each with sources and the command."""

import pytest

from distill_app.cli import main


def told(capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `distill published`."""
    with pytest.raises(SystemExit) as stopped:
        main(["published", *words])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def test_the_list_has_every_pair_the_core_ones_first(capsys):
    code, out, _ = told(capsys)
    lines = [line for line in out.splitlines() if line.startswith(("wrn", "resnet", "vgg"))]
    assert code == 0 and len(lines) == 22
    assert all("core" in line.split() for line in lines[:13]) and not any("core" in line for line in lines[13:])


def test_a_pair_has_all_its_rows_with_sources_recipes_and_commands(capsys):
    code, out, _ = told(capsys, "vgg13_vgg8")
    assert code == 0 and "  CRD+KD: 74.29 %, from distillers, supermix" in out
    assert "  distill experiment=cifar100/benchmark pair=vgg13_vgg8 method=ttm" in out.splitlines()
    assert "  rd: HobbitLong/RepDistiller@b84f547; " in out and "  crd_240: 240 epochs" in out
    assert "reviewkd_240 (ReviewKD)" not in out or "ReviewKD: " in out


def test_one_method_stands_alone_with_values_of_every_source(capsys):
    code, out, _ = told(capsys, "wrn_40_2_wrn_16_2", "dkd")
    assert code == 0 and "DKD: 76.23 %, from md_dkd" in out and "DKD: 76.24 %, from ls, ttm" in out
    assert "CRD: " not in out and out.count("distill experiment=") == 1


def test_a_method_without_published_figures_is_no_unknown_one(capsys):
    code, out, _ = told(capsys, "vgg13_vgg8", "kdcl")
    assert code == 0 and "  kdcl: nothing for this pair" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vgg13_vgg9"], "unknown pair 'vgg13_vgg9'; did you mean 'vgg13_vgg8'"),
        (["vgg13_vgg8", "dkdd"], "unknown method 'dkdd'; did you mean 'dkd'"),
        (["--benchmark", "cifar"], "unknown benchmark 'cifar'"),
    ],
)
def test_what_there_is_not_is_refused_with_the_nearest(words, message, capsys):
    code, _, err = told(capsys, *words)
    assert code == 2 and message in err
