"""The census's one task: what a Python source file is made of."""

import ast
import warnings
from pathlib import Path
from typing import Any

from qbroker import App

app = App("census", backend="qbroker://")


@app.task
def survey(path: str) -> dict[str, Any]:
    """Count what is in one source file; a file that is not valid Python is told as such."""
    source = Path(path).read_bytes()
    found: dict[str, Any] = {"path": path, "lines": len(source.splitlines())}
    try:
        with warnings.catch_warnings():
            # The parser warns of doubtful escapes in the files; that is their authors' business.
            warnings.simplefilter("ignore")
            tree = ast.parse(source, path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return found | {"unparsable": f"{type(error).__name__}: {error}"}
    nodes = list(ast.walk(tree))
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    longest = max(functions, key=length, default=None)
    return found | {
        "functions": len(functions),
        "classes": sum(isinstance(n, ast.ClassDef) for n in nodes),
        "longest_function": longest.name if longest else "",
        "longest_lines": length(longest) if longest else 0,
        "imports": sorted(imported(nodes)),
    }


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the `def` to the end of the body."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def imported(nodes: list[ast.AST]) -> set[str]:
    """Top-level names of the modules that are imported, relative ones left out."""
    names = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level]
    return {name.partition(".")[0] for name in names}
