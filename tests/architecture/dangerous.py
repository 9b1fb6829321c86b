"""Finds in a source what none of the project's may do. Knows no file."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# Each of them unpickles, or runs what it reads. multiprocessing pickles whatever it passes on.
MODULES = {
    *("pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "multiprocessing"),
    *("imp", "code", "codeop", "xmlrpc", "telnetlib", "ftplib", "antigravity"),
}
# torch.load(weights_only=True) reports a hostile file by this error.
NAMES_OF_PICKLE = {"UnpicklingError"}
BUILT_IN = {"eval", "exec", "compile", "__import__"}
CALLS = {
    *("os.system", "os.popen", "tempfile.mktemp", "asyncio.create_subprocess_shell"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "importlib.import_module"),
    *("yaml.load", "pandas.read_pickle", "numpy.load", "np.load", "logging.config.listen"),
    *("torch.save", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter"),
    *("hashlib.md5", "hashlib.sha1", "ssl._create_unverified_context", "uuid.uuid1"),
}
# torch.distributed sends these pickled.
OBJECT_COLLECTIVES = {
    *("all_gather_object", "broadcast_object_list", "gather_object", "recv_object_list"),
    *("scatter_object_list", "send_object_list", "rpc_sync", "rpc_async", "init_rpc"),
}
# A keyword, and the constant that it must not have.
KEYWORDS = (("shell", True), ("allow_pickle", True), ("trust_remote_code", True))
PATTERNS = {f"re.{name}" for name in ("compile", "match", "search", "fullmatch", "sub", "findall")}
LEVELS = {"debug", "info", "warning", "error", "critical"}


def full_name(node: ast.expr) -> str:
    """`a.b.c` of what is called; empty where it is no such chain."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value)}.{node.attr}"
    return ""


def option(call: ast.Call, name: str) -> object:
    """A keyword's constant value, None where it has none."""
    for keyword in call.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return keyword.value.value
    return None


def findings(tree: ast.Module) -> list[str]:
    """What is wrong with a source, `LINE: what` each."""
    found = []
    for node in ast.walk(tree):
        problems = (
            [*_imports(node), *_calls(node)] if not isinstance(node, ast.Assert) else ["assert"]
        )
        found += [f"{getattr(node, 'lineno', 0)}: {problem}" for problem in problems]
    return found


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        tops = {alias.name.split(".")[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        names = {alias.name for alias in node.names}
        harmless = node.module == "pickle" and names <= NAMES_OF_PICKLE
        tops = set() if harmless else {node.module.split(".")[0]}
    else:
        return
    yield from (f"imports {top}" for top in tops & MODULES)


def _calls(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and full_name(node) == "ssl.CERT_NONE":
        yield "ssl.CERT_NONE"
    if not isinstance(node, ast.Call):
        return
    name = full_name(node.func)
    last = name.rpartition(".")[2]
    if name in BUILT_IN | CALLS or last in OBJECT_COLLECTIVES:
        yield f"calls {name}"
    if name == "torch.load" and option(node, "weights_only") is not True:
        yield "torch.load that may run what it reads"
    yield from (f"{word}={value}" for word, value in KEYWORDS if option(node, word) is value)
    if name in PATTERNS and node.args and not _is_written_here(node.args[0]):
        yield f"{name} of a pattern that comes from elsewhere"
    is_log = name.rpartition(".")[0].endswith("log") and last in LEVELS
    if is_log and node.args and isinstance(node.args[0], ast.JoinedStr | ast.BinOp):
        yield "a log event that is put together: what differs goes into fields, which are escaped"


def _is_written_here(pattern: ast.expr) -> bool:
    """A constant, or put together of constants of this module, which are in capitals."""
    match pattern:
        case ast.Constant():
            return True
        case ast.Name():
            return pattern.id.isupper()
        case ast.JoinedStr():
            return all(_is_written_here(value) for value in pattern.values)
        case ast.FormattedValue():
            return _is_written_here(pattern.value)
        case ast.BinOp():
            return _is_written_here(pattern.left) and _is_written_here(pattern.right)
    return False
