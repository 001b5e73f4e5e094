"""The HTML report of `lazygrad dump-ir`: one file, no address outside of it, lines that are linked.

Where there is a Chromium (`chromium`, or what LAZYGRAD_TEST_BROWSER names) the page is opened in it
and clicked on; without one those tests are skipped, and structure is checked by html.parser and xml
alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import lazygrad as lg
from lazygrad import debug
from lazygrad.dump.describe import describe_program
from lazygrad.dump.listen import dumped
from lazygrad.dump.options import Options
from lazygrad.dump.picture import overview, picture_of
from lazygrad.dump.report import LARGE_PROGRAM, html_text, linked
from lazygrad_compiler.llvm.compile import assembly, optimize_text
from lazygrad_compiler.loops.kernel import text as loop_text
from lazygrad_compiler.pipeline import Stages, lower
from lazygrad_compiler.target import host
from lazygrad_runtime import store
from tests.lazygrad.processes import STUCK

VOID = {"meta", "br", "link", "img", "input"}
ATTRIBUTES_WITH_ADDRESSES = {"href", "src", "action", "data", "poster", "xlink:href", "srcset"}


class Page(HTMLParser):
    """The elements of a page; every one that is opened must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ATTRIBUTES_WITH_ADDRESSES:
                self.addresses.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def code_of(page: str, kernel: str) -> list:
    """The columns of a kernel, as the page keeps them."""
    (data,) = re.findall(rf'<script [^>]*id="code-{kernel}">(.*?)</script>', page)
    return json.loads(data)


def some_tensors() -> list[lg.Tensor]:
    x, w = lg.rand(24, 32), lg.rand(32, 48, requires_grad=True)
    lg.synchronize() if hasattr(lg, "synchronize") else x.tolist()
    product = lg.tanh(x @ w)
    loss = product.sum()
    return [lg.softmax(product, dim=1), loss, x.cumsum(0), lg.sort(x, dim=1).values]


@pytest.fixture(scope="module")
def page() -> str:
    return lg.dump_ir(some_tensors(), stage="all", print_changed="diff", format="html")


@pytest.fixture(scope="module")
def stages() -> Stages:
    return lower(debug.recorded_graph(some_tensors())[0], host())


# ---- structure


def test_the_page_is_whole_and_its_links_lead_to_places_in_it(page: str, stages: Stages) -> None:
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.addresses and all(address.startswith("#") for address in parsed.addresses)
    assert {address[1:] for address in parsed.addresses} <= set(parsed.ids)
    assert parsed.tags.count("svg") == 2 + len(stages.kernels), "all, as recorded, and each kernel"
    assert not {"link", "img", "iframe", "object"} & set(parsed.tags)


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    """Acceptance: no external address of any kind."""
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page)


def test_the_pictures_are_well_formed(page: str) -> None:
    for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(picture)


def test_each_kernel_has_a_page_with_figures_and_three_columns(page: str, stages: Stages) -> None:
    parsed = Page(page)
    for kernel in stages.kernels:
        assert f"p0-{kernel.name}" in parsed.ids
        assert parsed.addresses.count(f"#p0-{kernel.name}") >= 3, "bar, table, and picture"
        assert page.count(f'<div class="columns" data-code="{kernel.name}">') == 1
        shown = code_of(page, kernel.name)
        assert [title for title, _ in shown] == ["loop IR", "LLVM", "assembly"]
        for (_, lines), column in zip(shown, linked(stages, kernel), strict=True):
            assert [line if isinstance(line, str) else line[0] for line in lines] == [
                line.text for line in column]
            assert [tuple(line[1:]) for line in lines if not isinstance(line, str)] == [
                (line.line, line.origin) for line in column if line.line or line.origin]
    assert page.count("flops per byte") >= len(stages.kernels)
    assert f"{2 * 24 * 32 * 48 + 24 * 48:,}" in page, "matmul and tanh, counted by hand"


def test_code_that_programs_share_is_in_the_page_once() -> None:
    x = lg.tensor([1.0, 2.0, 3.0])
    stages = lower(debug.recorded_graph([lg.exp(x)])[0], host())
    (kernel,) = stages.kernels
    programs = [dumped(stages, Options(stages=("fused",), format="html"), number)
                for number in range(2)]
    shown = html_text([program for program in programs if program])
    assert shown.count(f'data-code="{kernel.name}"') == 2
    assert code_of(shown, kernel.name)


def test_many_kernels_are_plain_boxes_first_and_those_alike_are_one() -> None:
    x, weights = lg.rand(8, 8), [lg.rand(5, 3) for _ in range(6)]
    lg.synchronize()
    results = []
    for _ in range(LARGE_PROGRAM + 1):
        x = lg.cumsum(x, 0)
        results.append(x)
    results += [weight.cumsum(1) for weight in weights]
    program = dumped(lower(debug.recorded_graph(results)[0], host()), Options(stages=("fused",)))
    assert program is not None
    whole = picture_of(program.stages, "fused", program.kernels)
    small = overview(whole)
    assert len(whole.boxes) == LARGE_PROGRAM + 7
    assert len(small.items) == LARGE_PROGRAM + 2, "a chain of the same code is not folded"
    assert [item.lines[0] for item in small.items if "×" in item.lines[0]] == ["scan whole ×6"]
    assert len(small.edges) == LARGE_PROGRAM
    shown = html_text([program])
    parsed = Page(shown)
    assert {address[1:] for address in parsed.addresses} <= set(parsed.ids)
    assert "A box is a kernel (×6: 6 with the same code); " in shown
    assert "the kernels with their operations" in shown
    unfolded = dumped(lower(debug.recorded_graph(results[:LARGE_PROGRAM + 1])[0], host()),
                      Options(stages=("fused",)))
    assert unfolded is not None
    shown = html_text([unfolded])
    assert "A box is a kernel; " in shown and "×" not in shown, "nothing is folded"


def test_kernels_of_loops_say_how_many_steps_they_run() -> None:
    layer, x = lg.nn.LSTM(3, 4), lg.rand(5, 2, 3)
    lg.synchronize()
    program = dumped(lower(debug.recorded_graph([layer(x)[0]])[0], host()),
                     Options(stages=("fused",)))
    assert program is not None
    steps = [kernel["loops"] for kernel in describe_program(program)["kernels"]]
    inside = [loops for loops in steps if loops]
    assert 0 < len(inside) < len(steps)
    assert all(len(loops) == 1 and loops[0]["steps"] == 5 for loops in inside)
    shown = html_text([program])
    rows = re.findall(r"<tr>.*?</tr>", shown)
    assert sum(", in 5 steps of " in row for row in rows) == len(inside)
    assert "written in each step" in shown


# ---- linked lines


def test_linked_columns_show_the_texts_of_the_stages(stages: Stages) -> None:
    for kernel in stages.kernels:
        loop, llvm, machine = linked(stages, kernel)
        assert [line.text for line in loop] == loop_text(kernel.kernel).splitlines()
        assert "\n".join(line.text for line in llvm) + "\n" == kernel.llvm
        plain = assembly(optimize_text(kernel.llvm, stages.target), stages.target)
        assert [line.text for line in machine] == plain.splitlines()


def test_most_instructions_are_linked_and_to_the_right_line(stages: Stages) -> None:
    linked_kinds = set()
    for kernel in stages.kernels:
        loop, llvm, machine = linked(stages, kernel)
        code = [line for line in machine if re.match(r"\t[a-z]", line.text)]
        assert sum(line.line > 0 for line in code) > 0.7 * len(code), kernel.kernel.kind
        origins = {line.origin for line in loop}
        for line in (*llvm, *machine):
            assert not line.origin or line.origin in origins
        for line in machine:
            assert line.line <= len(llvm)
            assert not line.line or llvm[line.line - 1].origin == line.origin
        if kernel.kernel.kind in ("loops", "contraction"):
            linked_kinds.add(kernel.kernel.kind)
            assert sum(bool(line.origin) for line in code) > 0.35 * len(code)
        if kernel.kernel.kind == "contraction":  # a micro-kernel that reads its operands in place
            stored = {line.origin for line in loop if line.origin.startswith("b")}
            assert {"contraction", "%0", "%1", *stored} <= {line.origin for line in code}
    assert linked_kinds == {"loops", "contraction"}


def test_kernels_with_metadata_of_their_own_are_linked() -> None:
    """A large result is stored past the caches, which LLVM is told by metadata."""
    graph = debug.recorded_graph([lg.empty(1 << 24) + 1])[0]
    stages = lower(graph, host())
    (kernel,) = stages.kernels
    assert "!nontemporal" in kernel.llvm
    _, _, machine = linked(stages, kernel)
    assert any(line.line and "vmovnt" in line.text for line in machine) or host().simd_bytes < 32


def test_a_store_and_a_function_lead_to_their_instructions() -> None:
    x = lg.tensor([[1.0, 2.0, 3.0, 4.0]] * 16)
    stages = lower(debug.recorded_graph([lg.exp(x)])[0], host())
    (kernel,) = stages.kernels
    loop, llvm, _ = linked(stages, kernel)
    (store,) = [line for line in loop if line.origin.startswith("b")]
    assert any("store" in line.text for line in llvm if line.origin == store.origin)
    (exponential,) = [line for line in loop if "= exp(" in line.text]
    calls = [line.text for line in llvm if line.origin == exponential.origin]
    assert calls and all("@lg.exp" in call for call in calls)


def test_without_a_dump_nothing_is_noted_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What dumping costs when it is off: no comment is made, no gradient noted, no pass watched."""
    graph, _ = debug.recorded_graph(some_tensors())
    before = lower(graph, host())

    def refused(*arguments: object) -> None:
        raise AssertionError("this is for dumps only")

    monkeypatch.setattr("lazygrad_compiler.llvm.builder.Function.comment", refused)
    monkeypatch.setattr("lazygrad_compiler.autodiff.listing.gradient_text", refused)
    assert [kernel.llvm for kernel in lower(graph, host()).kernels] == [
        kernel.llvm for kernel in before.kernels]
    assert not store.compile_callbacks and before.gradients == ()


# ---- in a browser

BROWSER = os.environ.get("LAZYGRAD_TEST_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

CLICKS = """<script>
const said = [];
let widest = 0;
function go(name) {
  location.hash = name;
  show();
  widest = Math.max(widest, document.documentElement.scrollWidth
    - document.documentElement.clientWidth);
}
for (const link of document.querySelectorAll('a[href]')) {
  const name = link.getAttribute('href').slice(1);
  go(name);
  const target = document.querySelector(':target');
  if (!target || target.id !== name) said.push('lost ' + name);
  else if (!target.getBoundingClientRect().height) said.push('lost: not shown ' + name);
  const shown = [...document.querySelectorAll('.view')].filter(view =>
    view.classList.contains('shown'));
  const here = document.querySelectorAll('nav a.here');
  if (shown.length !== 1 || !here.length) said.push('lost among views ' + name);
}
for (const columns of document.querySelectorAll('.columns')) {
  go(columns.closest('.view').id);
  const [loop, llvm, machine] = columns.querySelectorAll('pre');
  const line = [...loop.children].find(one => one.dataset.o &&
    [...machine.children].some(other => other.dataset.o === one.dataset.o));
  if (!line) { said.push('bare'); continue; }
  line.click();
  said.push([loop, llvm, machine].map(column =>
    [...column.children].filter(one => one.classList.contains('on')).length > 0).join('+'));
  const all = [...document.querySelectorAll('.on')];
  if (all.some(one => one.dataset.o !== line.dataset.o)) said.push('wrong');
  const code = [...machine.children].find(one => one.dataset.l);
  code.click();
  const marked = [...llvm.children].filter(one => one.classList.contains('on'));
  said.push(marked.length === 1 && marked[0].dataset.l === code.dataset.l ? 'back' : 'astray');
}
go('p0');
const wide = widest;
const drawn = document.querySelector('svg.picture');
const picture = drawn.getBoundingClientRect();
const scroller = drawn.closest('.scroll'), buttons = drawn.closest('.pictured');
const press = step => buttons.querySelector(`[data-zoom="${step}"]`).click();
const middle = () => [(scroller.scrollLeft + scroller.clientWidth / 2) / scroller.scrollWidth,
                      (scroller.scrollTop + scroller.clientHeight / 2) / scroller.scrollHeight];
press('fit');
const fitted = drawn.getBoundingClientRect(), room = scroller.getBoundingClientRect();
if (fitted.width > room.width || fitted.height > room.height) said.push('wrong: does not fit');
scroller.style.width = scroller.style.height = '100px';
press('1');
if (Math.abs(drawn.getBoundingClientRect().width - picture.width) > 1) said.push('wrong: size');
scroller.scrollLeft = scroller.scrollWidth * .4;
scroller.scrollTop = scroller.scrollHeight * .5;
const at = middle(), place = scroller.scrollTop;
go('start');
go('p0');
if (!place || scroller.scrollTop !== place) said.push('wrong: the place is lost');
press('0.5');
if (Math.abs(drawn.getBoundingClientRect().width - picture.width / 2) > 1) said.push('wrong: half');
if (middle().some((one, axis) => Math.abs(one - at[axis]) > .02)) said.push('wrong: moved');
document.body.innerHTML = '<p id="found"></p>';
document.getElementById('found').textContent = JSON.stringify(
  {said, wide, drawn: picture.width > 100 && picture.height > 100});
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
def test_the_page_works_in_a_browser(page: str, stages: Stages, tmp_path: Path) -> None:
    """Acceptance: opened from disk without a network, its links and linked lines work."""
    path = tmp_path / "index.html"
    path.write_text(page.replace("</body>", CLICKS), encoding="utf-8")
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--window-size=1500,1000", f"--user-data-dir={tmp_path / 'profile'}",
         "--proxy-server=127.0.0.1:9", path.as_uri()],
        capture_output=True, text=True, timeout=STUCK)
    answer = re.search(r'<p id="found">(.*?)</p>', done.stdout)
    assert answer, done.stdout[-500:] + done.stderr[-500:]
    found = json.loads(answer[1])
    said = found["said"]
    assert not [word for word in said if word.startswith(("lost", "wrong", "astray"))]
    assert said.count("true+true+true") >= 3, said
    assert said.count("back") == said.count("true+true+true")
    assert found["drawn"] and found["wide"] <= 0, "nothing sticks out of the page"
