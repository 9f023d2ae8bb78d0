"""The published JavaScript client against two replicas behind a proxy without sticky sessions."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from building import CannotBuildError
from gateway.balancing import BalancingProxy
from gateway.javascript_packages import SOURCES, packages
from gateway.server_process import Deployment

pytestmark = [pytest.mark.anyio, pytest.mark.faults]

PROOF_SECONDS = 180


def proofs_of(suite: str) -> list[str]:
    return re.findall(r"^export async function (\w+)", (SOURCES / f"{suite}.mjs").read_text(), re.MULTILINE)


class Prover:
    """A process of Node that does the proofs of one suite, one after the other."""

    def __init__(self, folder: Path, suite: str) -> None:
        self._process = subprocess.Popen(
            ["node", "proof.mjs", suite],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def fails(self, name: str, proxy: BalancingProxy) -> str:
        """What it says of a proof that fails; nothing of one that holds."""
        said = []
        self._say(f"{name} {proxy.url}")
        while (line := await self._line()) not in ("ok\n", "failed\n", ""):
            if line == "cut\n":
                proxy.cut()
                self._say("done")
            else:
                said.append(line)
        return "" if line == "ok\n" else "".join(said) or "it ended"

    async def _line(self) -> str:
        """Empty once it has ended, or was ended because it says nothing."""
        assert self._process.stdout is not None
        reading = asyncio.ensure_future(asyncio.to_thread(self._process.stdout.readline))
        if not (await asyncio.wait([reading], timeout=PROOF_SECONDS))[0]:
            self._process.kill()
        return await reading

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the proofs, with their packages beside them."""
    try:
        installed = packages()
    except CannotBuildError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("javascript")
    for source in SOURCES.glob("*.mjs"):
        shutil.copy(source, folder)
    (folder / "node_modules").symlink_to(installed)
    return folder


@pytest.fixture(scope="module")
def client(program: Path) -> Iterator[Prover]:
    prover = Prover(program, "sdk")
    yield prover
    prover.end()


@pytest.fixture(scope="module")
def page(program: Path) -> Iterator[Prover]:
    prover = Prover(program, "hook")
    yield prover
    prover.end()


@pytest.mark.parametrize("name", proofs_of("sdk"))
async def test_the_client(client: Prover, deployment: Deployment, name: str) -> None:
    async with BalancingProxy(deployment.addresses, one_request_each=True).running() as proxy:
        assert not await client.fails(name, proxy)
        assert len(proxy.served) == 2


@pytest.mark.parametrize("name", proofs_of("hook"))
async def test_use_stream(page: Prover, deployment: Deployment, name: str) -> None:
    async with BalancingProxy(deployment.addresses, one_request_each=True).running() as proxy:
        assert not await page.fails(name, proxy)
        assert len(proxy.served) == 2
