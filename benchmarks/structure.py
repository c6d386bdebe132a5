"""How the code is laid out: long files and functions, systems by name, cycles.

    python benchmarks/structure.py
    python benchmarks/structure.py --root ../another_checkout

Prints one table and what it counts: files over 400 lines; functions over 60, with
docstrings and without decorators; comparisons with the name of a system, which only the
registry should know; comments that say something in 1,000 lines of code; imports, also
those within functions, that close a cycle of modules.
"""

from __future__ import annotations

import argparse
import ast
import graphlib
import io
import pathlib
import sys
import tokenize
from collections.abc import Iterator

import grimp
from tables import aligned

PACKAGE = "gptface_jax"
FILE, FUNCTION = 400, 60  # lines
_DIRECTIVES = ("fmt:", "noqa", "type:", "ruff:", "pragma:", "pyright:")
Found = list[tuple[str, int]]  # (where, how many)


def long_files(sources: dict[str, str]) -> Found:
    counts = [(name, len(text.splitlines())) for name, text in sources.items()]
    return sorted((x for x in counts if x[1] > FILE), key=lambda x: -x[1])


def long_functions(sources: dict[str, str]) -> Found:
    found = []
    for name, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION:
                    found.append((f"{name} {node.name}", lines))
    return sorted(found, key=lambda x: -x[1])


def _constants(node: ast.expr) -> Iterator[object]:
    """A constant, or those of a tuple, list or set."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    yield from (part.value for part in parts if isinstance(part, ast.Constant))


def compared_systems(sources: dict[str, str], systems: set[str]) -> Found:
    """Lines with ==, !=, in, not in or `case` and the name of a system."""
    found = []
    for name, text in sources.items():
        if name.endswith("experiments/registry.py"):
            continue
        for node in ast.walk(ast.parse(text)):
            values: list[ast.expr] = []
            if isinstance(node, ast.Compare):
                values = [node.left, *node.comparators]
            elif isinstance(node, ast.MatchValue):
                values = [node.value]
            for value in values:
                if systems & {c for c in _constants(value) if isinstance(c, str)}:
                    found.append((name, value.lineno))
    return sorted(found)


def comments(sources: dict[str, str]) -> tuple[int, int]:
    """(comments but for directives, lines)."""
    count = lines = 0
    for text in sources.values():
        lines += len(text.splitlines())
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            said = token.string.lstrip("# ")
            if token.type == tokenize.COMMENT and not said.startswith(_DIRECTIVES):
                count += 1
    return count, lines


def closing_imports(root: pathlib.Path) -> list[tuple[str, ...]]:
    """Cycles of modules, each opened before the next one is looked for."""
    sys.path.insert(0, str(root))
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    imports = {
        module: sorted(graph.find_modules_directly_imported_by(module))
        for module in sorted(graph.modules)
    }
    cycles = []
    while True:
        try:
            graphlib.TopologicalSorter(imports).prepare()
        except graphlib.CycleError as error:
            imported, importer, *_ = cycle = error.args[1]
            imports[importer].remove(imported)
            cycles.append(tuple(reversed(cycle)))
        else:
            return sorted(cycles)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = pathlib.Path(__file__).resolve().parents[1]
    parser.add_argument("--root", type=pathlib.Path, default=here, help="a checkout")
    root = parser.parse_args().root.resolve()
    sources = {
        path.relative_to(root / PACKAGE).as_posix(): path.read_text()
        for path in sorted((root / PACKAGE).rglob("*.py"))
    }
    if not sources:
        parser.error(f"'{root}' holds no {PACKAGE}/*.py; give a checkout as --root")
    systems = {path.stem for path in (root / PACKAGE / "systems").glob("[a-z]*")}
    files, functions = long_files(sources), long_functions(sources)
    compared, cycles = compared_systems(sources, systems), closing_imports(root)
    said, lines = comments(sources)
    rows = [
        ["", "count"],
        ["files", str(len(sources))],
        ["lines", str(lines)],
        [f"files over {FILE} lines", str(len(files))],
        [f"functions over {FUNCTION} lines", str(len(functions))],
        ["systems compared by name", str(len(compared))],
        ["import cycles", str(len(cycles))],
        ["comments in 1,000 lines", f"{1000 * said / lines:.1f}"],
    ]
    print(aligned(rows))
    for title, found in (("files", files), ("functions", functions)):
        print(f"\nlong {title}", *(f"{n:6d}  {where}" for where, n in found), sep="\n")
    print("\nsystems compared", *(f"  {where}:{n}" for where, n in compared), sep="\n")
    print("\ncycles", *("  " + " -> ".join(cycle) for cycle in cycles), sep="\n")


if __name__ == "__main__":
    main()
