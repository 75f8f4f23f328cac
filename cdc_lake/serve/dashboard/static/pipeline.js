// How the pipeline does: cut and what it waits for, connectors, sinks, and each table with its rate and lag.

import { h, put, unique } from "./dom.js";
import { age, bytes, count } from "./format.js";
import { Table, chip } from "./table.js";

const COLUMNS = [
  ["table", "VARCHAR"], ["rows landed", "BIGINT"], ["changes/s", "DOUBLE"], ["lag (records)", "BIGINT"],
  ["last commit", "VARCHAR"], ["unfolded", "BIGINT"], ["dead letters", "BIGINT"],
].map(([name, type]) => ({ name, type }));

export class Pipeline {
  constructor() {
    this.cuts = h("div", { class: "facts" });
    this.parts = h("div", { class: "facts" });
    this.table = new Table("Tables of the lake");
    const [a, b] = [unique("card"), unique("card")];
    this.elements = [
      h("section", { class: "card full", "aria-labelledby": a }, h("header", {}, h("h2", { id: a }, "The pipeline now"), h("p", { class: "about" }, "From the source to what readers see.")), this.cuts, this.parts),
      h("section", { class: "card full", "aria-labelledby": b }, h("header", {}, h("h2", { id: b }, "Tables"), h("p", { class: "about" }, "Changes per second are those of the last minute. Lag is what waits in Kafka.")), this.table.element),
    ];
    setInterval(() => this.ages(), 1000);
  }

  set(document) {
    this.document = document;
    put(this.cuts, Object.entries(document.cuts).map(([source, cut]) => this.cut(source, cut)));
    const parts = document.connectors.map((c) => h("div", { class: "fact" }, h("span", {}, `connector ${c.name}`), chip(c.state)));
    parts.push(...document.sinks.map((s) => h("div", { class: "fact" }, h("span", {}, `sink ${s.pid}`), h("b", {}, bytes(s.memory_bytes)))));
    if (!document.sinks.length) parts.push(h("div", { class: "fact dim" }, "No sink of this project runs on this machine."));
    parts.push(...document.troubles.map((t) => h("div", { class: "fact trouble" }, t)));
    put(this.parts, parts);
    this.rows();
    this.ages();
  }

  cut(source, cut) {
    const seen = cut.tx_id === null ? "nothing of the stream yet" : `up to transaction ${cut.tx_id}`;
    const waits = cut.waits_for.map((w) => h("li", {}, `transaction ${w.tx_id}: ${w.missing} of ${w.expected} events of ${w.table}`));
    return h("div", { class: "fact wide" }, h("span", {}, source), h("span", {}, `readers see ${seen}`),
      cut.source_ts ? h("span", { class: "since", "data-since": cut.source_ts, "data-before": "committed ", "data-behind": " ago" }) : null,
      waits.length ? h("div", { class: "waits" }, "The cut waits for:", h("ul", {}, waits)) : null);
  }

  rows() {
    const rows = this.document.tables.map((t) => [t.table, t.rows_landed, t.rate, t.lag_records,
      t.last_landed ? `${age((Date.now() - Date.parse(t.last_landed)) / 1000)} ago` : null, t.rows_unfolded, t.dead_letters]);
    this.table.set({ columns: COLUMNS, rows, truncated: false });
  }

  ages() {
    for (const element of this.cuts.querySelectorAll("[data-since]")) {
      const { since, before, behind } = element.dataset;
      element.textContent = before + age((Date.now() - Date.parse(since)) / 1000) + behind;
    }
  }
}

export const summary = (document) => document.tables.reduce((sum, t) => sum + (t.rate || 0), 0);
export { count };
