"""What no source of ours may contain: devices in conditions, anything that runs data, hidden switches."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

import pytest

DEVICE_COMPONENTS = ("xtuner_core/builtin/cpu", "xtuner_core/builtin/cuda", "plugins/ascend", "xtuner_core/testing")
"""The author's kit is among them: its suites assert that batches wait on the host."""
DEVICE = re.compile(r"(cpu|cuda|npu|xpu|mps|hpu|hip|rocm|musa|ascend)(:\d*)?")
VENDOR_MODULES = {"cuda", "npu", "xpu", "mps", "hpu"}
VENDOR_FLAGS = {f"is_{name}" for name in (*VENDOR_MODULES, "cpu")}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def test_a_device_name_stands_in_no_condition_outside_its_component(shipped):
    rest = [source for source in shipped if not source.below(*DEVICE_COMPONENTS)]
    assert len(rest) > 100
    assert [source.at(node) for source in rest for node in device_conditions(source.tree)] == []


@pytest.mark.parametrize(
    "text",
    [
        "if device.type == 'cuda': pass",
        "x = 1 if 'npu' != name else 2",
        "while name in ('cpu', 'mps'): pass",
        "match name:\n    case 'xpu': pass",
        "flag = name.startswith('cuda:')",
        "build = {'cuda': fast, 'cpu': slow}[name]",
        "if tensor.is_cuda: pass",
        "torch.cuda.synchronize()",
        "if used.device == 'cpu': pass",
    ],
)
def test_the_search_for_device_names_finds(text):
    assert list(device_conditions(ast.parse(text)))


@pytest.mark.parametrize(
    "text", ["tensor.to('cpu')", "Use.of('rope', 'npu', dtype)", "if use.device != 'cpu': pass", "x = device == other"]
)
def test_the_search_for_device_names_passes(text):
    assert not list(device_conditions(ast.parse(text)))


def test_nothing_is_unpickled_evaluated_or_run_as_code(shipped):
    assert [source.at(node) for source in shipped for node in code_from_data(source.tree)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from dill import loads",
        "eval(text)",
        "exec(text)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "numpy.load(file, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "options = {'trust_remote_code': True}",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
    ],
)
def test_the_search_for_code_from_data_finds(text):
    assert list(code_from_data(ast.parse(text)))


@pytest.mark.parametrize("text", ["model.eval()", "torch.load(file, weights_only=True)", "yaml.safe_load(text)"])
def test_the_search_for_code_from_data_passes(text):
    assert not list(code_from_data(ast.parse(text)))


def test_only_the_command_and_what_torchrun_tells_are_environment_variables(shipped):
    known = {"xtuner_core/cli/main.py", "xtuner_core/builtin/launchers/environment.py"}
    rest = [source for source in shipped if source.path not in known]
    assert [source.at(node) for source in rest for node in environment_access(source.tree)] == []


@pytest.mark.parametrize("text", ["os.environ['A']", "os.getenv('A')", "from os import environ", "os.putenv('A', 'b')"])
def test_the_search_for_environment_variables_finds(text):
    assert list(environment_access(ast.parse(text)))


def test_every_module_has_a_docstring_and_deferred_annotations(shipped):
    modules = [source for source in shipped if source.text.strip()]
    assert [source.path for source in modules if ast.get_docstring(source.tree) is None] == []
    long = [source for source in modules if len(source.tree.body) > 1]
    assert [source.path for source in long if "from __future__ import annotations" not in source.text] == []


def test_no_file_outgrows_three_hundred_lines_and_no_function_forty(shipped):
    assert [source.path for source in shipped if source.text.count("\n") > 300] == []
    functions = [(source, node) for source in shipped for node in ast.walk(source.tree) if isinstance(node, FUNCTIONS)]
    assert [source.at(node) for source, node in functions if code_lines(node) > 40] == []


def test_nothing_is_left_for_later(shipped):
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    assert [source.path for source in shipped if marks.search(source.text)] == []


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, the docstring not counted."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def device_conditions(tree: ast.Module) -> Iterator[ast.AST]:
    """Comparisons with a device's name, tables keyed by one, and modules and flags of a vendor."""
    tests: dict[type[ast.AST], Callable[..., bool]] = {
        ast.Compare: lambda node: (
            not _asks_a_use(node) and any(_names(each) for each in [node.left, *node.comparators])
        ),
        ast.MatchValue: lambda node: _names(node.value),
        ast.Dict: lambda node: any(_names(key) for key in node.keys if key is not None),
        ast.Call: lambda node: _method(node) in ("startswith", "endswith") and any(map(_names, node.args)),
        ast.Attribute: lambda node: (
            node.attr in VENDOR_FLAGS
            or (node.attr in VENDOR_MODULES and isinstance(node.value, ast.Name) and node.value.id == "torch")
        ),
    }
    return (node for node in ast.walk(tree) if type(node) in tests and tests[type(node)](node))


def _asks_a_use(node: ast.Compare) -> bool:
    """`use.device == …`: an implementation of an operator says where it works."""
    left = node.left
    return (
        isinstance(left, ast.Attribute)
        and isinstance(left.value, ast.Name)
        and (left.value.id, left.attr)
        == (
            "use",
            "device",
        )
    )


def _names(node: ast.AST) -> bool:
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(_names(each) for each in node.elts)
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("frozenset", "set", "torch.device"):
        return any(_names(each) for each in node.args)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(DEVICE.fullmatch(node.value))


def code_from_data(tree: ast.Module) -> Iterator[ast.AST]:
    """Unpicklers, `eval` and `exec`, shells, and code that a checkpoint brings."""
    kinds: dict[type[ast.AST], Callable[..., bool]] = {
        ast.Import: lambda node: any(_unpickles(name.name) for name in node.names),
        ast.ImportFrom: lambda node: _unpickles(node.module or ""),
        ast.Constant: lambda node: node.value == "trust_remote_code",
        ast.Call: _runs_code,
    }
    return (node for node in ast.walk(tree) if type(node) in kinds and kinds[type(node)](node))


def _unpickles(module: str) -> bool:
    return module.partition(".")[0] in UNPICKLERS


def _runs_code(call: ast.Call) -> bool:
    named = {each.arg: getattr(each.value, "value", None) for each in call.keywords}
    if isinstance(call.func, ast.Name):
        return call.func.id in ("eval", "exec")
    called = ast.unparse(call.func)
    return (
        called in ("os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load")
        or (called == "yaml.load" and ("Loader" not in named or "nsafe" in ast.unparse(call)))
        or (called == "torch.load" and named.get("weights_only") is not True)
        or any(named.get(name) is True for name in ("shell", "allow_pickle", "trust_remote_code"))
    )


def _method(call: ast.Call) -> str | None:
    return call.func.attr if isinstance(call.func, ast.Attribute) else None


def environment_access(tree: ast.Module) -> Iterator[ast.AST]:
    """`os.environ` and its kin, however they are imported."""
    kinds: dict[type[ast.AST], Callable[..., bool]] = {
        ast.ImportFrom: lambda node: node.module == "os" and any(name.name in ENVIRONMENT for name in node.names),
        ast.Attribute: lambda node: node.attr in ENVIRONMENT and ast.unparse(node.value) == "os",
    }
    return (node for node in ast.walk(tree) if type(node) in kinds and kinds[type(node)](node))
