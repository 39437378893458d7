"""What operators are told of tasks; what a served broker answers is in test_admin.py and test_workflows.py."""

from qbroker_proto.v1 import admin_pb2
from qbroker_server.core.revoke import Revoked
from qbroker_server.rpc import tasks


def test_what_became_of_each_id_is_told_step_by_step() -> None:
    reply = admin_pb2.RevokeReply()

    tasks.add_revoked(reply, Revoked(("a",), (), ("b",)))
    tasks.add_revoked(reply, Revoked((), ("c",), ()))

    assert (list(reply.ended), list(reply.told), list(reply.late)) == (["a"], ["c"], ["b"])
