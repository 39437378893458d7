"""Tasks that can be asked to stop; with a broker and a worker in tests/e2e/test_progress.py."""

from qbroker.contrib.abortable import ABORTED, AbortableAsyncResult, AbortableTask
from qbroker.serialization import Value
from tests.sdk.conftest import MakeApp


def test_a_call_and_an_id_give_results_that_can_abort(make_app: MakeApp) -> None:
    app = make_app(backend="qbroker://", task_always_eager=True)

    @app.task(name="walk", bind=True, base=AbortableTask)
    def walk(self: AbortableTask) -> Value:
        return self.is_aborted()

    assert isinstance(walk.AsyncResult("an-id"), AbortableAsyncResult)
    assert walk.apply().get() is False


def test_the_state_has_celerys_name() -> None:
    assert ABORTED == "ABORTED"
