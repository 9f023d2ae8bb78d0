"""Documents that were written to harm, or by other tools: places stay right and every failure is a `ConfigError`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deerflow_replica import AppConfig
from deerflow_replica.config.documents import read_json, read_yaml
from deerflow_replica.errors import ConfigError, ConfigProblem


def problem_of(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        read_yaml(text, "c.yaml")
    return str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "s: !!set {a, b}",
        "s: !!set {a: 1, b: }",
        "o: !!omap [a: 1, b: {c: [2]}]",
        "p: !!pairs [a: 1, a: 2]",
        "s: !!set {}\no: !!omap []",
        "b: !!binary aGk=\nt: !!timestamp 2001-01-02\nn: !!null ''",
    ],
)
def test_yaml_s_own_collections_mean_what_safe_load_means(text: str) -> None:
    assert read_yaml(text, "c.yaml").data == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: !!timestamp soon\n", "c.yaml:1:4 not a value of type timestamp"),
        ("a: !!omap [1]\n", "c.yaml:1:12 expected a mapping of one key"),
        ("a: !!pairs [{a: 1, b: 2}]\n", "c.yaml:1:13 expected a mapping of one key"),
        ("a: !!pairs {a: 1}\n", "c.yaml:1:4 "),
        ("a: !!set [a]\n", "c.yaml:1:4 "),
        ("a: &a !!pairs [x: *a]\n", "c.yaml:1:4 an alias refers to a node that contains it"),
        ("x: ü\na: é\x01\n", "c.yaml:2:5 not YAML: control characters are not allowed"),
    ],
)
def test_malformed_values_are_named_with_their_place(text: str, expected: str) -> None:
    assert problem_of(text).startswith(expected)


@pytest.mark.parametrize("tag", ["!!omap", "!!pairs"])
def test_ordered_mappings_expand_no_further_than_others(tag: str) -> None:
    lines = [f"a0: &a0 {tag} [k: 1]"]
    lines += [f"a{n}: &a{n} {tag} [{', '.join(f'k{i}: *a{n - 1}' for i in range(10))}]" for n in range(1, 10)]
    assert "more than 100000 nodes" in problem_of("\n".join(lines))


def test_a_duplicate_inside_an_ordered_mapping_is_found() -> None:
    found = read_yaml("o: !!omap [a: {k: 1, k: 2}]", "c.yaml").problems
    assert [str(problem) for problem in found] == ["c.yaml:1:22 o.0.a.k: duplicate key, first on line 1"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("title:\r\n  max_words: 99\r\n", "2:14"),
        ("title: {\n\tmax_words: 99}\n", "2:13"),
        ("ü: 日本\ntitle: {model_name: '日本', max_words: 99}\n", "2:38"),
        ("x: &t {max_words: 99}\ntitle: *t\n", "1:19"),
        ("x: &t {max_words: 99}\ntitle:\n  <<: *t\n", "1:19"),
        ("title:\n  max_words: |\n    many\n", "2:14"),
        ("title:\n  max_words: >-\n    99\n", "2:14"),
        ("title:\n  ? max_words\n  : 99\n", "3:5"),
        ("title:\n  max_words:\n  max_chars: 20\n", "2:13"),
        ("title:\n  max_words: &n !!int '99'\n", "2:14"),
    ],
)
def test_places_in_every_style(text: str, place: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for start in ("", "\ufeff"):
        path.write_text(start + text, encoding="utf-8", newline="")
        with pytest.raises(ConfigError) as raised:
            AppConfig.from_file(path, env={})
        assert str(raised.value).startswith(f"{path}:{place} title.max_words: ")


def test_a_number_too_long_to_print_is_named_all_the_same() -> None:
    data = read_yaml("title: {max_words: 0x" + "f" * 5000 + "}\nx: 0x" + "f" * 5000, "c.yaml").data
    with pytest.raises(ConfigError, match=r"title\.max_words: .* \(got '0xffff"):
        AppConfig.from_mapping({"title": data["title"]}, env={})
    assert "0xffff" in repr(AppConfig.from_mapping({"x": data["x"]}, env={}))


def test_json_has_places_whatever_yaml_thinks_of_it() -> None:
    found = read_json('{\n\t"x": "\\ud83d\\ude00",\n\t"skills": 5}', "e.json")
    assert found.data == {"x": "😀", "skills": 5}
    assert found.places["skills",][0] == "e.json"


def test_a_duplicate_key_in_json_is_named_with_both_lines() -> None:
    found = read_json('{"skills": {},\n "mcpServers": {"a": 1,\n "a": 2}}', "e.json")
    assert [str(problem) for problem in found.problems] == ["e.json:3:2 mcpServers.a: duplicate key, first on line 2"]
    found = read_json('{"x": "\\ud83d\\ude00", "a": 1, "a": 2}', "e.json")
    assert [str(problem) for problem in found.problems] == ["e.json:1:1 a: duplicate key"]


def test_too_deep_json_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("x: 1\n")
    (tmp_path / "e.json").write_text('{"x": ' + "[" * 150 + "]" * 150 + "}")
    with pytest.raises(ConfigError, match=r"e\.json:1:1 extensions\.x\..*more than 100 levels"):
        AppConfig.from_file(tmp_path / "c.yaml", extensions_path=tmp_path / "e.json", env={})


def test_a_problem_is_one_line_whatever_its_key_is_called() -> None:
    problem = ConfigProblem("a\nb\x1b[31mü", "mess\rage", "c\n.yaml", 1, 2)
    assert str(problem) == r"c\n.yaml:1:2 a\nb\x1b[31mü: mess\rage"


def test_a_folder_that_is_gone_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="working directory"):
        AppConfig.from_file(env={})
    with pytest.raises(ConfigError, match="working directory"):
        AppConfig.from_mapping({}, env={})
