"""Which error codes each verb can end with, read from the sources without running them.

From a verb's command one follows names: a definition reaches every module-level definition that it
names, and a class all of its methods. This rather finds too much than too little: a name in an
annotation counts, whatever the values at run time. Three things are reached without being named:

- what a module registers with a decorator, once anything of the module is reached;
- a module whose ``__file__``, or whose name with ``.py`` in the same package, is used: it is run
  in a process of its own;
- all modules of the package, where modules are loaded by name (exporters, libraries).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec, resolve_name
from pathlib import Path

_CODE = re.compile(r"SD\d{3}")
_LOADERS = ("import_module", "entry_points")
_MODULE_LEVEL = ""  # stands for what runs or registers itself on import
_Place = tuple[str, str]  # module, definition


@dataclass(frozen=True, slots=True)
class _Module:
    """Definitions of a module, and the names that it imports: to (module, name in it or "")."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, _Place] = field(default_factory=dict)

    def define(self, name: str, statement: ast.stmt) -> None:
        self.definitions.setdefault(name, []).append(statement)


def package_sources() -> dict[str, Path]:
    """Paths of the modules of snn_deploy and its exporters by dotted name."""
    found: dict[str, Path] = {}
    for package in ("snn_deploy", "snn_deploy.exporters"):
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in Path(folder).rglob("*.py"):
                parts = path.relative_to(folder).with_suffix("").parts
                name = ".".join((package, *parts)).removesuffix(".__init__")
                found.setdefault(name, path)
    return found


def codes_named(tree: ast.AST) -> set[str]:
    """Error codes that stand in a piece of source, except where one is only compared with."""
    if isinstance(tree, ast.Compare):
        return set()
    if isinstance(tree, ast.Constant):
        value = tree.value
        return {value} if isinstance(value, str) and _CODE.fullmatch(value) else set()
    return {code for child in ast.iter_child_nodes(tree) for code in codes_named(child)}


class Sources:
    """Modules, read once.

    Parameters
    ----------
    paths : path of each module by dotted name; a package's path is that of its ``__init__.py``.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._modules = {name: _read(name, path) for name, path in paths.items()}
        self._known: dict[_Place, tuple[set[str], set[_Place]]] = {}

    def verbs(self, commands: str = "snn_deploy.cli") -> dict[str, set[str]]:
        """Codes that each verb can end with: a verb is a module of ``commands`` with a ``command``.

        What the package ``commands`` itself raises, around every verb, counts for each.
        """
        around = {code for place in self._all_of(commands) for code in self._codes(place)}
        return {
            name.removeprefix(f"{commands}."): around | self.codes_from((name, "command"))
            for name, module in sorted(self._modules.items())
            if name.startswith(f"{commands}.") and "command" in module.definitions
        }

    def codes_from(self, start: _Place, *, ignored: str = "snn_deploy.errors") -> set[str]:
        """Codes named in what a definition reaches; the module that lists all codes is ignored."""
        codes: set[str] = set()
        reached: set[_Place] = set()
        waiting = [start]
        while waiting:
            place = waiting.pop()
            if place in reached or place[0] == ignored:
                continue
            reached.add(place)
            if place not in self._known:
                self._known[place] = self._codes(place), set(self._named(place))
            codes |= self._known[place][0]
            waiting += [(place[0], _MODULE_LEVEL), *self._known[place][1]]
        return codes

    def _statements(self, place: _Place) -> list[ast.stmt]:
        return self._modules[place[0]].definitions.get(place[1], [])

    def _codes(self, place: _Place) -> set[str]:
        return {code for statement in self._statements(place) for code in codes_named(statement)}

    def _named(self, place: _Place) -> Iterator[_Place]:
        """Definitions that one names."""
        module = place[0]
        for node in (node for statement in self._statements(place) for node in ast.walk(statement)):
            if isinstance(node, ast.Name | ast.Attribute):
                name = node.id if isinstance(node, ast.Name) else node.attr
                if name in _LOADERS:
                    yield from self._beside(module)
                elif name == "__file__" and isinstance(node, ast.Attribute):
                    run = self._meaning(module, node.value)
                    yield from self._all_of(run[0]) if run else ()
                elif (found := self._meaning(module, node)) and found[1]:
                    yield found
            elif isinstance(node, ast.Constant) and str(node.value).endswith(".py"):
                beside = f"{module.rpartition('.')[0]}.{str(node.value).removesuffix('.py')}"
                yield from self._all_of(beside) if beside in self._modules else ()

    def _meaning(self, module: str, node: ast.expr) -> _Place | None:
        """What ``name`` or ``package.module.name`` stands for in a module."""
        if isinstance(node, ast.Name):
            return self._resolve(module, node.id)
        holder = self._meaning(module, node.value) if isinstance(node, ast.Attribute) else None
        if isinstance(node, ast.Attribute) and holder and not holder[1]:
            return self._resolve(holder[0], node.attr)
        return None

    def _resolve(self, module: str, name: str) -> _Place | None:
        """Where a name of a module is defined; (module, "") if it is a module; None: elsewhere."""
        seen = set()
        while module in self._modules and (module, name) not in seen:
            seen.add((module, name))
            if not name or name in self._modules[module].definitions:
                return module, name
            if f"{module}.{name}" in self._modules:
                return f"{module}.{name}", ""
            if name not in self._modules[module].imports:
                return None
            module, name = self._modules[module].imports[name]
        return None

    def _all_of(self, module: str) -> list[_Place]:
        return [(module, name) for name in self._modules[module].definitions]

    def _beside(self, module: str) -> Iterator[_Place]:
        """Everything in a package, given by itself or by a module of it."""
        inside = any(name.startswith(f"{module}.") for name in self._modules)
        package = module if inside else module.rpartition(".")[0]
        for name in self._modules:
            if name.startswith(f"{package}."):
                yield from self._all_of(name)


def _read(name: str, path: Path) -> _Module:
    tree = ast.parse(path.read_text("utf-8"), str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    module = _Module()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                module.imports[alias.asname or alias.name] = (base, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                module.imports[alias.asname or whole] = (whole, "")
    for statement in tree.body:
        _define(module, statement)
    return module


def _define(module: _Module, statement: ast.stmt) -> None:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        module.define(statement.name, statement)
        if statement.decorator_list:
            module.define(_MODULE_LEVEL, statement)
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for node in (node for target in targets for node in ast.walk(target)):
            if isinstance(node, ast.Name):
                module.define(node.id, statement)
    elif not isinstance(statement, ast.Import | ast.ImportFrom):
        module.define(_MODULE_LEVEL, statement)
