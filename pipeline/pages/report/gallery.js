// The images of the page: which are shown, in which order; and a grid that holds only those in sight.

const CARD_HEIGHT_PX = 330;
// What was gained and lost takes two lines more.
const COMPARED_CARD_HEIGHT_PX = 370;
const CARD_MIN_WIDTH_PX = 168;
const CARD_MAX_WIDTH_PX = 240;
const GAP_PX = 12;
const ROWS_BEYOND_SIGHT = 2;
const CARD_LABELS = 4;

class Gallery {
  constructor(images, openDetail) {
    this.images = images;
    this.shown = images;
    this.active = 0;
    this.cards = new Map();
    this.openDetail = openDetail;
    this.cardHeight = compared ? COMPARED_CARD_HEIGHT_PX : CARD_HEIGHT_PX;
    this.grid = document.getElementById("grid");
    this.grid.addEventListener("keydown", (event) => this.walk(event));
    this.texts = new Map(images.map((image) => [image, searchText(image)]));
    this.spellings = new Map();
    for (const label of images.flatMap(labelsOf)) {
      for (const text of [label.label, nameOf(label)]) this.spellings.set(text, spelled(text));
    }
    const draw = () => requestAnimationFrame(() => this.draw());
    addEventListener("scroll", draw, { passive: true });
    addEventListener("resize", draw);
    new ResizeObserver(() => this.layOut()).observe(this.grid);
  }

  /** Shows the images that meet all filters. */
  filter(filters) {
    const wanted = filters.text.toLowerCase().split(/\s+/).filter(Boolean);
    const isWanted = this.labelTest(filters.label);
    this.shown = this.images.filter((image) => {
      const text = this.texts.get(image);
      return wanted.every((word) => text.includes(word)) && meets(image, filters, isWanted);
    });
    const compare = ORDERS[filters.order];
    if (compare) this.shown = this.shown.toSorted(compare);
    this.active = 0;
    this.layOut();
  }

  /** Whether a label has the name that is typed, or one that begins so, as long as there is no such name; null for none. */
  labelTest(typed) {
    const wanted = spelled(typed);
    if (!wanted) return null;
    const isName = new Set(this.spellings.values()).has(wanted);
    return (label) =>
      [label.label, nameOf(label)]
        .map((text) => this.spellings.get(text))
        .some((text) => (isName ? text === wanted : text.startsWith(wanted)));
  }

  layOut() {
    const width = this.grid.clientWidth;
    if (!width) return;
    this.columns = Math.max(1, Math.ceil((width + GAP_PX) / (CARD_MAX_WIDTH_PX + GAP_PX)));
    while (this.columns > 1 && (width + GAP_PX) / this.columns - GAP_PX < CARD_MIN_WIDTH_PX) this.columns -= 1;
    this.cardWidth = (width + GAP_PX) / this.columns - GAP_PX;
    const rows = Math.ceil(this.shown.length / this.columns);
    this.grid.style.height = `${Math.max(0, rows * (this.cardHeight + GAP_PX) - GAP_PX)}px`;
    const hasFocus = this.grid.contains(document.activeElement);
    this.cards.clear();
    this.grid.replaceChildren();
    this.draw();
    if (hasFocus) this.focus(this.active);
  }

  /** Makes the cards that came into sight, and drops those that left it. */
  draw() {
    if (!this.columns) return;
    const top = this.grid.getBoundingClientRect().top;
    const rowHeight = this.cardHeight + GAP_PX;
    const firstRow = Math.floor(-top / rowHeight) - ROWS_BEYOND_SIGHT;
    const lastRow = Math.ceil((innerHeight - top) / rowHeight) + ROWS_BEYOND_SIGHT;
    const first = Math.max(0, firstRow * this.columns);
    const last = Math.min(this.shown.length, lastRow * this.columns);
    for (const [place, card] of this.cards) {
      // The card that has the focus stays, or the focus would be lost.
      if ((place < first || place >= last) && !card.contains(document.activeElement)) {
        card.remove();
        this.cards.delete(place);
      }
    }
    let next = this.grid.firstElementChild;
    for (let place = first; place < last; place += 1) {
      while (next && Number(next.dataset.place) < place) next = next.nextElementSibling;
      if (this.cards.has(place)) continue;
      const card = this.makeCard(place);
      this.grid.insertBefore(card, next);
      this.cards.set(place, card);
    }
  }

  makeCard(place) {
    const image = this.shown[place];
    const [row, column] = [Math.floor(place / this.columns), place % this.columns];
    const button = element(
      "button",
      {
        class: "card-key",
        dir: "auto",
        tabindex: place === this.active ? 0 : -1,
        onclick: () => this.openDetail(this, place),
        onfocus: () => this.activate(place),
      },
      image.key || "(no key)",
    );
    const card = element(
      "div",
      { class: "card", role: "listitem", "aria-posinset": place + 1, "aria-setsize": this.shown.length },
      frame(image),
      button,
      image.rejected ? rejection(image) : cardLabels(image),
    );
    card.dataset.place = place;
    card.style.width = `${this.cardWidth}px`;
    card.style.height = `${this.cardHeight}px`;
    card.style.transform =
      `translate(${column * (this.cardWidth + GAP_PX)}px, ${row * (this.cardHeight + GAP_PX)}px)`;
    return card;
  }

  activate(place) {
    const buttonAt = (at) => this.cards.get(at)?.querySelector("button");
    buttonAt(this.active)?.setAttribute("tabindex", "-1");
    this.active = place;
    buttonAt(place)?.setAttribute("tabindex", "0");
  }

  /** Moves the focus to a card, scrolling to it. */
  focus(place) {
    const row = Math.floor(place / this.columns);
    const top = this.grid.getBoundingClientRect().top + row * (this.cardHeight + GAP_PX);
    // The tabs stay at the top, over what is scrolled.
    const ceiling = document.querySelector(".tabs").offsetHeight + GAP_PX;
    if (top < ceiling) scrollBy(0, top - ceiling);
    else if (top + this.cardHeight > innerHeight) scrollBy(0, top + this.cardHeight + GAP_PX - innerHeight);
    this.draw();
    this.cards.get(place)?.querySelector("button").focus({ preventScroll: true });
    this.draw();
  }

  walk(event) {
    const page = this.columns * Math.max(1, Math.floor(innerHeight / (this.cardHeight + GAP_PX)));
    const last = this.shown.length - 1;
    const target = {
      ArrowRight: this.active + 1,
      ArrowLeft: this.active - 1,
      ArrowDown: this.active + this.columns,
      ArrowUp: this.active - this.columns,
      PageDown: Math.min(last, this.active + page),
      PageUp: Math.max(0, this.active - page),
      Home: 0,
      End: last,
    }[event.key];
    if (target === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (target >= 0 && target <= last) this.focus(target);
  }
}

/** Orders, worst first; equal ones stay as they were. */
const ORDERS = {
  recall: (a, b) =>
    (recallOf(a) ?? 2) - (recallOf(b) ?? 2) || numberMissed(b) - numberMissed(a),
  score: (a, b) => bestGoodness(a) - bestGoodness(b),
  unfinished: (a, b) => (b.unfinished ?? 0) - (a.unfinished ?? 0),
  changed: (a, b) => numberOfChanges(b) - numberOfChanges(a),
};

function bestGoodness(image) {
  // What was rejected has no score, and is not what is looked for here.
  return image.rejected ? 2 : goodness(labelsOf(image)[0]?.score, ranking);
}

function numberOfChanges(image) {
  const { gained, lost } = changesOf(image);
  return gained.length + lost.length;
}

const TRUTH_FILTERS = {
  "": () => true,
  first: (image) => labelsOf(image)[0]?.is_hit,
  hit: (image) => labelsOf(image).some((label) => label.is_hit),
  missed: (image) => numberMissed(image) > 0,
  found: (image) => image.truth && numberMissed(image) === 0,
  none: (image) => !image.truth && !image.rejected,
};

const KIND_FILTERS = {
  "": () => true,
  labelled: (image) => !image.rejected,
  rejected: (image) => image.rejected,
  unfinished: (image) => image.unfinished > 0,
  changed: (image) => numberOfChanges(image) > 0,
};

function meets(image, filters, isWanted) {
  if (filters.shard && image.shard !== filters.shard) return false;
  if (!TRUTH_FILTERS[filters.truth](image) || !KIND_FILTERS[filters.kind](image)) return false;
  if (!isWanted && !filters.score) return true;
  // Among several labels of that name one is enough; without a name it is about the best label.
  const candidates = isWanted ? labelsOf(image).filter(isWanted) : labelsOf(image).slice(0, 1);
  return candidates.some((label) => !filters.score || reaches(label.score, Number(filters.score)));
}

function searchText(image) {
  const words = [image.key, image.caption, image.rejected, image.message];
  for (const label of [...labelsOf(image), ...(image.other ?? [])]) words.push(label.label, label.name);
  for (const name of image.truth ?? []) words.push(name.name);
  return words.filter(Boolean).join("\n").toLowerCase();
}

/** The picture of an image, or why there is none. */
function frame(image) {
  const holder = element("div", { class: "frame" });
  if (image.picture) {
    holder.append(
      element("img", { src: `data:image/webp;base64,${image.picture}`, alt: image.caption ?? "", decoding: "async" }),
    );
  } else {
    holder.append(element("span", { class: "no-picture" }, image.rejected ? "rejected" : (image.problem ?? "no picture")));
  }
  return holder;
}

function rejection(image) {
  return element(
    "div",
    { class: "card-rejection" },
    element("strong", {}, image.rejected),
    element("span", { dir: "auto" }, image.message ?? ""),
  );
}

function cardLabels(image) {
  const { gained, lost } = changesOf(image);
  const missed = missedNames(image);
  const rows = labelsOf(image)
    .slice(0, CARD_LABELS)
    .map((label) => labelRow(label, ranking, gained.includes(nameOf(label)) ? "gained" : null));
  return element(
    "div",
    { class: "card-labels" },
    element("ul", { class: "bars" }, rows.length ? rows : element("li", { class: "quiet" }, "no labels")),
    missed.length ? remark("missed", missed) : null,
    gained.length ? remark("gained", gained) : null,
    lost.length ? remark("lost", lost) : null,
  );
}

function remark(what, names) {
  return element("span", { class: `remark is-${what}` }, `${what}: `, element("bdi", {}, names.join(", ")));
}
