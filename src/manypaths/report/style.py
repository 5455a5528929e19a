"""The look of report.html: one style sheet, light and dark, no fonts or scripts to fetch."""

CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #57606a; --grey: #868c95; --line: #d9dde3;
  --paper: #ffffff; --tint: #f5f7f9; --visible: #1a7f56; --partly: #2f6fa8; --mixed: #a15c00; --opposite: #a8326b;
  --unclear: #6b727c; --alert: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #a6adb7; --grey: #8f96a0; --line: #343a42; --paper: #14171b; --tint: #1c2026;
    --visible: #4cc38a; --partly: #6cb0ea; --mixed: #e0a04a; --opposite: #ec7fb0; --unclear: #9aa2ad;
    --alert: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.85rem; line-height: 1.2; margin: 0 0 .6rem; text-wrap: balance; }
h2 { font-size: 1.3rem; margin: 3rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { margin: .4rem 0; }
.kicker { color: var(--soft); font-size: .9rem; margin: 0 0 .5rem; }
.lead, .note, .caption { max-width: 46rem; }
.lead { font-size: 1.06rem; }
.note, .caption, .basis { color: var(--soft); font-size: .87rem; }
.claims { display: grid; gap: .9rem; margin-top: 1rem; }
.claim { border: 1px solid var(--line); border-left: 4px solid var(--tone); border-radius: 6px;
  padding: .75rem 1rem .8rem; }
.claim h3 { margin: 0 0 .25rem; display: flex; flex-wrap: wrap; gap: .3rem .7rem; align-items: baseline; }
.claim p { margin: .2rem 0 0; max-width: 58rem; }
.claim p.numbers, .claim p.basis { font-size: .85rem; color: var(--soft); }
.badge { color: var(--tone); font-size: .78rem; font-weight: 650; letter-spacing: .02em; white-space: nowrap; }
.badge::before { content: "\\25CF\\00A0"; }
.visible { --tone: var(--visible); } .partly { --tone: var(--partly); } .unclear { --tone: var(--unclear); }
.mixed { --tone: var(--mixed); } .opposite { --tone: var(--opposite); }
.alert { border: 1px solid var(--alert); border-left: 4px solid var(--alert); border-radius: 6px; margin-top: 1rem;
  padding: .75rem 1rem .8rem; }
.alert h3 { margin: 0; color: var(--alert); } .alert p, .alert li { font-size: .9rem; }
.alert ul { margin: .4rem 0 0; padding-left: 1.2rem; max-height: 14rem; overflow-y: auto; }
figure { margin: 1rem 0 0; max-width: 56rem; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
figure svg { display: block; width: 100%; min-width: 34rem; height: auto; font-family: inherit; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .36rem .42rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { font-weight: 600; color: var(--soft); vertical-align: bottom; border-bottom: 2px solid var(--line);
  white-space: normal; min-width: 4rem; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); font-weight: 500;
  white-space: normal; min-width: 8rem; max-width: 11.5rem; line-height: 1.3; }
tr.baseline th, tr.baseline td { background: var(--tint); }
tr.baseline th { font-weight: 700; }
tr.control th, tr.control td { color: var(--soft); }
tr.control th::after { content: "control"; font-size: .68rem; margin-left: .4rem; padding: 0 .3rem;
  border: 1px solid var(--line); border-radius: 3px; font-weight: 400; }
td small { color: var(--grey); font-size: .78rem; }
td b { font-weight: 700; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .87rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: 1rem; border-top: 1px solid var(--line); padding-top: .7rem; }
summary { cursor: pointer; font-weight: 600; }
@media (max-width: 40rem) { main { padding-top: 1.5rem; } h1 { font-size: 1.45rem; } dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .4rem; } tr.control th::after { content: none; } th, td { padding: .35rem .5rem; } }
@media print { .scroll { overflow: visible; } details > * { display: block; } }
"""
