// A box for one SELECT: read-only, with limits that the server keeps.

import { opened, post } from "./api.js";
import { download } from "./card.js";
import { h, put, unique } from "./dom.js";
import { Table } from "./table.js";

export class Sql {
  constructor(when) {
    this.when = when;
    const [id, field] = [unique("card"), unique("sql")];
    this.field = h("textarea", { id: field, rows: "7", spellcheck: "false", autocomplete: "off", autocapitalize: "off", placeholder: "SELECT …" });
    this.field.value = "SELECT * FROM lake.cut";
    this.field.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.run(); } });
    this.button = h("button", { type: "submit", class: "primary" }, "Run");
    this.save = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => download(this.document, "query") }, "Download CSV");
    this.said = h("p", { class: "said", role: "status" });
    this.limits = h("p", { class: "about" });
    this.table = new Table("The rows of the query");
    this.table.element.hidden = true;
    this.samples = h("div", { class: "samples", "aria-label": "Tables", role: "group" });
    const form = h("form", { class: "sql", onsubmit: (event) => { event.preventDefault(); this.run(); } },
      h("label", { for: field }, "One SELECT over the lake"), this.field, h("div", { class: "row" }, this.button, h("span", { class: "soft" }, "Ctrl+Enter runs it"), this.save));
    this.elements = [h("section", { class: "card full", "aria-labelledby": id }, h("header", {}, h("h2", { id }, "SQL"), this.limits), this.samples, form, this.said, this.table.element)];
    opened().then(({ sql }) => { this.limits.textContent = `Read-only. A query may take ${sql.seconds} s and ${sql.memory_mb} MB, and shows ${sql.rows.toLocaleString("en-GB")} rows; it is kept in lake.audit without its values.`; }).catch(() => {});
  }

  tables(names) {
    if (this.known === names.join()) return;
    this.known = names.join();
    const pick = (text, sql) => h("button", { type: "button", class: "small", onclick: () => { this.field.value = sql; this.field.focus(); } }, text);
    const plain = (name) => name.split(".").map((part) => (/^[a-z_][a-z0-9_]*$/.test(part) ? part : `"${part.replaceAll('"', '""')}"`)).join(".");
    put(this.samples, names.slice(0, 24).map((n) => pick(n.replace(/^public\./, ""), `SELECT *\nFROM ${plain(n)}\nLIMIT 100`)),
      pick("lake.tables", "SELECT * FROM lake.tables"), pick("lake.transactions", "SELECT *\nFROM lake.transactions\nORDER BY source_ts DESC\nLIMIT 100"));
  }

  async run() {
    const sql = this.field.value.trim();
    if (!sql || this.button.disabled) return;
    this.button.disabled = true;
    this.say(this.when.at ? "Reading the past…" : "Running…");
    try {
      this.document = await post("/api/sql", { sql, at: this.when.text });
      const { rows, seconds, truncated } = this.document;
      this.table.all = false;
      this.table.set(this.document);
      this.table.element.hidden = this.save.hidden = false;
      this.say(`${rows.length.toLocaleString("en-GB")} ${rows.length === 1 ? "row" : "rows"}${truncated ? ", and more" : ""} in ${seconds} s${this.when.at ? `, as of ${this.when.text}` : ""}`);
    } catch (error) {
      this.table.element.hidden = this.save.hidden = true;
      this.say([error.message, error.why, error.next].filter(Boolean).join("\n"), true);
    }
    this.button.disabled = false;
  }

  say(text, wrong = false) {
    this.said.textContent = text;
    this.said.className = wrong ? "said wrong" : "said";
  }
}
