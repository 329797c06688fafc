// What was decided: of each image a verdict by name. Kept in the browser, as far as it keeps anything.

const FILE_KIND = "tagstream review";

class Decisions {
  constructor(review) {
    this.review = review;
    this.prefix = `${FILE_KIND}/${review.run}/${review.sample}/`;
    this.isKept = true;
    this.isSaved = true;
    this.reviewer = "";
    // By image, and by name: { verdict, at }. `added` is the verdict on what was missing.
    this.byImage = new Map(review.images.map((image) => [image.id, new Map()]));
    this.recall();
  }

  of(image) {
    return this.byImage.get(image.id);
  }

  verdictOf(image, name) {
    return this.of(image).get(name)?.verdict;
  }

  addedTo(image) {
    return [...this.of(image)].filter(([, { verdict }]) => verdict === "added").map(([name]) => name);
  }

  openNames(image) {
    return image.labels.filter((name) => !this.of(image).has(name));
  }

  /** Decides on a name, or takes that back (null). */
  decide(image, name, verdict) {
    if (verdict === null) this.of(image).delete(name);
    else this.of(image).set(name, { verdict, at: new Date().toISOString() });
    this.isSaved = false;
    this.keep(image.id);
  }

  forget(image) {
    this.of(image).clear();
    this.isSaved = false;
    this.keep(image.id);
  }

  rename(reviewer) {
    this.reviewer = reviewer.trim();
    this.store("reviewer", this.reviewer);
  }

  /** Each decision as the saved file has it. */
  all() {
    return [...this.byImage].flatMap(([image_id, decided]) =>
      [...decided].map(([name, { verdict, at }]) => ({ image_id, name, verdict, reviewed: at })),
    );
  }

  asFile() {
    const { run, sample } = this.review;
    const reviewer = this.reviewer ? { reviewer: this.reviewer } : {};
    return JSON.stringify({ kind: FILE_KIND, run, sample, ...reviewer, decisions: this.all() }, null, 1);
  }

  /** Takes over the decisions of a saved file; throws an Error that says why it cannot. */
  takeFile(text) {
    let file;
    try {
      file = JSON.parse(text);
    } catch {
      throw new Error("This is no file that a review page saved.");
    }
    if (file?.kind !== FILE_KIND || !Array.isArray(file.decisions)) throw new Error("This is no file that a review page saved.");
    if (file.run !== this.review.run || file.sample !== this.review.sample)
      throw new Error(`This file is of sample ${file.sample} of run ${file.run}, the page is of ${this.review.sample} of ${this.review.run}.`);
    for (const { image_id, name, verdict, reviewed } of file.decisions) this.byImage.get(image_id)?.set(name, { verdict, at: reviewed });
    if (file.reviewer && !this.reviewer) this.rename(file.reviewer);
    for (const id of this.byImage.keys()) this.keep(id);
    return file.decisions.length;
  }

  keep(id) {
    const decided = [...this.byImage.get(id)].map(([name, { verdict, at }]) => [name, verdict, at]);
    this.store(id, decided.length ? JSON.stringify(decided) : "");
  }

  store(name, text) {
    try {
      if (text) localStorage.setItem(this.prefix + name, text);
      else localStorage.removeItem(this.prefix + name);
    } catch {
      this.isKept = false;
    }
  }

  /** What this browser kept of an earlier visit. */
  recall() {
    try {
      // A browser that refuses to write may still read.
      localStorage.setItem(`${this.prefix}probe`, "1");
      localStorage.removeItem(`${this.prefix}probe`);
      this.reviewer = localStorage.getItem(`${this.prefix}reviewer`) ?? "";
      for (const [id, decided] of this.byImage) {
        const kept = JSON.parse(localStorage.getItem(this.prefix + id) ?? "[]");
        for (const [name, verdict, at] of kept) decided.set(name, { verdict, at });
      }
    } catch {
      this.isKept = false;
    }
  }
}

/**
 * Waits until the browser has taken note of this page. Chromium gives a page from the disk that asks for its storage
 * earlier one that leads nowhere, without an error: what is written there is gone when the page is opened again.
 */
async function waitForBrowser() {
  try {
    // Any question does that the browser answers and not the page's own process: its answers come after the note.
    await navigator.locks?.query();
  } catch {
    // That is an answer as well.
  }
}
