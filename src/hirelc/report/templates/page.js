"use strict";
// Charts are drawn by vega-embed from the descriptions on the page. What is here: theme, views, keyboard, sorting.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const readChart = (name) => {
    const chart = read("data-" + name);
    chart.rows = chart.rows.map((row) => Object.fromEntries(row.map((value, at) => [chart.fields[at], value])));
    return chart;
  };
  const themes = read("themes");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function themed(width) {
    const config = structuredClone(dark.matches ? themes.dark : themes.light);
    if (width < 520) {
      config.axis.labelLimit = 132;
      config.axis.labelFontSize = config.axis.titleFontSize = 11;
      config.legend.columns = 2;
      config.legend.labelLimit = 130;
      config.legend.gradientLength = 140;
    }
    return config;
  }

  async function draw(figure) {
    const place = figure.querySelector(".chart");
    const chart = readChart(figure.dataset.chart);
    const chosen = figure.querySelector("fieldset.views input:checked");
    const { spec } = chart.views[chosen ? Number(chosen.value) : 0];
    place.vega?.finalize();
    const whole = { ...spec, datasets: { rows: chart.rows }, config: themed(place.clientWidth) };
    const actions = { export: true, source: false, compiled: false, editor: false };
    const options = { mode: "vega-lite", renderer: "svg", actions, ast: true, downloadFileName: figure.dataset.chart };
    place.vega = await vegaEmbed(place, whole, options);
    figure.dataset.drawn = "yes";
    walkable(place);
  }

  // One stop of the Tab key per chart; arrow keys go from point to point, and show what a mouse would see.
  function walkable(place) {
    const svg = place.querySelector("svg.marks");
    const marks = () => [...svg.querySelectorAll('[role="graphics-symbol"][aria-label]')].filter((m) => m.localName === "path");
    const light = (mark, kind) => {
      const box = mark.getBoundingClientRect();
      const at = { bubbles: true, clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
      mark.dispatchEvent(new MouseEvent(kind, at));
    };
    const enter = () => {
      if (!svg.querySelector('[tabindex="0"]')) marks()[0]?.setAttribute("tabindex", "0");
    };
    enter();
    // a select box beneath a chart redraws its marks
    new MutationObserver(enter).observe(svg, { childList: true, subtree: true });
    const show = (mark) => requestAnimationFrame(() => light(mark, "pointermove"));  // once the page has scrolled to it
    const hide = (mark) => light(mark, "mouseout");
    svg.addEventListener("focusin", (event) => show(event.target));
    svg.addEventListener("focusout", (event) => hide(event.target));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const all = marks();
      const here = all.indexOf(event.target);
      if (event.key === "Escape") hide(event.target);
      if (here < 0 || (!step && event.key !== "Home" && event.key !== "End")) return;
      event.preventDefault();
      const next = event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : (here + step + all.length) % all.length;
      all[here].setAttribute("tabindex", "-1");
      all[next].setAttribute("tabindex", "0");
      all[next].focus();
    });
  }

  const words = (value) =>
    value === null || value === undefined ? "" : typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : String(value);

  // The table of numbers behind a chart is made when it is asked for: the page holds each number once.
  function tabulate(details) {
    const figure = details.closest("figure");
    const chart = readChart(figure.dataset.chart);
    const place = details.querySelector(".scroll");
    if (place.firstChild) return;
    const table = document.createElement("table");
    table.createCaption().textContent = "Numbers behind: " + figure.querySelector("h3").textContent;
    const head = table.createTHead().insertRow();
    for (const title of Object.keys(chart.columns)) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = title;
      head.append(cell);
    }
    const body = table.createTBody();
    for (const row of chart.rows) {
      const line = body.insertRow();
      for (const field of Object.values(chart.columns)) {
        const cell = line.insertCell();
        cell.textContent = words(row[field]);
        if (typeof row[field] === "number") cell.className = "n";
      }
    }
    place.append(table);
  }

  function sortable(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const key = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
    };
    heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.querySelector("button") && other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const ordered = [...body.rows].sort((a, b) => {
          const [x, y] = [key(a, column), key(b, column)];
          const found = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
          return up ? found : -found;
        });
        body.append(...ordered);
      });
    });
  }

  function copies(button) {
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copies).textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(document.getElementById(button.dataset.copies));
        button.textContent = "Selected: copy with Ctrl+C";
      }
    });
  }

  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const redraw = () => Promise.all(figures.map(draw));
  figures.forEach((figure) => figure.querySelector("fieldset.views")?.addEventListener("change", () => draw(figure)));
  document.querySelectorAll("details.numbers-behind").forEach((d) => d.addEventListener("toggle", () => d.open && tabulate(d)));
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("button.copy").forEach(copies);
  dark.addEventListener("change", redraw);
  let width = innerWidth;
  addEventListener("resize", () => {
    // only where the phone's type begins or ends; in between vega-embed follows by itself
    if ((width < 520) !== (innerWidth < 520)) redraw();
    width = innerWidth;
  });
  redraw().then(() => { document.documentElement.dataset.ready = "yes"; });
})();
