"""Every error has a code that is explained, every code is raised, and docs/errors.md says both."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from snn_deploy import cli
from snn_deploy.errors import CODES, Exit
from snn_deploy.reporting.error_page import EXITS, error_page
from snn_deploy.reporting.raised import Sources, codes_named, package_sources
from tests.cli.test_errors import CASES

ROOT = Path(__file__).resolve().parents[1]
SOURCES = package_sources()
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}
RAISING = {name: tree for name, tree in TREES.items() if name != "snn_deploy.errors"}

# Codes that are no literals where the error is made, and where they come from.
ANSWERED = "answer['code']"  # by a child process: literals of RefusedError, or at "code" of a dict
PASSED_ON = {
    # Literals at the keyword `code` of `refuse`.
    ("snn_deploy.exporters.nir.file", "code"),
    ("snn_deploy.exporters.lava.netx_file", "code"),
    # An error's own code.
    ("snn_deploy.exporters.nir.reading", "error.code"),
}


@pytest.fixture(scope="module")
def verbs() -> dict[str, set[str]]:
    return Sources(SOURCES).verbs()


def code_expressions(tree: ast.AST) -> Iterator[ast.expr]:
    """What stands for the code where an error is made; both sides of a choice."""
    for node in ast.walk(tree):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("SnnDeployError", "RefusedError"):
                given += node.args[:1]
            if name in ("SnnDeployError", "RefusedError", "refuse"):
                given += [k.value for k in node.keywords if k.arg == "code"]
        elif isinstance(node, ast.Dict):
            entries = zip(node.keys, node.values, strict=True)
            given += [v for k, v in entries if isinstance(k, ast.Constant) and k.value == "code"]
            given = [value for value in given if isinstance(value, ast.Constant)]
        for value in given:
            yield from [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]


def unexplained(name: str, tree: ast.AST) -> list[str]:
    """Codes of a module that are neither in the list of codes nor known to be passed on."""
    found = []
    for value in code_expressions(tree):
        literal = value.value if isinstance(value, ast.Constant) else None
        text = ast.unparse(value)
        if literal not in CODES and text != ANSWERED and (name, text) not in PASSED_ON:
            found.append(f"{name}:{value.lineno} {text}")
    return found


def test_the_page_is_what_the_code_says(verbs: dict[str, set[str]]) -> None:
    committed = (ROOT / "docs" / "errors.md").read_text("utf-8")
    assert committed == error_page(verbs), (
        "run: python -m snn_deploy.reporting.error_page > docs/errors.md"
    )


def test_the_page_lists_verbs_as_one_would_say_it() -> None:
    verbs: dict[str, set[str]] = {name: {"SD500"} for name in ("a", "b", "c", "d")}
    verbs["a"] |= {"SD101", "SD102"}
    verbs["b"] |= {"SD102"}
    lines = [line for line in error_page(verbs).splitlines() if line.startswith("- Verbs: ")]
    named = dict(zip(CODES, lines, strict=True))
    assert named["SD101"] == "- Verbs: `a`"
    assert named["SD102"] == "- Verbs: all but `c`, `d`"
    assert named["SD103"] == "- Verbs: none, only from Python"
    assert named["SD500"] == "- Verbs: all"


def test_every_error_has_a_code_of_the_list() -> None:
    assert [fault for name, tree in TREES.items() for fault in unexplained(name, tree)] == []


def test_what_is_passed_on_is_still_there() -> None:
    there = {(n, ast.unparse(v)) for n, tree in TREES.items() for v in code_expressions(tree)}
    assert there >= PASSED_ON


def test_no_code_is_named_that_is_not_in_the_list() -> None:
    named = {
        node.value
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and re.fullmatch(r"SD\d+", str(node.value))
    }
    assert named == CODES.keys()


def test_every_code_is_raised_somewhere() -> None:
    assert {code for tree in RAISING.values() for code in codes_named(tree)} == CODES.keys()


def test_errors_are_not_made_by_subclasses_or_under_another_name() -> None:
    """Else the scan would not see them."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                assert "SnnDeployError" not in map(ast.unparse, node.bases), name
            elif isinstance(node, ast.alias):
                assert node.name != "SnnDeployError" or node.asname is None, name


def test_a_name_is_imported_from_one_place_in_a_module() -> None:
    """Else one of two functions would be followed to where only the other's name leads."""
    for name, tree in TREES.items():
        places: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("snn_deploy"):
                for alias in node.names:
                    place = f"{node.module}.{alias.name}"
                    places.setdefault(alias.asname or alias.name, set()).add(place)
        assert [found for found in places.values() if len(found) > 1] == [], name


@pytest.mark.parametrize(
    "source",
    [
        "raise SnnDeployError('SD999', 'm')",
        "raise errors.SnnDeployError('SD999', 'm')",
        "raise SnnDeployError(code=code, message='m')",
        "raise SnnDeployError('SD101' if a else chosen, 'm')",
        "raise node.refuse('m', code='SD20')",
        "raise RefusedError('oops', 'm')",
        "answer = {'code': 'SD1', 'message': 'm'}",
    ],
)
def test_the_scan_sees_a_wrong_code(source: str) -> None:
    assert len(unexplained("a.module", ast.parse(source))) == 1


def test_every_code_is_explained_in_sentences() -> None:
    for name, code in CODES.items():
        assert code.title[-1] != ".", name
        for text in (code.why, code.fix):
            assert re.fullmatch(r"[A-Z]\S*( \S+)+\.", text), name
    texts = [text for code in CODES.values() for text in (code.title, code.why)]
    assert len(set(texts)) == len(texts)


def test_exit_codes_are_those_of_the_design() -> None:
    design = (ROOT / "docs" / "design.md").read_text("utf-8")
    line = next(x for x in design.splitlines() if x.startswith("**Errors and exit codes.**"))
    table = re.findall(r"(?:\.\*\* |· )(\d+) ([a-z ]+[a-z])", line.replace("130", "· 130"))
    assert {int(number): words for number, words in table} == {int(e): EXITS[e] for e in Exit}


def test_the_first_digit_says_the_exit_code() -> None:
    """The order of the list, and of the page."""
    exits = {"1": Exit.USAGE, "2": Exit.UNSUPPORTED, "3": Exit.GATE, "4": Exit.INTEGRITY}
    exits["5"] = Exit.INTERNAL
    for name, code in CODES.items():
        assert code.exit == exits[name[2]], name
    assert list(CODES) == sorted(CODES)


def test_the_verbs_are_those_of_the_command_line(verbs: dict[str, set[str]]) -> None:
    group = cli.cli
    assert isinstance(group, click.Group)
    with click.Context(group) as context:
        assert verbs.keys() == set(group.list_commands(context))


def test_verbs_that_are_seen_to_end_with_a_code_are_named_for_it(
    verbs: dict[str, set[str]],
) -> None:
    """What the command line is seen to do (tests/cli), the verbs of the page must hold."""
    seen = {(command.split()[0], code) for command, code in CASES.items() if code in CODES}
    assert len(seen) > 30
    assert [(verb, code) for verb, code in sorted(seen) if code not in verbs[verb]] == []


FILES = {
    "p.cli": "def around(): raise E('SD500')",
    "p.cli.idle": "from p.work import Worker\ndef command(): pass",
    "p.cli.names": "from p import work as w\ndef command(): w.helper()",
    "p.cli.member": "from p import Worker as Other\ndef command(x: Other): x.run()",
    "p.cli.inside": "def command():\n    from p.work import TABLE\n    TABLE['a']()",
    "p.cli.loads": "from p.plugins import find\ndef command(): find()",
    "p.cli.starts": "from p import child\ndef command(): run(child.__file__)",
    "p.cli.beside": "from p.opens import read\ndef command(): read()",
    "p.cli.compares": "def command(e):\n    if e.code != 'SD101': raise E('SD102')",
    "p.cli.common": "def helper(): raise E('SD401')",
    "p": "if TYPE_CHECKING:\n    from p.work import Worker",
    "p.work": """
import p.kinds
def helper(): raise E('SD103')
def _table(): raise E('SD104')
TABLE = {'a': _table}
class Worker:
    def run(self): p.kinds.make()
    def stop(self): raise E('SD105')
""",
    "p.kinds": "@register\ndef kind(): raise E('SD106')\ndef make(): pass",
    "p.plugins": "def find():\n    for e in entry_points(group='g'): e.load()",
    "p.plugins.one": "from .two import other\ndef read(): other()",
    "p.plugins.two": "def other(): raise E('SD107')\ndef unused(): raise E('SD108')",
    "p.child": "def main(): raise E('SD201')",
    "p.opens": "CHILD = Path(__file__).with_name('child.py')\ndef read(): run(CHILD)",
}


def test_codes_are_followed_through_every_kind_of_name(tmp_path: Path) -> None:
    paths = {}
    for name, text in FILES.items():
        package = any(other.startswith(f"{name}.") for other in FILES)
        paths[name] = tmp_path / name / ("__init__.py" if package else "module.py")
        paths[name].parent.mkdir()
        paths[name].write_text(text)
    found = Sources(paths).verbs("p.cli")
    assert {verb: codes - {"SD500"} for verb, codes in found.items()} == {
        "idle": set(),
        "names": {"SD103"},
        "member": {"SD105", "SD106"},
        "inside": {"SD104"},
        "loads": {"SD107", "SD108"},
        "starts": {"SD201"},
        "beside": {"SD201"},
        "compares": {"SD102"},
    }
    assert all("SD500" in codes for codes in found.values())
