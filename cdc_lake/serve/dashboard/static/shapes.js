// Figures, the heat grid and the timeline.

import { h, put } from "./dom.js";
import { cell, count, isTime, moment } from "./format.js";

const LEVELS = 7;
const at = (document, name) => document.columns.findIndex((c) => c.name === name);

export class Figures {
  constructor() {
    this.element = h("dl", { class: "figures" });
  }

  set(document) {
    const row = document.rows[0] || [];
    put(this.element, document.columns.map((column, i) => h("div", {}, h("dt", {}, column.name), h("dd", {}, cell(row[i], column) || "–"))));
  }
}

export class Heat {
  constructor(label) {
    this.body = h("tbody");
    this.head = h("thead");
    this.words = "";
    this.field = h("input", { type: "search", placeholder: "Filter", "aria-label": `Filter ${label}`, autocomplete: "off", oninput: () => { this.words = this.field.value.toLowerCase(); this.fill(); } });
    this.scale = h("p", { class: "scale", "aria-hidden": "true" });
    this.element = h("div", {}, h("div", { class: "filter" }, this.field, this.scale),
      h("div", { class: "scroll heat", tabindex: "0", role: "group", "aria-label": `${label}, scrolls` }, h("table", {}, h("caption", { class: "hidden" }, label), this.head, this.body)));
  }

  set(document) {
    this.document = document;
    this.fill();
  }

  fill() {
    const { document } = this;
    const [x, y, v] = [at(document, document.x), at(document, document.y), at(document, document.value)];
    if (x < 0 || y < 0 || v < 0) {
      put(this.body, h("tr", {}, h("td", { class: "empty" }, `The view has no columns ${document.x}, ${document.y} and ${document.value}.`)));
      return;
    }
    const columns = [...new Set(document.rows.map((r) => String(r[x])))].sort();
    const rows = new Map();
    let most = 0;
    for (const row of document.rows) {
      const name = String(row[y]);
      if (!rows.has(name)) rows.set(name, new Map());
      rows.get(name).set(String(row[x]), row);
      most = Math.max(most, Number(row[v]) || 0);
    }
    put(this.head, h("tr", {}, h("th", { scope: "col" }, document.y), columns.map((c) => h("th", { scope: "col" }, h("span", {}, c)))));
    const shown = [...rows].filter(([name]) => name.toLowerCase().includes(this.words));
    put(this.body, shown.map(([name, cells]) => h("tr", {}, h("th", { scope: "row" }, name), columns.map((c) => {
      const row = cells.get(c);
      if (!row) return h("td", { class: "none" }, "–");
      const value = Number(row[v]) || 0;
      const level = most ? Math.ceil((value / most) * (LEVELS - 1)) : 0;
      const beside = document.columns.map((column, i) => (i === x || i === y ? null : `${column.name} ${cell(row[i], column)}`)).filter(Boolean).join(", ");
      return h("td", { class: `h${level}`, title: `${name}, ${c}: ${beside}` }, cell(row[v], document.columns[v]));
    }))));
    if (!shown.length) put(this.body, h("tr", {}, h("td", { class: "empty", colspan: columns.length + 1 }, "Nothing here.")));
    put(this.scale, `0 `, [...Array(LEVELS).keys()].map((i) => h("span", { class: `h${i}` })), ` ${count(most)} ${document.unit}`);
  }
}

const MARKS = { alert: "bad", "stock-out": "warn", delisted: "bad", restocked: "good", price: "note", listed: "note" };

export class Timeline {
  constructor(label) {
    this.element = h("ol", { class: "timeline", "aria-label": label });
  }

  set(document) {
    const time = at(document, document.x);
    const kind = at(document, "event");
    let day = "";
    const items = [];
    for (const row of document.rows) {
      const stamp = time < 0 || row[time] === null ? "" : String(row[time]);
      const date = stamp && isTime(document.columns[time]) ? new Date(stamp).toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric" }) : "";
      if (date !== day) { day = date; items.push(h("li", { class: "day" }, date)); }
      const word = kind < 0 ? "" : String(row[kind]);
      const rest = row.filter((value, i) => i !== time && i !== kind && value !== null).map(String);
      items.push(h("li", { class: `event ${MARKS[word] || "note"}` },
        h("time", { datetime: stamp || null }, stamp ? moment(stamp).split(" ").at(-1) : ""), h("b", {}, word), h("span", {}, rest.join(" · "))));
    }
    put(this.element, items.length ? items : h("li", { class: "empty" }, "Nothing here."));
  }
}
