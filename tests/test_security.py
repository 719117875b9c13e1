"""No file can make healmap run code: the calls that could are absent, but for one place that reads plain data only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "healmap"
BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
# Names that are imported are keys or values of a dictionary, or results of a function over constants, in these files.
TABLES = {"__init__.py", "methods/__init__.py", "recipes/__init__.py", "io/dicom_decode.py", "io/decoder_worker.py"}
THE_ONE_READER = ("io/unpickle.py", "plain")


def faults(source: str, name: str = "x.py") -> list[str]:
    """What the rules forbid in a file, with lines. ``name``: its path inside the package."""
    found = []

    def look(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        for problem in _problems(node, name, function):
            found.append(f"{name}:{node.lineno}: {problem}")  # type: ignore[attr-defined]
        for child in ast.iter_child_nodes(node):
            look(child, function)

    look(ast.parse(source), "")
    return found


def _problems(node: ast.AST, name: str, function: str) -> list[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        imported = [a.name for a in node.names]
        return [f"import of {m}" for m in modules if m.partition(".")[0] in BANNED_MODULES] + [
            f"import of torch.{n}" for n in imported if modules == ["torch"] and n == "load"]  # fmt: skip
    if not isinstance(node, ast.Call):
        return []
    called, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
    last = called.rpartition(".")[2]
    if called in BANNED_CALLS:
        return [f"call of {called}"]
    if last == "import_module" and name not in TABLES:
        return ["import by name outside the fixed tables"]
    if called.endswith("torch.load"):
        if options.get("weights_only") != "True":
            return ["torch.load without weights_only=True"]
        return [] if (name, function) == THE_ONE_READER else ["torch.load outside the one reader of checkpoints"]
    if called in ("torch.jit.load", "torch.package.PackageImporter", "torch.hub.load"):
        return [f"call of {called}"]
    if options.get("allow_pickle", "False") != "False":
        return ["allow_pickle"]
    if last in ("load", "load_all", "unsafe_load") and called.partition(".")[0] in ("yaml", "ruamel"):
        return [f"call of {called}"]
    if (last in ("system", "popen") and called.startswith("os.")) or options.get("shell", "False") != "False":
        return ["a shell"]
    return []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_dangerous_call(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()) == []


FORBIDDEN = (
    "import pickle", "from joblib import load", "def f():\n    import cloudpickle", "from torch import load",
    "torch.load('x')", "torch.load('x', weights_only=True)", "torch.load('x', weights_only=flag)", "torch.jit.load(x)",
    "np.load('x', allow_pickle=True)", "yaml.load(x)", "eval('1')", "exec(x)", "subprocess.run(x, shell=True)", "os.system(x)",
    "import_module(card['method'])",
)  # fmt: skip


@pytest.mark.parametrize("source", FORBIDDEN)
def test_the_rules_find_what_they_forbid(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize("source", ["np.load(x)", "json.loads(x)", "re.compile(x)", "model.eval()", "torch.compile(x)"])
def test_the_rules_let_the_rest_pass(source: str) -> None:
    assert faults(source) == []


def test_there_is_one_reader() -> None:
    reader = (PACKAGE / THE_ONE_READER[0]).read_text(encoding="utf-8")
    assert reader.count("torch.load(") == 1
    assert faults(reader, THE_ONE_READER[0]) == []
