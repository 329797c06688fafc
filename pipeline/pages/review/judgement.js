// One picture with its labels, and what a person does to them.

const VERDICTS = { yes: ["\u2713", "Yes"], no: ["\u2717", "No"], unsure: ["?", "Unsure"] };

class Judgement {
  /** `changed` is called after each decision, `moved` after each step to another picture. */
  constructor(review, decisions, { changed, moved, say }) {
    Object.assign(this, { review, decisions, changed, moved, say });
    this.place = 0;
    const press = (id, act) => document.getElementById(id).addEventListener("click", act);
    press("before", () => this.go(-1));
    press("after", () => this.go(1));
    press("next-open", () => this.goToOpen());
    press("rest", () => this.refuseRest());
    press("again", () => this.beginAgain());
    document.getElementById("add-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.addTyped();
    });
  }

  get image() {
    return this.review.images[this.place];
  }

  get rows() {
    return [...document.querySelectorAll("#rows > li")];
  }

  show(place) {
    this.place = place;
    const { image } = this;
    const n = this.review.images.length;
    document.getElementById("place").textContent = `Picture ${formatCount(place + 1)} of ${formatCount(n)}`;
    document.getElementById("key").textContent = image.key || "(no key)";
    document.getElementById("frame").replaceChildren(pictureOf(image, `Picture ${place + 1}`));
    document.getElementById("rows").replaceChildren(...image.labels.map((name, number) => this.row(name, number)));
    document.getElementById("missing").value = "";
    this.showAdded();
    // With `disabled` a button would lose the focus, and with it the keys would be gone.
    document.getElementById("before").setAttribute("aria-disabled", place === 0);
    document.getElementById("after").setAttribute("aria-disabled", place === n - 1);
    const open = image.labels.findIndex((name) => !this.decisions.verdictOf(image, name));
    this.mark(open < 0 ? image.labels.length : open);
    const after = this.review.images[place + 1];
    // Decoded while this one is looked at.
    if (after) pictureOf(after, "").decode().catch(() => {});
    this.moved();
  }

  /** Shows a picture, and puts the focus to the first label that nobody decided. */
  enter(place) {
    this.show(place);
    const work = document.getElementById("work");
    // On a phone the head would take the room of the labels.
    if (work.getBoundingClientRect().top < 0 || matchMedia("(width < 760px)").matches) work.scrollIntoView();
    this.focusMarked();
  }

  go(step) {
    const place = this.place + step;
    if (place >= 0 && place < this.review.images.length) this.enter(place);
  }

  goToOpen() {
    const n = this.review.images.length;
    for (let step = 1; step <= n; step += 1) {
      const place = (this.place + step) % n;
      if (this.decisions.openNames(this.review.images[place]).length) return this.enter(place);
    }
    this.say("Every label is decided. Save the file.");
  }

  row(name, number) {
    const id = `label-${number}`;
    const buttons = Object.entries(VERDICTS).map(([verdict, [sign, word]]) =>
      element(
        "button",
        { class: `verdict is-${verdict}`, "data-verdict": verdict, onclick: () => this.press(number, verdict) },
        element("span", { "aria-hidden": "true" }, sign),
        element("span", { class: "word" }, word),
      ),
    );
    const made = element(
      "li",
      { class: "row", onfocusin: () => this.mark(number) },
      element("span", { class: "name", id, dir: "auto" }, name),
      element("span", { class: "verdicts", role: "group", "aria-labelledby": id }, buttons),
    );
    this.paint(made, name);
    return made;
  }

  paint(row, name) {
    const verdict = this.decisions.verdictOf(this.image, name);
    row.dataset.decided = verdict ?? "";
    for (const button of row.querySelectorAll("button")) button.setAttribute("aria-pressed", button.dataset.verdict === verdict);
  }

  /** Makes a row the one that keys are about, and the only one that Tab stops at. Behind the last row there is none. */
  mark(number) {
    this.marked = number;
    const { rows } = this;
    rows.forEach((row, at) => {
      row.classList.toggle("is-marked", at === number);
      const isStop = at === Math.min(number, rows.length - 1);
      for (const button of row.querySelectorAll("button")) button.tabIndex = isStop ? 0 : -1;
    });
  }

  focusMarked() {
    this.focus(this.rows[this.marked]?.querySelector("button") ?? document.getElementById("after"));
  }

  focus(target) {
    target.focus({ preventScroll: true });
    target.closest("li")?.scrollIntoView({ block: "nearest" });
  }

  /** A button was pressed: what it says is decided, or taken back where it was so already. */
  press(number, verdict) {
    const name = this.image.labels[number];
    const isSame = this.decisions.verdictOf(this.image, name) === verdict;
    this.decide(number, isSame ? null : verdict);
    if (!isSame) this.step(number);
  }

  decide(number, verdict) {
    const name = this.image.labels[number];
    this.decisions.decide(this.image, name, verdict);
    this.paint(this.rows[number], name);
    this.say(verdict === null ? `${name}: open again` : `${name}: ${verdict}`);
    this.changed();
  }

  /** On to the next label; behind the last one to the next picture's button. */
  step(number) {
    this.mark(number + 1);
    this.focusMarked();
  }

  walk(step) {
    const { rows } = this;
    const column = document.activeElement.dataset.verdict ?? "yes";
    // From elsewhere an arrow leads back to the marked label.
    const number = document.activeElement.closest("#rows") ? this.marked + step : Math.min(this.marked, rows.length - 1);
    if (rows[number]) this.focus(rows[number].querySelector(`[data-verdict="${column}"]`));
  }

  refuseRest() {
    for (const name of this.decisions.openNames(this.image)) this.decisions.decide(this.image, name, "no");
    this.repaint();
    this.say("All other labels: no");
    this.step(this.rows.length - 1);
  }

  beginAgain() {
    this.decisions.forget(this.image);
    this.repaint();
    this.say("Nothing is decided on this picture");
    this.step(-1);
  }

  repaint() {
    this.rows.forEach((row, number) => this.paint(row, this.image.labels[number]));
    this.showAdded();
    this.changed();
  }

  addTyped() {
    const field = document.getElementById("missing");
    const name = spelled(field.value);
    field.value = "";
    if (!name) return;
    const number = this.image.labels.findIndex((label) => spelled(label) === name);
    if (number >= 0) this.decide(number, "yes");
    else {
      this.decisions.decide(this.image, name, "added");
      this.say(`${name}: added`);
    }
    this.showAdded();
    this.changed();
  }

  showAdded() {
    const rows = this.decisions.addedTo(this.image).map((name) =>
      element(
        "li",
        { class: "row", "data-decided": "added" },
        element("span", { class: "name", dir: "auto" }, name),
        element("button", { "aria-label": `Take ${name} out`, onclick: () => this.takeOut(name) }, "Take out"),
      ),
    );
    const list = document.getElementById("added");
    list.replaceChildren(...rows);
    list.hidden = !rows.length;
  }

  takeOut(name) {
    this.decisions.decide(this.image, name, null);
    this.showAdded();
    this.say(`${name}: taken out`);
    this.changed();
    document.getElementById("missing").focus();
  }
}

function pictureOf(image, alt) {
  return element("img", { src: `data:image/webp;base64,${image.picture}`, alt, decoding: "async" });
}
