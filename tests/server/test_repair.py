"""`qbroker check` finds each kind of damage; `qbroker salvage` saves what is not on the damaged page."""

import json
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from qbroker_server.core import check as invariants, keys, versions
from qbroker_server.engines.lmdb import LmdbEngine
from qbroker_server.lock import owned
from qbroker_server.repair import EX_IOERR, EX_UNAVAILABLE, EX_USAGE, FAULTS, check, salvage
from tests.support import damage
from tests.support.damage import DAMAGES, MESSAGE_COUNT, PAGE_BYTES
from tests.support.scene import Scene

BRANCH, LEAF = 1, 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    damage.build(directory)
    return directory


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "store"))


def run_check(directory: Path) -> Result:
    return CliRunner().invoke(check, [str(directory), "--json"])


def run_salvage(directory: Path) -> tuple[Path, dict[str, object], int]:
    target = directory.with_name("new")
    result = CliRunner().invoke(salvage, [str(directory), "--to", str(target), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return target, json.loads(result.stdout), result.exit_code


def rows(directory: Path, family: bytes) -> dict[bytes, bytes]:
    engine = LmdbEngine(directory)
    with engine.read() as txn:
        found = dict(txn.scan(family, keys.after(family), 2**31))
    engine.close()
    return found


def assert_usable(directory: Path) -> None:
    """The check finds nothing, and a broker starts on it and delivers."""
    assert run_check(directory).exit_code == 0
    engine = LmdbEngine(directory)
    scene = Scene(engine)
    scene.pass_time(1)
    with engine.read() as txn:
        assert invariants.faults(txn) == []
    engine.close()


def page_of(directory: Path, kind: int, family: bytes = b"") -> int:
    """A page of that kind in the middle of the family."""
    found = damage.used_pages(directory / "data.mdb")
    numbers = sorted(n for n, one in found.items() if one[0] == kind and one[1].startswith(family))
    return numbers[len(numbers) // 2]


def test_a_whole_store_passes_the_check_and_is_not_changed(store: Path) -> None:
    before = (store / "data.mdb").read_bytes()

    result = run_check(store)

    assert (result.exit_code, json.loads(result.stdout)["is_whole"]) == (0, True)
    assert (store / "data.mdb").read_bytes() == before


def test_salvage_of_a_whole_store_loses_nothing(store: Path) -> None:
    target, report, exit_code = run_salvage(store)

    assert (exit_code, report["lost"], report["page_faults"]) == (0, [], [])
    for family in (keys.MESSAGE, keys.READY, keys.PAYLOAD, keys.QUEUE, keys.LEASE, keys.DEAD):
        assert rows(target, family) == rows(store, family)
    assert_usable(target)


@pytest.mark.parametrize("how", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize(
    "family",
    [keys.MESSAGE, keys.READY, keys.PAYLOAD, keys.TIME],
    ids=["messages", "ready", "payloads", "times"],
)
def test_a_damaged_leaf_page_costs_only_what_is_on_it(
    store: Path, family: bytes, how: object
) -> None:
    before = rows(store, keys.MESSAGE)
    damage.damage(store / "data.mdb", page_of(store, LEAF, family), how)  # type: ignore[arg-type] # a function of DAMAGES

    checked = run_check(store)
    target, report, exit_code = run_salvage(store)

    after = rows(target, keys.MESSAGE)
    lost = {one["name"] for one in report["lost"] if one["what"] == "message"}  # type: ignore[attr-defined] # a list
    assert checked.exit_code == EX_IOERR
    assert exit_code == FAULTS
    assert len(before) - len(after) <= 40
    assert {key[len(keys.MESSAGE) :].decode() for key in before.keys() - after.keys()} <= lost
    assert_usable(target)


@pytest.mark.parametrize("how", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_branch_page_costs_nothing(store: Path, how: object) -> None:
    before = rows(store, keys.MESSAGE)
    damage.damage(store / "data.mdb", page_of(store, BRANCH), how)  # type: ignore[arg-type] # a function of DAMAGES

    target, report, _ = run_salvage(store)

    assert rows(target, keys.MESSAGE) == before
    assert (report["may_be_old"], report["lost"]) == (False, [])
    assert_usable(target)


def test_swapped_pages_are_found_and_cost_nothing_but_their_rows(store: Path) -> None:
    found = damage.used_pages(store / "data.mdb")
    leaves = sorted(n for n, one in found.items() if one == (LEAF, keys.MESSAGE))
    damage.swap(store / "data.mdb", leaves[3], leaves[-3])

    assert run_check(store).exit_code == EX_IOERR
    target, _, _ = run_salvage(store)

    assert len(rows(target, keys.READY)) >= MESSAGE_COUNT - 80
    assert_usable(target)


@pytest.mark.parametrize("meta", [0, 1])
@pytest.mark.parametrize("how", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_meta_page_costs_the_last_commit_at_most(
    store: Path, meta: int, how: object
) -> None:
    before = rows(store, keys.MESSAGE)
    damage.damage(store / "data.mdb", meta, how)  # type: ignore[arg-type] # a function of DAMAGES

    target, _, _ = run_salvage(store)

    assert len(before) - len(rows(target, keys.MESSAGE)) <= 50
    assert_usable(target)


def test_a_store_without_a_meta_page_gives_its_messages_back(store: Path) -> None:
    before = rows(store, keys.MESSAGE)
    for meta in (0, 1):
        damage.damage(store / "data.mdb", meta, DAMAGES["zeroed"])

    target, report, exit_code = run_salvage(store)

    assert (exit_code, report["may_be_old"]) == (FAULTS, True)
    assert rows(target, keys.MESSAGE).keys() >= before.keys()
    assert_usable(target)


def test_a_truncated_store_gives_back_what_is_there(store: Path) -> None:
    file = store / "data.mdb"
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2 // PAGE_BYTES * PAGE_BYTES)

    assert run_check(store).exit_code == EX_IOERR
    target, report, _ = run_salvage(store)

    assert report["lost"]
    assert rows(target, keys.MESSAGE)
    assert_usable(target)


def test_garbage_behind_the_end_of_a_store_is_no_fault(store: Path) -> None:
    with (store / "data.mdb").open("ab") as opened:
        opened.write(b"garbage" * 5_000)

    assert run_check(store).exit_code == 0


def test_a_record_that_is_damaged_on_a_sound_page_is_a_record_fault_and_is_named_as_lost(
    store: Path,
) -> None:
    engine = LmdbEngine(store)
    txn = engine.begin(bytes_max=0)
    txn.put(keys.MESSAGE + b"m00007", b"not a record")
    txn.commit()
    engine.close()

    checked = run_check(store)
    target, report, _ = run_salvage(store)

    assert checked.exit_code == FAULTS
    assert "m00007" in checked.stdout
    assert {one["name"] for one in report["lost"] if one["what"] == "message"} == {"m00007"}  # type: ignore[attr-defined] # a list
    assert_usable(target)


@pytest.mark.parametrize("command", [check, salvage])
def test_a_store_of_a_newer_broker_is_left_alone(store: Path, command: click.Command) -> None:
    engine = LmdbEngine(store)
    txn = engine.begin(bytes_max=0)
    versions.write(txn, {**versions.known(), "messages": 99})
    txn.commit()
    engine.close()
    target = store.with_name("new")
    to = ["--to", str(target)] if command is salvage else []

    result = CliRunner().invoke(command, [str(store), *to])

    assert result.exit_code == EX_IOERR
    assert "99" in result.stderr
    assert not target.exists()


def test_a_store_that_is_in_use_is_not_checked(store: Path) -> None:
    with owned(store):
        result = CliRunner().invoke(check, [str(store)])

    assert result.exit_code == EX_UNAVAILABLE
    assert "in use by another broker" in result.stderr


def test_a_directory_without_a_store_is_told_in_a_sentence_and_stays_as_it_is(
    tmp_path: Path,
) -> None:
    result = CliRunner().invoke(check, [str(tmp_path / "none")])

    assert (result.exit_code, result.stdout) == (EX_USAGE, "")
    assert "holds no store" in result.stderr
    assert not (tmp_path / "none").exists()


def test_salvage_does_not_write_into_a_directory_that_is_not_empty(store: Path) -> None:
    result = CliRunner().invoke(salvage, [str(store), "--to", str(store)])

    assert result.exit_code == EX_USAGE
    assert "is not an empty directory" in result.stderr


def test_the_table_names_the_page_and_the_command_that_saves_the_rest(store: Path) -> None:
    number = page_of(store, LEAF, keys.MESSAGE)
    damage.damage(store / "data.mdb", number, DAMAGES["zeroed"])

    result = CliRunner().invoke(check, [str(store)])

    assert f"page {number}" in result.stdout
    assert f"qbroker salvage {store} --to NEW" in result.stdout
