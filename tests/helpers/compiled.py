"""What the event engine's kernels were compiled to, here and for a processor that is not here."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator

import llvmlite.binding as llvm
from numba.core.dispatcher import Dispatcher

# How LLVM writes "count down, and say whether nothing is left" for x86 only.
_X86_COUNT = "llvm.x86.atomic.sub.cc.i64"
_COUNT = "atomic_sub_cc"
# What every kernel finds where it runs: the C library, Python, and numba's own runtime.
_RUNTIME = re.compile(rf"(_?Py|NRT_|numba_|mem(cpy|move|set)$|{_COUNT}$)")


def kernels() -> Iterator[tuple[str, Dispatcher]]:
    """Every kernel of ``snn_deploy.sim`` that Python has called, by name, wherever it is kept.

    Those are the ones kept on disk, and hold the code of all that they call.
    """
    for kernel in (made for made in gc.get_objects() if isinstance(made, Dispatcher)):
        function = kernel.py_func
        ours = function.__module__.startswith("snn_deploy.sim.")
        if ours and kernel.signatures and kernel.stats.cache_path is not None:
            yield f"{function.__module__}.{function.__qualname__}", kernel


def aarch64() -> llvm.TargetMachine | None:
    """A plain 64-bit ARM processor, which has NEON; None where this LLVM does not know it."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple("aarch64-linux-gnu")
    except RuntimeError:
        return None
    return target.create_target_machine(cpu="generic", opt=2, reloc="pic", codemodel="default")


def compiled_for(machine: llvm.TargetMachine, text: str) -> str:
    """Assembly of LLVM's text of a kernel, compiled for x86 until then; also made an object."""
    text = re.sub("(?m)^target triple = .*", f'target triple = "{machine.triple}"', text)
    layout = f'target datalayout = "{machine.target_data}"'
    text = re.sub("(?m)^target datalayout = .*", layout, text)
    text = text.replace(_X86_COUNT, _COUNT).replace("immarg", "").replace("elementtype(i64)", "")
    module = llvm.parse_assembly(text)
    module.verify()
    assert machine.emit_object(module)
    return str(machine.emit_assembly(module))


def missing(assembly: str) -> set[str]:
    """Functions of 64-bit ARM assembly that are called, and neither in it nor where it runs."""
    called = set(re.findall(r"\tbl?\t([A-Za-z_]\w*)", assembly))
    defined = set(re.findall(r"(?m)^(\w+):", assembly))
    return {name for name in called - defined if not _RUNTIME.match(name)}
