// Puts the page together.

// A browser takes long for a list of many more.
const MAX_PROPOSED_NAMES = 2000;

function start() {
  const report = takePageData();
  ranking = report.head.settings.ranking;
  compared = report.compare;
  showHead(report);
  showFacts(report);
  const detail = new Detail(report.head.run);
  const gallery = new Gallery(report.images, (at, place) => detail.open(at, place));
  prepareFilters(report, gallery);
  prepareTabs({ "tab-charts": () => showCharts(report.charts) });
}

function prepareFilters(report, gallery) {
  const form = document.getElementById("filters");
  const hasTruth = report.images.some((image) => image.truth);
  document.getElementById("truth-filter").hidden = !hasTruth;
  if (isLowestFirst()) {
    document.getElementById("score-name").textContent = "Score up to";
    form.elements.score.removeAttribute("max");
  }
  const has = { truth: hasTruth, compare: Boolean(report.compare) };
  for (const option of form.querySelectorAll("[data-needs]")) if (!has[option.dataset.needs]) option.remove();
  // What changed is why two runs are compared: it comes first, and again when the filters are cleared.
  if (has.compare) form.elements.order.querySelector('[value="changed"]').defaultSelected = true;
  const shards = [...new Set(report.images.map((image) => image.shard))].sort();
  // One by one: a call takes only so many arguments.
  for (const shard of shards) form.elements.shard.append(element("option", { value: shard }, shard));
  const proposals = document.getElementById("label-names");
  for (const name of frequentNames(report.images)) proposals.append(element("option", { value: name }));
  const apply = () => {
    const values = Object.fromEntries(new FormData(form));
    gallery.filter(values);
    const n = gallery.shown.length;
    document.getElementById("found").textContent =
      n === report.images.length
        ? `${formatCount(n)} images, drawn from ${formatCount(report.gallery.labelled + report.gallery.rejected)}`
        : `${formatCount(n)} of ${formatCount(report.images.length)} images`;
  };
  const more = document.getElementById("more-button");
  more.addEventListener("click", () => more.setAttribute("aria-expanded", more.getAttribute("aria-expanded") !== "true"));
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches?.("input, select, textarea");
    if (event.key === "/" && !isTyping && !document.getElementById("view-images").hidden) {
      event.preventDefault();
      form.elements.text.focus();
    }
  });
  apply();
}

/** The names that stand on most images, in the order of the alphabet. */
function frequentNames(images) {
  const counts = new Map();
  for (const label of images.flatMap(labelsOf)) counts.set(nameOf(label), (counts.get(nameOf(label)) ?? 0) + 1);
  const byCount = [...counts].sort(([, a], [, b]) => b - a).slice(0, MAX_PROPOSED_NAMES);
  return byCount.map(([name]) => name).sort();
}

/** Views by tabs; what a view needs is made when it is first shown. */
function prepareTabs(firstShown) {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const select = (chosen) => {
    for (const tab of tabs) {
      const isChosen = tab === chosen;
      tab.setAttribute("aria-selected", isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !isChosen;
    }
    firstShown[chosen.id]?.();
    delete firstShown[chosen.id];
  };
  for (const tab of tabs) tab.addEventListener("click", () => select(tab));
  document.querySelector('[role="tablist"]').addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    next.focus();
    select(next);
  });
}

addEventListener("DOMContentLoaded", start);
