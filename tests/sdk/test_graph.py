"""What came from what."""

import io

import pytest

from qbroker.utils.graph import CycleError, DependencyGraph


def test_things_come_before_what_comes_from_them() -> None:
    graph = DependencyGraph([("a", ["b", "c"]), ("b", ["d"]), ("c", ["d"]), ("d", [])])

    order = graph.topsort()

    assert order[0] == "a"
    assert order[-1] == "d"
    assert graph.valency_of("b") == 1
    assert list(graph.edges()) == ["a", "b", "c"]
    assert len(graph) == 4
    assert "a" in graph
    assert graph["a"] == ["b", "c"]
    assert repr(graph).splitlines()[0] == "a(4)"


def test_a_circle_has_no_order() -> None:
    with pytest.raises(CycleError, match="circle"):
        DependencyGraph([("a", ["b"]), ("b", ["a"])]).topsort()


def test_graphs_join_and_become_text() -> None:
    graph = DependencyGraph([("a", ["b"])])
    graph.connect(DependencyGraph([("c", [])]))
    out = io.StringIO()

    graph.to_dot(out, str.upper)

    assert out.getvalue() == ('digraph dependencies {\n    "A";\n    "A" -> "B";\n    "C";\n}\n')
    assert dict(graph.items()) == {"a": ["b"], "c": []}
