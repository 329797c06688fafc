// What all pages share. Text of the store is untrusted: it gets into a page by `textContent` and attributes alone.

/** What the page was made of; the text is let go afterwards, it may be large. */
function takePageData() {
  const holder = document.getElementById("page-data");
  const data = JSON.parse(holder.textContent);
  holder.remove();
  return data;
}

/** An element with attributes and children; children that are no nodes become text, null and undefined nothing. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/**
 * A box of a picture's shape that holds it, with numbered outlines of parts of it.
 * Boxes are left, top, right and bottom, in the units of width and height.
 */
function outlined(picture, width, height, boxes) {
  const share = (length, whole) => `${(100 * length) / whole}%`;
  const outlines = boxes.map(([left, top, right, bottom], place) => {
    const outline = element("div", { class: "outline", "aria-hidden": "true" }, element("span", {}, place + 1));
    outline.style.left = share(left, width);
    outline.style.top = share(top, height);
    outline.style.width = share(right - left, width);
    outline.style.height = share(bottom - top, height);
    return outline;
  });
  const holder = element("div", { class: "outlined" }, picture, outlines);
  holder.style.setProperty("--ratio", width / height);
  return holder;
}

/** A whole number with separators of thousands. */
function formatCount(number) {
  return number.toLocaleString("en-US");
}

/** A share or score in three places; one that is too small for them as a power of ten. */
function formatScore(number) {
  if (number === null) return "";
  return number !== 0 && Math.abs(number) < 0.0005 ? number.toExponential(1) : number.toFixed(3);
}

/** As the vocabulary spells it: in lower case, words apart by single spaces. */
function spelled(text) {
  return text.toLowerCase().replace(/[\s_-]+/g, " ").trim();
}
