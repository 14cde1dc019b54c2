"""Collect the error codes from the source, with the templates of their messages and hints, for the documentation."""

import ast
import builtins
import importlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from components.shared.errors import OS_ERRORS, ExitCode, UserError

Values = Mapping[str, ast.expr]
"""Name of a variable → the expression that is its value."""
Branches = Mapping[str, bool]
"""Condition → which branch of the conditional expressions with it is shown."""
OF_THE_SYSTEM = "file.{code}"
"""Code of the errors in `OS_ERRORS`."""


class ErrorText(NamedTuple):
    """An error that the source raises; `{name}` is a value, `…` is anything else."""

    code: str
    message: str
    hint: str
    exit_code: ExitCode


class _Module:
    """A module.

    Args:
        path: of its source.
        folder: the package that it is in.
        exit_codes: name of an error class → its exit code.
    """

    def __init__(self, path: Path, folder: Path, exit_codes: Mapping[str, ExitCode]) -> None:
        self.tree = ast.parse(path.read_text("utf-8"))
        self.name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        self.exit_codes = exit_codes

    @cached_property
    def constants(self) -> Values:
        """The variables that are assigned once, to a text."""
        assignments = [
            (target.id, node.value)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        times = Counter(name for name, _ in assignments)
        return {name: value for name, value in assignments if times[name] == 1 and _is_text(value)}

    def evaluate(self, node: ast.expr) -> str:
        """Return the text of an expression of constants of the module, which have names in capitals; else nothing."""
        attributes = [it for it in ast.walk(node) if isinstance(it, ast.Attribute) and _is_constant(it.attr)]
        modules = {it.value.id for it in attributes if isinstance(it.value, ast.Name)}
        names = _variables(node)
        if not names or not all(_is_constant(name) or name in modules for name in names):
            return ""
        try:
            code = compile(ast.fix_missing_locations(ast.Expression(node)), self.name, "eval")
            return str(eval(code, vars(importlib.import_module(self.name))))  # noqa: S307 (our own source)
        except (NameError, AttributeError):  # such as a constant of an object
            return ""

    def template(self, node: ast.expr | None, values: Values, chosen: Branches) -> str:
        """Return the text of an expression, with placeholders for what is known at run time only."""

        def text(part: ast.expr | None) -> str:
            return self.template(part, values, chosen)

        match node:
            case ast.Constant(value=str(constant)):
                return constant
            case ast.JoinedStr(values=parts):
                return "".join(map(text, parts))
            case ast.FormattedValue(value=value):
                return self.evaluate(ast.JoinedStr([node])) or text(value)
            case ast.Name(id=name) if name in values:
                return self.template(values[name], {}, chosen)
            case ast.expr() if constant := self.evaluate(node):
                return constant
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return f"{{{name}}}"
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return text(left) + text(right)
            case ast.IfExp(test=test, body=body, orelse=orelse) if (condition := ast.unparse(test)) in chosen:
                return text(body if chosen[condition] else orelse)
            case ast.IfExp(body=body) if not isinstance(body, ast.Constant):
                return text(body)
            case ast.Call(func=ast.Name(id="len")):
                return "{count}"
            case ast.Call(args=arguments):
                name = next((name for argument in arguments for name in _variables(argument)), "")
                return f"{{{name}}}" if name else "…"
        return "…"

    def errors_of(self, call: ast.Call, values: Values) -> Iterator[ErrorText]:
        """Yield the errors that a call of an error class creates: one for each branch that chooses a text."""
        given = (arg.values[-1] if isinstance(arg, ast.BoolOp) else arg for arg in call.args)  # that of `or` is general
        texts = [*given, None, None, None][:3]
        conditions = dict.fromkeys(ast.unparse(text.test) for text in texts if isinstance(text, ast.IfExp))
        for branches in itertools.product((True, False), repeat=len(conditions)):
            chosen = dict(zip(conditions, branches, strict=True))
            message, hint, code = (self.template(text, values, chosen).replace("……", "…") for text in texts)
            if code == OF_THE_SYSTEM:
                for name, message, hint in OS_ERRORS.values():
                    yield ErrorText(f"file.{name}", f"{{path}}: {message}", hint, ExitCode.USER_ERROR)
            elif "." in code:  # otherwise the error is a copy of another one
                yield ErrorText(code, message, hint, self.exit_codes[_name(call)])

    def errors(self) -> Iterator[ErrorText]:
        """Yield its errors; those of a function that depend on its arguments, once for each call of the function."""
        calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        in_helpers: set[ast.Call] = set()
        for function in (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)):
            parameters = [argument.arg for argument in function.args.args if argument.arg != "self"]
            for call in self._errors_in(function, parameters):
                for use in (other for other in calls if _name(other) == function.name):
                    in_helpers.add(call)
                    arguments = {
                        name: self.constants.get(value.id, value) if isinstance(value, ast.Name) else value
                        for name, value in zip(parameters, use.args, strict=False)
                        if self.template(value, {}, {}) != "…"
                    }
                    yield from self.errors_of(call, {**self.constants, **arguments})
        for call in calls:
            if _name(call) in self.exit_codes and call not in in_helpers:
                yield from self.errors_of(call, self.constants)

    def _errors_in(self, function: ast.FunctionDef, parameters: list[str]) -> Iterator[ast.Call]:
        """Yield the errors that a function returns, or whose code depends on a parameter."""
        returned = [it.value for it in function.body if isinstance(it, ast.Return)]
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and _name(call) in self.exit_codes:
                code = call.args[2] if len(call.args) > 2 else None
                if call in returned or (isinstance(code, ast.JoinedStr) and {*_variables(code)} & {*parameters}):
                    yield call


def _is_constant(name: str) -> bool:
    return name.lstrip("_").isupper()


def _is_text(node: ast.expr) -> bool:
    """Return whether an expression is a text, which may have placeholders."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in parts)


def _variables(node: ast.expr) -> list[str]:
    """Return the variables in an expression, without those that it defines."""
    parts = list(ast.walk(node))
    own = {ast.unparse(part.target) for part in parts if isinstance(part, ast.comprehension)} | set(vars(builtins))
    return [part.id for part in parts if isinstance(part, ast.Name) and part.id not in own]


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _exit_codes(error_class: type[UserError] = UserError) -> dict[str, ExitCode]:
    """Return the name and exit code of a class and its imported subclasses."""
    found = {error_class.__name__: error_class.exit_code}
    for subclass in error_class.__subclasses__():
        found |= _exit_codes(subclass)
    return found


def collect_errors(*folders: Path) -> list[ErrorText]:
    """Return the errors that the modules of some packages raise, by code."""
    for name in ("components.shared.storage", "counterweight.client"):  # they define subclasses of UserError
        importlib.import_module(name)
    exit_codes = _exit_codes()
    modules = [_Module(path, folder, exit_codes) for folder in folders for path in sorted(folder.rglob("*.py"))]
    return sorted({error for module in modules for error in module.errors()})
