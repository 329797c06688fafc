// Labels and truth of an image: what they are called, how good they are, how they are drawn.

let ranking = "prob";

/** How good a score is, from 0 to 1: a probability is that already; perplexities and distances are best low. */
function goodness(score) {
  if (score === undefined) return 0;
  if (ranking === "ppl") return 1 / Math.max(1, score);
  return Math.min(1, Math.max(0, ranking === "sim" ? 1 - score : score));
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

/** The share of an image's truth that is listed; null without truth. */
function recallOf(image) {
  return image.truth ? 1 - missedNames(image).length / image.truth.length : null;
}

/** Names that a run lists and the other does not, both ways; an image that not both have labelled has none. */
function changesOf(image) {
  if (!image.other || image.rejected) return { gained: [], lost: [] };
  const names = (labels) => new Set(labels.filter((label) => !label.is_denied).map(nameOf));
  const [mine, others] = [names(labelsOf(image)), names(image.other)];
  return {
    gained: [...mine].filter((name) => !others.has(name)),
    lost: [...others].filter((name) => !mine.has(name)),
  };
}

function bar(share) {
  const filled = element("span", { class: "bar-filled" });
  filled.style.width = `${(share * 100).toFixed(1)}%`;
  return element("span", { class: "bar" }, filled);
}

const CHANGE_MARKS = { gained: ["+", "gained"], lost: ["\u2212", "lost"] };

/** A label as a line with its score and a bar. */
function labelRow(label, change = null) {
  const marks = [label.is_hit && ["\u2713", "true"], CHANGE_MARKS[change]].filter(Boolean);
  const [sign, spoken] = [0, 1].map((part) => marks.map((mark) => mark[part]).join(part ? ", " : " "));
  return element(
    "li",
    { class: `bar-row${label.is_hit ? " is-hit" : ""}${change ? ` is-${change}` : ""}` },
    element("span", { class: "bar-text", dir: "auto" }, label.label),
    sign && element("span", { class: "mark", role: "img", "aria-label": spoken }, sign),
    element("span", { class: "bar-score" }, label.score === undefined ? "" : formatScore(label.score)),
    bar(goodness(label.score)),
  );
}
