from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from support.processes import PATIENCE

from medseg.datasets.manifest import Manifest
from medseg.errors import UsageError
from medseg.recipe import Recipe
from medseg.system.safe_parsing import DEEPEST, PlainLoader, json_data, text_of, yaml_data

LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "aliases.*line 2"),
        ("a: &a {b: *a}", "aliases"),
        ("[" * 1000, "nested deeper than 64"),
        ("- " * 5000 + "x", "nested deeper than 64"),
        ("{a: " * 1000, "nested deeper than 64"),
        ("!!python/object/apply:os.getcwd []", "constructor"),
        ("a: 1\na: 2", "'a' appears twice"),
        ("a: 2024-13-45", "month"),
        ("a: [", "line 1"),
        ("a: \x00", "special characters"),
        ("? [1]\n: 2", "unhashable|hashable"),
        ("a: 1\n---\nb: 2", "another document"),
    ],
)
def test_yaml_that_is_not_plain_data_is_refused_after_a_few_nodes(text, message):
    nodes = 0

    class Counting(PlainLoader):
        def compose_node(self, parent, index):
            nonlocal nodes
            nodes += 1
            return super().compose_node(parent, index)

    with pytest.raises(ValueError, match=message) as caught:
        yaml_data(text, Counting)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
    assert nodes <= 2 * (DEEPEST + 1)  # a key and a value a level; LAUGHS stands for 5^39, a list for 5,000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10**6, "nested"),
        ("[" * 65 + "]" * 65, "nested deeper than 64"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "too large"),
        ("9" * 5000, "characters"),
        ('{"a": 1\n "b": 2}', "line 2"),
    ],
)
def test_json_that_is_not_plain_data_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        json_data(text)


def test_plain_data_are_read():
    assert json_data('{"a": [1, 2.5, null, {"b": []}]}') == {"a": [1, 2.5, None, {"b": []}]}
    assert yaml_data("a: [1, 2.5, null, {b: []}]") == {"a": [1, 2.5, None, {"b": []}]}
    assert json_data("3") == 3


def test_the_bound_of_a_file_is_its_size(tmp_path):
    path = tmp_path / "x"
    path.write_text("12345")
    assert text_of(path, most_bytes=5) == "12345"
    with pytest.raises(OSError, match="5 bytes, more than 4"):
        text_of(path, most_bytes=4)


@pytest.mark.parametrize("name", ["m.yaml", "m.json", "m.csv", "recipe.yaml"])
def test_a_file_of_a_gigabyte_is_refused_unread(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = Recipe.read if name == "recipe.yaml" else Manifest.read
    with pytest.raises(UsageError, match="1073741824 bytes, more than") as caught:
        read(path)
    assert caught.value.where == str(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.parametrize("name", ["m.yaml", "m.json", "m.csv", "recipe.yaml"])
def test_a_pipe_is_refused_at_once(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    read = Recipe.read if name == "recipe.yaml" else Manifest.read
    with pytest.raises(UsageError, match="not a regular file"):
        read(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.json", '{"cases": [\n{"id": "a" "image": "x"}]}', "line 2 column"),
        ("m.yaml", "cases:\n- {id: a\n  image: x\n", "line 3"),
        ("m.yaml", LAUGHS, "line 2"),
        ("m.csv", 'id,image\na,x\nb,"x\n', "row"),
        ("recipe.yaml", "name: x\nlabels: [\n", "line 3"),
        ("recipe.yaml", LAUGHS, "line 2"),
    ],
)
def test_an_error_names_file_and_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    read = Recipe.read if name == "recipe.yaml" else Manifest.read
    with pytest.raises(UsageError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_bomb_takes_no_memory(tmp_path):
    (tmp_path / "recipe.yaml").write_text(LAUGHS)
    done = subprocess.run(
        [sys.executable, "-m", "medseg.cli", "recipe", str(tmp_path / "recipe.yaml")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "alias" in done.stderr


@pytest.mark.parametrize("text", ["9" * 4301, "9" * 101, "0x" + "f" * 5000, "1." + "1" * 200])
def test_numbers_without_bounds_are_refused(text):
    with pytest.raises(ValueError, match=f"a number of {len(text)} characters: at most 100"):
        yaml_data(f"a: {text}")
    if text.isdigit():
        with pytest.raises(ValueError, match=f"a number of {len(text)} characters: at most 100"):
            json_data(f'{{"a": {text}}}')
    with pytest.raises(UsageError, match="a number of") as caught:
        Recipe.parse(f"name: {text}")
    assert len(str(caught.value)) < 500


def test_base_60_is_text():
    # In YAML 1.1 1:30 is 90 and 1:1:1... has no bound; YAML 1.2 knows neither.
    assert yaml_data("a: 1:30") == {"a": "1:30"}
    assert yaml_data("a: 1:30.5") == {"a": "1:30.5"}
    long = ":".join(["59"] * 20_000)
    assert yaml_data(f"a: {long}") == {"a": long}
    assert yaml_data("[0x1f, 012, 1_000, 1.5e+3, .inf, -7]") == [31, 10, 1000, 1500.0, float("inf"), -7]
