"""Next steps: the calling API, signatures, and a first look at canvas and routing."""

from proj.celery import app
from proj.tasks import add, mul, xsum

from qbroker import chain, chord, group

print("delay:", add.delay(2, 2).get(timeout=10))
print("apply_async:", add.apply_async((2, 2), countdown=0.05).get(timeout=10))
print("called here:", add(2, 2))
print("unknown:", app.AsyncResult("this-id-does-not-exist").state)

print("signature:", add.signature((2, 2), countdown=10), add.s(2, 2).set(countdown=10).options)
print("partial:", add.s(2).delay(8).get(timeout=10))
print("group:", group(add.s(i, i) for i in range(10))().get(timeout=10))
print("partial group:", group(add.s(i) for i in range(10))(10).get(timeout=10))
print("chain:", chain(add.s(4, 4) | mul.s(8))().get(timeout=10))
print("partial chain:", chain(add.s(4) | mul.s(8))(4).get(timeout=10))
print("chord:", chord((add.s(i, i) for i in range(10)), xsum.s())().get(timeout=10))
print("upgraded:", (group(add.s(i, i) for i in range(10)) | xsum.s())().get(timeout=10))

print("ping:", {"ok": "pong"} in app.control.inspect().ping().values())
