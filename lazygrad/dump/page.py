"""The style and the script of the HTML report: plain CSS and JavaScript, nothing from elsewhere.

The page has a bar of links on the left and views on the right, one for the overview, each program
and each kernel; the script shows the view that the address names, and writes a kernel's code into
its view when it is first shown.  Without it all views are shown, without code.
"""

from __future__ import annotations

STYLE = """\
:root{color-scheme:light}
body{font:14px/1.45 system-ui,sans-serif;color:#1d2430;margin:0;display:grid;
 grid-template-columns:17em minmax(0,1fr)}
nav{position:sticky;top:0;height:100vh;overflow:auto;box-sizing:border-box;padding:1em;
 background:#f4f6f9;border-right:1px solid #d5dbe5;font-size:13px}
nav ul{list-style:none;margin:.2em 0 .8em;padding-left:.8em}nav>a{font-weight:600}
nav a{display:block;padding:.1em .4em;border-radius:3px;text-decoration:none;overflow:hidden;
 text-overflow:ellipsis;white-space:nowrap}
nav a:hover{background:#e4e9f1}nav a.here{background:#2d4f7c;color:#fff}
main{padding:.4em 1.6em 3em;max-width:130em}
section>section{border-top:1px solid #e3e8ef;margin-top:2em}
.switched .view{display:none}.switched .view.shown{display:block}
.switched .view>.view{border:0;margin:0}
.switched .whole.passed>:not(.view){display:none}.switched .whole.passed{display:block}
h1{font-size:1.5em}h2{font-size:1.25em}h3{font-size:1.15em}
a{color:#2d4f7c}
code,pre,td.n,.lines{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:12px}
table{border-collapse:collapse;margin:.8em 0}
th,td{padding:.2em .8em;border-bottom:1px solid #e3e8ef;text-align:left}
th,td:first-child{white-space:nowrap}
tbody tr:hover{background:#f2f5f9}
td.n,th.n{text-align:right}
td.bar{background:linear-gradient(#c9d8ee,#c9d8ee) left center/var(--share) 70% no-repeat}
pre{margin:0;background:#f7f9fb;border:1px solid #e3e8ef;padding:.5em;overflow:auto}
details{margin:.6em 0}summary{cursor:pointer;font-weight:600}
button{font:inherit;font-size:12px;padding:.1em .7em;margin:.4em .3em .4em 0;cursor:pointer}
.scroll{overflow:auto;border:1px solid #e3e8ef;max-height:80vh;background:#fff}
button.zoom.on{background:#2d4f7c;color:#fff}
.columns{content-visibility:auto;contain-intrinsic-size:auto 65vh;display:grid;
 grid-template-columns:minmax(0,1fr) minmax(0,1.3fr) minmax(0,1fr);gap:.6em}
.columns h4{margin:.3em 0}.columns pre{height:calc(100vh - 17em);min-height:22em;padding:.5em 0}
.l{display:block;tab-size:4;min-height:1.3em;white-space:pre;padding:0 .5em;
 border-left:3px solid transparent; width:max-content;min-width:calc(100% - 1em - 3px)}
.l[data-o]{border-left-color:#b9cbe4}.l[data-o],.l[data-l]{cursor:pointer}
.l[data-o]:hover,.l[data-l]:hover{background:#eaf0f8}
.l.on{background:#ffe9a8}.add{color:#1c6b2a}.del{color:#a02222}.at{color:#6a4fa3}
.told{color:#5b6575}
"""

SCRIPT = """\
function fill(view) {
  for (const columns of view.querySelectorAll(':scope > .columns:empty')) {
    const code = document.getElementById('code-' + columns.dataset.code);
    for (const [title, lines] of JSON.parse(code.textContent)) {
      const column = columns.appendChild(document.createElement('div'));
      column.appendChild(document.createElement('h4')).textContent = title;
      const shown = column.appendChild(document.createElement('pre'));
      for (const line of lines) {
        const [text, number, origin] = Array.isArray(line) ? line : [line, 0, ''];
        const element = shown.appendChild(document.createElement('span'));
        element.className = 'l';
        element.textContent = text;
        if (number) element.dataset.l = number;
        if (origin) element.dataset.o = origin;
      }
    }
  }
}
function show() {
  const name = location.hash.slice(1) || 'start';
  const target = document.getElementById(name) || document.getElementById('start');
  const view = target.closest('.view');
  fill(view);
  const pictures = [...document.querySelectorAll('.scroll')];
  for (const picture of pictures) if (picture.clientWidth)
    picture.dataset.at = picture.scrollLeft + ' ' + picture.scrollTop;
  for (const other of document.querySelectorAll('.view')) {
    other.classList.toggle('shown', other === view);
    other.classList.toggle('passed', other !== view && other.contains(view));
  }
  for (const link of document.querySelectorAll('nav a')) {
    const here = link.getAttribute('href') === '#' + view.id;
    link.classList.toggle('here', here);
    if (here) link.scrollIntoView({block: 'nearest'});
  }
  for (const picture of pictures) if (picture.clientWidth && picture.dataset.at)
    [picture.scrollLeft, picture.scrollTop] = picture.dataset.at.split(' ');
  if (target === view) window.scrollTo(0, 0); else target.scrollIntoView();
}
document.body.classList.add('switched');
window.addEventListener('hashchange', show);
show();
function partners(line) {
  const kernel = line.closest('.columns'), origin = line.dataset.o, number = line.dataset.l;
  return [...kernel.querySelectorAll('.l')].filter(other => {
    if (number && other.dataset.l) return other.dataset.l === number;
    return origin && other.dataset.o === origin;
  });
}
function zoom(button) {
  const pictured = button.parentNode, shown = pictured.querySelector('.scroll');
  const svg = shown.firstElementChild, [, , width, height] = svg.getAttribute('viewBox').split(' ');
  const middle = [(shown.scrollLeft + shown.clientWidth / 2) / shown.scrollWidth,
                  (shown.scrollTop + shown.clientHeight / 2) / shown.scrollHeight];
  const scale = button.dataset.zoom === 'fit'
    ? Math.min(1, shown.clientWidth / width, window.innerHeight * .8 / height)
    : +button.dataset.zoom;
  svg.style.width = width * scale + 'px';
  svg.style.height = height * scale + 'px';
  shown.scrollLeft = middle[0] * shown.scrollWidth - shown.clientWidth / 2;
  shown.scrollTop = middle[1] * shown.scrollHeight - shown.clientHeight / 2;
  for (const other of pictured.querySelectorAll('.zoom'))
    other.classList.toggle('on', other === button);
}
document.addEventListener('click', event => {
  const button = event.target.closest('button.zoom');
  if (button) zoom(button);
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
