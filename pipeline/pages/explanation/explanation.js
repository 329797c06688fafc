const data = takePageData();
const [patchRows, patchColumns] = data.patches;
const patchCount = patchRows * patchColumns;
const stagePixels = 896;
const tilePixels = 192;
const answerName = "before any label";
const mapNames = ["rollout", "mean of all"];
for (let layer = 0; layer < data.layers; layer++) {
  for (let head = 0; head < data.heads; head++) mapNames.push(`layer ${layer} head ${head}`);
}
const answers = data.views.map((seen, view) => ({ ...seen.answer, view, text: null }));
const entries = [...answers, ...data.labels].map((entry) => ({
  ...entry,
  values: Uint8Array.from(atob(entry.maps), (character) => character.charCodeAt(0)),
}));
const palette = makePalette();
const pictures = data.views.map(() => new Image());
const photograph = new Image();
photograph.alt = "";
let chosenEntry = entries[0];
let chosenMap = 0;

/** The colour of each of 256 values, between the anchors of the scale. */
function makePalette() {
  const steps = data.colours.length - 1;
  return Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * steps;
    const below = Math.min(Math.floor(place), steps - 1);
    return data.colours[below].map((channel, index) =>
      Math.round(channel + (place - below) * (data.colours[below + 1][index] - channel)),
    );
  });
}

/** A canvas with one pixel a value. */
function drawValues(values, columns, rows) {
  const canvas = element("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  values.forEach((value, place) => pixels.data.set([...palette[value], 255], place * 4));
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function mapValues(entry, map) {
  return entry.values.subarray(map * patchCount, (map + 1) * patchCount);
}

/** The photograph under the colours of a map. */
function paint(canvas, entry, map) {
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.globalAlpha = 1;
  context.drawImage(pictures[entry.view], 0, 0, canvas.width, canvas.height);
  context.globalAlpha = document.getElementById("opacity").value / 100;
  context.drawImage(drawValues(mapValues(entry, map), patchColumns, patchRows), 0, 0, canvas.width, canvas.height);
}

/** The whole photograph with the squares that the model saw. */
function makeOverview() {
  if (data.views.length === 1) return;
  const boxes = data.views.map((seen) => seen.box);
  // Squares reach from end to end.
  const [width, height] = [2, 3].map((side) => Math.max(...boxes.map((box) => box[side])));
  const overview = document.getElementById("overview");
  overview.append(outlined(photograph, width, height, boxes));
  overview.hidden = false;
}

/** Lets the square of the chosen entry stand out. */
function markOverview() {
  if (data.views.length === 1) return;
  const overview = document.getElementById("overview");
  overview.querySelectorAll(".outline").forEach((outline, view) => {
    outline.classList.toggle("is-chosen", view === chosenEntry.view);
  });
  overview.setAttribute("aria-label", `The photograph with its ${data.views.length} squares; shown is ${squareOf(chosenEntry)}`);
}

/** Which square of several an entry is of; empty where there is one. */
function squareOf(entry) {
  return data.views.length === 1 ? "" : `square ${entry.view + 1}`;
}

/** What a map shows, in words. */
function describe(entry, map) {
  const strongest = mapValues(entry, map).indexOf(255);
  const share = `${(100 * entry.shares[map]).toFixed(0)}\u00a0% on the image`;
  if (strongest < 0) return share;
  const row = Math.floor(strongest / patchColumns) + 1;
  const column = (strongest % patchColumns) + 1;
  const most = `${(100 * entry.maxima[map]).toFixed(1)}\u00a0%`;
  return `${share}; most, ${most}, on the patch in row ${row} of ${patchRows}, column ${column} of ${patchColumns}`;
}

function nameOf(entry) {
  return entry.text ?? [answerName, squareOf(entry)].filter(Boolean).join(", ");
}

function paintStage() {
  const stage = document.getElementById("stage");
  paint(stage, chosenEntry, chosenMap);
  const words = `${mapNames[chosenMap]}: ${describe(chosenEntry, chosenMap)}.`;
  stage.setAttribute("aria-label", `Photograph with the attention of ${nameOf(chosenEntry)}, ${words}`);
  document.getElementById("described").replaceChildren(element("strong", {}, element("bdi", {}, nameOf(chosenEntry))), `, ${words}`);
}

function paintTiles() {
  document.querySelectorAll("#maps canvas").forEach((canvas, map) => paint(canvas, chosenEntry, map));
  document.querySelectorAll("#maps .share").forEach((share, map) => {
    share.textContent = `${(100 * chosenEntry.shares[map]).toFixed(0)}\u00a0%`;
  });
}

function paintAll() {
  markOverview();
  paintStage();
  paintTiles();
}

/** A radio button that looks like its content; the browser brings the keyboard along. */
function choice(group, isChosen, choose, ...content) {
  const button = element("input", { type: "radio", name: group, onchange: choose });
  button.checked = isChosen;
  return element("label", { class: "choice" }, button, content);
}

function labelChoice(entry, place) {
  const fill = element("div", { class: "fill" });
  fill.style.width = `${100 * (entry.bar ?? 0)}%`;
  const isLabel = entry.text !== null;
  return choice(
    "label",
    place === 0,
    () => {
      chosenEntry = entry;
      paintAll();
    },
    isLabel
      ? element("span", {}, element("bdi", {}, entry.text), element("span", { class: "quiet square" }, squareOf(entry)))
      : element("span", { class: "quiet" }, nameOf(entry)),
    isLabel ? element("div", { class: "track", "aria-hidden": "true" }, fill) : element("span"),
    element("span", { class: "score" }, isLabel ? formatScore(entry.score) : ""),
  );
}

function mapChoice(name, map) {
  return choice(
    "map",
    map === chosenMap,
    () => {
      chosenMap = map;
      paintStage();
    },
    element("canvas", { width: tilePixels, height: tilePixels, "aria-hidden": "true" }),
    element("span", { class: "caption" }, element("span", {}, name), element("span", { class: "share quiet" })),
  );
}

function start() {
  const boxes = data.views.map(({ box: [left, top, right, bottom] }) => `${left}-${right} x ${top}-${bottom}`);
  document.getElementById("place").textContent = data.place;
  document.getElementById("facts").replaceChildren(
    "Model ",
    element("bdi", {}, data.model),
    data.run === null ? "" : ", run ",
    element("bdi", {}, data.run ?? ""),
    `; ranked by ${data.ranking}; the model saw the pixels ${boxes.join(", ")}`,
  );
  const note = document.getElementById("note");
  note.textContent = data.note ?? "";
  note.hidden = !data.note;
  const stage = document.getElementById("stage");
  stage.width = stage.height = stagePixels;
  const opacity = document.getElementById("opacity");
  opacity.value = 100 * data.opacity;
  opacity.addEventListener("input", paintAll);
  const scale = drawValues(Uint8Array.from({ length: 256 }, (_, value) => value), 256, 1);
  document.getElementById("scale").getContext("2d").drawImage(scale, 0, 0);
  document.getElementById("labels").append(...entries.map(labelChoice));
  document.getElementById("maps").append(...mapNames.map(mapChoice));
  makeOverview();
  paintAll();
}

const sources = [...data.views.map((seen) => seen.picture), ...(data.photograph ? [data.photograph] : [])];
const images = [...pictures, photograph].slice(0, sources.length);
Promise.all(
  images.map((image, place) => {
    image.src = sources[place];
    return image.decode();
  }),
).then(start);
