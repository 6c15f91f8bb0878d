"""The page of all error codes, made from the code: docs/errors.md.

    python -m snn_deploy.reporting.error_page > docs/errors.md

What a code means, why it is refused and what mends it is in :mod:`snn_deploy.errors`; the verbs
that can end with it are read from the sources.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from snn_deploy.errors import CODES, Exit
from snn_deploy.reporting.raised import Sources, package_sources

# In the words of docs/design.md.
EXITS = {
    Exit.OK: "ok",
    Exit.GATE: "a gate failed",
    Exit.USAGE: "usage or configuration",
    Exit.UNSUPPORTED: "not supported on this target",
    Exit.INTEGRITY: "integrity",
    Exit.INTERNAL: "internal",
    Exit.INTERRUPTED: "interrupted",
}
_INTRODUCTION = """\
# Error codes

<!-- Made by `python -m snn_deploy.reporting.error_page > docs/errors.md`; change the code. -->

A failure is one message on stderr and an exit code, without a traceback (`--debug` shows it):

```
error[CODE]: what went wrong
  --> where: the file, layer or option
  = why: the reason, where the message does not say it
  = fix: what mends it
```

In Python it is a `snn_deploy.SnnDeployError` with the same parts: `code`, `message`, `where`,
`why`, `fix`, and `exit`. A wrong flag is refused by the command line itself, with exit code 2 and
no code. Verbs are those from whose command the code leads to where the error is made: a few too
many rather than one too few.
"""


def error_page(verbs: Mapping[str, set[str]]) -> str:
    """The page in Markdown, given the codes that each verb can end with."""
    lines = [_INTRODUCTION, "| Exit code | Meaning | Error codes |", "| --: | :-- | :-- |"]
    for exit_code, meaning in EXITS.items():
        own = ", ".join(f"[{c}](#{c.lower()})" for c in CODES if CODES[c].exit == exit_code)
        lines.append(f"| {exit_code.value} | {meaning} | {own or '-'} |")
    for name, code in CODES.items():
        ending = [verb for verb, codes in verbs.items() if name in codes]
        lines += [
            f"\n## {name}",
            f"\n**{code.title[0].upper()}{code.title[1:]}.** {code.why}",
            f"\n- Mend: {code.fix}",
            f"- Exit code: {code.exit.value} ({EXITS[code.exit]})",
            f"- Verbs: {_listed(ending, verbs)}",
        ]
    return "\n".join(lines) + "\n"


def _listed(verbs: list[str], known: Iterable[str]) -> str:
    if not verbs:
        return "none, only from Python"
    others = [verb for verb in known if verb not in verbs]
    shown = ", ".join(f"`{verb}`" for verb in (verbs if len(others) > 2 else others))
    if len(others) > 2:
        return shown
    return f"all but {shown}" if others else "all"


if __name__ == "__main__":
    sys.stdout.write(error_page(Sources(package_sources()).verbs()))
