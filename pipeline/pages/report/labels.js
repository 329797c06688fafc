// Labels and truth of an image: what they are called, how good they are, how they are drawn.

/** What the run's labels are ordered by. */
let ranking = "prob";
/** The run that it is held against: its name, its ranking, and of how many names of each run (k); null without one. */
let compared = null;

/** How good a score is, from 0 to 1: a probability is that already; perplexities and distances are best low. */
function goodness(score, scoredBy) {
  if (score === undefined) return 0;
  if (scoredBy === "ppl") return 1 / Math.max(1, score);
  return Math.min(1, Math.max(0, scoredBy === "sim" ? 1 - score : score));
}

function isLowestFirst() {
  return ranking === "ppl" || ranking === "sim";
}

function reaches(score, limit) {
  return score !== undefined && (isLowestFirst() ? score <= limit : score >= limit);
}

function nameOf(label) {
  return label.name ?? label.label;
}

function labelsOf(image) {
  return image.labels ?? [];
}

function missedNames(image) {
  return (image.truth ?? []).filter((name) => name.rank === undefined).map((name) => name.name);
}

/** How many true names are not listed, those that the page leaves out included. */
function numberMissed(image) {
  return missedNames(image).length + (image.moreMissed ?? 0);
}

/** The share of an image's truth that is listed; null without truth. */
function recallOf(image) {
  return image.truth ? 1 - numberMissed(image) / (image.truth.length + (image.moreTruth ?? 0)) : null;
}

/** Names among the first of a run that are not among those of the other, both ways; of images that both have labelled. */
function changesOf(image) {
  if (!image.other || image.rejected) return { gained: [], lost: [] };
  const [mine, others] = [firstNames(labelsOf(image)), firstNames(image.other)];
  return {
    gained: mine.filter((name) => !others.includes(name)),
    lost: others.filter((name) => !mine.includes(name)),
  };
}

/** The first names of a run. Those that are left out in front of a label take their places all the same. */
function firstNames(labels) {
  const names = new Set();
  for (const label of labels) {
    if (!label.is_denied && names.size + (label.left_out ?? 0) < compared.k) names.add(nameOf(label));
  }
  return [...names];
}

function bar(share) {
  const filled = element("span", { class: "bar-filled" });
  filled.style.width = `${(share * 100).toFixed(1)}%`;
  return element("span", { class: "bar" }, filled);
}

const CHANGE_MARKS = { gained: ["+", "gained"], lost: ["\u2212", "lost"] };

/** A label as a line with its score and a bar, by the ranking of its run. */
function labelRow(label, scoredBy, change, square) {
  const marks = [label.is_hit && ["\u2713", "true"], CHANGE_MARKS[change]].filter(Boolean);
  const [sign, spoken] = [0, 1].map((part) => marks.map((mark) => mark[part]).join(part ? ", " : " "));
  return element(
    "li",
    { class: `bar-row${label.is_hit ? " is-hit" : ""}${change ? ` is-${change}` : ""}` },
    element(
      "span",
      { class: "bar-text", dir: "auto" },
      label.label,
      square ? element("span", { class: "quiet square" }, square) : null,
    ),
    sign && element("span", { class: "mark", role: "img", "aria-label": spoken }, sign),
    element("span", { class: "bar-score" }, label.score === undefined ? "" : formatScore(label.score)),
    bar(goodness(label.score, scoredBy)),
  );
}
