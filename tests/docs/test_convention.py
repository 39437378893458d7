"""How the blocks of a page are read."""

from pathlib import Path

from tests.docs import pages
from tests.docs.pages import Page

TEXT = """
```python
# proj.py
x = 1
```

```python
# proj.py
y = 2
```

```python
print("127.0.0.1:7450")
```

```console
$ qbroker -A proj worker \\
    -c 2  # two at once
ready
$ qctl status
```
"""


def blocks(folder: Path) -> list[pages.Block]:
    """The blocks of the text above, on port 99."""
    (folder / "page.md").write_text(TEXT)
    return Page(folder / "page.md").blocks(port=99)


def test_blocks_of_one_file_follow_each_other_in_it(tmp_path: Path) -> None:
    files = pages.files(blocks(tmp_path))

    assert list(files) == ["proj.py"]
    assert files["proj.py"].index("x = 1") < files["proj.py"].index("y = 2")


def test_the_default_port_becomes_the_pages_own(tmp_path: Path) -> None:
    assert blocks(tmp_path)[2].code == 'print("127.0.0.1:99")\n'


def test_a_block_knows_its_line(tmp_path: Path) -> None:
    assert [block.line for block in blocks(tmp_path)] == [2, 7, 12, 16]


def test_commands_are_words_and_output_is_none(tmp_path: Path) -> None:
    commands = list(pages.commands(blocks(tmp_path)))

    assert commands == [["qbroker", "-A", "proj", "worker", "-c", "2"], ["qctl", "status"]]
    assert [pages.is_server(command) for command in commands] == [True, False]
