"""The text form of a graph: stable, diffable, and it parses back.

    graph(n: 1..128)
    %0 = input(0) : float32[n, 3]
    %1 = const(2.0) : float32[n, 3]
    %2 = mul(%0, %1) : float32[n, 3]    # train.py:12
    %3 = sum(%2, axes=(0,)) : float32[3]
    return %3

One line a node, numbered in topological order; the header declares the symbolic sizes.  After
the operands come the attributes by name, except where that says nothing: attributes called
`dtype` and `shape` are the type behind the colon, and the number of an `input` and the value of
a `const` stand alone.  Floats are written by `repr`, so every value survives, -0.0 and nan too.

Bodies of loops come first, each once, with the types of their inputs, and are named by number:

    graph()
    body @0 "decay"(float32[3], float32[3])
      %0 = input(0) : float32[3]
      %1 = input(1) : float32[3]
      %2 = mul(%0, %1) : float32[3]
      return %2
    %0 = input(0) : float32[3]
    %1 = loop(%0, %0, body=@0, carried=1, stepped=0, length=5, reverse=False, part=0) : float32[3]
    return %1

`parse_graph(print_graph(graph)) == graph`: hash-consing makes it the same nodes.  The parser takes
any names (`%x`), blank lines and comment lines, so that tests can be written by hand.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy

from lazygrad_compiler.ir.composite import FIRST_PLACEHOLDER, placeholder
from lazygrad_compiler.ir.dtypes import DTYPES, DType
from lazygrad_compiler.ir.loop import Body, Signature, body_of
from lazygrad_compiler.ir.node import Dim, Graph, IRError, Location, Node, Shape, build, topological
from lazygrad_compiler.ir.ops import OPS, OpDef

TYPE_ATTRIBUTES = ("dtype", "shape")
"""Attributes with these names are the dtype and shape of the result, in every op that has them."""

BARE_ATTRIBUTES = {"input": "index", "const": "value"}
"""Attributes that are written without their name."""

PATH_STYLES: dict[str, Callable[[str], str]] = {
    "name": os.path.basename,
    "relative": os.path.relpath,
    "full": str,
}
"""How the files of locations are written: the name alone, from the working directory, or whole."""

RESERVED = {"True", "False", "None", "inf", "nan", "complex", "graph", "body", "return", *DTYPES}


class ParseError(ValueError):
    """Text that is no graph; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column


# ---- printing


def print_graph(graph: Graph, locations: bool = True, paths: str = "name") -> str:
    """The text of a graph, ending in a newline.

    locations: whether the user's lines follow as comments.  paths: "name", "relative" or "full",
    that is, how files are written there.  ValueError where a symbolic size has a name that cannot
    be written, or two sizes share one; TypeError where an attribute has no text form.
    """
    dims: dict[str, Dim] = {}
    shorten = PATH_STYLES[paths] if locations else None
    bodies: dict[Body, int] = {}
    lines: list[str] = []
    for body in bodies_within(graph.outputs):
        bodies[body] = len(bodies)
        types = [f"{dtype.name}[{format_shape(shape, dims)}]" for dtype, shape in body.inputs]
        lines.append(f"body @{bodies[body]} {json.dumps(body.name)}({', '.join(types)})")
        inside = _node_lines(body.outputs, dims, bodies, shorten, FIRST_PLACEHOLDER)
        lines += ["  " + line for line in inside]
    lines += _node_lines(graph.outputs, dims, bodies, shorten, 0)
    declared = ", ".join(f"{d.name}: {d.low}..{d.high}" for d in dims.values())
    return "\n".join([f"graph({declared})", *lines, ""])


def bodies_within(outputs: Sequence[Node]) -> list[Body]:
    """The bodies of all loops below the outputs, inner ones before those that they are part of."""
    found: dict[Body, None] = {}
    for value in topological(outputs):
        if value.op == "loop" and value.attrs[0] not in found:
            found.update(dict.fromkeys(bodies_within(value.attrs[0].outputs)))
            found[value.attrs[0]] = None
    return list(found)


def _node_lines(
    outputs: Sequence[Node],
    dims: dict[str, Dim],
    bodies: Mapping[Body, int],
    shorten: Callable[[str], str] | None,
    first_input: int,
) -> list[str]:
    """A line for each node, and `return`.  first_input: what the number of an input counts from."""
    nodes = topological(outputs)
    numbers = {value: number for number, value in enumerate(nodes)}
    lines = []
    for value in nodes:
        arguments = [f"%{numbers[operand]}" for operand in value.inputs]
        bare = BARE_ATTRIBUTES.get(value.op)
        for name, attribute in zip(OPS[value.op].attributes, value.attrs, strict=True):
            if name in TYPE_ATTRIBUTES:
                continue
            if value.op == "input":
                attribute -= first_input
            if isinstance(attribute, Body) and attribute in bodies:
                text = f"@{bodies[attribute]}"
            else:
                text = format_value(attribute, dims)
            arguments.append(text if name == bare else f"{name}={text}")
        type_text = f"{value.dtype.name}[{format_shape(value.shape, dims)}]"
        line = f"%{numbers[value]} = {value.op}({', '.join(arguments)}) : {type_text}"
        if shorten is not None and value.location:
            line += "    # " + format_location(value.location, shorten)
        lines.append(line)
    returned = ", ".join(f"%{numbers[output]}" for output in outputs)
    return [*lines, f"return {returned}".rstrip()]


def format_shape(shape: Shape, dims: dict[str, Dim]) -> str:
    """The sizes with commas between; every `Dim` met is entered into `dims`."""
    return ", ".join([str(s) if type(s) is int else format_value(s, dims) for s in shape])


def format_value(value: Any, dims: dict[str, Dim]) -> str:
    """One attribute, so that `parse_graph` reads the same value again."""
    if isinstance(value, numpy.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, complex):
        return f"complex({value.real!r}, {value.imag!r})"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return value.name
    if isinstance(value, Dim):
        if not re.fullmatch(r"[A-Za-z_]\w*", value.name) or value.name in RESERVED:
            raise ValueError(f"the symbolic size {value.name!r} needs a name that can be written")
        if dims.setdefault(value.name, value) != value:
            raise ValueError(f"two symbolic sizes with different bounds are called {value.name!r}")
        return value.name
    if isinstance(value, Body):
        return f"@{value.name}"
    if isinstance(value, tuple):
        inside = ", ".join([format_value(item, dims) for item in value])
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    raise TypeError(f"attributes of type {type(value).__name__} have no text form: {value!r}")


def format_location(location: Location, shorten: Callable[[str], str] = str) -> str:
    """The lines as `file:line`, comma between; odd file names in quotes."""
    parts = []
    for file, line in location:
        name = shorten(file)
        parts.append(f"{name if re.fullmatch(PLAIN_FILE, name) else json.dumps(name)}:{line}")
    return ", ".join(parts)


PLAIN_FILE = r'[^\s,"](?:[^\n\r\t,"]*[^\s,"])?'
LOCATION = re.compile(rf'\s*("(?:[^"\\]|\\.)*"|{PLAIN_FILE}):(\d+)\s*(?:,|$)')


# ---- parsing

TOKEN = re.compile(
    r"[ \t]*(?:(?P<node>%\w+)"
    r"|(?P<body>@\w+)"
    r"|(?P<number>-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|inf\b|nan\b))"
    r"|(?P<name>[A-Za-z_]\w*)"
    r'|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<mark>\.\.|[()\[\],:=])"
    r"|(?P<comment>\#.*)?$)"
)

Token = tuple[str, str, int]
"""Kind, text, and the column it starts in; the last of a line is ("end", "", column)."""


def parse_graph(text: str) -> Graph:
    """The graph that the text describes.

    Raises ParseError, with line and column, where the text is malformed, where an operation does
    not take what it is given, or where the type behind the colon is not what the operands give.
    """
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), start=1):
        reader.read_line(number, line)
    if reader.outputs is None:
        raise ParseError("the text ends without `return`", reader.number + 1, 1)
    return Graph(reader.outputs)


class _Reader:
    """The state of parsing: the nodes by name, and a cursor in the tokens of the current line."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.dims: dict[str, Dim] = {}
        self.bodies: dict[str, Body] = {}
        self.body: tuple[str, str, Signature] | None = None  # the one being read
        self.header_seen = False
        self.outputs: tuple[Node, ...] | None = None
        self.number = 0
        self.tokens: list[Token] = []
        self.position = 0

    # ---- tokens

    def read_line(self, number: int, line: str) -> None:
        self.number = number
        self.position = 0
        self.tokens = []
        comment = ""
        at = 0
        while True:
            found = TOKEN.match(line, at)
            if found is None:
                column = at + len(line[at:]) - len(line[at:].lstrip()) + 1
                raise ParseError(f"unexpected character {line[column - 1]!r}", number, column)
            kind = found.lastgroup
            if kind is None or kind == "comment":
                comment = (found["comment"] or "")[1:]
                self.tokens.append(("end", "", at + 1))
                break
            self.tokens.append((kind, found[kind], found.start(kind) + 1))
            at = found.end()
        if len(self.tokens) > 1:
            self.statement(comment)

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        raise ParseError(message, self.number, (token or self.tokens[self.position])[2])

    def peek(self) -> str:
        return self.tokens[self.position][1]

    def take(self, kind: str, what: str) -> Token:
        token = self.tokens[self.position]
        if token[0] != kind:
            self.fail(f"expected {what}, found {token[1] or 'the end of the line'}")
        self.position += 1
        return token

    def expect(self, mark: str) -> None:
        kind, text, _ = self.tokens[self.position]
        if text != mark or kind == "string":
            self.fail(f"expected `{mark}`, found {text or 'the end of the line'}")
        self.position += 1

    def accept(self, mark: str) -> bool:
        kind, text, _ = self.tokens[self.position]
        if text == mark and kind == "mark":
            self.position += 1
            return True
        return False

    def listed(self, closing: str, item: Callable[[], Any]) -> Iterable[Any]:
        """Items with commas between, up to the closing mark; a comma may stand before it."""
        while not self.accept(closing):
            yield item()
            if not self.accept(","):
                self.expect(closing)
                return

    # ---- statements

    def statement(self, comment: str) -> None:
        kind, text, _ = self.tokens[0]
        if self.outputs is not None:
            self.fail("nothing may follow `return`")
        if not self.header_seen:
            if text != "graph":
                self.fail(f"a graph begins with `graph(...)`, not {text}")
            self.header()
        elif text == "body" and kind == "name" and self.body is None:
            self.begin_body()
        elif kind == "node":
            self.definition(comment)
        elif text == "return":
            self.position = 1
            outputs = []
            while self.tokens[self.position][0] != "end":
                outputs.append(self.operand())
                if not self.accept(","):
                    break
            if self.body is None:
                self.outputs = tuple(outputs)
            else:
                label, name, signature = self.body
                self.bodies[label] = body_of(name, outputs, signature)
                self.nodes, self.body = {}, None
        else:
            self.fail(f"expected `%name = ...` or `return`, found {text}")
        if self.tokens[self.position][0] != "end":
            self.fail(f"unexpected {self.peek()}")

    def header(self) -> None:
        self.position = 1
        self.expect("(")
        for dim in self.listed(")", self.dim):
            self.dims[dim.name] = dim
        self.header_seen = True

    def dim(self) -> Dim:
        token = self.take("name", "the name of a size")
        if token[1] in RESERVED or token[1] in self.dims:
            self.fail(f"{token[1]} already means something else", token)
        self.expect(":")
        low = self.integer()
        self.expect("..")
        return Dim(token[1], low, self.integer())

    def begin_body(self) -> None:
        self.position = 1
        label = self.take("body", "the body's number, as in @0")
        if label[1] in self.bodies or self.nodes:
            self.fail(f"{label[1]} is defined twice" if label[1] in self.bodies
                      else "bodies come before all nodes", label)
        name = json.loads(self.take("string", "the body's name in quotes")[1])
        self.expect("(")
        self.body = label[1], name, tuple(self.listed(")", self.type))

    def type(self) -> tuple[DType, Shape]:
        token = self.take("name", "a dtype")
        if token[1] not in DTYPES:
            self.fail(f"there is no dtype {token[1]}", token)
        self.expect("[")
        return DTYPES[token[1]], tuple(self.listed("]", self.size))

    def definition(self, comment: str) -> None:
        target = self.take("node", "a node")
        if target[1] in self.nodes:
            self.fail(f"{target[1]} is defined twice", target)
        self.expect("=")
        op_token = self.take("name", "an operation")
        definition = OPS.get(op_token[1])
        if definition is None:
            self.fail(f"there is no operation {op_token[1]}", op_token)
        self.expect("(")
        inputs: list[Node] = []
        given: dict[str, Any] = {}
        for name, value in self.listed(")", lambda: self.argument(definition)):
            if name is None:
                inputs.append(value)
            else:
                given[name] = value
        self.expect(":")
        type_token = self.tokens[self.position]
        dtype, shape = self.type()
        if definition.arity not in (-1, len(inputs)) or (definition.arity < 0 and not inputs):
            wanted = "at least 1" if definition.arity < 0 else definition.arity
            self.fail(f"[{definition.name}] takes {wanted} operands, not {len(inputs)}", op_token)
        given |= {"dtype": dtype, "shape": shape}
        missing = [name for name in definition.attributes if name not in given]
        if missing:
            self.fail(f"[{definition.name}] needs the attribute {missing[0]}", op_token)
        attrs = tuple(given[name] for name in definition.attributes)
        try:
            if definition.name == "input" and self.body is not None:
                made = self.body_input(attrs[0])
            else:
                made = build(definition, tuple(inputs), attrs, self.location(comment))
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            self.fail(str(error), op_token)
        if made.dtype is not dtype or made.shape != shape:
            inferred = f"{made.dtype.name}[{', '.join(map(str, made.shape))}]"
            self.fail(f"[{definition.name}] gives {inferred} here", type_token)
        self.nodes[target[1]] = made

    def body_input(self, number: int) -> Node:
        assert self.body is not None
        _, name, signature = self.body
        if not 0 <= number < len(signature):
            raise IRError(f"{name} has {len(signature)} inputs, and none of number {number}")
        return placeholder(number, *signature[number])

    def argument(self, definition: OpDef) -> tuple[str | None, Any]:
        """An operand (None, node) or an attribute (name, value)."""
        kind, text, _ = token = self.tokens[self.position]
        if kind == "node":
            return None, self.operand()
        if kind == "name" and self.tokens[self.position + 1][1] == "=":
            if text in TYPE_ATTRIBUTES or text not in definition.attributes:
                self.fail(f"[{definition.name}] is not given {text} here", token)
            self.position += 2
            return text, self.value()
        bare = BARE_ATTRIBUTES.get(definition.name)
        if bare is None:
            self.fail(f"expected %node or name=value, found {text or 'the end of the line'}")
        return bare, self.value()

    def operand(self) -> Node:
        token = self.take("node", "a node")
        found = self.nodes.get(token[1])
        if found is None:
            self.fail(f"{token[1]} is not defined above", token)
        return found

    def location(self, comment: str) -> Location:
        """The lines in a comment; a comment that lists none is just a comment."""
        lines = []
        at = 0
        while at < len(comment):
            found = LOCATION.match(comment, at)
            if found is None:
                return ()
            file = found[1]
            lines.append((json.loads(file) if file[0] == '"' else file, int(found[2])))
            at = found.end()
        return tuple(lines)

    # ---- values

    def integer(self) -> int:
        token = self.take("number", "a whole number")
        try:
            return int(token[1])
        except ValueError:
            self.fail(f"{token[1]} is not a whole number", token)

    def size(self) -> Any:
        return self.integer() if self.tokens[self.position][0] == "number" else self.value()

    def value(self) -> Any:
        kind, text, _ = token = self.tokens[self.position]
        self.position += 1
        if kind == "number":
            return int(text) if text.lstrip("-").isdigit() else float(text)
        if kind == "string":
            try:
                return json.loads(text)
            except ValueError as error:
                self.fail(str(error), token)
        if text == "(":
            return tuple(self.listed(")", self.value))
        if kind == "body":
            if text in self.bodies:
                return self.bodies[text]
            self.fail(f"{text} is not defined above", token)
        if kind == "name":
            if text == "complex":
                self.expect("(")
                parts = list(self.listed(")", self.value))
                if len(parts) == 2 and all(isinstance(part, (int, float)) for part in parts):
                    return complex(*parts)
                self.fail("complex(real, imaginary) takes two numbers", token)
            for known in ({"True": True, "False": False, "None": None}, DTYPES, self.dims):
                if text in known:
                    return known[text]
        self.position -= 1
        self.fail(f"expected a value, found {text or 'the end of the line'}")
