// A table that sorts and filters, and shows no more rows at once than a page bears.

import { h, put, unique } from "./dom.js";
import { cell, isNumeric, isTime } from "./format.js";

const SHOWN = 100;
const FILTER_FROM = 12;
const CHIPS = {
  "out of stock": "bad", low: "warn", "in stock": "good", open: "bad", acknowledged: "warn", resolved: "good",
  critical: "bad", error: "bad", warning: "warn", info: "plain", RUNNING: "good", FAILED: "bad", PAUSED: "warn", absent: "bad",
};

export class Table {
  constructor(label, { filter = true, actions = null } = {}) {
    this.label = label;
    this.actions = actions;
    this.sorted = null;
    this.all = false;
    this.words = "";
    const id = unique("filter");
    this.field = h("input", { type: "search", id, placeholder: "Filter", autocomplete: "off", oninput: () => { this.words = this.field.value.toLowerCase(); this.fill(); } });
    this.bar = h("div", { class: "filter", hidden: true }, h("label", { for: id, class: "hidden" }, `Filter ${label}`), this.field);
    this.withFilter = filter;
    this.head = h("thead");
    this.body = h("tbody");
    this.note = h("p", { class: "note", hidden: true });
    this.scroll = h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": `${label}, scrolls` },
      h("table", {}, h("caption", { class: "hidden" }, label), this.head, this.body));
    this.element = h("div", { class: "table" }, this.bar, this.scroll, this.note);
  }

  set(document) {
    const names = document.columns.map((c) => c.name).join("\u0000");
    this.document = document;
    if (names !== this.names) { this.names = names; this.sorted = null; this.heads(); }
    this.bar.hidden = !(this.withFilter && (document.rows.length > FILTER_FROM || this.words));
    this.fill();
  }

  heads() {
    const cells = this.document.columns.map((column, i) => h("th", { scope: "col", class: isNumeric(column) ? "num" : null },
      h("button", { type: "button", class: "sort", onclick: () => this.sort(i) }, column.name.replaceAll("_", " "))));
    if (this.actions) cells.push(h("th", { scope: "col" }, h("span", { class: "hidden" }, "Actions")));
    put(this.head, h("tr", {}, cells));
  }

  sort(column) {
    const down = this.sorted?.column === column && !this.sorted.down;
    this.sorted = { column, down };
    [...this.head.querySelectorAll("th")].forEach((th, i) => {
      if (i === column) th.setAttribute("aria-sort", down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
    this.fill();
  }

  rows() {
    const { columns, rows } = this.document;
    let found = rows;
    if (this.words) found = found.filter((row) => row.some((value, i) => cell(value, columns[i]).toLowerCase().includes(this.words)));
    if (this.sorted) {
      const { column, down } = this.sorted;
      const read = isNumeric(columns[column]) ? Number : isTime(columns[column]) ? (v) => Date.parse(v) : (v) => String(v).toLowerCase();
      const order = (a, b) => (a[column] === null ? 1 : b[column] === null ? -1 : read(a[column]) < read(b[column]) ? -1 : read(a[column]) > read(b[column]) ? 1 : 0);
      found = [...found].sort(down ? (a, b) => order(b, a) : order);
    }
    return found;
  }

  fill() {
    const found = this.rows();
    const shown = this.all ? found : found.slice(0, SHOWN);
    const { columns, truncated } = this.document;
    put(this.body, shown.map((row) => this.row(row, columns)));
    if (!shown.length) put(this.body, h("tr", {}, h("td", { colspan: Math.max(1, columns.length + (this.actions ? 1 : 0)), class: "empty" }, this.words ? "Nothing fits the filter." : "Nothing here.")));
    const parts = [];
    if (shown.length < found.length) parts.push(h("button", { type: "button", class: "quiet", onclick: () => { this.all = true; this.fill(); } }, `Show all ${found.length.toLocaleString("en-GB")} rows`));
    if (truncated) parts.push(`There are more than these ${this.document.rows.length.toLocaleString("en-GB")} rows.`);
    this.note.hidden = !parts.length;
    put(this.note, parts);
  }

  row(row, columns) {
    const cells = row.map((value, i) => {
      const text = cell(value, columns[i]);
      if (columns[i].name === "state" || columns[i].name === "severity") return h("td", {}, chip(text));
      const numeric = isNumeric(columns[i]);
      const attributes = { class: numeric ? "num" : isTime(columns[i]) ? "time" : null, title: isTime(columns[i]) && value ? value : null };
      return h("td", attributes, text);
    });
    if (this.actions) cells.push(h("td", { class: "acts" }, this.actions(row, columns)));
    return h("tr", {}, cells);
  }
}

export function chip(text) {
  return h("span", { class: `chip ${CHIPS[text] || "plain"}` }, text);
}

// What a spreadsheet would take for a formula becomes text there too.
export function csv(document) {
  const one = (value, column) => {
    let text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    if (/^[=+\-@\t\r]/.test(text) && !(column && isNumeric(column))) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [document.columns.map((c) => one(c.name)), ...document.rows.map((row) => row.map((v, i) => one(v, document.columns[i])))];
  return lines.map((line) => line.join(",")).join("\n") + "\n";
}
