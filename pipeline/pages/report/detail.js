// One image with everything that is known of it.

class Detail {
  constructor(run) {
    this.run = run;
    this.dialog = document.getElementById("detail");
    const press = (id, act) => document.getElementById(id).addEventListener("click", act);
    press("detail-before", () => this.go(-1));
    press("detail-after", () => this.go(1));
    press("detail-close", () => this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) this.go(step);
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    this.dialog.addEventListener("close", () => this.gallery.focus(this.place));
  }

  open(gallery, place) {
    this.gallery = gallery;
    this.show(place);
    if (!this.dialog.open) this.dialog.showModal();
  }

  go(step) {
    const place = this.place + step;
    if (place >= 0 && place < this.gallery.shown.length) this.show(place);
  }

  show(place) {
    this.place = place;
    const image = this.gallery.shown[place];
    document.getElementById("detail-key").textContent = image.key || "(no key)";
    document.getElementById("detail-place").textContent =
      `${formatCount(place + 1)} of ${formatCount(this.gallery.shown.length)}`;
    // With `disabled` a button would lose the focus, and with it the keys would be gone.
    const end = (id, isEnd) => document.getElementById(id).setAttribute("aria-disabled", isEnd);
    end("detail-before", place === 0);
    end("detail-after", place === this.gallery.shown.length - 1);
    const body = document.getElementById("detail-body");
    body.replaceChildren(
      element("div", { class: "detail-picture" }, withSquares(frame(image), image.squares), this.facts(image)),
      element("div", { class: "detail-labels" }, this.lists(image)),
    );
    body.scrollTop = 0;
  }

  facts(image) {
    const size = image.width ? `${image.width} x ${image.height} px` : "";
    const facts = {
      Caption: image.caption && `${image.caption}${image.captionCut ? " ... (cut)" : ""}`,
      Shard: `${image.shard}, sample ${image.index}`,
      Image: [size, image.bytes && `${formatCount(image.bytes)} bytes`].filter(Boolean).join(", "),
      Seen: image.squares && `${image.squares} squares`,
      Id: image.id,
      Unfinished: image.unfinished && `${image.unfinished} branches never closed`,
    };
    const pairs = Object.entries(facts).filter(([, value]) => value);
    return element(
      "dl",
      { class: "pairs" },
      pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", { dir: "auto" }, value)]),
    );
  }

  lists(image) {
    const { gained, lost } = changesOf(image);
    const own = { title: image.other ? this.run : "Labels", ranking, changed: gained, change: "gained", squares: image.squares };
    const other = { title: compared?.run, ranking: compared?.ranking, changed: lost, change: "lost" };
    const isOtherScale = image.other && !image.rejected && compared.ranking !== ranking;
    return [
      element(
        "div",
        { class: "side-by-side" },
        image.rejected ? rejection(image) : this.list(own, labelsOf(image), image),
        image.other ? this.list(other, image.other, image) : null,
      ),
      isOtherScale ? this.note(`Scores by ${ranking} and ${compared.ranking} are not comparable.`) : null,
      image.otherRejected ? this.note(`rejected by ${compared.run}: ${image.otherRejected}`) : null,
      this.truth(image),
    ];
  }

  note(text) {
    return element("p", { class: "quiet" }, text);
  }

  /** Labels of a run; those of its names that the other has not are marked. */
  list(run, labels, image) {
    const rows = labels.map((label) =>
      labelRow(
        label,
        run.ranking,
        run.changed.includes(nameOf(label)) ? run.change : null,
        run.squares && label.view !== undefined ? `square ${label.view + 1}` : "",
      ),
    );
    const isCompared = image.other && !image.rejected;
    return element(
      "section",
      {},
      element(
        "h3",
        {},
        run.title,
        isCompared ? element("span", { class: "quiet" }, `, first ${formatCount(compared.k)} compared`) : null,
      ),
      rows.length ? element("ol", { class: "bars" }, rows) : this.note("none"),
    );
  }

  truth(image) {
    if (!image.truth) return null;
    const items = image.truth.map((name) => {
      const isHit = name.rank !== undefined;
      return element(
        "li",
        { class: isHit ? "is-hit" : "is-missed" },
        element("bdi", {}, name.name),
        isHit ? ` \u2713 rank ${name.rank}` : " \u2717 missed",
      );
    });
    if (image.moreTruth) {
      const missed = `${formatCount(image.moreMissed ?? 0)} missed`;
      items.push(element("li", { class: "quiet" }, `and ${formatCount(image.moreTruth)} more, ${missed}`));
    }
    return element("section", {}, element("h3", {}, "Truth"), element("ul", { class: "truth" }, items));
  }
}

/** A frame whose picture has the outlines of the squares that were labelled, from the left or the top. */
function withSquares(holder, squares) {
  const picture = holder.querySelector("img");
  if (!picture || !squares) return holder;
  picture.decode().then(() => {
    const [width, height] = [picture.naturalWidth, picture.naturalHeight];
    const side = Math.min(width, height);
    const boxes = Array.from({ length: squares }, (_, view) => {
      const share = view / (squares - 1);
      const [left, top] = [share * (width - side), share * (height - side)];
      return [left, top, left + side, top + side];
    });
    holder.replaceChildren(outlined(picture, width, height, boxes));
  });
  return holder;
}
