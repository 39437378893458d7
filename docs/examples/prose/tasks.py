"""What is done with a text: four small tasks on one document, and one on all of them."""

import ast
import math
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from qbroker import App

app = App("prose", backend="qbroker://")

TERMS = 100
"""How many of a document's words are kept to compare it by."""
KEYWORDS = 5


@app.task
def read(path: str) -> str:
    """The prose of a file: of a Python source its docstrings, of any other file all of it."""
    text = Path(path).read_text(errors="replace")
    return docstrings(text) if path.endswith(".py") else text


@app.task
def terms(text: str) -> dict[str, int]:
    """The words it uses most, and how often."""
    words = re.findall(r"[a-z]{3,}", text.lower())
    return dict(Counter(words).most_common(TERMS))


@app.task
def measure(text: str) -> dict[str, int]:
    """Sentences, words and syllables, the last as good as can be guessed from letters."""
    words = re.findall(r"[A-Za-z]+", text)
    parts = re.split(r"[.!?](?=\s)|\n\s*\n", text)
    return {
        "sentences": sum(re.search("[A-Za-z]", part) is not None for part in parts),
        "words": len(words),
        "syllables": sum(len(re.findall(r"[aeiouy]+", word.lower())) or 1 for word in words),
    }


@app.task
def profile(found: list[dict[str, int]], path: str) -> dict[str, Any]:
    """Put together what was found in one document."""
    counts, sizes = found
    ease = None
    if sizes["words"]:
        # Flesch's formula: 100 is very easy to read, 0 is very hard.
        ease = 206.835
        ease -= 1.015 * sizes["words"] / sizes["sentences"]
        ease -= 84.6 * sizes["syllables"] / sizes["words"]
    return {"path": path, "words": sizes["words"], "ease": ease, "terms": counts}


@app.task
def compare(profiles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What sets each document apart from the others, and which one is most like it."""
    uses = Counter(word for one in profiles for word in one["terms"])
    vectors = [weigh(one["terms"], uses, len(profiles)) for one in profiles]
    for number, (one, vector) in enumerate(zip(profiles, vectors, strict=True)):
        del one["terms"]
        one["keywords"] = sorted(vector, key=lambda word: (-vector[word], word))[:KEYWORDS]
        nearness, nearest = max(
            ((alike(vector, other), n) for n, other in enumerate(vectors) if n != number),
            default=(0.0, number),
        )
        one["nearest"] = profiles[nearest]["path"] if nearness > 0 else None
    return profiles


def docstrings(source: str) -> str:
    """The docstrings of a Python source; "" when it is not valid Python."""
    try:
        with warnings.catch_warnings():
            # The parser warns of doubtful escapes in the files; that is their authors' business.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return "\n\n".join(text for text in found if text)


def weigh(counts: dict[str, int], uses: Counter[str], documents: int) -> dict[str, float]:
    """A vector of length 1 in which a word weighs more the fewer documents use it (tf-idf)."""
    weights = {word: count * math.log(documents / uses[word]) for word, count in counts.items()}
    length = math.hypot(*weights.values())
    return {word: weight / length for word, weight in weights.items() if weight}


def alike(one: dict[str, float], other: dict[str, float]) -> float:
    """The cosine of the angle between them."""
    return sum(weight * other[word] for word, weight in one.items() if word in other)
