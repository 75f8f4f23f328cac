// One view as a card: its title, what draws it, and its twin as a table.

import { h, put, unique } from "./dom.js";
import { Plot } from "./plot.js";
import { Figures, Heat, Timeline } from "./shapes.js";
import { Table, csv } from "./table.js";

const MAKE = {
  figures: () => new Figures(),
  line: () => new Plot(),
  step: () => new Plot(),
  bar: () => new Plot(),
  heat: (title) => new Heat(title),
  timeline: (title) => new Timeline(title),
  table: (title, options) => new Table(title, options),
};

export class Card {
  constructor(head, options = {}) {
    this.name = head.view;
    this.kind = head.kind;
    this.shape = (MAKE[head.kind] || MAKE.table)(head.title, options);
    const id = unique("card");
    this.title = h("h2", { id });
    this.about = h("p", { class: "about" });
    this.wrong = h("div", { class: "wrong", role: "note", hidden: true });
    this.element = h("section", { class: `card ${head.width} kind-${head.kind}`, "aria-labelledby": id, "data-view": head.view },
      h("header", {}, this.title, this.about), this.wrong, this.shape.element);
    if (head.kind !== "table") this.addTwin();
    this.describe(head);
    this.awaited = h("p", { class: "awaited" }, "Reading…");
    this.element.append(this.awaited);
    this.element.classList.add("awaits");
  }

  addTwin() {
    this.twin = null;
    this.details = h("details", { class: "twin", ontoggle: () => this.fillTwin() }, h("summary", {}, "As a table"));
    this.element.append(this.details);
  }

  describe(head) {
    this.title.textContent = head.title;
    this.about.textContent = [head.about, head.unit && head.kind !== "figures" ? `In ${head.unit}.` : ""].filter(Boolean).join(" ");
  }

  set(document) {
    this.document = document;
    this.awaited.remove();
    this.element.classList.remove("awaits");
    this.describe(document);
    const error = document.error;
    this.wrong.hidden = !error;
    this.shape.element.hidden = Boolean(error);
    if (error) put(this.wrong, h("b", {}, error.message), error.why ? h("pre", {}, error.why) : null);
    else this.shape.set(document);
    this.fillTwin();
  }

  fillTwin() {
    if (!this.details?.open || !this.document) return;
    if (!this.twin) {
      this.twin = new Table(`${this.document.title}, as a table`);
      this.details.append(this.twin.element, h("button", { type: "button", class: "quiet", onclick: () => download(this.document) }, "Download CSV"));
    }
    this.twin.set(this.document);
  }
}

export function download(document, name = document.view || "query") {
  const url = URL.createObjectURL(new Blob([csv(document)], { type: "text/csv" }));
  const link = h("a", { href: url, download: `${name}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
