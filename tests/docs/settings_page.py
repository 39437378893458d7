"""The tables of docs/settings.md, made from the SDK's table of settings: `make settings` puts them there."""

from collections.abc import Iterable
from pathlib import Path

from qbroker.app.defaults import IGNORED, SETTINGS, Setting

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
HEADS = (
    "| Setting | Old name | Meaning | Default |\n|---|---|---|---|\n",
    "| Celery's setting | Why it has no effect |\n|---|---|\n",
)


def row(setting: Setting) -> str:
    """The line for a setting that has an effect."""
    default = f"`{setting.value_of(None)!r}`".replace("|", r"\|")
    return f"| `{setting.name}` | `{setting.old_name}` | {setting.meaning} | {default} |"


def ignored_rows(settings: Iterable[Setting]) -> list[str]:
    """The lines for those that have none, a reason each."""
    by_reason: dict[str, list[str]] = {}
    for setting in settings:
        by_reason.setdefault(setting.meaning, []).append(f"`{setting.name}`")
    return [f"| {', '.join(sorted(names))} | {why} |" for why, names in sorted(by_reason.items())]


def rendered(page: str) -> str:
    """The page with its tables as they should be."""
    rows = (
        [row(SETTINGS[name]) for name in sorted(SETTINGS)],
        ignored_rows(IGNORED.values()),
    )
    for head, lines in zip(HEADS, rows, strict=True):
        before, _, rest = page.partition(head)
        kept = rest.splitlines(keepends=True)
        while kept and kept[0].startswith("|"):
            del kept[0]
        page = before + head + "".join(f"{line}\n" for line in lines) + "".join(kept)
    return page


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text()))
