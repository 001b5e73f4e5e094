"""The style and the script of the HTML report: plain CSS and JavaScript, nothing from elsewhere."""

from __future__ import annotations

STYLE = """\
:root{color-scheme:light}
body{font:14px/1.45 system-ui,sans-serif;color:#1d2430;margin:0 auto;padding:1.2em 2em;
 max-width:120em}
h1{font-size:1.5em}h2{font-size:1.25em;margin-top:2em;border-top:1px solid #d5dbe5;padding-top:1em}
h3{font-size:1.05em;margin-top:1.6em}
a{color:#2d4f7c}
code,pre,td.n,.lines{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:12px}
table{border-collapse:collapse;margin:.8em 0}
th,td{padding:.2em .8em;border-bottom:1px solid #e3e8ef;text-align:left}
td.n,th.n{text-align:right}
pre{margin:0;background:#f7f9fb;border:1px solid #e3e8ef;padding:.5em;overflow:auto}
details{margin:.6em 0}summary{cursor:pointer;font-weight:600}
.scroll{overflow:auto;border:1px solid #e3e8ef;max-height:80vh;background:#fff}
.columns{content-visibility:auto;contain-intrinsic-size:auto 65vh;display:grid;
 grid-template-columns:minmax(0,1fr) minmax(0,1.3fr) minmax(0,1fr);gap:.6em}
.columns h4{margin:.3em 0}.columns pre{height:60vh}
.l{display:block;min-height:1.3em;white-space:pre}
.l[data-o],.l[data-l]{cursor:pointer}
.on{background:#ffe9a8}.add{color:#1c6b2a}.del{color:#a02222}.at{color:#6a4fa3}
"""

SCRIPT = """\
function partners(line) {
  const kernel = line.closest('.columns'), origin = line.dataset.o, number = line.dataset.l;
  return [...kernel.querySelectorAll('.l')].filter(other => {
    if (number && other.dataset.l) return other.dataset.l === number;
    return origin && other.dataset.o === origin;
  });
}
document.addEventListener('click', event => {
  const line = event.target.closest('.columns .l');
  if (!line) return;
  document.querySelectorAll('.on').forEach(other => other.classList.remove('on'));
  const seen = new Set([line.parentNode]);
  for (const other of partners(line)) {
    other.classList.add('on');
    const column = other.parentNode;
    if (!seen.has(column)) {
      seen.add(column);
      column.scrollTop = other.offsetTop - column.offsetTop - column.clientHeight / 3;
    }
  }
});
"""
