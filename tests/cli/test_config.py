"""`deerflow-replica config`: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from command_line import Command, runner
from deerflow_replica import AppConfig

FILE = """\
database: {backend: memory}
title:
  max_words: 3
memory:
  enabeld: true
models:
- {name: m, api_key: geheim, api_base: 'https://u:geheim@h', note: $NOTE}
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return runner(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.upper().startswith(("DEER_FLOW_", "DEERFLOW_REPLICA__"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOTE", "hush-77")
    path = folder / "config.yaml"
    path.write_text(FILE)
    return path


def test_show_prints_the_effective_configuration_masked(run: Command, file: Path) -> None:
    expected = AppConfig.from_file(file).to_mapping()
    for form, read in (("yaml", yaml.safe_load), ("json", json.loads)):
        done = run("config", "show", "--format", form)
        assert (done.code, done.err) == (0, "")
        assert read(done.out) == expected
    assert run("config", "show").out == run("config", "show", "--format", "yaml").out
    text = run("config", "show", "--config", str(file), "--format", "text").out
    assert "title.max_words: 3\n" in text
    assert 'models: [{"name": "m"' in text
    assert '"note": "$NOTE"' in text
    for form in ("yaml", "json", "text"):
        assert not {"geheim", "hush-77"} & set(run("config", "show", "--format", form).out.split())


def test_show_without_a_file_prints_the_defaults_and_says_so(run: Command) -> None:
    done = run("config", "show", "--format", "json")
    assert (done.code, done.err) == (0, "no configuration file: these are the defaults\n")
    assert json.loads(done.out) == AppConfig().to_mapping()
    assert run("config", "explain", "log_level").code == 0


def test_without_a_file_the_environment_and_the_extensions_count(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers often have no other configuration: set variables must not be ignored in silence."""
    monkeypatch.setenv("DEERFLOW_REPLICA__GATEWAY__LEASE_SECONDS", "3")
    (folder / "own.json").write_text('{"skills": {"x": {"enabled": false}}}')
    done = run("config", "show", "--extensions", "own.json", "--format", "json")
    assert done.code == 0
    assert done.err.endswith("defaults and what the environment or the extensions file sets\n")
    shown = json.loads(done.out)
    assert shown["gateway"]["lease_seconds"] == 3
    assert shown["extensions"]["skills"] == {"x": {"enabled": False}}
    monkeypatch.setenv("DEERFLOW_REPLICA__GATEWAY__LEAS_SECONDS", "3")
    done = run("config", "show")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("DEERFLOW_REPLICA__GATEWAY__LEAS_SECONDS ")
    monkeypatch.delenv("DEERFLOW_REPLICA__GATEWAY__LEAS_SECONDS")
    monkeypatch.setenv("DEERFLOW_REPLICA__DATABASE__BACKEND", "postgres")
    assert run("config", "show").err == "database.postgres_url: backend postgres needs postgres_url\n"


def test_validate_without_a_file_says_how_to_name_one(run: Command) -> None:
    done = run("config", "validate")
    assert (done.code, done.out) == (1, "")
    assert "--config" in done.err


@pytest.mark.parametrize("command", [["show"], ["validate"], ["explain", "log_level"]])
def test_a_named_file_that_is_missing_is_a_problem(
    run: Command, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("config", *command, "--config", "gone.yaml")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("gone.yaml (named by path) cannot be read")
    monkeypatch.setenv("DEER_FLOW_CONFIG_PATH", "away.yaml")
    done = run("config", *command)
    assert done.code == 1
    assert done.err.startswith("away.yaml (named by DEER_FLOW_CONFIG_PATH) cannot be read")


def test_validate_says_all_problems_at_once(run: Command, file: Path) -> None:
    file.write_text("title:\n  max_words: 99\n  max_words: 98\nmemory: {mode: wild}\n")
    done = run("config", "validate")
    assert done.code == 1
    assert done.out == ""
    assert done.err.splitlines() == [
        "config.yaml:3:3 title.max_words: duplicate key, first on line 2",
        "config.yaml:3:14 title.max_words: input should be less than or equal to 20 (got 98)",
        "config.yaml:4:16 memory.mode: input should be 'middleware' or 'tool' (got 'wild')",
    ]


def test_validate_warns_and_is_strict_when_asked(run: Command, file: Path) -> None:
    warning = "config.yaml:5:3 memory.enabeld: unknown name, did you mean enabled?"
    assert run("config", "validate") == (0, "valid\n", f"{warning}\n")
    done = run("config", "validate", "--strict")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"{warning}\n"


def test_validate_as_data(run: Command, file: Path) -> None:
    assert json.loads(run("config", "validate", "--format", "json").out) == {
        "valid": True,
        "problems": [],
        "warnings": ["config.yaml:5:3 memory.enabeld: unknown name, did you mean enabled?"],
    }
    done = run("config", "validate", "--strict", "--format", "yaml")
    assert done.code == 1
    (problem,) = yaml.safe_load(done.out)["problems"]
    assert (problem["key"], problem["source"], problem["line"], problem["column"]) == (
        "memory.enabeld",
        "config.yaml",
        5,
        3,
    )


def test_validate_without_a_file_fails(run: Command) -> None:
    done = run("config", "validate")
    assert done.code == 1
    assert done.err.startswith("config.yaml cannot be read")


def test_schema_is_that_of_the_model(run: Command) -> None:
    done = run("config", "schema")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == AppConfig.model_json_schema()
    assert yaml.safe_load(run("config", "schema", "--format", "yaml").out) == AppConfig.model_json_schema()


def test_explain_prints_one_field_per_line_or_json(run: Command, file: Path) -> None:
    done = run("config", "explain", "title.max_words")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "key: title.max_words",
        "value: 3",
        "default: 6",
        "origin: file",
        "source: config.yaml:3:14",
        "variable: null",
        "takes_effect: next-run",
        "description: Most words of a title.",
    ]
    found = json.loads(run("config", "explain", "models.0.note", "--format", "json").out)
    assert found == {
        "key": "models.0.note",
        "value": "$NOTE",
        "default": None,
        "origin": "file",
        "source": "config.yaml:7:68",
        "variable": "NOTE",
        "takes_effect": "rebuild",
        "description": "",
    }
    assert "geheim" not in run("config", "explain", "models").out
    lines = run("config", "explain", "title").out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(found)
    assert json.loads(lines[1].removeprefix("value: "))["max_words"] == 3


ODD = """\
x: {2001-01-02: 1, ~: 2, .inf: 5, !!binary /w==: 7, "a\\n b": 8}
y: [!!binary /w==, !!set {a}, 2001-01-02 03:04:05, .nan, -.inf, 0x1ffffffffffffffffff, "\\x85", 1e400]
"""


def test_values_that_only_yaml_has_are_printed(run: Command, file: Path) -> None:
    file.write_text(ODD)
    shown = json.loads(run("config", "show", "--format", "json").out, parse_constant=pytest.fail)
    assert shown["x"] == {"2001-01-02": 1, "None": 2, "inf": 5, "/w==": 7, "a\n b": 8}
    assert shown["y"] == ["/w==", ["a"], "2001-01-02T03:04:05", "nan", "-inf", 0x1FFFFFFFFFFFFFFFFFF, "\x85", "1e400"]
    assert yaml.safe_load(run("config", "show").out)["y"][0] == "/w=="
    text = run("config", "show", "--format", "text")
    assert (text.code, text.err) == (0, "")
    assert 'x./w==: 7\n"x.a\\n b": 8\n' in text.out


def test_explain_of_an_unknown_key_suggests(run: Command, file: Path) -> None:
    done = run("config", "explain", "title.max_word")
    assert (done.code, done.out) == (1, "")
    assert done.err == "title.max_word is not in the configuration, did you mean title.max_words?\n"


def test_extensions_are_read_from_where_they_are_named(run: Command, file: Path, folder: Path) -> None:
    (folder / "ext.json").write_text('{"skills": {"s": {}}}')
    done = run("config", "explain", "extensions.skills.s", "--extensions", "ext.json")
    assert "source: ext.json:1:18" in done.out
    assert run("config", "show", "--extensions", "none.json").code == 1


@pytest.mark.parametrize(
    "arguments",
    [["explain"], ["show", "--format", "xml"], ["nothing"], ["show", "extra"], ["show", "--strict"]],
)
def test_wrong_usage_is_2(run: Command, arguments: list[str]) -> None:
    assert run("config", *arguments).code == 2


def test_the_module_is_the_same_and_a_poor_terminal_no_traceback(file: Path) -> None:
    file.write_text("title: {model_name: ü}\n", encoding="utf-8")
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "deerflow_replica", "config", "explain", "title.model_name"]
    done = subprocess.run(command, env=env, capture_output=True, check=True)
    assert b"value: \\xfc" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", [["config", "show"], ["config", "schema"], ["check"]])
def test_a_full_disk_is_named_without_a_traceback(command: list[str], file: Path) -> None:
    file.write_text("database: {backend: memory}\n")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "deerflow_replica", *command], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"cannot write the output: No space left on device\n")
