"""Configuration beside DeerFlow's own loader, in one run, interleaved.

    DEER_FLOW_CLONE=../deer-flow python benchmarks/config.py [--smoke]

Without a clone (and DeerFlow's own dependencies) only our side is measured, on a file of the same size. Exits with 1
when a goal is missed; `--smoke` only shows that it runs. Imports, in processes of their own, take time by the clock;
all else is processor time, in which no other process has a part.
"""

from __future__ import annotations

import argparse
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from timeit import timeit
from typing import Any, NamedTuple

from langgraph.runtime import Runtime

from deerflow_replica import AppConfig, DeerFlowContext, app_config_scope, get_app_config, resolve_context

PICKLE_MILLISECONDS, PICKLE_BYTES = 1.0, 64 * 1024
Call = Callable[[], object]


class Goal(NamedTuple):
    """`ours` at least `times` as fast as `peer`; both are names of rows."""

    ours: str
    peer: str
    times: float


GOALS = (
    Goal("from_file", "DeerFlow from_file", 8),
    Goal("get_app_config", "DeerFlow get_app_config", 1000),
    Goal("resolve_context, typed", "DeerFlow get_app_config", 200),
    Goal("evolve one field", "from_file", 4),
    Goal("import deerflow_replica", "import langchain.agents", 1 / 0.4),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="only show that it runs; measure nothing worth a failure")
    smoke = parser.parse_args().smoke
    rounds = 1 if smoke else 15
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs; best of {rounds} rounds")
    clone = os.environ.get("DEER_FLOW_CLONE")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(newest_example(Path(clone)) if clone else generated(), encoding="utf-8")
        print(f"{path.name}: {len(path.read_text(encoding='utf-8').splitlines())} lines")
        kept = measured(path, rounds, peers(clone, path))
    return 0 if kept or smoke else 1


def measured(path: Path, rounds: int, peers: dict[str, Call]) -> bool:
    config = AppConfig.from_file(path, env={})
    runtime: Any = Runtime(context=DeerFlowContext(config, "t"))
    calls: dict[str, Call] = {
        "from_file": lambda: AppConfig.from_file(path, env={}),
        "evolve one field": lambda: config.evolve({"title": {"max_words": 7}}, env={}),
        "get_app_config": get_app_config,
        "resolve_context, typed": lambda: resolve_context(runtime),
        "pickle + unpickle": lambda: pickle.loads(pickle.dumps(config)),  # noqa: S301 our own bytes
        "import deerflow_replica": lambda: imported("deerflow_replica"),
        "import langchain.agents": lambda: imported("langchain.agents"),
        **peers,
    }
    with app_config_scope(config):
        best = interleaved(calls, rounds, warm_up=1 if rounds == 1 else 3)
    for name, seconds in best.items():
        print(f"{name:28} {seconds * 1e6:12.2f} us")
    size = len(pickle.dumps(config))
    print(f"{'pickle':28} {size:12} bytes")
    return all([judged(goal, best) for goal in GOALS] + [pickled(best["pickle + unpickle"], size)])


def interleaved(calls: dict[str, Call], rounds: int, warm_up: int) -> dict[str, float]:
    """Seconds a call, the best round of each: what disturbs a round is the machine, not the code."""
    often = {name: repetitions(call, warm_up) for name, call in calls.items()}
    rows = [
        {name: timeit(call, timer=_timer(name), number=often[name]) / often[name] for name, call in calls.items()}
        for _ in range(rounds)
    ]
    return {name: min(row[name] for row in rows) for name in calls}


def _timer(name: str) -> Callable[[], float]:
    return time.perf_counter if name.startswith("import ") else time.process_time


def repetitions(call: Call, warm_up: int) -> int:
    """So many that a round takes about 20 ms."""
    once = min(timeit(call, number=1) for _ in range(warm_up))
    return max(1, min(100_000, int(0.02 / once)))


def judged(goal: Goal, best: dict[str, float]) -> bool:
    if goal.peer not in best:
        print(f"{goal.ours}: not compared, there is no {goal.peer.partition(' ')[0]}")
        return True
    times = best[goal.peer] / best[goal.ours]
    kept = times >= goal.times
    print(f"{goal.ours}: {times:.1f} times as fast as {goal.peer}, goal {goal.times:g}: {'kept' if kept else 'BROKEN'}")
    return kept


def pickled(seconds: float, size: int) -> bool:
    kept = seconds * 1000 < PICKLE_MILLISECONDS and size < PICKLE_BYTES
    print(f"pickle: goal {PICKLE_MILLISECONDS} ms and {PICKLE_BYTES} bytes: {'kept' if kept else 'BROKEN'}")
    return kept


def imported(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)


def peers(clone: str | None, path: Path) -> dict[str, Call]:
    """DeerFlow's own loader, from the clone, on the same file."""
    if not clone:
        print("DEER_FLOW_CLONE names no clone of DeerFlow: only our side is measured")
        return {}
    os.environ["DEER_FLOW_CONFIG_PATH"] = str(path)
    sys.path.insert(0, str(Path(clone) / "backend/packages/harness"))
    try:
        from deerflow.config import app_config  # type: ignore[import-not-found, unused-ignore]  # only where a clone is

        app_config.get_app_config()
    except Exception as error:  # whatever it lacks here, it is said and ours is measured
        print(f"DeerFlow's loader does not run here ({type(error).__name__}: {error}): only our side is measured")
        return {}
    return {
        "DeerFlow from_file": lambda: app_config.AppConfig.from_file(str(path)),
        "DeerFlow get_app_config": app_config.get_app_config,
    }


def newest_example(clone: Path) -> str:
    return (clone / "config.example.yaml").read_text(encoding="utf-8")


def generated() -> str:
    """As many lines as DeerFlow's example has, most of them comments as there."""
    model = "- name: model-{n}\n  use: a:ChatOpenAI\n  model: m{n}\n  api_key: $KEY_{n}\n  max_tokens: 4096\n"
    tool = "- name: tool-{n}\n  group: web\n  use: deerflow.tools:tool_{n}\n  timeout: 10\n"
    remark = "# What the next setting is about, in a line as long as such lines usually are.\n"
    sections = "".join(
        f"section_{n}:\n{remark * 20}  enabled: true\n  limits: {{warn: 3, stop: 5}}\n" for n in range(60)
    )
    return (
        "config_version: 33\n"
        + "models:\n"
        + "".join(model.format(n=n) + remark * 20 for n in range(20))
        + "tools:\n"
        + "".join(tool.format(n=n) + remark * 20 for n in range(20))
        + sections
        + "title:\n  max_words: 6\nmemory:\n  backend_config: {max_facts: 100, guaranteed_categories: [correction]}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
