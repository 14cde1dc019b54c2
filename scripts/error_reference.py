"""Collect the error codes from the source, with the templates of their messages and hints, for the documentation."""

import ast
import builtins
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from components.shared.errors import ExitCode, UserError
from components.shared.stores.addresses import ADDRESS_FORM

Values = Mapping[str, ast.expr]
"""Name of a variable → the expression that is its value."""
_SHARED_CONSTANTS: dict[str, ast.expr] = {"ADDRESS_FORM": ast.Constant(ADDRESS_FORM)}
"""Texts that modules import for their hints."""


class ErrorText(NamedTuple):
    """An error that the source raises; `{name}` is a value, `…` is anything else."""

    code: str
    message: str
    hint: str
    exit_code: ExitCode


def _template(node: ast.expr | None, values: Values) -> str:
    """Return the text that an expression evaluates to, with placeholders for what is known at run time only."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_template(part, values) for part in parts)
        case ast.FormattedValue(value=value):
            return _template(value, values)
        case ast.Name(id=name) if name in values:
            return _template(values[name], {})
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return f"{{{name}}}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _template(left, values) + _template(right, values)
        case ast.IfExp(body=body) if not isinstance(body, ast.Constant):
            return _template(body, values)
        case ast.Call(func=ast.Name(id="len")):
            return "{count}"
        case ast.Call(args=arguments):
            name = next((name for argument in arguments for name in _variables(argument)), "")
            return f"{{{name}}}" if name else "…"
    return "…"


def _text(node: ast.expr | None, values: Values) -> str:
    return _template(node, values).replace("……", "…")


def _variables(node: ast.expr) -> list[str]:
    """Return the variables in an expression, without those that it defines."""
    parts = list(ast.walk(node))
    own = {ast.unparse(part.target) for part in parts if isinstance(part, ast.comprehension)} | set(vars(builtins))
    return [part.id for part in parts if isinstance(part, ast.Name) and part.id not in own]


def _constants(tree: ast.AST) -> dict[str, ast.expr]:
    """Return the variables of a module that are assigned once, to a text."""
    assignments = [
        (target.id, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    times = Counter(name for name, _ in assignments)
    texts = {name: value for name, value in assignments if isinstance(value, ast.JoinedStr | ast.Constant)}
    return {name: value for name, value in texts.items() if times[name] == 1 and _template(value, {}) != "…"}


def _errors_of(call: ast.Call, exit_code: ExitCode, values: Values) -> Iterator[ErrorText]:
    """Yield the errors that a call of an error class creates."""
    message, hint, code, *_ = [*call.args, None, None, None]
    for choice in (code.body, code.orelse) if isinstance(code, ast.IfExp) else (code,):
        name = _template(choice, values)
        if "." in name:  # otherwise the error is a copy of another one
            yield ErrorText(name, _text(message, values), _text(hint, values), exit_code)


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _errors_in(tree: ast.AST, exit_codes: Mapping[str, ExitCode]) -> Iterator[ErrorText]:
    """Yield the errors of a module; those that a function returns, once for each call of the function."""
    constants = _SHARED_CONSTANTS | _constants(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    in_helpers: set[ast.Call] = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for statement in function.body:
            call = statement.value if isinstance(statement, ast.Return) else None
            if not isinstance(call, ast.Call) or _name(call) not in exit_codes:
                continue
            parameters = [argument.arg for argument in function.args.args if argument.arg != "self"]
            for use in (other for other in calls if _name(other) == function.name):
                in_helpers.add(call)
                arguments = dict(zip(parameters, use.args, strict=False))
                resolved = {
                    name: constants.get(value.id, value) if isinstance(value, ast.Name) else value
                    for name, value in arguments.items()
                }
                yield from _errors_of(call, exit_codes[_name(call)], constants | resolved)
    for call in calls:
        if _name(call) in exit_codes and call not in in_helpers:
            yield from _errors_of(call, exit_codes[_name(call)], constants)


def _exit_codes(error_class: type[UserError] = UserError) -> dict[str, ExitCode]:
    """Return the name and exit code of a class and its imported subclasses."""
    found = {error_class.__name__: error_class.exit_code}
    for subclass in error_class.__subclasses__():
        found |= _exit_codes(subclass)
    return found


def collect_errors(*folders: Path) -> list[ErrorText]:
    """Return the errors that the modules below some folders raise, by code."""
    import counterweight.client  # noqa: F401 (defines subclasses of UserError)

    exit_codes = _exit_codes()
    paths = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return sorted({error for path in paths for error in _errors_in(ast.parse(path.read_text("utf-8")), exit_codes)})
