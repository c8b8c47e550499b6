"""The YAML of torchdistill is data: its tags are read, others refused, and nothing is run."""

import pytest

from distill_app.errors import UsageError
from distill_app.migration.dialect import Tagged, read_config


def read(tmp_path, text: str):
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return read_config(file)


def test_texts_are_joined_and_anchors_unfolded(tmp_path):
    found = read(
        tmp_path,
        "a: &name digits\nb: !join ['~/data/', *name, 7]\nc: !pathjoin [x, y]\nd: !expanduser ~/z\ne: !abspath q\n",
    )
    assert found == {"a": "digits", "b": "~/data/digits7", "c": "x/y", "d": "~/z", "e": "q"}


def test_a_key_that_only_holds_an_anchor_is_where_it_is_referred_to(tmp_path):
    assert read(tmp_path, "_root: &root {a: 1}\nb: *root\n_plain: 2\n") == {"b": {"a": 1}, "_plain": 2}


def test_what_would_be_called_is_described(tmp_path):
    found = read(tmp_path, "a: !import_call {key: os.getcwd, init: }\nb: !getattr [!import_get {key: os.path}, sep]\n")
    assert isinstance(found["a"], Tagged) and (found["a"].tag, found["a"]) == (
        "!import_call",
        {"key": "os.getcwd", "init": None},
    )
    assert found["b"]["name"] == "sep" and found["b"]["of"] == {"key": "os.path"}


def test_items_of_plain_data_are_looked_up_and_of_others_described(tmp_path):
    found = read(
        tmp_path,
        "a: !access_by_index_or_key {data: [1, 2], index_or_key: 1}\n"
        "b: !access_by_index_or_key {data: !import_call {key: f}, index_or_key: 1}\n",
    )
    assert found["a"] == 2 and found["b"].tag == "!access_by_index_or_key"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: !joined [x]", "did you mean '!join'"),
        ("a: !!python/object/apply:os.system ['touch ran']", "unknown tag 'tag:yaml.org,2002:python/object/apply"),
        ("a: !import_call [1]", "!import_call takes a mapping in line 1"),
        ("a: !join [{b: 1}]", "!join takes texts"),
        ("a: !access_by_index_or_key {data: [1], index_or_key: 4}", "no 4 in data"),
        ("a: [", "no YAML"),
        ("- a", "holds no mapping"),
    ],
)
def test_what_is_no_config_is_refused_and_nothing_is_run(tmp_path, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"config\.yaml") as refused:
        read(tmp_path, text)
    assert told in str(refused.value)
    assert not (tmp_path / "ran").exists()


def test_aliases_of_aliases_are_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    with pytest.raises(UsageError, match="unfolds to more than"):
        read(tmp_path, "\n".join(lines))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "nothing.yaml")
