"""The problems that the service and the package report, collected from the code for docs/operate/problems.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scpalm.app.errors import ServiceError

ROOT = Path(__file__).parents[2]
_STATUS = {"UnreadableError": 400, "OverLimitError": 413, "InputError": 422, "WorseError": 422, "_error": 422}
_SLUG = re.compile(r"[a-z]+(-[a-z0-9]+)*")

ADVICE = {
    "bad-request": "Send the file as the form field `file`, or as the whole body. The detail names the missing part.",
    "unknown-host": "Call the service by a name in `SCPALM_ALLOWED_HOSTS`, or add the name of the proxy to it.",
    "key-missing": "Send `Authorization: Bearer KEY`. Ask the operator for a key.",
    "key-not-allowed": "Use a key whose `paths` include this route.",
    "rate-limit": "Wait as `Retry-After` says, or ask for a larger budget.",
    "deadline": "Send a later deadline or fewer cells, or make it a job with `Prefer: respond-async`.",
    "not-found": "Look the path up in `/docs`.",
    "unknown-model": "`GET /models` lists the names.",
    "unknown-column": "`GET /jobs/ID/view` lists columns, genes and codes.",
    "unsupported-task": "Choose another model. The detail has the command that adds the part.",
    "method-not-allowed": "Use the method in the `Allow` header.",
    "not-acceptable": "Name a format of `/docs` in `Accept`, or leave the header out.",
    "body-timeout": "Send again over a better connection. Operators: see `SCPALM_BODY_SECONDS`.",
    "too-large": "Send the file in parts, or use the command line, which has no limit.",
    "unsupported-media-type": "Send h5ad, 10x h5, h5mu, JSON or Arrow. The detail says how to convert your file.",
    "invalid-parameter": "The detail names the parameter, the allowed values and the nearest known name.",
    "queue-full": "Wait as `Retry-After` says. Operators: add workers.",
    "client-gone": "In logs only: the client closed the connection.",
    "inference-failed": "Report it with the request id. Other requests are not affected.",
    "not-ready": "Wait; the detail says what is missing. Operators: `GET /health/ready` and `scpalm doctor`.",
    "storage-full": "Send again later. Operators: make room on the disk that the detail names.",
    "parser-interrupted": "Send again. Operators: the machine may be short of memory.",
    "unknown-job": "Use the key that started the job. Jobs are deleted `SCPALM_JOB_HOURS` after they end.",
    "job-model-gone": "Send the cells again: results of two models must not be mixed.",
    "job-not-finished": "`GET /jobs/ID` says whether it still runs, failed or was cancelled.",
    "idempotency-key-reused": "Use a new `Idempotency-Key` for another request.",
    "job-storage": "Operators: see the log, and examine the disk of `SCPALM_RESULTS_DIR`.",
    "draining": "Send again in some seconds; the service restarts.",
    "internal-error": "Report it with the request id and the time.",
}


@dataclass
class InputProblem:
    """A fault of a file or an option. ``hints``: what to do, or else what is wrong, for each place that raises it."""

    status: int
    hints: list[str] = field(default_factory=list)


def service_problems() -> list[type[ServiceError]]:
    """The kinds of ServiceError in `scpalm.app.errors`, by status and code. Other modules are imported or not."""
    kinds = [
        ServiceError,
        *(kind for kind in ServiceError.__subclasses__() if kind.__module__ == ServiceError.__module__),
    ]
    return sorted(kinds, key=lambda kind: (kind.status, kind.code))


def input_problems() -> dict[str, InputProblem]:
    """Every code of an InputError in the source, with its status and hints."""
    found: dict[str, InputProblem] = {}
    for folder in ("model", "app"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "node_modules" not in path.parts:
                for code, status, hint in _of_module(ast.parse(path.read_text(encoding="utf-8"))):
                    problem = found.setdefault(code, InputProblem(status))
                    if hint and hint not in problem.hints:
                        problem.hints.append(hint)
    return dict(sorted(found.items()))


def _of_module(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _STATUS and node.args:
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            hint = given.get("hint", node.args[2] if len(node.args) > 2 else None)
            for code in _codes(node.args[0]):
                detail = node.args[1] if len(node.args) > 1 else None
                yield code, _STATUS[node.func.id], _text(hint, constants) or _text(detail, constants)
        elif isinstance(node, ast.Tuple) and _is_row(node, constants):
            yield _codes(node.elts[0])[0], 422, _text(node.elts[-1], constants)


def _is_row(node: ast.Tuple, constants: dict[str, ast.expr]) -> bool:
    """Whether this is a row of a table of problems: a code, then a sentence."""
    codes = _codes(node.elts[0]) if len(node.elts) > 1 else []
    return bool(codes) and "-" in codes[0] and _text(node.elts[-1], constants).endswith(".")


def _codes(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return _codes(node.body) + _codes(node.orelse)
    if isinstance(node, ast.JoinedStr) and _text(node, {}) == "no-…":
        return ["no-cells", "no-genes"]
    value = node.value if isinstance(node, ast.Constant) else None
    return [value] if isinstance(value, str) and _SLUG.fullmatch(value) else []


def _text(node: ast.expr | None, constants: dict[str, ast.expr]) -> str:
    """The text of a constant or an f-string, with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join("…" if isinstance(part, ast.FormattedValue) else _text(part, constants) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left, constants) + _text(node.right, constants)
    if isinstance(node, ast.Name) and node.id in constants:
        return _text(constants[node.id], {})
    return ""


def tables() -> str:
    """Both lists as Markdown."""
    lines = ["## Problems of the service", "", "| status | type | what | what to do |", "|---|---|---|---|"]
    for kind in service_problems():
        advice = ADVICE.get(kind.code, "The detail of the answer says what to do.")
        lines.append(f"| {kind.status} | `{kind.code}` | {kind.title} | {advice} |")
    lines += ["", "## Problems of the cells", "", "| status | type | what to do |", "|---|---|---|"]
    for code, problem in input_problems().items():
        advice = " / ".join(problem.hints[:2]) or "The detail of the answer says what to do."
        lines.append(f"| {problem.status} | `{code}` | {advice.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)
