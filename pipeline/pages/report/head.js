// The head of the page, and the view of what makes the run.

const COUNT_NAMES = {
  n_images: "images",
  n_labelled: "labelled",
  n_rejected: "rejected",
  n_labels: "labels",
  n_shards: "shards",
};

function showHead({ head, compare }) {
  document.getElementById("title").textContent = head.title;
  document.getElementById("run-line").textContent =
    `Run ${head.run}` + (compare ? `, compared with run ${compare.run}` : "") + `: ${head.model} on ${head.source}`;
  const note = document.getElementById("note");
  note.textContent = head.note ?? "";
  note.hidden = !head.note;
  const leftOut = document.getElementById("left-out");
  leftOut.textContent = `${head.leftOut}.`;
  leftOut.hidden = !head.leftOut;
  const tiles = Object.entries(COUNT_NAMES).map(([name, text]) => [text, formatCount(head.counts[name])]);
  if (head.imagesPerSecond !== null) tiles.push(["images/s", formatRate(head.imagesPerSecond)]);
  if (head.cost?.usdPerMillion) tiles.push(["USD a million", formatUsd(head.cost.usdPerMillion)]);
  document.getElementById("tiles").append(
    ...tiles.map(([text, value]) => element("div", {}, element("dt", {}, text), element("dd", {}, value))),
  );
}

function showFacts({ head, gallery, images }) {
  const { counts } = head;
  const adds = counts.n_images === counts.n_labelled + counts.n_rejected;
  const sum =
    `${formatCount(counts.n_images)} = ${formatCount(counts.n_labelled)} labelled + ` +
    `${formatCount(counts.n_rejected)} rejected${adds ? "" : ", which does not add up"}`;
  const shards = new Set(images.map((image) => image.shard)).size;
  const where = gallery.where ? ` that meet ${gallery.where}` : "";
  const facts = {
    Store: head.store,
    Source: head.source,
    "Left out": head.skipped || "nothing",
    Made: head.created,
    Model: `${head.model} (${head.modelFingerprint})`,
    Fingerprint: head.fingerprint,
    Images: sum,
    Unfinished: `${formatCount(counts.n_unfinished)} branches never closed`,
    Jobs: `${formatCount(head.jobs)}, ${formatSeconds(head.seconds)} together`,
    Predicted:
      head.predicted && `${formatSeconds(head.predicted.predicted)} for what took ${formatSeconds(head.predicted.real)}`,
    Workers: describePairs(head.workers),
    Cost: head.cost && describeCost(head.cost),
    Settings: describePairs(head.settings),
    Versions: describePairs(head.versions),
    Vocabulary: head.vocabulary,
    Pictures:
      `${formatCount(images.length)} drawn by seed ${gallery.seed} from ${formatCount(gallery.labelled)} labelled and ` +
      `${formatCount(gallery.rejected)} rejected images${where}; they come from ${formatCount(shards)} shards`,
  };
  const pairs = Object.entries(facts).filter(([, value]) => value);
  document.getElementById("facts").append(
    element("dl", { class: "pairs" }, pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    timeSplit(head.secondsByStage),
  );
}

/** Where the workers' time went, as bars. */
function timeSplit(secondsByStage) {
  const stages = Object.entries(secondsByStage);
  const total = stages.reduce((sum, [, seconds]) => sum + seconds, 0);
  if (!total) return null;
  const rows = stages.map(([stage, seconds]) => {
    const share = seconds / total;
    return element(
      "li",
      { class: "bar-row" },
      element("span", { class: "bar-text" }, stage),
      element("span", { class: "bar-score" }, `${(share * 100).toFixed(0)} %, ${formatSeconds(seconds)}`),
      bar(share),
    );
  });
  return element(
    "section",
    {},
    element("h3", {}, "Where the time went"),
    element("p", { class: "quiet" }, "Busy seconds of all workers together."),
    element("ul", { class: "bars" }, rows),
  );
}

function describePairs(values) {
  return Object.entries(values)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
}

function formatRate(perSecond) {
  // What rounds to three places would get a power of ten.
  return perSecond >= 99.5 ? formatCount(Math.round(perSecond)) : perSecond.toPrecision(2);
}

function describeCost({ usd, usdPerHour }) {
  const price = usdPerHour.toLocaleString("en-US", { maximumFractionDigits: 20 });
  return `${formatUsd(usd)} USD at ${price} USD an hour`;
}

/** Two places, or as many as show what it is. */
function formatUsd(usd) {
  const isSmall = usd !== 0 && usd < 0.1;
  const places = isSmall ? { maximumSignificantDigits: 2 } : { minimumFractionDigits: 2, maximumFractionDigits: 2 };
  return usd.toLocaleString("en-US", places);
}

function formatSeconds(seconds) {
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 })} h`;
}
