"""`qctl exchange`, `binding` and `route`, at the real broker."""

import sys
import types

import pytest

from qbroker import App
from qbroker.messaging import Exchange, Queue
from tests.sdk.cli.asking import Shell


def test_exchanges_are_declared_listed_and_removed(qctl: Shell) -> None:
    qctl.said("exchange", "declare", "media", "--type", "topic", "--alternate", "lost")
    qctl.said("binding", "add", "media", "images", "--routing-key", "image.#")

    (media,) = [one for one in qctl.json("exchange", "ls")["exchanges"] if one["name"] == "media"]
    shown = qctl.said("exchange", "ls")
    refused = qctl("exchange", "declare", "media", "--type", "direct")
    kept = qctl("exchange", "rm", "media", stdin="n\n")
    gone = qctl.said("exchange", "rm", "media", "--yes")

    assert (media["type"], media["alternate"]) == ("topic", "lost")
    assert "media" in shown
    assert "amq.fanout" in shown
    assert refused.exit_code == 6
    assert "type is 'topic', not 'direct'" in refused.output
    assert kept.exit_code == 1
    assert "1 bindings with it" in gone
    assert qctl("exchange", "rm", "media", "--yes").exit_code == 3
    assert qctl.json("binding", "ls")["bindings"] == []


def test_bindings_are_added_listed_and_removed(qctl: Shell) -> None:
    qctl.said("exchange", "declare", "kinds", "--type", "headers")
    qctl.said("exchange", "declare", "inner", "--type", "fanout")
    arguments = ("--argument", "kind=pdf", "--argument", "pages=3", "--argument", "x-match=any")
    qctl.said("binding", "add", "kinds", "pdf", *arguments)
    qctl.said("binding", "add", "kinds", "inner", "--to-exchange")

    found = qctl.json("binding", "ls", "--exchange", "kinds")["bindings"]
    shown = qctl.said("binding", "ls")
    routed = qctl.json("route", "test", "t", "--exchange", "kinds", "--header", "pages=3")
    removed = qctl("binding", "rm", "kinds", "pdf", *arguments)

    assert [(one["destination"], one["is_to_exchange"]) for one in found] == [
        ("inner", True),
        ("pdf", False),
    ]
    assert '"pages": 3' in shown
    assert routed["queues"] == ["pdf"]
    assert removed.exit_code == 0
    assert qctl("binding", "rm", "kinds", "pdf").exit_code == 3
    assert qctl("binding", "add", "kinds", "pdf", "--argument", "kind").exit_code == 2
    assert "No bindings" in qctl.said("binding", "ls", "--exchange", "inner")


def test_a_route_is_told_with_the_rule_that_makes_it(
    qctl: Shell, real_app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = Exchange("media", type="topic")
    real_app.conf.task_queues = [Queue("celery"), Queue("images", media, "image.#")]
    real_app.conf.task_routes = {
        "image.*": {"exchange": "media", "routing_key": "image.x"},
        "sound.*": {"exchange": "media", "routing_key": "sound"},
    }
    module = types.ModuleType("routed_proj")
    module.app = real_app  # type: ignore[attr-defined] # made here
    monkeypatch.setitem(sys.modules, module.__name__, module)
    _ = real_app.send_task("image.crop")

    found = qctl.json("route", "test", "image.crop", "-A", "routed_proj")
    lost = qctl("route", "test", "sound.mix", "-A", "routed_proj")

    assert found["queues"] == ["images"]
    assert found["rule"] == "by the entry 'image.*' of task_routes"
    assert (lost.exit_code, "nowhere: no binding takes it" in lost.output) == (6, True)
    assert "goes to queue 'celery', by the default queue" in qctl.said(
        "route", "test", "other", "-A", "routed_proj"
    )
    assert "goes to queue 'mail', as the call says" in qctl.said(
        "route", "test", "other", "-A", "routed_proj", "--queue", "mail"
    )
    assert "goes to queue 'celery', by its name alone" in qctl.said("route", "test", "other")
    absent = qctl("route", "test", "x", "--exchange", "absent")
    assert (absent.exit_code, "no exchange 'absent'" in absent.output) == (3, True)
