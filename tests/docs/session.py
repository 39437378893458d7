"""Runs a page's python and pycon blocks in one namespace: `session.py < blocks.json`.

A program of its own, so that a page has its interpreter for itself, as its reader would.
"""

import doctest
import json
import sys
import traceback


def main() -> int:
    """Run the blocks that stand in JSON on standard input; the exit code."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    parser = doctest.DocTestParser()
    for place, language, code in json.load(sys.stdin):
        if language == "pycon":
            test = parser.get_doctest(code, namespace, place, place, 0)
            # The runner works on the test's own copy of the names; later blocks go on from it.
            failed = doctest.DocTestRunner(optionflags=flags).run(test, clear_globs=False).failed
            namespace = test.globs
            if failed:
                return 1
        else:
            try:
                exec(compile(code, place, "exec"), namespace)  # noqa: S102 - the docs are our own code
            except BaseException:  # noqa: BLE001 - whatever it is, it is the docs' failure
                sys.stdout.write(f"{place}:\n{traceback.format_exc()}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
