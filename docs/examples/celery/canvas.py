"""Canvas: partials, immutability, callbacks, and each primitive."""

from proj.celery import app
from proj.tasks import add, div, log_error, mul, xsum

from qbroker import chain, chord, group, signature

print(
    "by name:",
    signature("proj.tasks.add", args=(2, 2), countdown=0.05, app=app).delay().get(timeout=10),
)
print("keywords:", add.s(x=2).apply_async(kwargs={"y": 4}).get(timeout=10))
print("immutable:", (add.s(2, 2) | mul.si(4, 4)).apply_async().get(timeout=10))

result = chain(add.s(2, 2), add.s(4), add.s(8))()
print(
    "chain:",
    result.get(timeout=10),
    result.parent.get(timeout=10),
    result.parent.parent.get(timeout=10),
)
print("tilde:", ~(add.s(2, 2) | add.s(4)))

job = group([add.s(2, 2), add.s(4, 4), add.s(8, 8)])
members = job.apply_async()
print("group:", members.join(timeout=10), members.successful(), members.completed_count())

print("chord:", chord([add.s(i, i) for i in range(100)])(xsum.s()).get(timeout=20))
broken = chord([add.s(4, 4), div.s(1, 0), add.s(8, 8)])(xsum.s().on_error(log_error.s()))
print("broken chord:", type(broken.get(timeout=10, propagate=False)).__name__)

print("map:", xsum.map([list(range(10)), list(range(100))]).delay().get(timeout=10))
print("starmap:", add.starmap(zip(range(10), range(10), strict=True)).delay().get(timeout=10))
print("chunks:", add.chunks(zip(range(100), range(100), strict=True), 10)().get(timeout=10)[1])
spread = (
    add.chunks(zip(range(100), range(100), strict=True), 10)
    .group()
    .skew(start=0.01, stop=0.1, step=0.01)
)
print("skewed:", [task.options["countdown"] for task in spread.tasks][:3])

nested = (add.s(2, 2) | group(mul.s(2), mul.s(3)) | xsum.s()).delay()
print("nested:", nested.get(timeout=10))

stamped = add.s(5, 5)
stamped.stamp(customer="42")
print("stamped:", stamped.apply_async().get(timeout=10), stamped.options["customer"])
