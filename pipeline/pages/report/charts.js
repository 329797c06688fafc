// Charts by Plot, each with its numbers as a table, its SQL and its command.

const CHART_HEIGHT_PX = 300;
const ROW_PX = 20;
const MAX_TABLE_ROWS = 500;

const drawings = {
  labels: (rows, width) => bars(rows, width, "images", "name"),
  changed_names: (rows, width) => {
    const shown = rows.slice(0, 30);
    const both = shown.flatMap((row) => [
      { ...row, images: row.gained, what: "gained" },
      { ...row, images: -row.lost, what: "lost" },
    ]);
    const ticks = wholeTicks(...d3.extent([0, ...both.map((row) => row.images)]));
    return Plot.plot({
      ...frameOf(width, shown),
      x: { grid: true, label: "images: lost, gained", ticks, tickFormat: (n) => d3.format("~s")(Math.abs(n)) },
      y: { label: null, domain: shown.map((row) => row.name), tickFormat: shortenedFor(nameWidth(width)) },
      color: { domain: ["gained", "lost"], range: ["var(--hit)", "var(--miss)"] },
      marks: [Plot.barX(both, { x: "images", y: "name", fill: "what", tip: true }), Plot.ruleX([0])],
    });
  },
  rejects: (rows, width) =>
    bars(
      rows.map((row) => ({ ...row, class: `${row.stage}: ${row.error}` })),
      width,
      "samples",
      "class",
      // "stage: error" is longer than most labels, and its end tells them apart.
      Math.min(220, 0.55 * width),
    ),
  scores: (rows, width) => {
    const step = rows.length > 1 ? Math.min(...rows.slice(1).map((row, i) => row.score_from - rows[i].score_from)) : 0.05;
    const series = rows.flatMap((row) =>
      ["best_labels", "all_labels"].map((what) => ({
        from: row.score_from,
        to: row.score_from + step,
        labels: row[what],
        what: what.replace("_", " "),
      })),
    );
    return Plot.plot({
      ...sizeOf(width),
      x: { label: "score", ticks: width < 500 ? 3 : 5 },
      y: { ...countAxis("labels, on a square root scale", rows.map((row) => row.all_labels)), type: "sqrt" },
      fx: { label: null, domain: ["best labels", "all labels"], padding: 0.15 },
      marks: [
        Plot.rectY(series, { x1: "from", x2: "to", y: "labels", fx: "what", fill: "var(--bar)", inset: 0.5, tip: true }),
        Plot.ruleY([0]),
      ],
    });
  },
  labels_each: (rows, width) => {
    const most = Math.max(...rows.map((row) => row.n_labels));
    return Plot.plot({
      ...sizeOf(width),
      x: { label: "labels", domain: [-0.5, most + 0.5], ticks: wholeTicks(0, most), tickFormat: "d" },
      y: countAxis("images", rows.map((row) => row.images)),
      marks: [
        Plot.rectY(rows, {
          x1: (row) => row.n_labels - 0.5,
          x2: (row) => row.n_labels + 0.5,
          y: "images",
          fill: "var(--bar)",
          inset: 0.5,
          channels: { labels: "n_labels" },
          tip: { format: { x: false } },
        }),
        Plot.ruleY([0]),
      ],
    });
  },
  jobs: (rows, width) => {
    const spans = rows.map((row) => {
      const from = new Date(row.started);
      return { ...row, from, to: new Date(from.getTime() + 1000 * row.seconds) };
    });
    return Plot.plot({
      ...sizeOf(width),
      x: { type: "utc", label: "time (UTC)" },
      y: { grid: true, label: "images/s", zero: true },
      marks: [
        Plot.ruleY(spans, { x1: "from", x2: "to", y: "images_per_s", stroke: "var(--bar)", strokeWidth: 4 }),
        Plot.dot(spans, { x: "from", y: "images_per_s", fill: "var(--bar)", channels: { images: "n_images" }, tip: true }),
        Plot.ruleY([0]),
      ],
    });
  },
  recall: (rows, width) =>
    Plot.plot({
      ...sizeOf(width),
      x: { label: "k", type: "log", ticks: rows.map((row) => row.k).filter((k, i, all) => all.indexOf(k) === i), tickFormat: "d" },
      y: { grid: true, label: null, domain: [0, 1] },
      color: { legend: true, range: ["#4269d0", "#b65c00", "#7f7f7f", "#1a8a5a"], tickFormat: shownMeasure },
      marks: [
        Plot.areaY(rows, { x: "k", y1: "low", y2: "high", fill: "measure", fillOpacity: 0.2 }),
        Plot.lineY(rows, { x: "k", y: "value", stroke: "measure" }),
        Plot.dot(rows, { x: "k", y: "value", fill: "measure", r: 3, tip: true }),
      ],
    }),
  names: (rows, width) =>
    Plot.plot({
      ...sizeOf(width),
      x: { label: "support, images", type: "log", tickFormat: "~s" },
      y: { grid: true, label: "recall", domain: [0, 1] },
      marks: [
        Plot.dot(rows, {
          x: "truths",
          y: "recall",
          fill: "var(--bar)",
          fillOpacity: 0.5,
          r: 3,
          channels: { name: "name" },
          tip: true,
        }),
      ],
    }),
  calibration: (rows, width) =>
    Plot.plot({
      ...sizeOf(width),
      x: { label: "mean score", domain: [0, 1] },
      y: { grid: true, label: "share that is true", domain: [0, 1] },
      r: { range: [3, 12] },
      marks: [
        Plot.line([[0, 0], [1, 1]], { strokeDasharray: "4,4", strokeOpacity: 0.6 }),
        Plot.line(rows, { x: "mean_score", y: "hit_share", stroke: "var(--bar)" }),
        Plot.dot(rows, { x: "mean_score", y: "hit_share", r: "n_listed", fill: "var(--bar)", tip: true }),
      ],
    }),
  differences: (rows, width) =>
    Plot.plot({
      ...frameOf(width, rows),
      x: { grid: true, label: "difference" },
      y: { label: null, tickFormat: shownMeasure },
      marks: [
        Plot.ruleX([0]),
        Plot.ruleY(rows, { x1: "low", x2: "high", y: "measure", stroke: "var(--bar)", strokeWidth: 3 }),
        Plot.dot(rows, { x: "difference", y: "measure", fill: "var(--text)", tip: true }),
      ],
    }),
};

/** Rows that a drawing leaves out, though the table has them. */
const isDrawn = {
  // Where a job labelled nothing there is no rate.
  jobs: (row) => row.images_per_s,
};

/** Numbers of images or labels as bars. */
function bars(rows, width, value, name, margin = nameWidth(width)) {
  return Plot.plot({
    ...frameOf(width, rows, margin),
    x: countAxis(value, rows.map((row) => row[value])),
    y: { label: null, domain: rows.map((row) => row[name]), tickFormat: shortenedFor(margin) },
    marks: [Plot.barX(rows, { x: value, y: name, fill: "var(--bar)", tip: true }), Plot.ruleX([0])],
  });
}

/** Ticks at whole numbers. */
function wholeTicks(lowest, highest) {
  return d3.ticks(lowest, highest, 5).filter(Number.isInteger);
}

/** Scale of numbers of images or labels. */
function countAxis(label, counts) {
  return { grid: true, label, ticks: wholeTicks(0, Math.max(...counts)), tickFormat: "~s" };
}

const MARGINS = { marginTop: 28, marginBottom: 46 };

function sizeOf(width) {
  return { ...MARGINS, width, height: CHART_HEIGHT_PX, marginLeft: 48 };
}

/** Size of a chart with a line a row, whose names stand at the left. */
function frameOf(width, rows, marginLeft = nameWidth(width)) {
  const height = rows.length * ROW_PX + MARGINS.marginTop + MARGINS.marginBottom;
  return { ...MARGINS, width, height, marginLeft };
}

function nameWidth(width) {
  return Math.min(160, width / 3);
}

/** Cuts names to what goes into a margin. */
function shortenedFor(margin) {
  const n = Math.floor(margin / 7.5);
  return (text) => (text.length > n ? `${text.slice(0, n - 1)}\u2026` : text);
}

function shownMeasure(measure) {
  return measure.replace("_macro", "");
}

/** Draws charts when they come into sight, and again when their width changes. */
function showCharts(charts) {
  const holder = document.getElementById("charts");
  const observer = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      const width = Math.floor(contentRect.width);
      if (width && target.drawnWidth !== width) {
        target.drawnWidth = width;
        target.replaceChildren(target.draw(width));
      }
    }
  });
  for (const chart of charts) {
    const figure = chartFigure(chart);
    holder.append(figure);
    const plot = figure.querySelector(".plot");
    if (plot) observer.observe(plot);
  }
}

function chartFigure(chart) {
  const rows = chart.rows.map((row) => Object.fromEntries(chart.columns.map((column, i) => [column, row[i]])));
  const drawn = rows.filter(isDrawn[chart.id] ?? (() => true));
  const title = `chart-${chart.id}`;
  const plot = element("div", { class: "plot", role: "img", "aria-labelledby": title });
  plot.draw = (width) => {
    const drawing = drawings[chart.id](drawn, width);
    // As a whole it is an image, whose numbers stand beside it: the names that Plot gives to its groups are for nobody.
    drawing.setAttribute("aria-hidden", "true");
    return drawing;
  };
  return element(
    "article",
    { class: "chart" },
    element("h3", { id: title }, chart.title),
    chart.note && element("p", { class: "quiet" }, chart.note),
    drawn.length ? plot : element("p", { class: "nothing" }, "None."),
    rows.length ? disclosure("Numbers", () => numbers(chart)) : null,
    disclosure("SQL", () =>
      element(
        "div",
        {},
        chart.is_query ? null : element("p", { class: "quiet" }, "Run by the command below."),
        element("pre", { tabindex: 0 }, chart.sql),
      ),
    ),
    disclosure("Command", () => element("pre", { tabindex: 0 }, chart.command)),
  );
}

/** A part that is made when it is opened. */
function disclosure(title, make) {
  const details = element("details", {}, element("summary", {}, title));
  details.addEventListener("toggle", () => details.append(make()), { once: true });
  return details;
}

/** Four digits, more of what is larger. */
function formatCell(number) {
  return Number.isInteger(number) || Math.abs(number) >= 999.95 ? formatCount(Math.round(number)) : number.toPrecision(4);
}

function numbers(chart) {
  const shown = chart.rows.slice(0, MAX_TABLE_ROWS);
  const cell = (value) => {
    const isNumber = typeof value === "number";
    return element("td", { class: isNumber && "number" }, element("bdi", {}, isNumber ? formatCell(value) : (value ?? "")));
  };
  const table = element(
    "table",
    {},
    element("caption", { class: "visually-hidden" }, chart.title),
    element("thead", {}, element("tr", {}, chart.columns.map((column) => element("th", { scope: "col" }, column)))),
    element("tbody", {}, shown.map((row) => element("tr", {}, row.map(cell)))),
  );
  const rest = chart.rows.length - shown.length;
  return element(
    "div",
    { class: "numbers", tabindex: 0, role: "region", "aria-label": `Numbers: ${chart.title}` },
    table,
    rest ? element("p", { class: "quiet" }, `and ${formatCount(rest)} more rows`) : null,
  );
}
