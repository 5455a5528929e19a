"use strict";
(() => {
  const read = (id) => { const at = document.getElementById(`data-${id}`); return at ? JSON.parse(at.textContent) : null; };
  const make = (name, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(name), properties);
    node.append(...children);
    return node;
  };
  const marks = read("marks");
  const markOf = (series) => {
    const known = marks[series];
    if (!known) return "";
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "mark");
    svg.setAttribute("viewBox", "0 0 16 16");
    const path = document.createElementNS(svg.namespaceURI, "path");
    path.setAttribute("d", known.shape);
    path.setAttribute("fill", `var(--series-${known.index})`);
    svg.append(path);
    return svg;
  };

  // Charts: one theme for light, one for dark; the legend switches series off in all panels of its figure.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const themes = read("themes");
  const views = new Map();
  const hiddenIn = (figure) => [...figure.querySelectorAll('.legend [aria-pressed="false"]')].map((button) => button.dataset.series);
  const draw = async () => {
    for (const chart of document.querySelectorAll(".chart")) {
      const spec = JSON.parse(chart.dataset.spec ??= chart.querySelector("script").textContent);
      const mode = dark.matches ? "dark" : "light";
      const result = await vegaEmbed(chart, spec, { actions: false, renderer: "svg", config: themes[mode], tooltip: { theme: mode } });
      views.set(chart, result.view);
      await result.view.signal("hidden", hiddenIn(chart.closest("figure"))).runAsync();
    }
  };
  if (window.vegaEmbed) {
    draw();
    dark.addEventListener("change", draw);
  }
  for (const button of document.querySelectorAll("figure .legend button")) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
      const figure = button.closest("figure");
      for (const chart of figure.querySelectorAll(".chart")) views.get(chart)?.signal("hidden", hiddenIn(figure)).runAsync();
    });
  }

  // Tables: sorted by a click on a heading, shadowed where there is more to the right.
  const worth = (cell) => (cell.dataset.sort === undefined ? null : Number(cell.dataset.sort));
  for (const heading of document.querySelectorAll("thead th")) {
    heading.firstElementChild.addEventListener("click", () => {
      const table = heading.closest("table");
      const body = table.tBodies[0];
      const down = heading.getAttribute("aria-sort") !== "descending";
      const key = (row) => { const cell = row.cells[heading.cellIndex]; return [worth(cell), cell.textContent.trim()]; };
      const rows = [...body.rows].sort((a, b) => {
        const [[x, p], [y, q]] = [key(a), key(b)];
        if (x === null && y === null) return p === q ? 0 : !p ? 1 : !q ? -1 : (down ? -1 : 1) * q.localeCompare(p);
        return x === null ? 1 : y === null ? -1 : down ? y - x : x - y;
      });
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows);
    });
  }
  const shade = (box) => {
    const more = box.scrollWidth - box.clientWidth;
    box.parentElement.classList.toggle("scrolls", more > 4);
    box.parentElement.classList.toggle("more", more - box.scrollLeft > 4);
  };
  const boxes = [...document.querySelectorAll(".scroll")];
  const watch = new ResizeObserver((entries) => entries.forEach((entry) => shade(entry.target)));
  for (const box of boxes) {
    box.addEventListener("scroll", () => shade(box), { passive: true });
    watch.observe(box);
  }
  const open = () => document.getElementById(location.hash.slice(1))?.querySelector(":scope > .folded")?.setAttribute("open", "");
  addEventListener("hashchange", open);
  open();
  addEventListener("beforeprint", () => document.querySelectorAll(".card details").forEach((one) => { one.open = true; }));

  // Completions: filtered problems, the chosen models side by side.
  const data = read("completions");
  if (!data) return;
  const at = (id) => document.getElementById(id);
  const step = 10;
  let shown = step;
  const shares = (cell) => cell.some((group) => group.verdict === "right");
  const filters = {
    "all problems": () => true,
    "models differ": (cells) => new Set(cells.filter((cell) => cell.length).map(shares)).size > 1,
    "right by every model": (cells) => cells.every(shares),
    "right by none": (cells) => !cells.some(shares),
    "without a readable answer": (cells) => cells.flat().some((group) => group.verdict === "no answer"),
  };
  const tasks = ["all tasks", ...new Set(data.problems.map((problem) => problem.task))];
  at("task").append(...tasks.map((name) => make("option", { textContent: name.replaceAll("_", " "), value: name })));
  at("verdict").append(...Object.keys(filters).map((name) => make("option", { textContent: name, value: name })));
  const all = data.columns.map((column, place) => place);
  const final = all.filter((place) => data.columns[place].last);
  const first = new Set((final.length ? final : all).slice(0, 3));
  const buttons = data.columns.map((column, place) => {
    const button = make("button", { type: "button" }, markOf(column.series), column.label);
    button.setAttribute("aria-pressed", first.has(place));
    button.addEventListener("click", () => { button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true"); list(); });
    return button;
  });
  at("columns").append(...buttons);
  const tones = { right: "good", wrong: "none", "no answer": "warn", "not graded": "none" };
  const answer = (group, total) => {
    const summary = make("summary", {},
      make("span", { className: `chip ${tones[group.verdict]}`, textContent: group.verdict }),
      make("code", { textContent: group.answer || "(empty)" }),
      make("span", { className: "times", textContent: `${group.count} of ${total}` }));
    return make("details", { className: "answer" }, summary,
      ...(group.reason ? [make("p", { className: "note", textContent: group.reason })] : []),
      ...group.texts.map((text) => make("pre", { textContent: text })));
  };
  const card = (problem, places) => make("article", { className: "problem" },
    make("div", { className: "about", textContent: `${problem.task.replaceAll("_", " ")} · ${problem.id}${problem.answer ? ` · reference answer: ${problem.answer}` : ""}` }),
    make("p", { className: "question", textContent: problem.question }),
    make("div", { className: "answers" }, ...places.map((place) => {
      const groups = problem.cells[place];
      const total = groups.reduce((sum, group) => sum + group.count, 0);
      const column = data.columns[place];
      return make("div", {}, make("h4", {}, markOf(column.series), column.label),
        ...(groups.length ? groups.map((group) => answer(group, total)) : [make("p", { className: "note", textContent: "no texts" })]));
    })));
  const list = () => {
    const places = buttons.flatMap((button, place) => (button.getAttribute("aria-pressed") === "true" ? [place] : []));
    const words = at("find").value.trim().toLowerCase();
    const fits = (problem) => {
      const cells = places.map((place) => problem.cells[place]);
      const groups = cells.flat();
      return (at("task").value === "all tasks" || problem.task === at("task").value) && filters[at("verdict").value](cells)
        && (!words || [problem.id, problem.question, problem.answer, ...groups.flatMap((group) => [group.answer, ...group.texts])].join("\n").toLowerCase().includes(words));
    };
    const matching = data.problems.filter(fits);
    at("count").textContent = `${matching.length} of ${data.problems.length} problems`;
    at("problems").replaceChildren(...matching.slice(0, shown).map((problem) => card(problem, places)));
    at("more").hidden = matching.length <= shown;
  };
  for (const id of ["find", "task", "verdict"]) at(id).addEventListener("input", () => { shown = step; list(); });
  at("more").addEventListener("click", () => { shown += step; list(); });
  list();
})();
