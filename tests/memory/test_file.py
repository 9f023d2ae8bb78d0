"""What only the storage on files has: its layout, damaged files, locks, and other processes."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import threading
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deerflow_replica._drivers.files import lock_file
from deerflow_replica.errors import MemoryCorruptError, StoreUnavailableError
from deerflow_replica.memory import FileMemoryStorage
from deerflow_replica.memory.base import Scope
from deerflow_replica.memory.documents import Stored, Unread
from deerflow_replica.memory.names import place_name
from waiting import eventually_sync


@pytest.fixture
def storage(tmp_path: Path) -> FileMemoryStorage:
    return FileMemoryStorage(tmp_path / "memory", lock_timeout_seconds=0.2)


RESTLESS = """
import sys
from deerflow_replica.memory import FileMemoryStorage

storage = FileMemoryStorage(sys.argv[1])
while True:
    document = storage.load()
    document["facts"].append({"id": str(len(document["facts"])), "content": "x" * 1000})
    assert storage.save(document)
"""


def _has_passed(storage: FileMemoryStorage, revision: int) -> bool:
    return bool(storage.load()["revision"] > revision)


def test_a_process_killed_while_it_saves_leaves_a_whole_document_and_no_lock(tmp_path: Path) -> None:
    storage = FileMemoryStorage(tmp_path)
    for _ in range(3):
        before = storage.load()["revision"]
        with subprocess.Popen([sys.executable, "-c", RESTLESS, str(tmp_path)]) as saver:
            eventually_sync(partial(_has_passed, storage, before + 5))
            saver.kill()
        document = storage.reload()
        assert [fact["id"] for fact in document["facts"]] == [str(number) for number in range(len(document["facts"]))]
        assert storage.save(document)


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        ({}, "memory.json"),
        ({"agent_name": "coder"}, "agents/coder/memory.json"),
        ({"user_id": "u_1-A"}, "users/u_1-A/memory.json"),
        ({"agent_name": "coder", "user_id": "ann"}, "users/ann/agents/coder/memory.json"),
        ({"user_id": "../../etc"}, "users/%2E%2E%2F%2E%2E%2Fetc/memory.json"),
    ],
)
def test_the_layout_and_what_lies_there_already(tmp_path: Path, scope: dict[str, Any], path: str) -> None:
    storage = FileMemoryStorage(tmp_path)
    old = {"version": "1.0", "facts": [{"id": "1", "content": "old"}], "lastUpdated": "2026-01-01T00:00:00Z"}
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(json.dumps(old))
    assert storage.load(**scope) == {**old, "revision": 0}
    document = storage.load(**scope)
    document["facts"].append({"id": "2", "content": "new"})
    assert storage.save(document, **scope)
    written = json.loads((tmp_path / path).read_text())
    assert [fact["id"] for fact in written["facts"]] == ["1", "2"]
    assert written["revision"] == 1


def test_reading_makes_no_directory(storage: FileMemoryStorage) -> None:
    storage.load(user_id="ann")
    storage.reload(user_id="ann")
    assert not storage.base_dir.exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"facts": {}}', b'{"revision": "x"}', b"[" * 10_000]
)
def test_a_corrupt_file_is_left_as_it_is(storage: FileMemoryStorage, content: bytes) -> None:
    assert storage.save({"facts": [{"id": "1"}]})
    path = storage.base_dir / "memory.json"
    path.write_bytes(content)
    for read in (storage.load, storage.reload, FileMemoryStorage(storage.base_dir).load):
        with pytest.raises(MemoryCorruptError, match=str(path)):
            read()
    assert storage.save({"facts": []}) is False
    assert path.read_bytes() == content


def test_a_corrupt_earlier_revision_only_costs_its_deletions(storage: FileMemoryStorage) -> None:
    assert storage.save({"facts": [{"id": "1"}]})
    mine = storage.load()
    assert storage.save({**mine, "facts": [{"id": "1"}, {"id": "2"}]})
    (storage.base_dir / ".memory.history" / "1.json").write_text("{")
    assert storage.save({**mine, "facts": []})
    assert [fact["id"] for fact in storage.load()["facts"]] == ["1", "2"]


@pytest.mark.parametrize("depth", [300, 500, 900, 5000])
def test_a_file_nested_too_deeply_is_never_a_raw_error(storage: FileMemoryStorage, depth: int) -> None:
    storage.base_dir.mkdir(parents=True, exist_ok=True)
    text = '{"facts": [], "deep": ' + '{"k": ' * depth + "1" + "}" * depth + "}"
    (storage.base_dir / "memory.json").write_text(text)
    try:
        loaded: object = storage.load()["revision"]
    except MemoryCorruptError:
        loaded = None
    assert loaded in (0, None)
    saved = storage.save({"facts": [], "revision": 7})
    assert saved or (storage.base_dir / "memory.json").read_text() == text


def test_a_file_where_the_directory_should_be(storage: FileMemoryStorage, caplog: pytest.LogCaptureFixture) -> None:
    storage.base_dir.write_text("in the way")
    for read in (storage.load, storage.reload):
        with pytest.raises(StoreUnavailableError, match=r"memory.json is not available"):
            read()
    assert storage.save({"facts": []}) is False
    assert "memory of everyone was not saved" in caplog.text
    storage.base_dir.unlink()
    assert storage.save({"facts": []}) is True


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission(storage: FileMemoryStorage) -> None:
    assert storage.save({"facts": [{"id": "1"}]})
    before = (storage.base_dir / "memory.json").read_bytes()
    storage.base_dir.chmod(0o500)
    try:
        assert storage.save({"facts": []}) is False
        assert storage.load()["facts"] == [{"id": "1"}]
    finally:
        storage.base_dir.chmod(0o700)
    assert (storage.base_dir / "memory.json").read_bytes() == before


def test_while_away_the_last_copy_is_read_with_one_warning(
    storage: FileMemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    assert storage.save({"facts": [{"id": "1"}]}, user_id="ann")
    elsewhere = storage.base_dir.with_name("elsewhere")
    for outage in (1, 2):
        storage.base_dir.rename(elsewhere)
        storage.base_dir.write_text("in the way")
        for _ in range(3):
            loaded = storage.load(user_id="ann")
            assert loaded["facts"] == [{"id": "1"}]
            loaded["facts"].clear()
        with pytest.raises(StoreUnavailableError):
            storage.reload(user_id="ann")
        with pytest.raises(StoreUnavailableError):
            storage.load(user_id="bob")
        assert storage.save({"facts": []}, user_id="ann") is False
        storage.base_dir.unlink()
        elsewhere.rename(storage.base_dir)
        assert storage.load(user_id="ann")["facts"] == [{"id": "1"}]
        assert sum(record.levelno == logging.WARNING for record in caplog.records) == outage


def test_a_lock_that_is_never_free_ends_the_save(storage: FileMemoryStorage, caplog: pytest.LogCaptureFixture) -> None:
    assert storage.save({"facts": [{"id": "1"}]})
    with lock_file(storage.base_dir / ".memory.lock", timeout_seconds=1):
        assert storage.save({"facts": []}) is False
        with pytest.raises(StoreUnavailableError, match="held by another"):
            storage.apply_changes({"deletes": ["1"]})
        assert storage.load()["facts"] == [{"id": "1"}]
    assert "held by another" in caplog.text
    assert storage.save({"facts": []}) is True


def test_a_save_waits_for_the_lock(tmp_path: Path) -> None:
    storage = FileMemoryStorage(tmp_path)
    results: list[bool] = []
    with lock_file(tmp_path / ".memory.lock", timeout_seconds=1):
        saver = threading.Thread(target=lambda: results.append(storage.save({"facts": []})))
        saver.start()
        saver.join(0.05)
        assert saver.is_alive()
    saver.join(10)
    assert results == [True]


def test_a_failed_write_leaves_everything_as_it_was(
    storage: FileMemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    assert storage.save({"facts": [{"id": "1"}]})
    before = storage.load()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert storage.save({"facts": []}) is False
    assert storage.load() == before == storage.reload()
    assert [path.name for path in storage.base_dir.glob(".*.tmp")] == []
    assert storage.save({"facts": []}) is True


def test_an_edit_of_equal_size_and_time_is_seen(storage: FileMemoryStorage) -> None:
    assert storage.save({"facts": [{"id": "1"}]})
    path = storage.base_dir / "memory.json"
    status = path.stat()
    replacement = path.with_name("replacement")
    replacement.write_text(path.read_text().replace('"id": "1"', '"id": "2"'))
    os.utime(replacement, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert replacement.stat().st_size == status.st_size
    replacement.replace(path)
    assert storage.load()["facts"] == [{"id": "2"}]


def test_a_slow_reader_cannot_bring_an_old_copy_back(storage: FileMemoryStorage) -> None:
    """Between a look at the file and the use of the copy that is known to be the file's, an older copy comes in."""
    scope = Scope(None, None)
    assert storage.save({"facts": [{"id": "1"}]})
    old = storage.load()
    assert storage.save({**old, "facts": [{"id": "1"}, {"id": "2"}]})

    class Interrupted(FileMemoryStorage):
        def _read(self, place: Scope, known: Hashable | None) -> Stored | Unread:
            read = super()._read(place, known)
            self._copies.put(place, "old", old)
            return read

    slow = Interrupted(storage.base_dir)
    slow.reload()
    read = slow._read(scope, None)
    assert isinstance(read, Stored)
    slow._copies.put(scope, read.version, read.document)
    assert slow.load() == storage.load()
    assert slow.save({**storage.load(), "mine": 1})
    assert [fact["id"] for fact in storage.load()["facts"]] == ["1", "2"]


def test_a_file_that_is_gone_is_nothing_and_so_is_its_history(storage: FileMemoryStorage) -> None:
    for number in range(3):
        assert storage.save({"facts": [{"id": str(number)}]})
    (storage.base_dir / "memory.json").unlink()
    assert storage.load()["revision"] == 0
    assert storage.save(storage.load())
    assert list((storage.base_dir / ".memory.history").iterdir()) == []


@pytest.mark.parametrize("history", [0, 3])
def test_only_so_many_earlier_revisions_are_kept(tmp_path: Path, history: int) -> None:
    storage = FileMemoryStorage(tmp_path, history=history)
    for number in range(6):
        assert storage.save({"facts": [{"id": str(number)}]})
    kept = sorted(int(path.stem) for path in tmp_path.glob(".memory.history/*.json"))
    assert kept == [3, 4, 5][: history or 0]


def look(storage: FileMemoryStorage, **scope: Any) -> Any:
    """A peek that looks, also when the machine was so busy that the last look was a slow one."""
    storage._detours = 0
    return storage.peek(**scope)


def test_a_peek_tells_what_needs_no_reading(storage: FileMemoryStorage) -> None:
    other = FileMemoryStorage(storage.base_dir)
    assert look(storage, user_id="ann") == {}
    assert other.save({"facts": [{"id": "1"}]}, user_id="ann")
    assert look(storage, user_id="ann") is None
    document = storage.load(user_id="ann")
    assert look(storage, user_id="ann") == look(other, user_id="ann") == document
    assert other.save(document, user_id="ann")
    assert look(storage, user_id="ann") is None
    (storage.base_dir / "users/ann/memory.json").unlink()
    assert look(storage, user_id="ann") == look(other, user_id="ann") == look(storage) == {}


def test_a_peek_reads_no_link_and_no_trouble(storage: FileMemoryStorage) -> None:
    assert storage.save({"facts": [{"id": "1"}]}, user_id="ann")
    (storage.base_dir / "memory.json").symlink_to(storage.base_dir / "users/ann/memory.json")
    (storage.base_dir / "users/bob").write_text("no folder")
    for _ in range(2):
        assert look(storage) is None
        assert storage.load()["facts"] == [{"id": "1"}]
        assert look(storage, user_id="bob") is None
        with pytest.raises(StoreUnavailableError):
            storage.load(user_id="bob")
    (storage.base_dir / "users/ann/memory.json").unlink()
    assert look(storage) is None
    assert storage.load()["facts"] == []


def test_after_a_slow_look_others_do_the_looking_for_a_while(storage: FileMemoryStorage) -> None:
    storage._detours = 2
    assert [storage.peek(user_id="ann") for _ in range(3)] == [None, None, {}]
    storage._detours = -1  # two threads have taken the last one
    assert storage.peek(user_id="ann") == {}


def test_one_slow_look_alone_says_nothing_of_the_disk(storage: FileMemoryStorage) -> None:
    storage._last_look_seconds = 0.0
    detours = []
    for seconds in (1.0, 0.001, 1.0, 0.0, 1.0):
        storage._looked(seconds)
        detours.append(storage._detours)
    assert detours == [0, 20, 20, 0, 0]


def test_peeks_of_one_version_are_one_object(storage: FileMemoryStorage) -> None:
    assert storage.save({"facts": [{"id": "1"}]}, user_id="ann")
    first = look(storage, user_id="ann")
    assert look(storage, user_id="ann") is first
    assert storage.load(user_id="ann") == first
    assert storage.load(user_id="ann") is not first
    assert storage.save({"facts": []}, user_id="ann")
    assert look(storage, user_id="ann")["facts"] == []
    assert first["facts"] == [{"id": "1"}]


def test_peeks_of_many_documents_are_not_mixed_up(storage: FileMemoryStorage) -> None:
    users = [str(number) for number in range(260)]
    for user in users:
        storage._copies.put(Scope(None, user), user, {"facts": [{"id": user}]})
    for user in users * 2:
        copy = storage._copies.get(Scope(None, user))
        assert copy is not None
        assert storage._copies.shared(Scope(None, user), copy) == {"facts": [{"id": user}]}
    assert len(storage._copies._shared) == 256


@pytest.mark.parametrize(
    "settings",
    [
        {"lock_timeout_seconds": -1},
        {"lock_timeout_seconds": math.inf},
        {"lock_timeout_seconds": math.nan},
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="negative"):
        FileMemoryStorage(tmp_path, **settings)


def test_no_name_can_be_mistaken_for_a_hashed_one() -> None:
    hashed = place_name("x" * 300)
    assert hashed.startswith("%sha256-")
    assert len(place_name("x" * 255)) == 255
    assert place_name(hashed) != hashed
