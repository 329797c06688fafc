// Puts the page together.

const KEYS = [
  ["Y, N, U", "yes, no, unsure; goes on to the next label"],
  ["Backspace", "takes the marked label's verdict back"],
  ["\u2191 \u2193", "another label"],
  ["\u2190 \u2192", "another picture"],
  ["Shift + N", "the rest is wrong"],
  ["A", "add what is missing: Enter adds, Escape leaves"],
  ["G", "next picture with an open label"],
  ["S", "save the file"],
];
// A browser takes long for a list of many more.
const MAX_PROPOSED_NAMES = 2000;

async function start() {
  const review = takePageData();
  await waitForBrowser();
  const decisions = new Decisions(review);
  const say = (text) => (document.getElementById("said").textContent = text);
  const show = () => showProgress(review, decisions);
  const judgement = new Judgement(review, decisions, { changed: show, moved: show, say });
  document.getElementById("sample-line").textContent = `Run ${review.run}, sample ${review.sample}`;
  document.getElementById("keys").append(
    ...KEYS.flatMap(([key, what]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, what)]),
  );
  document.getElementById("names").append(...proposals(review).map((name) => element("option", { value: name })));
  prepareFile(review, decisions, judgement, say);
  prepareKeys(judgement);
  const firstOpen = review.images.findIndex((image) => decisions.openNames(image).length);
  judgement.show(Math.max(0, firstOpen));
  judgement.focusMarked();
}

function showProgress(review, decisions) {
  const n = review.images.reduce((sum, image) => sum + image.labels.length, 0);
  const open = review.images.map((image) => decisions.openNames(image).length);
  const nOpen = open.reduce((sum, count) => sum + count, 0);
  const nAdded = review.images.reduce((sum, image) => sum + decisions.addedTo(image).length, 0);
  const nDone = open.filter((count) => !count).length;
  const bar = document.getElementById("progress");
  bar.max = Math.max(1, n);
  bar.value = n - nOpen;
  document.getElementById("counts").textContent =
    `${formatCount(n - nOpen)} of ${formatCount(n)} labels decided, ` +
    `${formatCount(nDone)} of ${formatCount(review.images.length)} pictures finished` +
    (nAdded ? `, ${formatCount(nAdded)} added` : "");
  const warning = document.getElementById("warning");
  warning.hidden = decisions.isKept;
  warning.textContent = decisions.isKept
    ? ""
    : "This browser keeps nothing of what you decide. Save the file before you close the page; to go on later, open the file.";
}

/** The names of most images, in the order of the alphabet. */
function proposals(review) {
  const counts = new Map();
  for (const name of review.images.flatMap((image) => image.labels)) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .slice(0, MAX_PROPOSED_NAMES)
    .map(([name]) => name)
    .sort();
}

function prepareFile(review, decisions, judgement, say) {
  const reviewer = document.getElementById("reviewer");
  reviewer.value = decisions.reviewer;
  reviewer.addEventListener("input", () => decisions.rename(reviewer.value));
  document.getElementById("save").addEventListener("click", () => saveFile(review, decisions, say));
  const chosen = document.getElementById("chosen-file");
  document.getElementById("open").addEventListener("click", () => chosen.click());
  chosen.addEventListener("change", async () => {
    const [file] = chosen.files;
    chosen.value = "";
    if (!file) return;
    try {
      const n = decisions.takeFile(await file.text());
      reviewer.value = decisions.reviewer;
      judgement.show(judgement.place);
      say(`${formatCount(n)} decisions of ${file.name} are here now`);
    } catch (error) {
      say(error.message);
    }
  });
  addEventListener("beforeunload", (event) => {
    if (!decisions.isKept && !decisions.isSaved) event.preventDefault();
  });
}

function saveFile(review, decisions, say) {
  const n = decisions.all().length;
  if (!n) return say("Nothing is decided yet");
  const who = decisions.reviewer.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
  const name = `${["review", review.sample, who].filter(Boolean).join("-")}.json`;
  const url = URL.createObjectURL(new Blob([decisions.asFile()], { type: "application/json" }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  decisions.isSaved = true;
  say(`${name} holds ${formatCount(n)} decisions; tagstream review import --from page reads it`);
}

/** Keys work where the labels are, and not while somebody types. */
function prepareKeys(judgement) {
  const press = (id) => () => document.getElementById(id).click();
  const decide = (verdict) => () => {
    const number = judgement.marked;
    // Behind the last label none is marked: one key too many must not change it.
    if (!judgement.rows[number]) return;
    judgement.decide(number, verdict);
    if (verdict !== null) judgement.step(number);
  };
  const acts = {
    y: decide("yes"),
    n: decide("no"),
    u: decide("unsure"),
    Backspace: decide(null),
    "shift n": press("rest"),
    a: () => document.getElementById("missing").focus(),
    g: press("next-open"),
    s: press("save"),
    ArrowUp: () => judgement.walk(-1),
    ArrowDown: () => judgement.walk(1),
    ArrowLeft: () => judgement.go(-1),
    ArrowRight: () => judgement.go(1),
  };
  document.getElementById("work").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input")) {
      if (event.key === "Escape") judgement.enter(judgement.place);
      return;
    }
    // Letters by the key: Caps Lock must not make another one of it.
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = acts[event.shiftKey ? `shift ${key}` : key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

addEventListener("DOMContentLoaded", start);
