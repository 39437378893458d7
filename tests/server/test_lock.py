"""One process owns a data directory, and the directory is on a disk of this machine."""

import os
from pathlib import Path

import pytest

from qbroker_server import lock
from qbroker_server.lock import DataDirError, file_system, owned

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /mnt rw - tmpfs tmpfs rw
31 30 0:26 / /mnt/share rw - nfs4 server:/x rw
32 30 0:27 / /mnt/with\\040blank rw - cifs //server/x rw
33 31 254:1 / /mnt/share/local rw - xfs /dev/vdb rw
34 30 0:28 / /mnt/é\\134x rw shared:7 master:2 - 9p host rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTS)
    return file


def test_a_directory_is_made_and_owned(tmp_path: Path) -> None:
    with owned(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / "LOCK").read_text() == f"{os.getpid()}\n"


def test_a_directory_has_one_owner_who_is_named(tmp_path: Path) -> None:
    with (
        owned(tmp_path),
        pytest.raises(DataDirError, match=f"by another broker .process {os.getpid()}"),
        owned(tmp_path),
    ):
        pass


def test_a_directory_may_be_owned_again(tmp_path: Path) -> None:
    with owned(tmp_path):
        pass
    with owned(tmp_path):
        pass


def test_a_refusal_does_not_cost_the_owner(tmp_path: Path) -> None:
    with owned(tmp_path):
        for _ in range(2):
            with pytest.raises(DataDirError), owned(tmp_path):
                pass
        assert (tmp_path / "LOCK").read_text() == f"{os.getpid()}\n"


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    with pytest.raises(DataDirError, match="is a file, not a directory"), owned(tmp_path / "data"):
        pass


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib/q", "ext4"),
        ("/mnt/data", "tmpfs"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/q", "nfs4"),
        ("/mnt/shared", "tmpfs"),
        ("/mnt/share/local/q", "xfs"),
        ("/mnt/with blank/q", "cifs"),
        ("/mnt/é\\x/q", "9p"),
    ],
)
def test_a_file_system_is_that_of_the_nearest_mount(
    mounts: Path, directory: str, kind: str
) -> None:
    assert file_system(Path(directory), mounts) == kind


def test_a_network_file_system_is_refused_with_a_sentence(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"30 22 0:25 / {tmp_path} rw - nfs4 server:/x rw\n")

    with (
        pytest.raises(DataDirError, match=r"is on a network file system \(nfs4\)"),
        owned(tmp_path / "data", mounts),
    ):
        pass

    assert not (tmp_path / "data" / "LOCK").exists()


def test_a_machine_that_does_not_tell_its_mounts_is_trusted(tmp_path: Path) -> None:
    with owned(tmp_path / "data", tmp_path / "nowhere"):
        pass


def test_mount_points_in_any_encoding_are_read(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_bytes(b"1 1 0:1 / /mnt/\xff rw - nfs x rw\n2 1 0:2 / / rw - ext4 x rw\n")

    assert file_system(tmp_path, mounts) == "ext4"


def test_this_machines_own_mounts_are_read() -> None:
    assert file_system(Path("/"), lock.MOUNTS) != ""
