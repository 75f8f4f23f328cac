// What a page's views are asked with: one field for each parameter, shared by all views of the page.

import { get } from "./api.js";
import { h, put, unique } from "./dom.js";

const SELECT = 60;

export class Chooser {
  constructor(chosen) {
    this.chosen = chosen;
    this.values = {};
    this.element = h("form", { class: "choose", hidden: true, onsubmit: (event) => event.preventDefault() });
  }

  // `heads` are the views of the page; the options are those of the first view that has the parameter.
  async show(heads, at) {
    const wanted = new Map();
    for (const head of heads) for (const name of head.parameters) if (!wanted.has(name)) wanted.set(name, head.view);
    this.element.hidden = !wanted.size;
    const shown = [...wanted].join();
    if (shown === this.shown) return;
    this.shown = shown;
    put(this.element);
    for (const [name, view] of wanted) this.element.append(await this.field(view, name, at));
  }

  async field(view, name, at) {
    const id = unique("choose");
    const label = h("label", { for: id }, name.replace(/_id$/, "").replaceAll("_", " "));
    let options = [];
    try {
      const found = await get(`/api/views/${view}/parameters/${encodeURIComponent(name)}${at ? `?at=${encodeURIComponent(at)}` : ""}`);
      options = found.rows.map((row) => ({ value: String(row[0]), label: row.length > 1 ? String(row[1]) : String(row[0]) }));
    } catch { /* a value can be typed all the same */ }
    this.values[name] ??= options[0]?.value ?? "";
    const field = options.length && options.length <= SELECT ? this.select(id, name, options) : this.typed(id, name, options);
    return h("div", { class: "field" }, label, field);
  }

  select(id, name, options) {
    const field = h("select", { id, onchange: () => this.set(name, field.value) }, options.map((o) => h("option", { value: o.value }, o.label)));
    field.value = this.values[name];
    return field;
  }

  typed(id, name, options) {
    const list = unique("options");
    const words = (o) => (o.label === o.value ? o.value : `${o.label} (${o.value})`);
    const known = new Map(options.map((o) => [words(o), o.value]));
    const now = options.find((o) => o.value === this.values[name]);
    const field = h("input", { id, list, value: now ? words(now) : this.values[name], autocomplete: "off", onfocus: () => field.select(), onchange: () => this.set(name, known.get(field.value) ?? field.value) });
    return [field, h("datalist", { id: list }, options.map((o) => h("option", { value: words(o) })))];
  }

  set(name, value) {
    this.values[name] = value;
    this.chosen();
  }
}
